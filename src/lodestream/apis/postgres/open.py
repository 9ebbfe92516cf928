"""Makes the server of the PostgreSQL protocol out of settings."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from lodestream.apis.postgres.desk import Desk
from lodestream.apis.postgres.login import Door
from lodestream.apis.postgres.server import Bounds, Place, PostgresServer
from lodestream.apis.turned_away import TurnedAway
from lodestream.project.serving import ServingSettings
from lodestream.project.values import parse_duration
from lodestream.query.service import QueryService
from lodestream.security.certificates import ServerTls
from lodestream.security.identity import Identity
from lodestream.security.networks import is_in, networks
from lodestream.security.scram import end_point

_US = 1_000_000


def open_server(
    settings: ServingSettings, root: str, identity: Identity, service: QueryService, database: str,
    listener: socket.socket, place: Place, comments: Callable[[], Mapping[str, str]],
) -> PostgresServer:  # fmt: skip
    """A server that is ready to run.

    Args:
        settings: of `server:`.
        root: project folder, which the certificates' paths are relative to.
        identity: knows credentials.
        service: answers questions.
        database: name of the project.
        listener: bound socket.
        place: which of several processes this is.
        comments: gives what tables and columns are for.

    Raises:
        ConfigError: a certificate cannot be read.
    """
    own = settings.postgres
    allowed = networks(settings.allow)
    tls = ServerTls(settings.tls, settings.identity.certificates.crl, root) if settings.tls is not None else None
    door = Door(
        identity,
        tls.context if tls is not None else None,
        (lambda: end_point(tls.certificate)) if tls is not None else None,
        frozenset({database, "postgres", "lodestream"}),
        lambda address: not allowed or is_in(address, allowed),
        TurnedAway(service.authority.record),
    )
    bounds = Bounds(
        own.connections_max, own.message_bytes_max, parse_duration(own.login_time) / _US, 60.0,
        parse_duration(own.idle_time) / _US,
    )  # fmt: skip
    desk = Desk(service, database, parse_duration(own.query_time) / _US, comments=comments)
    return PostgresServer(listener, door, desk, bounds, place)
