"""Runs the registry on a port, with or without TLS, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lodestream.errors import ConfigError, MissingDriverError, TransientError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_START_S = 10
_GRACE_S = 3.0
"""How long a stop waits for requests under way."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of a server's certificate.

    Attributes:
        certificate: its certificate and those between it and the CA.
        key: its private key.
        client_ca: CA of the clients; when set, a client without a certificate of it is refused.
    """

    certificate: str
    key: str
    client_ca: str | None = None


def serve(
    app: ASGIApp, host: str, port: int, tls: Tls | None = None, *, ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are answered first.

    Args:
        app: what answers.
        host: address to listen on.
        port: 0 is any free one.
        tls: None is plain HTTP.
        ready: called with the URL once requests are answered.

    Raises:
        ConfigError: the address cannot be listened on, or the TLS files do not fit.
        MissingDriverError: a package is missing.
    """
    try:
        import granian.server.embed  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            "the registry needs a package: pip install 'lodestream[registry]'", missing=error.name
        ) from error
    chosen = _free(host, port)
    if tls is not None:
        check_tls(tls)
    asyncio.run(_serve(app, host, chosen, tls, ready))


def check_tls(tls: Tls) -> None:
    """Read the files once. Raises ConfigError when they do not fit or are not there."""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "TLS files cannot be used", certificate=tls.certificate, key=tls.key, client_ca=tls.client_ca,
            cause=str(error),
        ) from error  # fmt: skip


def _free(host: str, port: int) -> int:
    """The port, seen to be free: the server itself would share it with another silently."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = "another program has it; choose one with --port"
            raise ConfigError("port is taken", host=host, port=port, fix=fix) from error
        raise ConfigError(
            "address cannot be listened on", host=host, port=port, cause=os.strerror(error.errno or 0)
        ) from error


async def _serve(app: ASGIApp, host: str, port: int, tls: Tls | None, ready: Callable[[str], None]) -> None:
    from granian.constants import Interfaces, SSLProtocols
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    server = Server(
        app, address=host, port=port, interface=Interfaces.ASGINL, websockets=False, log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        ssl_cert=Path(tls.certificate) if tls else None, ssl_key=Path(tls.key) if tls else None,
        ssl_ca=Path(tls.client_ca) if tls and tls.client_ca else None,
        ssl_client_verify=bool(tls and tls.client_ca), ssl_protocol_min=SSLProtocols.tls12,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stopped.wait())
    await _answers(host, port, serving)
    shown = f"[{host}]" if ":" in host else host
    ready(f"{'https' if tls else 'http'}://{shown}:{port}")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait({serving}, timeout=_GRACE_S)
    if not serving.done():  # somebody holds a request half sent
        serving.cancel()


async def _answers(host: str, port: int, serving: asyncio.Task[None]) -> None:
    """Wait until the port takes connections. Raises TransientError when it does not."""
    at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    for _ in range(_START_S * 50):
        if serving.done():
            break
        try:
            _, writer = await asyncio.open_connection(at, port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    serving.cancel()
    raise TransientError("server did not start", host=host, port=port)
