"""Object stores on loopback that others wrote: Azurite for Azure Blob Storage, moto's server for S3."""

import base64
import contextlib
import datetime as dt
import hmac
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

from tests.npm import installed

ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the emulator's one account, the same everywhere: its documentation prints it."""
_STARTS_S = 60


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Azurite's blob service, its data in `folder`; the URL of it, without the account. Raises NoNpmError."""
    program = (
        installed(Path(__file__).parent / "azurite") / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    )
    command = [
        "node", str(program), "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(folder), "--silent",
        "--disableTelemetry", "--skipApiVersionCheck",
    ]  # fmt: skip
    with _running(command, r"successfully listens on (http://127\.0\.0\.1:\d+)") as url:
        yield url


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """moto's server, which keeps all in memory; its URL."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with _running(command, r"Running on (http://127\.0\.0\.1:\d+)") as url:
        yield url


@contextlib.contextmanager
def _running(command: list[str], says: str) -> Iterator[str]:
    """A child process, once it has said where it listens."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
    reader.start()
    try:
        told = ""
        while (found := re.search(says, told)) is None:
            try:
                line = lines.get(timeout=_STARTS_S)
            except Empty:
                line = None
            if line is None:
                raise RuntimeError(f"{command[0]} did not start: {told[-500:]}")
            told += line
        yield found[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
        reader.join(10)
        assert child.stdout is not None
        child.stdout.close()


def _read(child: subprocess.Popen[str], lines: "Queue[str | None]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put(None)


def make_container(url: str, name: str) -> None:
    """A blob container in Azurite."""
    now = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    told = f"PUT{chr(10) * 12}x-ms-date:{now}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = base64.b64encode(hmac.digest(base64.b64decode(AZURITE_KEY), told.encode(), "sha256")).decode()
    headers = {
        "x-ms-date": now, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{signed}",
        "Content-Length": "0",
    }  # fmt: skip
    asked = urllib.request.Request(f"{url}/{ACCOUNT}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(asked, timeout=30):
        return


def make_bucket(url: str, name: str) -> None:
    """A bucket in moto's server, which looks at no signature."""
    scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
    asked = urllib.request.Request(f"{url}/{name}", method="PUT", headers={"Authorization": scope})
    with urllib.request.urlopen(asked, timeout=30):
        return
