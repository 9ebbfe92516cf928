"""Functions of dates and timestamps, all in UTC."""

from __future__ import annotations

from lodestream.expressions.casts import cast
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, strict
from lodestream.model.types import DATE, INT

_SECTION = "Dates and times"


@scalar(_SECTION, "year month day dayofmonth quarter dayofyear", "date or timestamp", "int", "")
def _part(call: Call) -> Typed:
    call.count(1)
    value = moment(call, 0)
    name = {"dayofmonth": "day"}.get(call.name, call.name)
    return strict(INT, f"CAST({name}({value.duckdb}) AS INTEGER)", call.spark, (value,))


@scalar(_SECTION, "hour minute second", "timestamp", "int", "")
def _clock(call: Call) -> Typed:
    call.count(1)
    value = call.timestamp(0)
    return strict(INT, f"CAST({call.name}({value.duckdb}) AS INTEGER)", call.spark, (value,))


@scalar(_SECTION, "date", "date or timestamp", "date", "the day in UTC")
def _date(call: Call) -> Typed:
    call.count(1)
    return cast(moment(call, 0), DATE).with_spark(call.spark)


def moment(call: Call, index: int) -> Typed:
    """An argument that is a date or a timestamp, as it is."""
    if call[index].type.name not in ("date", "timestamp"):
        raise call.error(f"argument {index + 1} must be a date or timestamp, not {call[index].type}")
    return call[index]
