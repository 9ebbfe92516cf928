"""`lodestream registry`: a schema registry that speaks the Confluent REST API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from lodestream.apis.registry.server import Tls

PORT = 8081


def registry(
    call: Call,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 is any free one.")] = PORT,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="FILE|URL",
            help="SQLite file or postgresql:// URL; default: in the lake, or ./registry.db.",
        ),
    ] = None,
    users: Annotated[str | None, typer.Option("--users", metavar="FILE", help="Only these users may use it.")] = None,
    add_user: Annotated[
        str | None, typer.Option("--add-user", metavar="NAME", help="Put a user into the --users file, and end.")
    ] = None,
    certificate: Annotated[str | None, typer.Option("--certificate", metavar="FILE", help="Serve TLS with it.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="Private key of --certificate.")] = None,
    client_ca: Annotated[
        str | None, typer.Option("--client-ca", metavar="FILE", help="Refuse clients without a certificate of this CA.")
    ] = None,
) -> None:
    """Serve the Confluent Schema Registry API until Ctrl-C: Avro, JSON Schema and Protobuf.

    In a project schemas are kept in `<lake>/_lodestream/registry.db`, elsewhere in `registry.db` of this folder; each
    answer is on disk before it is given. Without --users everybody who reaches the port may use it.

    --add-user asks for a password, or reads it from the first line of stdin, and puts the user and a scrypt hash into
    the --users file, in the place of an older one of that name; a registry that runs takes the change at once.
    """
    call.hint = "lodestream registry --help"
    if add_user is not None:
        _add_user(call, users, add_user)
        return
    _serve(call, host, port, store, users, _tls(certificate, key, client_ca))


def _serve(call: Call, host: str, port: int, store: str | None, users: str | None, tls: Tls | None) -> None:
    from lodestream.apis.registry.database import open_database
    from lodestream.apis.registry.server import serve
    from lodestream.apis.registry.users import Users
    from lodestream.errors import MissingDriverError

    try:
        from lodestream.apis.registry.routes import registry_app
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            "the registry needs a package: pip install 'lodestream[registry]'", missing=error.name
        ) from error
    known = Users(users) if users is not None else None
    where = store or _default_store(call)
    database = open_database(where)

    def ready(url: str) -> None:
        if call.json:
            call.emit({"url": url, "store": _shown(where)})
        else:
            call.print(url)
            call.say(f"schema registry ready, Ctrl-C stops it. store={_shown(where)!r}")

    try:
        serve(registry_app(database, known), host, port, tls, ready=ready)
    finally:
        database.close()
    call.say("stopped")


def _tls(certificate: str | None, key: str | None, client_ca: str | None) -> Tls | None:
    from lodestream.apis.registry.server import Tls
    from lodestream.errors import ConfigError

    if certificate is not None and key is not None:
        return Tls(certificate, key, client_ca)
    if certificate is not None or key is not None or client_ca is not None:
        raise ConfigError("TLS takes --certificate and --key, and --client-ca only with them")
    return None


def _add_user(call: Call, file: str | None, name: str) -> None:
    import sys

    from lodestream.apis.registry.users import add_user
    from lodestream.errors import ConfigError

    if file is None:
        raise ConfigError("--add-user needs the file: --users FILE")
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    replaced = add_user(file, name, password)
    words = f"{name}: {'has a new password' if replaced else 'added'}"
    call.tell({"file": file, "user": name, "replaced": replaced}, words)


def _default_store(call: Call) -> str:
    """In the lake of the project, or here when this is none."""
    from lodestream.lake.layout import registry_file

    if not os.path.exists(os.path.join(call.project, "lodestream.yaml")) and call.lake is None:
        return os.path.join(call.project, "registry.db")
    return registry_file(call.app().home if call.lake is None else os.path.abspath(call.lake))


def _shown(store: str) -> str:
    """A store without its password."""
    head, at, tail = store.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at and "://" in head else store
