"""Reads the small texts of a declaration: durations, names, schedules, types."""

from __future__ import annotations

import re

from lodestream.model.types import PRIMITIVES, DataType, parse_type

NAME = re.compile(r"[a-z][a-z0-9_]*")
COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TYPE_NAMES = (*PRIMITIVES, "decimal", "array", "map", "struct")

_MS = 1_000
_SECOND = 1_000_000
_UNITS = {
    "millisecond": _MS, "ms": _MS, "second": _SECOND, "s": _SECOND, "sec": _SECOND,
    "minute": 60 * _SECOND, "min": 60 * _SECOND, "m": 60 * _SECOND, "hour": 3600 * _SECOND, "h": 3600 * _SECOND,
    "day": 86_400 * _SECOND, "d": 86_400 * _SECOND, "week": 7 * 86_400 * _SECOND, "w": 7 * 86_400 * _SECOND,
    "year": 365 * 86_400 * _SECOND,
}  # fmt: skip
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([A-Za-z]+)")
_BYTES = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([KMGT])(i?)B")
SHORTHANDS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}  # fmt: skip
"""Named schedules, as the five cron fields they stand for."""

_CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def parse_duration(text: str) -> int:
    """Microseconds of a duration such as `30 seconds`, `500 ms` or `2 years` (a year is 365 days).

    Raises:
        ValueError: not a duration, or not a whole number of milliseconds, which is what watermarks count in.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = match[2].lower() if match else ""
    size = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
    if match is None or size is None:
        raise ValueError("not a duration")
    whole, _, fraction = match[1].partition(".")
    thousandths = int(whole) * 1000 + int((fraction + "000")[:3])
    micros, rest = divmod(thousandths * size, 1000)
    if rest or micros % _MS:
        raise ValueError("a duration counts whole milliseconds")
    return micros


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `512 MiB` (powers of 1024) or `4 GB` (powers of 1000).

    Raises:
        ValueError: not a size.
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** ("KMGT".index(match[2]) + 1))


def parse_column_type(text: str) -> DataType:
    """A Spark SQL type. Raises ValueError for anything that tables do not store."""
    return parse_type(text)


def check_schedule(text: str) -> str:
    """The schedule with single blanks: `@hourly`, `every 5 minutes`, or five cron fields in UTC.

    Raises:
        ValueError: anything else.
    """
    text = " ".join(text.split())
    if text.startswith("@"):
        if text not in SHORTHANDS:
            raise ValueError(f"write one of {', '.join(SHORTHANDS)}")
        return text
    if text.startswith("every "):
        if parse_duration(text.removeprefix("every ")) < _SECOND:
            raise ValueError("a table is refreshed at most once a second")
        return text
    fields = text.split(" ")
    if len(fields) != len(_CRON):
        raise ValueError("a cron schedule has five fields: minute hour day month weekday")
    for field, (low, high) in zip(fields, _CRON, strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", part)
            numbers = [int(n) for n in re.findall(r"\d+", match[1])] if match else []
            if not match or any(not low <= n <= high for n in numbers) or numbers != sorted(numbers) or match[2] == "0":
                raise ValueError(f"not a cron field: {field!r}")
    return text
