"""Addresses of data files that are good for a while: signed, and for one file of one table and one caller only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

from lodestream.apis.problems import ProblemError
from lodestream.model.access import Principal
from lodestream.model.table import TableName

GOOD_FOR_S = 3600
SIGNATURE = "X-Amz-Signature"
"""Parameter of the signature: Delta's Rust kernel reads over HTTP only what has one of this name."""
_EXPIRES = "X-Amz-Expires"
_BYTES_MAX = 16_384
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Link:
    """What an address is for.

    Attributes:
        table: whose file.
        path: of the file, as it stands in the log.
        principal: who was given it; their groups and attributes are looked up again when it is used.
        until_us: when it ends, microseconds since 1970 UTC.
    """

    table: TableName
    path: str
    principal: Principal
    until_us: int


class Links:
    """Makes addresses and reads them.

    Args:
        secret: what they are signed with; the same in every process that serves the lake.
        clock: microseconds since 1970 UTC.
    """

    def __init__(self, secret: bytes, clock: Callable[[], int]) -> None:
        self._secret, self._clock = secret, clock

    def until_us(self, principal: Principal) -> int:
        """When an address that is made now for somebody ends: in an hour, or when their credential does."""
        until_us = self._clock() + GOOD_FOR_S * _US
        return until_us if principal.expires_us is None else min(until_us, principal.expires_us)

    def write(self, link: Link) -> str:
        """Last segment and query of an address."""
        who = link.principal
        told = [str(link.table), link.path, link.until_us, who.name, who.kind, who.scopes, who.via, who.expires_us]
        ticket = base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).rstrip(b"=")
        return f"{ticket.decode()}?{_EXPIRES}={GOOD_FOR_S}&{SIGNATURE}={self._sign(ticket)}"

    def read(self, ticket: str, signature: str) -> Link:
        """What an address is for. Raises ProblemError 403 for one that nobody was given, or that has ended."""
        data = ticket.encode()
        if len(data) > _BYTES_MAX or not hmac.compare_digest(self._sign(data).encode(), signature.encode()):
            raise ProblemError(403, "nobody was given this address; query the table again")
        try:
            told = json.loads(base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4)))
            table, path, until_us, name, kind, scopes, via, expires_us = told
        except (ValueError, binascii.Error):
            raise ProblemError(403, "this address is of another version of the server; query the table again") from None
        if until_us <= self._clock():
            raise ProblemError(403, "this address has ended; query the table again")
        scoped = None if scopes is None else tuple(scopes)
        return Link(
            TableName.parse(table), path, Principal(name, kind, scopes=scoped, via=via, expires_us=expires_us), until_us
        )

    def _sign(self, ticket: bytes) -> str:
        return hmac.new(self._secret, ticket, hashlib.sha256).hexdigest()
