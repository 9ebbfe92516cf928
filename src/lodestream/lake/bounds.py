"""What the log says of the values of a column in a data file, and whether a value may be there."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from lodestream.lake.actions import AddFile
from lodestream.lake.partitions import from_text
from lodestream.model.arrow import to_arrow
from lodestream.model.types import INTEGERS, Column, Schema

_TEXT_MAX = 32
"""Longer texts may be cut in the log."""
_MILLISECOND = dt.timedelta(milliseconds=1)
_ROUNDING = Decimal(2) ** -50
"""Writers that keep decimals as binary numbers are off by less than this share."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values of one column in one file, as far as they are known.

    Values are int, Decimal, float, str, date, or datetime without zone, in UTC.

    Attributes:
        low: no value is smaller; None when not known.
        high: no value is greater; None when not known.
        cut: `high` is only the beginning of a text that may go on.
        nulls: number of NULLs.
        rows: number of rows.
    """

    low: Any = None
    high: Any = None
    cut: bool = False
    nulls: int | None = None
    rows: int | None = None

    @property
    def only_nulls(self) -> bool:
        """Whether no row has a value."""
        return self.rows is not None and self.nulls == self.rows

    @property
    def no_null(self) -> bool:
        """Whether every row has a value."""
        return self.nulls == 0

    def may_reach(self, value: Any, *, equal: bool) -> bool:
        """Whether a value may be greater than `value`, or, if `equal`, the same."""
        if self.only_nulls:
            return False
        if self.high is None:
            return True
        if self.cut:
            return bool(self.high >= value[: len(self.high)])
        return bool(self.high >= value if equal else self.high > value)

    def may_go_below(self, value: Any, *, equal: bool) -> bool:
        """Whether a value may be smaller than `value`, or, if `equal`, the same."""
        if self.only_nulls:
            return False
        return self.low is None or bool(self.low <= value if equal else self.low < value)

    def may_be(self, value: Any) -> bool:
        """Whether a value may be this one."""
        return self.may_reach(value, equal=True) and self.may_go_below(value, equal=True)


def bounds_of(add: AddFile, column: Column) -> Bounds:
    """What the log says of a column in a file; nothing that is not sure.

    Statistics come from any Delta writer: texts are cut, times are cut to milliseconds, decimals are rounded, NaN may
    be left out. What cannot be read is not known.
    """
    if column.name in add.partition_values:
        return _of_partition(add.partition_values[column.name], column)
    if not add.stats:
        return Bounds()
    try:
        told = json.loads(add.stats, parse_float=Decimal)
        nulls, rows = (told.get("nullCount") or {}).get(column.name), told.get("numRecords")
        low, high = ((told.get(key) or {}).get(column.name) for key in ("minValues", "maxValues"))
    except (ValueError, AttributeError):
        return Bounds()
    nulls, rows = (one if type(one) is int else None for one in (nulls, rows))
    kind = column.type.name
    try:
        bottom = None if low is None else _low(low, kind)
        top, cut = (None, False) if high is None else _high(high, kind)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        bottom, top, cut = None, None, False
    return Bounds(bottom, top, cut, nulls, rows)


def _of_partition(text: str | None, column: Column) -> Bounds:
    if not text:
        return Bounds(nulls=1, rows=1)
    try:
        value = from_text(text, to_arrow(Schema((column,))).field(0).type).as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        return Bounds(nulls=0)
    if isinstance(value, dt.datetime):
        value = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    return Bounds(value, value, nulls=0)


def _low(told: Any, kind: str) -> Any:
    value = _value(told, kind)
    return value - abs(value) * _ROUNDING if kind == "decimal" and value is not None else value


def _high(told: Any, kind: str) -> tuple[Any, bool]:
    value = _value(told, kind)
    if kind in ("float", "double"):  # NaN is above every number, and not every writer counts it
        return None, False
    if kind == "string" and value is not None and len(value) >= _TEXT_MAX:
        return value[:_TEXT_MAX], True
    if kind == "timestamp" and value is not None:
        return value + _MILLISECOND, False
    return value + abs(value) * _ROUNDING if kind == "decimal" and value is not None else value, False


def _value(told: Any, kind: str) -> Any:
    """A value of the log in Python; None when it is none of the kind. Raises ValueError, OverflowError too."""
    if isinstance(told, bool):
        return None
    if kind in INTEGERS:
        return told if isinstance(told, int) else None
    if kind == "decimal":
        return Decimal(told) if isinstance(told, int | Decimal) else None
    if kind in ("float", "double"):
        value = float(told) if isinstance(told, int | Decimal) else math.nan
        value = struct.unpack("f", struct.pack("f", value))[0] if kind == "float" else value
        return value if math.isfinite(value) else None
    if not isinstance(told, str):
        return None
    if kind == "string":
        return told
    if kind == "date":
        return dt.date.fromisoformat(told)
    if kind == "timestamp":
        moment = dt.datetime.fromisoformat(told)
        return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return None
