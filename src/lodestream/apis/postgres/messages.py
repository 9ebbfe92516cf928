"""The protocol's messages: what the server says, and how to read what a client says."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.types import pg_type, type_modifier

PARSE_COMPLETE = b"1\x00\x00\x00\x04"
BIND_COMPLETE = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE = b"3\x00\x00\x00\x04"
NO_DATA = b"n\x00\x00\x00\x04"
EMPTY_QUERY = b"I\x00\x00\x00\x04"
PORTAL_SUSPENDED = b"s\x00\x00\x00\x04"
COPY_DONE = b"c\x00\x00\x00\x04"
_IDENTIFIER_BYTES = 63


def message(tag: bytes, body: bytes = b"") -> bytes:
    """A message: its tag, its length, its body."""
    return tag + struct.pack(">I", len(body) + 4) + body


def ready(status: bytes) -> bytes:
    """ReadyForQuery; `status` is `I`, `T` or `E`."""
    return message(b"Z", status)


def complete(tag: str) -> bytes:
    """CommandComplete."""
    return message(b"C", tag.encode() + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus: a setting that clients keep an eye on."""
    return message(b"S", f"{name}\0{value}\0".encode())


def backend_key(process: int, secret: int) -> bytes:
    """BackendKeyData: what a cancel request must show."""
    return message(b"K", struct.pack(">II", process, secret))


def authentication(code: int, body: bytes = b"") -> bytes:
    """One of the Authentication messages."""
    return message(b"R", struct.pack(">I", code) + body)


def negotiate(options: Iterable[str]) -> bytes:
    """NegotiateProtocolVersion: 3.0 is the newest, and these options are not known."""
    names = [name.encode() + b"\0" for name in options]
    return message(b"v", struct.pack(">II", 0x30000, len(names)) + b"".join(names))


def row_description(schema: pa.Schema, formats: Sequence[int], origin: Mapping[str, int] | None = None) -> bytes:
    """RowDescription of an answer with this schema, each column in its format."""
    parts = [struct.pack(">H", len(schema))]
    for field, form in zip(schema, formats, strict=True):
        kind = pg_type(field.type)
        name = field.name.encode().replace(b"\0", b"")
        modifier = type_modifier(field.type)
        parts.append(name + b"\0" + struct.pack(">IHIhih", 0, 0, kind.oid, kind.size, modifier, form))
    return message(b"T", b"".join(parts))


def parameter_description(oids: Sequence[int]) -> bytes:
    """ParameterDescription."""
    return message(b"t", struct.pack(f">H{len(oids)}I", len(oids), *oids))


def copy_out(columns: int, form: int) -> bytes:
    """CopyOutResponse."""
    return message(b"H", struct.pack(f">bH{columns}h", form, columns, *[form] * columns))


def error(found: PgError, severity: str = "ERROR") -> bytes:
    """ErrorResponse."""
    return message(b"E", _fields(found, severity))


def notice(found: PgError, severity: str = "WARNING") -> bytes:
    """NoticeResponse."""
    return message(b"N", _fields(found, severity))


def _fields(found: PgError, severity: str) -> bytes:
    fields = {"S": severity, "V": severity, "C": found.sqlstate, "M": found.message, "D": found.detail, "H": found.hint}
    if found.position:
        fields["P"] = str(found.position)
    told = b"".join(
        name.encode() + value.encode(errors="replace").replace(b"\0", b"") + b"\0"
        for name, value in fields.items()
        if value
    )
    return told + b"\0"


class Body:
    """Reads a client's message from left to right; whatever does not fit is a protocol violation."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def text(self) -> str:
        """A string that ends with a zero byte."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise _violation("a string has no end")
        found = self._data[self._at : end]
        self._at = end + 1
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise PgError("22021", 'invalid byte sequence for encoding "UTF8"') from None

    def name(self) -> str:
        """The name of a statement or portal, cut as PostgreSQL cuts identifiers."""
        return self.text().encode()[:_IDENTIFIER_BYTES].decode(errors="ignore")

    def byte(self) -> bytes:
        """One byte."""
        return self.take(1)

    def int16(self) -> int:
        """A count of two bytes."""
        return int(struct.unpack(">H", self.take(2))[0])

    def int32(self) -> int:
        """A signed number of four bytes."""
        return int(struct.unpack(">i", self.take(4))[0])

    def oid(self) -> int:
        """An unsigned number of four bytes."""
        return int(struct.unpack(">I", self.take(4))[0])

    def value(self) -> bytes | None:
        """A value with its length before it; None for null."""
        length = self.int32()
        if length == -1:
            return None
        if length < 0:
            raise _violation("a length is negative")
        return self.take(length)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise _violation("a message is shorter than it says")
        self._at += count
        return found

    def rest(self) -> bytes:
        """All that is left."""
        found, self._at = self._data[self._at :], len(self._data)
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise _violation("a message is longer than it says")


def _violation(message: str) -> PgError:
    return PgError("08P01", f"protocol violation: {message}")
