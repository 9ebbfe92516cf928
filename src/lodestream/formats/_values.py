"""Turns one parsed JSON value into one column value, exactly, or says why not: the reference for every fast path."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from lodestream.formats._times import parse_date, parse_timestamp
from lodestream.model.types import DataType

INTEGER_BOUNDS = {"tinyint": 1 << 7, "smallint": 1 << 15, "int": 1 << 31, "bigint": 1 << 63}
TIMESTAMP_UNITS = {"seconds": 1_000_000, "millis": 1_000, "micros": 1}
_NUMBER_TEXT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_BOOLEAN_TEXT = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
_DECIMAL_TEXT = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])

Convert = Callable[[Any], Any]


class BadValueError(ValueError):
    """A value that its column cannot hold: `what` is wrong, `path` is where inside the column (`.a.b` or empty)."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = path


class NumberText(str):
    """A JSON number kept as written, so that decimals never pass through a float."""

    __slots__ = ()


def converter(kind: DataType, timestamps: str = "iso") -> Convert:
    """A function from a parsed JSON value (never None) to what `pyarrow.array` takes for `kind`.

    It raises BadValueError: `type`, `range`, `format`, `precision` or `utf8`.
    Whole numbers are taken as integers only when written as such; text is never a number, except for decimals, which
    may come as plain decimal text so that producers can keep them exact.

    Args:
        kind: the column's type.
        timestamps: `iso` text, or numbers since 1970 in `seconds`, `millis` or `micros`.
    """
    name = kind.name
    if name in INTEGER_BOUNDS:
        return _integer(INTEGER_BOUNDS[name])
    if name == "decimal":
        return _decimal(kind.precision, kind.scale)
    if name == "timestamp" and timestamps != "iso":
        return _epoch(TIMESTAMP_UNITS[timestamps])
    if name == "array":
        assert kind.element
        return _array(converter(kind.element, timestamps))
    if name == "map":
        assert kind.key
        assert kind.element
        return _map(kind.key, converter(kind.element, timestamps))
    if name == "struct":
        return _struct({f.name: converter(f.type, timestamps) for f in kind.fields})
    return {
        "boolean": _boolean, "double": _double, "float": _float, "string": _string, "binary": _binary,
        "date": _date, "timestamp": _timestamp,
    }[name]  # fmt: skip


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise BadValueError("type")


def _string(value: Any) -> str:
    if type(value) is not str:
        raise BadValueError("type")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadValueError("utf8") from None
    return value


def _integer(bound: int) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not int:
            raise BadValueError("range" if type(value) is NumberText and value.removeprefix("-").isdigit() else "type")
        if -bound <= value < bound:
            return value
        raise BadValueError("range")

    return convert


def _double(value: Any) -> float:
    if type(value) not in (float, int, NumberText):
        raise BadValueError("type")
    try:
        number = float(value)
    except OverflowError:
        raise BadValueError("range") from None
    if math.isinf(number):
        raise BadValueError("range")
    return number


def _float(value: Any) -> float:
    number = _double(value)
    try:
        struct.pack("<f", number)
    except OverflowError:
        raise BadValueError("range") from None
    return number


def _decimal(precision: int, scale: int) -> Convert:
    step = Decimal(1).scaleb(-scale)

    def convert(value: Any) -> Decimal:
        if type(value) is str and not _DECIMAL_TEXT.fullmatch(value):
            raise BadValueError("type")
        if type(value) not in (int, str, NumberText) or (isinstance(value, str) and len(value) > 4096):
            raise BadValueError("type" if type(value) in (bool, float, dict, list) else "range")
        try:
            number = Decimal(value).quantize(step, context=_EXACT)
        except (Inexact, InvalidOperation):
            raise BadValueError("range") from None
        if number.adjusted() + scale + 1 > precision and number:
            raise BadValueError("range")
        return number

    return convert


def _date(value: Any) -> int:
    return _parsed(value, parse_date)


def _timestamp(value: Any) -> int:
    return _parsed(value, parse_timestamp)


def _parsed(value: Any, parse: Callable[[str], int]) -> int:
    if type(value) is not str:
        raise BadValueError("type")
    try:
        return parse(value)
    except ValueError as error:
        raise BadValueError(str(error)) from None


def _epoch(unit_us: int) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not int:
            raise BadValueError("type")
        if not -62_135_596_800_000_000 <= value * unit_us <= 253_402_300_799_999_999:
            raise BadValueError("range")
        return value * unit_us

    return convert


def _binary(value: Any) -> bytes:
    if type(value) is not str:
        raise BadValueError("type")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadValueError("format") from None


def _array(element: Convert) -> Convert:
    def convert(value: Any) -> list[Any]:
        if type(value) is not list:
            raise BadValueError("type")
        return [None if item is None else element(item) for item in value]

    return convert


def _map(key: DataType, element: Convert) -> Convert:
    def convert(value: Any) -> list[tuple[str, Any]]:
        if type(value) is not dict or key.name != "string":
            raise BadValueError("type")
        return [(_string(name), None if item is None else element(item)) for name, item in value.items()]

    return convert


def _struct(fields: Mapping[str, Convert]) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise BadValueError("type")
        out: dict[str, Any] = {}
        for name, inner in fields.items():
            item = value.get(name)
            try:
                out[name] = None if item is None else inner(item)
            except BadValueError as error:
                raise BadValueError(error.what, f".{name}{error.path}") from None
        return out

    return convert


def from_text(text: str, kind: DataType, timestamps: str = "iso") -> Any:
    """The parsed JSON value that an untyped field of text stands for in a column of this type.

    Numbers are written as in JSON (no leading zeros, no plus sign, no thousands). Raises BadValueError("type").
    """
    if kind.name == "boolean":
        if text not in _BOOLEAN_TEXT:
            raise BadValueError("type")
        return _BOOLEAN_TEXT[text]
    if kind.is_numeric or (kind.name == "timestamp" and timestamps != "iso"):
        match = _NUMBER_TEXT.fullmatch(text)
        if not match:
            raise BadValueError("type")
        whole = match[2] is None and match[3] is None and len(text) < 4000
        return int(text) if whole else NumberText(text)
    if kind.name in ("array", "map", "struct"):
        raise BadValueError("type")
    return text
