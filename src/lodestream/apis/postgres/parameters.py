"""Values that a client binds, from text and binary form to Python."""

from __future__ import annotations

import datetime as dt
import json
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from lodestream.apis.postgres import types
from lodestream.apis.postgres.failures import PgError

_EPOCH = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - times without a zone are in UTC
_TRUE, _FALSE = {"t", "true", "y", "yes", "on", "1"}, {"f", "false", "n", "no", "off", "0"}
_SPACE = " \t\n\r\v\f"
_ITEM = re.compile(r'[ \t\n\r\v\f]*(?:"((?:[^"\\]|\\.)*)"|([^,"{}]*))[ \t\n\r\v\f]*(,|$)', re.DOTALL)
_TIME = re.compile(
    r"\s*(\d{4,6})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r"\s*(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?\s*(BC)?",
    re.IGNORECASE,
)


def decode(value: bytes | None, oid: int, form: int) -> Any:
    """A bound value as Python; times are naive, in UTC.

    Args:
        value: its bytes; None for null.
        oid: number of its type; 0 and unknown types are text.
        form: 0 for text, 1 for binary.

    Raises:
        PgError: it is not of that type.
    """
    if value is None:
        return None
    kind = types.TYPES.get(oid, types.TEXT)
    try:
        if form == 0:
            return _from_text(value.decode(), kind)
        return _from_binary(value, kind)
    except (ValueError, struct.error, InvalidOperation, OverflowError, IndexError):
        shown = "binary value" if form else f'"{value.decode(errors="replace")[:60]}"'
        raise PgError("22P03" if form else "22P02", f"invalid input for type {kind.sql}: {shown}") from None


# ---- text ----


def _from_text(text: str, kind: types.PgType) -> Any:
    if kind.element and kind.category == "A":
        return _array_from_text(text, types.TYPES[kind.element])
    reader = _TEXT.get(kind.oid)
    return text if reader is None else reader(text)


def _boolean(text: str) -> bool:
    found = text.strip().lower()
    if found in _TRUE:
        return True
    if found in _FALSE:
        return False
    raise ValueError(text)


def _bytes(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    plain = re.sub(r"\\(\\|[0-3][0-7][0-7])", lambda m: "\\" if m[1] == "\\" else chr(int(m[1], 8)), text)
    return plain.encode("latin-1")


def _timestamp(text: str) -> dt.datetime:
    match = _TIME.fullmatch(text)
    if match is None or match[9]:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in range(1, 7))
    fraction = int((match[7] or "0").ljust(9, "0")[:6])
    begun = dt.datetime(year, month, day)  # noqa: DTZ001 - as above
    found = begun + dt.timedelta(hours=hour, minutes=minute, seconds=second, microseconds=fraction)
    return found - _offset(match[8])


def _date(text: str) -> dt.date:
    """A date; JDBC sends it with a zone, which says nothing about a day."""
    match = _TIME.fullmatch(text)
    if match is None or match[9]:
        raise ValueError(text)
    return dt.date(int(match[1]), int(match[2]), int(match[3]))


def _offset(text: str | None) -> dt.timedelta:
    if not text or text in "zZ":
        return dt.timedelta()
    digits = text[1:].replace(":", "")
    made = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:4] or 0), seconds=int(digits[4:6] or 0))
    return -made if text[0] == "-" else made


def _time(text: str) -> dt.time:
    return dt.time.fromisoformat(re.sub(r"[+-]\d\d(:?\d\d)?$", "", text.strip()))


def _array_from_text(text: str, item: types.PgType) -> list[Any]:
    """A one-dimensional array such as `{1,NULL,"a b"}`."""
    text = text.strip(_SPACE)
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(text)
    found: list[Any] = []
    inner = text[1:-1]
    at = 0
    while at < len(inner):
        match = _ITEM.match(inner, at)
        if match is None:
            raise ValueError(text)
        if match[1] is not None:
            found.append(_from_text(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL), item))
        else:
            bare = match[2].strip(_SPACE)
            if not bare:
                raise ValueError(text)
            found.append(None if bare.upper() == "NULL" else _from_text(bare, item))
        at = match.end()
        if not match[3]:
            break
    return found


