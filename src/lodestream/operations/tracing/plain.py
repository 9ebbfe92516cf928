"""Values of rows as JSON has them, and as one safe line of text."""

from __future__ import annotations

import datetime as dt
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

_TEXT_MAX = 200
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects, times in ISO 8601 UTC, decimals as text, bytes as hex, no NaN."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Decimal):
        return str(value)
    return str(value)


def moment(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC; None for none."""
    if us is None:
        return None
    try:
        return (_EPOCH + dt.timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{us} µs since 1970"


def safe(text: str, limit: int = _TEXT_MAX) -> str:
    """The text on one line, control characters as escapes so that data cannot drive a terminal, cut at `limit`."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def bytes_text(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 is shown as escapes."""
    return data.decode("utf-8", "backslashreplace")


def shown(row: Mapping[str, Any]) -> str:
    """A row as `column=value` pairs on one line; NULL is `null`."""
    return ", ".join(f"{name}={_cell(value)}" for name, value in row.items())


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return safe(repr(bytes_text(value)))
    value = plain(value)
    return safe(str(value) if not isinstance(value, bool) else str(value).lower())


def number(count: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def pairs(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """A key of the form `column=value,…` that finds this row by these columns."""
    return ",".join(f"{name}={_key_text(row[name])}" for name in names)


def _key_text(value: Any) -> str:
    if value is None:
        return "null"
    text = value.hex() if isinstance(value, bytes) else str(plain(value))
    if isinstance(value, bool):
        text = text.lower()
    awkward = text != text.strip() or "," in text or text == "null" or text[:1] in ("'", '"') or not text
    return "'" + text.replace("'", "''") + "'" if awkward else text


def command(table: object, key: str) -> str:
    """What to type to trace a row."""
    return f"lodestream trace {table} {shlex.quote(key)}"
