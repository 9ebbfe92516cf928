"""The beginning of a connection: TLS, who it is, what they ask for."""

from __future__ import annotations

import ipaddress
import ssl
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lodestream.apis.postgres import messages as m
from lodestream.apis.postgres.channel import Channel
from lodestream.apis.postgres.failures import PgError
from lodestream.apis.turned_away import TurnedAway
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.security.identity import Identity
from lodestream.security.networks import Address
from lodestream.security.scram import MECHANISM, MECHANISM_PLUS

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_STARTUP_BYTES_MAX = 10_000
_MESSAGE_BYTES_MAX = 8_192
SCOPE = "query:*"
"""What a key must be good for."""


@dataclass(frozen=True, slots=True)
class Door:
    """How clients are let in.

    Attributes:
        identity: knows credentials.
        tls: what TLS needs for the next who asks for it; None when there are no certificates.
        binding: gives `tls-server-end-point` of the certificate.
        databases: names that the one database goes by.
        allowed: whether an address may connect.
        turned_away: writes down who was not let in.
    """

    identity: Identity
    tls: Callable[[], ssl.SSLContext] | None
    binding: Callable[[], bytes] | None
    databases: frozenset[str]
    allowed: Callable[[Address | None], bool]
    turned_away: TurnedAway | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """Somebody who may come in.

    Attributes:
        principal: who.
        options: what they said at the start: `application_name` and such.
    """

    principal: Principal
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Somebody wants another connection's question to end."""

    process: int
    secret: int


async def enter(channel: Channel, door: Door) -> Welcome | CancelRequest:
    """Talk with a client until it is known who it is.

    Raises:
        PgError: they may not come in.
        ClosedError: they have gone.
    """
    address = _address(channel)
    if not door.allowed(address):
        raise PgError("28000", "this address may not connect", fatal=True)
    body, secure = await _startup(channel, door)
    (code,) = struct.unpack(">I", body[:4])
    if code == _CANCEL:
        if len(body) != 12:
            raise PgError("08P01", "invalid cancel request", fatal=True)
        return CancelRequest(*struct.unpack(">II", body[4:]))
    if code >> 16 != 3:
        raise PgError("0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: 3.0 is spoken", fatal=True)
    options = _options(body[4:])
    unknown = [name for name in options if name.startswith("_pq_.")]
    if code & 0xFFFF or unknown:
        channel.write(m.negotiate(unknown))
    user = options.pop("user", "")
    if not user:
        raise PgError("28000", "no user name was given", fatal=True)
    database = options.pop("database", "") or user
    if not secure and not _is_here(address):
        raise PgError(
            "28000", "connections from other machines need TLS", hint="Connect with sslmode=require.", fatal=True
        )
    if options.pop("replication", "false").lower() not in ("false", "off", "no", "0"):
        raise PgError("0A000", "replication is not there", fatal=True)
    try:
        principal = await _authenticate(channel, door, user, address, secure=secure)
        if not principal.may(SCOPE):
            raise PgError("28000", f"the key does not have the scope {SCOPE}", fatal=True)
    except PgError as error:
        if door.turned_away is not None:
            await door.turned_away.note("postgres", user, address, error.detail or error.message)
        raise
    if database not in door.databases and database != user:
        raise PgError("3D000", f'database "{database}" does not exist', fatal=True)
    channel.write(m.authentication(0))
    return Welcome(principal, options)


async def _startup(channel: Channel, door: Door) -> tuple[bytes, bool]:
    """The first packet that is no request for encryption, and whether the connection is encrypted by then."""
    secure, asked = False, set()
    while True:
        body = await channel.startup(_STARTUP_BYTES_MAX)
        (code,) = struct.unpack(">I", body[:4])
        if code not in (_SSL, _GSS):
            return body, secure
        if code in asked or secure:
            raise PgError("08P01", "encryption was asked for twice", fatal=True)
        asked.add(code)
        if code == _SSL and door.tls is not None:
            channel.write(b"S")
            await channel.start_tls(door.tls())
            secure = True
        else:
            channel.write(b"N")


async def _authenticate(channel: Channel, door: Door, user: str, address: Address | None, *, secure: bool) -> Principal:
    if secure and (found := _by_certificate(channel, door, user)) is not None:
        return found
    binding = door.binding() if secure and door.binding is not None else None
    offered = [MECHANISM_PLUS] if binding is not None else []
    channel.write(m.authentication(10, b"".join(name.encode() + b"\0" for name in [*offered, MECHANISM]) + b"\0"))
    body = m.Body(await _answer(channel))
    mechanism, first = body.text(), body.value()
    if mechanism not in (*offered, MECHANISM) or first is None:
        raise PgError("28000", "the client chose an authentication that was not offered", fatal=True)
    exchange = door.identity.exchange(user, address, binding)
    try:
        channel.write(m.authentication(11, exchange.first(first, plus=mechanism == MECHANISM_PLUS)))
        principal, last = exchange.final(await _answer(channel))
    except AccessError as error:
        raise PgError(
            "28P01", f'password authentication failed for user "{user}"', detail=error.message, fatal=True
        ) from None
    channel.write(m.authentication(12, last))
    return principal


def _by_certificate(channel: Channel, door: Door, user: str) -> Principal | None:
    """Whoever's certificate the connection was made with, when it is that of the user they name."""
    assert channel.transport is not None
    secured = channel.transport.get_extra_info("ssl_object")
    der = secured.getpeercert(binary_form=True) if secured is not None else None
    if der is None:
        return None
    try:
        found = door.identity.by_certificate(der)
    except AccessError as error:
        told = f'certificate authentication failed for user "{user}"'
        raise PgError("28000", told, detail=error.message, fatal=True) from None
    return found if found is not None and found.name == user else None


async def _answer(channel: Channel) -> bytes:
    tag, body = await channel.message(_MESSAGE_BYTES_MAX)
    if tag != b"p":
        raise PgError("08P01", "expected an answer to the authentication request", fatal=True)
    return body


def _options(data: bytes) -> dict[str, str]:
    """Names and values of the startup packet."""
    body, found = m.Body(data), {}
    while name := body.text():
        found[name] = body.text()
    body.end()
    return found


def _address(channel: Channel) -> Address | None:
    assert channel.transport is not None
    peer = channel.transport.get_extra_info("peername")
    try:
        return ipaddress.ip_address(peer[0].partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return None


def _is_here(address: Address | None) -> bool:
    return address is not None and (
        address.is_loopback or ((mapped := getattr(address, "ipv4_mapped", None)) is not None and mapped.is_loopback)
    )
