"""Texts and JSON values as values of a column's type."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from lodestream.apis.problems import ProblemError

_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
_INTEGER_DIGITS_MAX = 20
_DECIMAL_DIGITS_MAX = 38


def value_of(text: str, kind: str, what: str) -> Any:
    """The value that a text stands for.

    Args:
        text: as it was given.
        kind: type by Spark name, such as `decimal(12,2)`.
        what: of what, for the message.

    Raises:
        ProblemError: 400 it is no value of the type, or no text can be.
    """
    name = kind.partition("(")[0]
    read = _READ.get(name)
    if read is None:
        raise ProblemError(400, f"{what} is of type {kind}, for which no value can be given")
    try:
        return read(text, name)
    except (ValueError, InvalidOperation, OverflowError, binascii.Error):
        raise ProblemError(400, f"{what} takes a value of type {kind}") from None


def _integer(text: str, name: str) -> int:
    if len(text) > _INTEGER_DIGITS_MAX or not text.lstrip("+-").isascii() or not text.lstrip("+-").isdigit():
        raise ValueError(text)
    value, half = int(text), 1 << _BITS[name] - 1
    if not -half <= value < half:
        raise OverflowError
    return value


def _decimal(text: str, _name: str) -> Decimal:
    value = Decimal(text) if len(text) <= _DECIMAL_DIGITS_MAX + 2 and "e" not in text.lower() else Decimal("NaN")
    if not value.is_finite():
        raise ValueError(text)
    return value


def _float(text: str, _name: str) -> float:
    value = float(text)
    if math.isinf(value) and "inf" not in text.lower():
        raise OverflowError
    return value


def _boolean(text: str, _name: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _timestamp(text: str, _name: str) -> dt.datetime:
    """Naive, in UTC, as tables hold it."""
    value = dt.datetime.fromisoformat(text)
    return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value


def _string(text: str, _name: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    return text


_READ: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(_BITS, _integer), "decimal": _decimal, "float": _float, "double": _float, "boolean": _boolean,
    "date": lambda text, _name: dt.date.fromisoformat(text), "timestamp": _timestamp, "string": _string,
    "binary": lambda text, _name: base64.b64decode(text, validate=True),
}  # fmt: skip
KINDS = tuple(_READ)
"""Types for which a value can be given, without precision."""


def time_us(text: str, what: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time. Raises ProblemError 400."""
    moment: dt.datetime = value_of(text, "timestamp", what)
    return (moment.replace(tzinfo=dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
