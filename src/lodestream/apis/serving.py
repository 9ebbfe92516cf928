"""Runs an ASGI application on a port until it is told to stop; requests under way are answered first."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from lodestream.errors import ConfigError
from lodestream.project.serving import ServingSettings

_HEADER_TIMEOUT_MS = 10_000


class HttpServer:
    """One port for an application.

    Args:
        settings: where to listen, and certificates.
        root: project folder, which the certificates' paths are relative to.

    Raises:
        ConfigError: the port is taken or not allowed, or a certificate cannot be read.
    """

    def __init__(self, settings: ServingSettings, root: str) -> None:
        self.host, self.port = _free_port(settings.host, settings.port)
        self.url = f"{'https' if settings.tls else 'http'}://{_shown(settings.host)}:{self.port}"
        self._tls = _tls(settings, root)
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._app: Any = None
        self._stopped = False

    def run(self, app: Any, started: Callable[[], None] = lambda: None) -> None:
        """Serve an ASGI application until `stop`; `started` is called once the port answers.

        When the application's state has `streams`, they are closed by `stop`.

        Raises:
            ConfigError: a certificate cannot be read.
        """
        asyncio.run(self._run(app, started))

    def stop(self) -> None:
        """Stop taking requests, answer those under way, and end `run`; safe from any thread, and again."""
        first, self._stopped = not self._stopped, True
        if first and self._server is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        assert self._server is not None
        streams = getattr(getattr(self._app, "state", None), "streams", None)
        if streams is not None:  # they would go on for ever, and they are requests under way
            streams.close()
        self._server.stop()  # type: ignore[no-untyped-call]

    async def _run(self, app: Any, started: Callable[[], None]) -> None:
        logging.getLogger("_granian").setLevel(logging.CRITICAL)
        try:
            server = Server(
                app, address=self.host, port=self.port, interface=Interfaces.ASGI, http=HTTPModes.auto,
                websockets=False, log_enabled=False, backlog=1024,
                http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS), **self._tls,
            )  # fmt: skip
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError("a certificate of server.tls cannot be read", reason=str(error)) from error
        self._loop, self._server, self._app = asyncio.get_running_loop(), server, app
        if self._stopped:
            return
        telling = asyncio.create_task(self._tell(started))
        await server.serve()
        telling.cancel()

    async def _tell(self, started: Callable[[], None]) -> None:
        """Wait until the port answers."""
        while True:
            try:
                _reader, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            started()
            return


def _free_port(host: str, port: int) -> tuple[str, int]:
    """Address and port, or a free one for 0. The server shares ports with others of its kind, so it is asked here."""
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return str(found[0]), int(probe.getsockname()[1])
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        fix = "stop what listens there, or choose another with --port" if error.errno == errno.EADDRINUSE else None
        raise ConfigError("cannot listen", host=host, port=port, reason=reason.lower(), fix=fix) from error


def _tls(settings: ServingSettings, root: str) -> dict[str, Any]:
    tls = settings.tls
    if tls is None:
        return {}
    given = {"ssl_cert": tls.certificate, "ssl_key": tls.key} | ({"ssl_ca": tls.client_ca} if tls.client_ca else {})
    found = {name: Path(root, text) for name, text in given.items()}
    for path in found.values():
        if not path.is_file():
            raise ConfigError("a certificate of server.tls is not there", file=str(path))
    told: dict[str, Any] = {"ssl_client_verify": bool(tls.client_ca), "ssl_protocol_min": SSLProtocols.tls12}
    if tls.client_ca and settings.identity.certificates.crl:
        told["ssl_crl"] = [Path(root, settings.identity.certificates.crl)]
        if not told["ssl_crl"][0].is_file():
            raise ConfigError("the list of revoked certificates is not there", file=str(told["ssl_crl"][0]))
    return found | told


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
