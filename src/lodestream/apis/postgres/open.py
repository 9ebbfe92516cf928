"""Makes the server of the PostgreSQL protocol out of settings."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from lodestream.apis.postgres.desk import Desk
from lodestream.apis.postgres.login import Door
from lodestream.apis.postgres.server import Bounds, Place, PostgresServer, tls_context
from lodestream.errors import ConfigError
from lodestream.project.serving import ServingSettings, TlsSettings
from lodestream.project.values import parse_duration
from lodestream.query.service import QueryService
from lodestream.security.identity import Identity
from lodestream.security.networks import is_in, networks
from lodestream.security.scram import end_point

_US = 1_000_000


def open_server(
    settings: ServingSettings, root: str, identity: Identity, service: QueryService, database: str,
    listener: socket.socket, place: Place,
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

    Raises:
        ConfigError: a certificate cannot be read.
    """
    own = settings.postgres
    allowed = networks(settings.allow)
    context = _context(settings.tls, root) if settings.tls is not None else None
    door = Door(
        identity, context, _binding(settings.tls, root) if settings.tls is not None else None,
        frozenset({database, "postgres", "lodestream"}), lambda address: not allowed or is_in(address, allowed),
    )  # fmt: skip
    bounds = Bounds(
        own.connections_max, own.message_bytes_max, parse_duration(own.login_time) / _US, 60.0,
        parse_duration(own.idle_time) / _US,
    )  # fmt: skip
    desk = Desk(service, database, parse_duration(own.query_time) / _US)
    return PostgresServer(listener, door, desk, bounds, place)


def _context(tls: TlsSettings, root: str) -> ssl.SSLContext:
    authorities = str(Path(root, tls.client_ca)) if tls.client_ca else None
    try:
        return tls_context(str(Path(root, tls.certificate)), str(Path(root, tls.key)), authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("a certificate of server.tls cannot be read", reason=str(error)) from error


def _binding(tls: TlsSettings, root: str) -> bytes:
    """What SCRAM-SHA-256-PLUS binds to: the digest of the server's own certificate."""
    text = Path(root, tls.certificate).read_text(encoding="ascii")
    first = text[text.index("-----BEGIN CERTIFICATE-----") :].partition("-----END CERTIFICATE-----")
    return end_point(ssl.PEM_cert_to_DER_cert(first[0] + first[1]))
