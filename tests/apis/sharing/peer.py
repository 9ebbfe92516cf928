"""The `delta-sharing` client as a peer of tests, and a server for tables that lie anywhere."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lodestream.apis.serving import HttpServer
from lodestream.app import App, open_project
from tests.apis.running import running
from tests.venvs import NoPackagesError, installed

_TOKEN = "a-token-for-readers"
_PROGRAM = Path(__file__).with_name("client.py")


class SharingError(Exception):
    """What the client raised."""


class Client:
    """A process that asks as one profile says. Raises NoPackagesError when the client cannot be installed."""

    def __init__(self) -> None:
        command = [str(installed("sharing") / "python"), "-W", "ignore", str(_PROGRAM)]
        environment = {
            key: value
            for key, value in os.environ.items()
            if key != "PYTHONPATH" and not key.lower().endswith("_proxy")
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def ask(self, profile: Path, do: str, **given: Any) -> Any:
        """What a function of the client gives. Raises SharingError."""
        assert self._process.stdin
        assert self._process.stdout
        asked = {"profile": str(profile), "do": do} | {key: value for key, value in given.items() if value is not None}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        size = self._process.stdout.read(8)
        if len(size) < 8:
            raise SharingError("the client has died")
        good, told = pickle.loads(self._process.stdout.read(int.from_bytes(size, "big")))
        if not good:
            raise SharingError(told)
        return told

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextlib.contextmanager
def a_client() -> Iterator[Client]:
    """A client for tests, which are skipped when it cannot be installed."""
    try:
        made = Client()
    except NoPackagesError as error:
        pytest.skip(str(error))
    with contextlib.closing(made):
        yield made


def profile(folder: Path, url: str, token: str, name: str = "profile") -> Path:
    """A profile file of a server."""
    path = folder / f"{name}.share"
    told = {"shareCredentialsVersion": 1, "endpoint": f"{url}/delta-sharing", "bearerToken": token}
    path.write_text(json.dumps(told))
    return path


@contextlib.contextmanager
def http_server(app: App, token: str | None) -> Iterator[HttpServer]:
    """A server of everything over HTTP on a free port."""
    with app:
        settings = app.serving()
        server = HttpServer(settings, app.project.root)
        with running(server, app.http(settings, token), 60):
            yield server


class Anywhere:
    """Reads tables in any folder by Delta Sharing: a lake of links to them is served as a lake is to its owner.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "tables/bronze").mkdir(parents=True)
        (folder / "lake/gold").mkdir(parents=True)
        (folder / "tables/bronze/none.yaml").write_text("source: {http: {stream: none}}\ncolumns: {id: bigint}\n")
        (folder / "lodestream.yaml").write_text("project: anywhere\nlake: lake\nserver: {port: 0}\n")
        self._stack, self._names, self._folder = contextlib.ExitStack(), itertools.count(), folder
        self._client = Client()
        self._stack.callback(self._client.close)
        server = self._stack.enter_context(http_server(open_project(str(folder)), _TOKEN))
        self._profile = profile(folder, server.url, _TOKEN)

    def rows(self, path: str, *, use_delta_format: bool) -> list[dict[str, Any]]:
        """Rows of the newest version. Raises SharingError."""
        name = f"t{next(self._names)}"
        (self._folder / "lake/gold" / name).symlink_to(path)
        table = f"anywhere.gold.{name}"
        _, found = self._client.ask(self._profile, "rows", table=table, use_delta_format=use_delta_format)
        return list(found)

    def close(self) -> None:
        """End the server and the client."""
        self._stack.close()
