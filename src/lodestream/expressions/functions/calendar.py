"""Steps between moments: units, days of the week, and moments made of parts."""

from __future__ import annotations

from lodestream.expressions.functions.formats import read_moment
from lodestream.expressions.functions.moments import day
from lodestream.expressions.registry import SCALARS, Call, scalar
from lodestream.expressions.typed import Typed, is_null, let, strict
from lodestream.model.types import BIGINT, DATE, DOUBLE, TIMESTAMP, DataType

_SECTION = "Dates and times"
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MICROS = {
    "microsecond": 1, "millisecond": 1000, "second": 10**6, "minute": 60 * 10**6, "hour": 3600 * 10**6,
    "day": 86400 * 10**6, "dayofyear": 86400 * 10**6, "week": 7 * 86400 * 10**6,
}  # fmt: skip
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_UNITS = (*_MICROS, *_MONTHS)


@scalar(
    _SECTION, "next_day", "date, day of the week", "date", "the first such day after it; literal name, MO or Monday"
)
def _next_day(call: Call) -> Typed:
    call.count(2)
    value, name = day(call, 0), call.literal_text(1).lower().strip()
    found = [i for i, known in enumerate(_DAYS) if name in (known, known[:3], known[:2])]
    if not found:
        raise call.error(f"no such day of the week: {name!r}", "P111", "next_day(…, 'Monday')")
    ahead = f"(({found[0]} - 1 - dayofweek({value.duckdb}) + 14) % 7 + 1)"
    duckdb = f"TRY({value.duckdb} + CAST({ahead} AS INTEGER))"
    return strict(DATE, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(
    _SECTION, "months_between", "timestamp, timestamp[, boolean]", "double",
    "months of 31 days between unlike days; 8 digits unless false",
)  # fmt: skip
def _months_between(call: Call) -> Typed:
    call.count(2, 3)
    end, start = call.timestamp(0), call.timestamp(1)
    rounded = call[2].constant if len(call) == 3 else True
    if not isinstance(rounded, bool):
        raise call.error("argument 3 must be true or false", "P114")

    def build(a: str) -> str:
        return let(start.duckdb, lambda b: _months(a, b, rounded))

    return strict(DOUBLE, f"TRY({let(end.duckdb, build)})", call.spark, (end, start))


def _months(a: str, b: str, rounded: bool) -> str:
    whole = f"CAST((year({a}) * 12 + month({a})) - (year({b}) * 12 + month({b})) AS DOUBLE)"
    last = " AND ".join(f"day({x}) = day(last_day({x}))" for x in (a, b))
    seconds = " - ".join(
        f"(day({x}) * 86400 + CAST(floor((epoch_us({x}) - epoch_us(date_trunc('day', {x}))) / 1000000) AS BIGINT))"
        for x in (a, b)
    )
    part = f"({whole} + CAST({seconds} AS DOUBLE) / CAST(2678400 AS DOUBLE))"
    if rounded:
        part = f"(floor({part} * 1e8 + CAST(0.5 AS DOUBLE)) / 1e8)"
    return f"CASE WHEN day({a}) = day({b}) OR ({last}) THEN {whole} ELSE {part} END"


@scalar(
    _SECTION, "timestampadd", "unit, int or bigint, timestamp", "timestamp",
    "a bare unit from microsecond to year; months are cut to their last day", unit=True,
)  # fmt: skip
def _timestampadd(call: Call) -> Typed:
    call.count(3)
    unit, count, moment = call.literal_text(0).lower(), call.bigint(1), call.timestamp(2)
    if unit not in _UNITS:
        raise call.error(f"unit {unit!r}", "P101", "month")
    if unit in _MONTHS:
        months = f"TRY_CAST(TRY({count.duckdb} * {_MONTHS[unit]}) AS INTEGER)"
        duckdb = f"TRY({moment.duckdb} + to_months({months}))"
    else:
        duckdb = f"TRY({moment.duckdb} + to_microseconds({count.duckdb} * {_MICROS[unit]}))"
    spark = f"{call.name}({unit.upper()}, {count.spark}, {moment.spark})"
    return strict(TIMESTAMP, duckdb, spark, (count, moment), own=is_null(duckdb))


@scalar(
    _SECTION, "timestampdiff", "unit, timestamp, timestamp", "bigint",
    "whole units from the second argument to the third; a bare unit", unit=True,
)  # fmt: skip
def _timestampdiff(call: Call) -> Typed:
    call.count(3)
    unit, start, end = call.literal_text(0).lower(), call.timestamp(1), call.timestamp(2)
    if unit not in _UNITS:
        raise call.error(f"unit {unit!r}", "P101", "month")
    spark = f"{call.name}({unit.upper()}, {start.spark}, {end.spark})"
    if unit in _MICROS:
        duckdb = f"TRY((epoch_us({end.duckdb}) - epoch_us({start.duckdb})) // {_MICROS[unit]})"
        return strict(BIGINT, duckdb, spark, (start, end), own=is_null(duckdb))

    def build(a: str) -> str:
        return let(end.duckdb, lambda b: _whole_months(a, b))

    duckdb = f"TRY(CAST({let(start.duckdb, build)} // {_MONTHS[unit]} AS BIGINT))"
    return strict(BIGINT, duckdb, spark, (start, end), own=is_null(duckdb))


def _whole_months(start: str, end: str) -> str:
    """Months as java.time counts them: the last day of a shorter month does not complete one."""
    a, b = f"CAST({start} AS DATE)", f"CAST({end} AS DATE)"
    clock = " - ".join(f"(epoch_us({x}) - epoch_us(date_trunc('day', {x})))" for x in (end, start))
    to = f"({b} + CASE WHEN {b} > {a} AND ({clock}) < 0 THEN -1 WHEN {b} < {a} AND ({clock}) > 0 THEN 1 ELSE 0 END)"
    return let(to, lambda c: f"(({_packed(c)} - {_packed(a)}) // 32)")


def _packed(date: str) -> str:
    return f"((year({date}) * 12 + month({date}) - 1) * 32 + day({date}))"


@scalar(
    _SECTION,
    "dateadd",
    "date, int; or unit, int, timestamp",
    "date; timestamp",
    "as date_add; as timestampadd",
    unit=True,
)
def _dateadd(call: Call) -> Typed:
    call.count(2, 3)
    return SCALARS["date_add" if len(call) == 2 else "timestampadd"].build(call)


@scalar(
    _SECTION, "datediff date_diff", "date, date; or unit, timestamp, timestamp", "int; bigint",
    "days from the second to the first; as timestampdiff", unit=True,
)  # fmt: skip
def _datediff(call: Call) -> Typed:
    call.count(2, 3)
    if len(call) == 3:
        return SCALARS["timestampdiff"].build(call)
    end, start = day(call, 0), day(call, 1)
    duckdb = f"TRY(CAST({end.duckdb} - {start.duckdb} AS INTEGER))"
    return strict(DataType("int"), duckdb, call.spark, (end, start))


@scalar(
    _SECTION, "make_timestamp try_make_timestamp", "int, int, int, int, int, number", "timestamp",
    "year to second with fraction; raises, with try_ NULL, when there is no such time",
)  # fmt: skip
def _make_timestamp(call: Call) -> Typed:
    call.count(6)
    parts = [call.int_(i) for i in range(5)]
    second = call.number(5)
    if second.type.name in ("float", "double"):
        raise call.error(
            f"argument 6 must be an integer or decimal, not {second.type}", nearest="cast(… as decimal(8,6))"
        )
    if second.type.name == "decimal" and (second.type.scale > 6 or second.type.precision - second.type.scale > 10):
        raise call.error("argument 6 must fit decimal(16,6)", nearest="cast(… as decimal(8,6))")
    start = f"make_timestamp({', '.join(p.duckdb for p in parts)}, 0::DOUBLE)"
    micros = f"CAST({second.duckdb} * 1000000 AS BIGINT)"
    fits = f"{second.duckdb} >= 0 AND {second.duckdb} <= 60 AND {parts[3].duckdb} < 24"
    duckdb = f"CASE WHEN {fits} THEN TRY({start} + to_microseconds({micros})) END"
    operands = (*parts, second)
    if call.name == "make_timestamp":
        return strict(TIMESTAMP, duckdb, call.spark, operands, own=is_null(duckdb))
    return strict(TIMESTAMP, duckdb, call.spark, operands, nullable=True)


@scalar(
    _SECTION,
    "to_unix_timestamp unix_timestamp",
    "timestamp; or string[, format]",
    "bigint",
    "seconds since 1970, cut towards 1970; yyyy-MM-dd HH:mm:ss by default",
)
def _unix_timestamp(call: Call) -> Typed:
    if not len(call):
        raise call.error("changes from run to run", "P107")
    call.count(1, 2)
    if call[0].type.name == "string":
        pattern = call.literal_text(1) if len(call) == 2 else "yyyy-MM-dd HH:mm:ss"
        value = call.text(0)
        moment = read_moment(call, value, pattern)
        duckdb = let(moment, lambda t: f"(epoch_us({t}) // 1000000)")
        return strict(BIGINT, duckdb, call.spark, (value,), own=is_null(moment))
    call.count(1)
    value = call.timestamp(0)
    return strict(BIGINT, f"(epoch_us({value.duckdb}) // 1000000)", call.spark, (value,))
