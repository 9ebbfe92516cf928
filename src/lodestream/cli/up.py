"""`lodestream up`: every part of the platform at once, each as a process of its own."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.cli.parts import Parts

PARTS = ("registry", "pipeline", "http", "postgres")
"""In the order in which they start."""
_REGISTRY_PORT = 8081


def up(
    call: Call,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of HTTP and the console; 0 takes a free one.")
    ] = None,
    postgres_port: Annotated[
        int | None, typer.Option("--postgres-port", min=0, max=65535, help="Port of the PostgreSQL protocol.")
    ] = None,
    registry_port: Annotated[
        int | None, typer.Option("--registry-port", min=0, max=65535, help="Port of the schema registry.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="PART", help="Leave out registry, pipeline, http or postgres."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the console in a browser.")] = False,
) -> None:
    """Start pipeline, schema registry, HTTP (ingest, REST, console) and the PostgreSQL protocol; print one address.

    Ctrl-C ends them all, each after what is under way; a second one ends them at once. A part that ends by itself ends
    the others, and its exit code is that of `up`. In development the address carries a token that stands for whoever
    holds the lake; only this machine can connect with it.
    """
    run_up(
        call, host=host, port=port, postgres_port=postgres_port, registry_port=registry_port,
        without=_left_out(without or []), open_browser=open_browser,
    )  # fmt: skip


def run_up(
    call: Call, *, host: str | None = None, port: int | None = None, postgres_port: int | None = None,
    registry_port: int | None = None, without: frozenset[str] = frozenset(), open_browser: bool = False,
) -> None:  # fmt: skip
    """Start the parts and stay until they end. Raises typer.Exit with the code of a part that ended by itself."""
    from lodestream.cli.interrupt import Interrupt
    from lodestream.cli.parts import Parts, Stopped, only_one

    app = call.app()
    app.flows  # noqa: B018 - every mistake in the declarations is told once, here, and not by each part
    settings = app.serving(host=host)
    token = _token(app, settings.host)
    ports = {
        "http": _port(call, settings.host, port, _declared(app), settings.port, "http"),
        "postgres": _port(
            call, settings.host, postgres_port, _declared(app, "postgres"), settings.postgres.port, "postgres"
        ),
    }  # fmt: skip
    with only_one(app.home) as place:
        parts = Parts(call, token)
        with Interrupt(call, parts.stop, what="work", at_once=parts.kill) as interrupt:
            try:
                with contextlib.suppress(Stopped):
                    _start(call, app, parts, host, ports, registry_port, without)
                    told = _told(app, parts, token)
                    place.write(told)
                    _say(call, told)
                    if open_browser and told["url"] is not None:
                        _open(told["url"])
                failed = parts.wait()
            finally:
                parts.end()
        if failed is not None and not interrupt.seen:
            raise typer.Exit(failed)


def _left_out(texts: list[str]) -> frozenset[str]:
    from lodestream.errors import ConfigError

    found = frozenset(part.strip() for text in texts for part in text.split(",") if part.strip())
    if unknown := sorted(found - set(PARTS)):
        raise ConfigError("no such part", part=unknown[0], parts=", ".join(PARTS))
    if found == set(PARTS):
        raise ConfigError("nothing is left to start; leave out fewer parts")
    return found


def _token(app: App, host: str) -> str | None:
    """A token for whoever holds the lake: in development, on this machine, and for as long as this runs."""
    from lodestream.security.networks import is_local

    return f"dev_{secrets.token_urlsafe(24)}" if is_local(host) and app.environment in (None, "dev") else None


def _declared(app: App, name: str | None = None) -> Any:
    """The port that the project names."""
    inner = app.project.server if name is None else app.project.server.get(name)
    return inner.get("port") if isinstance(inner, Mapping) else None


def _port(call: Call, host: str, given: int | None, declared: Any, usual: int, part: str) -> int:
    """The port to listen on: the one that was chosen, else the usual one, else a free one when that is taken."""
    from lodestream.cli.parts import is_free

    if given is not None:
        return given
    if declared is not None or is_free(host, usual):
        return usual
    call.say(f"port {usual} is taken, so {part} takes a free one")
    return 0


def _start(
    call: Call, app: App, parts: Parts, host: str | None, ports: Mapping[str, int], registry_port: int | None,
    without: frozenset[str],
) -> None:  # fmt: skip
    """Start what is wanted; the registry is there before the pipeline needs it."""
    from lodestream.cli.parts import is_free

    at = ["--host", host] if host is not None else []
    if "registry" not in without and "default" not in app.project.registries:
        if registry_port is None and not is_free("127.0.0.1", _REGISTRY_PORT):
            call.say(f"port {_REGISTRY_PORT} is taken; what listens there stays the schema registry")
        else:
            chosen = _REGISTRY_PORT if registry_port is None else registry_port
            parts.start("registry", "--json", "registry", "--port", str(chosen))
            parts.ready("registry")
    if "pipeline" not in without:
        parts.start("pipeline", "run")
    for part, verb in (("http", "serve"), ("postgres", "postgres")):
        if part not in without:
            parts.start(part, "--json", verb, *at, "--port", str(ports[part]))
    for part in ("http", "postgres"):
        if part not in without:
            parts.ready(part)


def _told(app: App, parts: Parts, token: str | None) -> dict[str, Any]:
    """What is said once everything answers."""
    http, postgres, registry = (parts.said.get(name) for name in ("http", "postgres", "registry"))
    url = f"{http['url']}/" if http else None
    return {
        "url": f"{url}#token={token}" if url and token else url,
        "token": token,
        "postgres": None if postgres is None else {
            "host": postgres["host"], "port": postgres["port"], "database": app.project.name,
            "user": "dev" if token else None,
        },
        "registry": registry["url"] if registry else None,
        "parts": {name: parts.pid(name) for name in parts.names},
    }  # fmt: skip


def _say(call: Call, told: dict[str, Any]) -> None:
    if call.json:
        call.emit(told)
        return
    if told["url"] is not None:
        call.print(told["url"])
    place = told["postgres"]
    if place is not None:
        user, password = (place["user"], f"PGPASSWORD={told['token']} ") if told["token"] else ("USER", "")
        call.print(f"{password}psql -h {place['host']} -p {place['port']} -U {user} {place['database']}")
    sys.stdout.flush()
    call.say("Ctrl-C ends all parts.")


def _open(url: str) -> None:
    import webbrowser

    webbrowser.open(url)