_TEXT: dict[int, Callable[[str], Any]] = {
    types.BOOL.oid: _boolean, types.BYTEA.oid: _bytes, types.INT2.oid: int, types.INT4.oid: int, types.INT8.oid: int,
    types.OID.oid: int, types.FLOAT4.oid: float, types.FLOAT8.oid: float, types.NUMERIC.oid: Decimal,
    types.DATE.oid: _date, types.TIMESTAMP.oid: _timestamp, types.TIMESTAMPTZ.oid: _timestamp, types.TIME.oid: _time,
    types.UUID.oid: lambda text: str(uuid.UUID(text)),
}  # fmt: skip


# ---- binary ----


def _from_binary(value: bytes, kind: types.PgType) -> Any:
    if kind.element and kind.category == "A":
        return _array_from_binary(value)
    reader = _BINARY.get(kind.oid)
    if reader is not None:
        return reader(value)
    if kind.category in "SXZ" or kind.oid in (types.JSON.oid, 142):
        return value.decode()
    raise ValueError(kind.name)


def _unpacked(form: str) -> Callable[[bytes], Any]:
    def read(value: bytes) -> Any:
        return struct.unpack(form, value)[0]

    return read


def _numeric(value: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack(">HhHH", value[:8])
    if sign not in (0, 0x4000):
        raise ValueError("not a number")
    digits = struct.unpack(f">{count}H", value[8:])
    whole = 0
    for digit in digits:
        whole = whole * 10_000 + digit
    places = 4 * (weight - count + 1) + scale  # Decimal's own arithmetic would round to 28 digits
    whole = whole * 10**places if places >= 0 else whole // 10**-places
    return Decimal((int(sign != 0), tuple(map(int, str(whole))), -scale))


def _interval(value: bytes) -> dt.timedelta:
    us, days, months = struct.unpack(">qii", value)
    if months:
        raise ValueError("months have no length")
    return dt.timedelta(days=days, microseconds=us)


def _array_from_binary(value: bytes) -> list[Any]:
    dimensions, _flag, element = struct.unpack(">iiI", value[:12])
    if dimensions == 0:
        return []
    if dimensions != 1:
        raise ValueError("more than one dimension")
    (count,) = struct.unpack(">i", value[12:16])
    at = 20
    found: list[Any] = []
    for _ in range(count):
        (length,) = struct.unpack(">i", value[at : at + 4])
        at += 4
        if length < 0:
            found.append(None)
            continue
        if at + length > len(value):
            raise ValueError("too short")
        found.append(_from_binary(value[at : at + length], types.TYPES.get(element, types.TEXT)))
        at += length
    return found


def _one(value: bytes) -> bool:
    (found,) = value
    return bool(found)


def _jsonb(value: bytes) -> str:
    json.loads(value[1:])
    return value[1:].decode()


_BINARY: dict[int, Callable[[bytes], Any]] = {
    types.BOOL.oid: _one, types.BYTEA.oid: bytes, types.INT2.oid: _unpacked(">h"), types.INT4.oid: _unpacked(">i"),
    types.INT8.oid: _unpacked(">q"), types.OID.oid: _unpacked(">I"), types.FLOAT4.oid: _unpacked(">f"),
    types.FLOAT8.oid: _unpacked(">d"), types.NUMERIC.oid: _numeric, types.INTERVAL.oid: _interval, 3802: _jsonb,
    types.DATE.oid: lambda value: _EPOCH.date() + dt.timedelta(days=_unpacked(">i")(value)),
    types.TIMESTAMP.oid: lambda value: _EPOCH + dt.timedelta(microseconds=_unpacked(">q")(value)),
    types.TIMESTAMPTZ.oid: lambda value: _EPOCH + dt.timedelta(microseconds=_unpacked(">q")(value)),
    types.TIME.oid: lambda value: (_EPOCH + dt.timedelta(microseconds=_unpacked(">q")(value))).time(),
    types.UUID.oid: lambda value: str(uuid.UUID(bytes=value)),
}  # fmt: skip
