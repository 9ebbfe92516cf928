"""`lodestream postgres`: answer the PostgreSQL protocol."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    import socket

    from lodestream.app import App
    from lodestream.project.serving import ServingSettings

_STOP_S = 15


def postgres(
    call: Call,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port. [default: 1]")
    ] = None,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Answer the PostgreSQL protocol: psql, JDBC, ODBC and what else speaks it ask the lake, each as who they are.

    Sign in with the name of a key as user and the key as password. Before the first `lodestream keys create` a token
    for development is printed, the password of the user `dev`, and only this machine can connect. Ctrl-C ends it.
    """
    from lodestream.cli.parent import handed_token
    from lodestream.cli.tuning import tune_for_requests
    from lodestream.errors import MissingDriverError

    try:
        import lodestream.security.certificates  # noqa: F401
    except ModuleNotFoundError as error:
        fix = "the PostgreSQL protocol needs packages: pip install 'lodestream[http]'"
        raise MissingDriverError(fix, missing=error.name) from error
    app = call.app()
    app.lenient = True
    settings = app.serving(host=host)
    own = settings.postgres
    changed = own.model_copy(
        update={key: value for key, value in (("port", port), ("processes", processes)) if value is not None}
    )
    settings = settings.model_copy(update={"postgres": changed})
    tune_for_requests()
    if part is not None:
        _part(app, settings, part)
        return
    token = handed_token() or _token(call, app, settings)
    if changed.processes == 1:
        _alone(call, app, settings, token)
    else:
        _several(call, settings, token)


def _token(call: Call, app: App, settings: ServingSettings) -> str | None:
    """A token for development when there are no keys yet."""
    from lodestream.errors import ConfigError
    from lodestream.security.development import FIRST_KEY, development_token, nobody_can_enter
    from lodestream.security.keys import KeyStore
    from lodestream.security.networks import is_local

    keys = KeyStore(app.keys_path)
    nobody, exposed = nobody_can_enter(settings, keys), not is_local(settings.host) and settings.tls is None
    # A missing key is told before missing TLS, as `serve` tells it: under `up` one of both is heard.
    token = development_token(settings, keys, app.environment) if nobody or not exposed else None
    if exposed:
        raise ConfigError("connections from other machines need TLS; add server.tls", host=settings.host)
    if nobody and token is None:
        call.say(f"nobody can sign in yet; make the first key: {FIRST_KEY}")
    return token


def _bound(settings: ServingSettings, *, shared: bool) -> socket.socket:
    import errno
    import os

    from lodestream.apis.postgres.server import bind
    from lodestream.errors import ConfigError

    host, port = settings.host, settings.postgres.port
    try:
        if shared and port:  # others may share the port too, and must not do so unasked
            bind(host, port, shared=False).close()
        return bind(host, port, shared=shared)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        fix = "stop what listens there, or choose another with --port" if error.errno == errno.EADDRINUSE else None
        raise ConfigError("cannot listen", host=host, port=port, reason=reason, fix=fix) from error


def _listening(call: Call, settings: ServingSettings, port: int, token: str | None) -> None:
    user = "dev" if token is not None else None
    if call.json:
        call.emit({"host": settings.host, "port": port, "user": user, "token": token, "tls": settings.tls is not None})
        return
    call.say(f"listening on {settings.host}:{port} for the PostgreSQL protocol")
    if token is not None:
        call.say(f"user dev, token for development: {token}")


def _alone(call: Call, app: App, settings: ServingSettings, token: str | None) -> None:
    from lodestream.apis.postgres.server import Place
    from lodestream.cli.interrupt import Interrupt

    with _bound(settings, shared=False) as listener:
        server = app.postgres(settings, token, listener, Place())
        port = listener.getsockname()[1]
        policies = app.follow_policies("postgres", call.say).start()
        with policies, Interrupt(call, server.stop, what="connections"):
            server.run(lambda: _listening(call, settings, port, token))


def _several(call: Call, settings: ServingSettings, token: str | None) -> None:
    """Start the processes, and end all when one of them ends."""
    from lodestream.cli.interrupt import Interrupt
    from lodestream.errors import TransientError

    with _bound(settings, shared=True) as reserved, tempfile.TemporaryDirectory(prefix="lodestream-") as sockets:
        port = reserved.getsockname()[1]
        command = [sys.executable, "-P", "-m", "lodestream.cli", "postgres", "--project", call.project]
        command += [*(("--lake", call.lake) if call.lake else ()), *(("--env", call.env) if call.env else ())]
        command += ["--host", settings.host, "--port", str(port)]
        parts: list[subprocess.Popen[str]] = []
        over = threading.Event()
        try:
            for index in range(settings.postgres.processes):
                made = subprocess.Popen(
                    [*command, "--part", f"{index}:{sockets}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    text=True, start_new_session=True,
                )  # fmt: skip
                parts.append(made)
                assert made.stdin
                made.stdin.write(f"{token or ''}\n")
                made.stdin.flush()
            for made in parts:
                assert made.stdout
                if made.stdout.readline().strip() != "ready":
                    raise TransientError("a process of the server could not start; its message stands above")
            with Interrupt(call, over.set, what="connections"):
                _listening(call, settings, port, token)
                while not over.wait(0.2):
                    if any(made.poll() is not None for made in parts):
                        raise TransientError("a process of the server has ended, so the others end too")
        finally:
            _end(parts)


def _end(parts: list[subprocess.Popen[str]]) -> None:
    for made in parts:
        if made.stdin:
            with contextlib.suppress(OSError):
                made.stdin.close()  # which is what a part waits for
    for made in parts:
        try:
            made.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            made.kill()
            made.wait()
        if made.stdout:
            made.stdout.close()


def _part(app: App, settings: ServingSettings, part: str) -> None:
    """One of several processes; it ends when the one that started it does."""
    import signal

    from lodestream.apis.postgres.server import Place, bind

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    token = sys.stdin.readline().strip() or None
    index, _, sockets = part.partition(":")
    with bind(settings.host, settings.postgres.port, shared=True) as listener:
        server = app.postgres(settings, token, listener, Place(int(index), sockets))

        def watch() -> None:
            sys.stdin.read()
            server.stop()

        threading.Thread(target=watch, name="parent", daemon=True).start()
        policies = app.follow_policies("postgres", lambda text: print(text, file=sys.stderr)).start()
        with policies:
            server.run(lambda: print("ready", flush=True))
