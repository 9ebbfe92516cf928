"""Reads ISO 8601 dates and timestamps exactly: what is not plainly one is refused."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()


def parse_date(text: str) -> int:
    """Days since 1970-01-01 of `YYYY-MM-DD`. Raises ValueError("format")."""
    if not _DATE.fullmatch(text):
        raise ValueError("format")
    return _days(text)


@lru_cache(maxsize=4096)
def _days(text: str) -> int:
    """Days since 1970 of ten characters that look like a date. Raises ValueError("format") when they are none."""
    try:
        return date(int(text[:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH
    except ValueError:
        raise ValueError("format") from None


def parse_timestamp(text: str) -> int:
    """Microseconds since 1970 UTC of `YYYY-MM-DD(T| )HH:MM:SS[.f][Z|±HH[:]MM]`; without a zone it is UTC.

    Raises:
        ValueError: `format` when it is no such text (a leap second is none), `precision` when digits after the
            microseconds are not zero: a value is never changed silently.
    """
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError("format")
    hour, minute, second = int(match[1]), int(match[2]), int(match[3])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("format")
    days = _days(text[:10])
    fraction = (match[4] or "").ljust(9, "0")
    if fraction[6:] != "000":
        raise ValueError("precision")
    offset_s = 0
    if match[5]:
        if int(match[6]) > 23 or int(match[7]) > 59:
            raise ValueError("format")
        offset_s = (int(match[6]) * 3600 + int(match[7]) * 60) * (1 if match[5] == "+" else -1)
    return (days * 86_400 + hour * 3600 + minute * 60 + second - offset_s) * 1_000_000 + int(fraction[:6])


def is_timestamp(text: str) -> bool:
    """Whether `parse_timestamp` reads it."""
    try:
        parse_timestamp(text)
    except ValueError:
        return False
    return True
