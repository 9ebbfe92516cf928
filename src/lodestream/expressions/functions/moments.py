"""Functions of dates and timestamps, all in UTC."""

from __future__ import annotations

from lodestream.expressions.casts import cast
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, is_null, strict
from lodestream.model.types import BIGINT, DATE, INT, STRING, TIMESTAMP, DataType

_SECTION = "Dates and times"
_PARTS = {
    "dayofweek_iso": "isodow({})", "yearofweek": "isoyear({})",
    "year": "year({})", "quarter": "quarter({})", "month": "month({})", "day": "day({})", "dayofmonth": "day({})",
    "dayofyear": "dayofyear({})", "dayofweek": "(dayofweek({}) + 1)", "weekday": "(isodow({}) - 1)",
    "weekofyear": "weekofyear({})", "hour": "hour({})", "minute": "minute({})", "second": "second({})",
}  # fmt: skip
_FIELDS = {
    "doy": "dayofyear", "dow": "dayofweek", "week": "weekofyear", "w": "weekofyear", "weeks": "weekofyear",
    "dow_iso": "dayofweek_iso", "days": "day", "d": "day", "y": "year", "years": "year", "yr": "year", "yrs": "year",
    "qtr": "quarter", "mon": "month", "mons": "month", "months": "month", "h": "hour", "hours": "hour", "hr": "hour",
    "hrs": "hour", "m": "minute", "min": "minute", "mins": "minute", "minutes": "minute", "s": "second",
    "sec": "second", "secs": "second", "seconds": "second",
}  # fmt: skip
_CLOCK = ("hour", "minute", "second")
_SECONDS = DataType("decimal", precision=8, scale=6)


@scalar(_SECTION, "year quarter month day dayofmonth dayofyear weekofyear", "date or timestamp", "int", "ISO weeks")
def _calendar(call: Call) -> Typed:
    call.count(1)
    return part(call, call.name, moment(call, 0))


@scalar(_SECTION, "dayofweek", "date or timestamp", "int", "1 is Sunday, 7 Saturday")
def _day_of_week(call: Call) -> Typed:
    call.count(1)
    return part(call, call.name, moment(call, 0))


@scalar(_SECTION, "weekday", "date or timestamp", "int", "0 is Monday, 6 Sunday")
def _weekday(call: Call) -> Typed:
    call.count(1)
    return part(call, call.name, moment(call, 0))


@scalar(_SECTION, "hour minute second", "timestamp", "int", "")
def _clock(call: Call) -> Typed:
    call.count(1)
    return part(call, call.name, call.timestamp(0))


def part(call: Call, name: str, value: Typed) -> Typed:
    """One calendar or clock field as an int."""
    duckdb = f"CAST({_PARTS[name].format(value.duckdb)} AS INTEGER)"
    if name not in ("weekofyear", "yearofweek"):
        return strict(INT, duckdb, call.spark, (value,))
    duckdb = f"TRY({duckdb})"  # the first weeks that a date can hold have no number in DuckDB
    return strict(INT, duckdb, call.spark, (value,), own=is_null(duckdb))


def extract(call: Call, field: str, spark: str) -> Typed:
    """EXTRACT(field FROM moment)."""
    name = _FIELDS.get(field.lower(), field.lower())
    if name not in _PARTS or name == "weekday":
        raise call.error(f"field {field!r}", "P101", "extract(minute from …)")
    value = call.timestamp(0) if name in _CLOCK else moment(call, 0)
    if name == "second":
        micros = f"CAST(microsecond({value.duckdb}) AS DECIMAL(18,0))"
        duckdb = f"CAST({micros} * CAST(0.000001 AS DECIMAL(6,6)) AS DECIMAL(8,6))"
        return strict(_SECONDS, duckdb, spark, (value,))
    return part(call, name, value).with_spark(spark)


def moment(call: Call, index: int) -> Typed:
    """An argument that is a date or a timestamp, as it is."""
    value = call[index]
    if value.type.name == "void":
        return call.date(index)
    if value.type not in (DATE, TIMESTAMP):
        raise call.error(f"argument {index + 1} must be a date or timestamp, not {value.type}", nearest="to_date(…)")
    return value


def day(call: Call, index: int) -> Typed:
    """An argument as a date: a timestamp gives its day."""
    value = moment(call, index)
    return value if value.type == DATE else cast(value, DATE).with_spark(value.spark)


@scalar(
    _SECTION,
    "date_part datepart",
    "field, date or timestamp",
    "int; decimal(8,6) for seconds",
    "as extract; literal field",
)
def _date_part(call: Call) -> Typed:
    call.count(2)
    field = call.literal_text(0)
    return extract(Call(call.name, call.arguments[1:], call.offset), field, call.spark)


@scalar(_SECTION, "dayname monthname", "date or timestamp", "string", "three English letters")
def _named(call: Call) -> Typed:
    call.count(1)
    value = moment(call, 0)
    return strict(STRING, f"left({call.name}({value.duckdb}), 3)", call.spark, (value,))


# Truncation ---------------------------------------------------------------------------------------------------------

_UNITS = {
    "year": "year", "yyyy": "year", "yy": "year", "quarter": "quarter", "month": "month", "mm": "month", "mon": "month",
    "week": "week", "day": "day", "dd": "day", "hour": "hour", "minute": "minute", "second": "second",
    "millisecond": "millisecond", "microsecond": "microsecond",
}  # fmt: skip


@scalar(
    _SECTION,
    "date_trunc",
    "unit, timestamp",
    "timestamp",
    "literal unit from year to microsecond; weeks begin on Monday",
)
def _date_trunc(call: Call) -> Typed:
    call.count(2)
    unit = _unit(call, 0, tuple(_UNITS))
    value = call.timestamp(1)
    duckdb = f"TRY(CAST(date_trunc('{unit}', {value.duckdb}) AS TIMESTAMP))"
    return strict(TIMESTAMP, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(_SECTION, "trunc", "date, unit", "date", "literal unit: year, quarter, month or week")
def _trunc(call: Call) -> Typed:
    call.count(2)
    unit = _unit(call, 1, ("year", "yyyy", "yy", "quarter", "month", "mm", "mon", "week"))
    value = day(call, 0)
    duckdb = f"TRY(CAST(date_trunc('{unit}', {value.duckdb}) AS DATE))"
    return strict(DATE, duckdb, call.spark, (value,), own=is_null(duckdb))


def _unit(call: Call, index: int, known: tuple[str, ...]) -> str:
    unit = call.literal_text(index).lower()
    if unit not in known:
        raise call.error(f"unit {unit!r}", "P101", known[0])
    return _UNITS[unit]


@scalar(_SECTION, "last_day", "date or timestamp", "date", "last day of the month")
def _last_day(call: Call) -> Typed:
    call.count(1)
    value = day(call, 0)
    duckdb = f"TRY(CAST(last_day({value.duckdb}) AS DATE))"
    return strict(DATE, duckdb, call.spark, (value,), own=is_null(duckdb))


# Arithmetic ---------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "date_add date_sub", "date, int", "date", "days later or earlier")
def _date_add(call: Call) -> Typed:
    call.count(2)
    value, days = day(call, 0), call.int_(1)
    symbol = "-" if call.name == "date_sub" else "+"
    duckdb = f"TRY({value.duckdb} {symbol} {days.duckdb})"
    return strict(DATE, duckdb, call.spark, (value, days), own=is_null(duckdb))


@scalar(_SECTION, "add_months", "date, int", "date", "the day is cut to the month's last")
def _add_months(call: Call) -> Typed:
    call.count(2)
    value, months = day(call, 0), call.int_(1)
    duckdb = f"TRY_CAST(TRY({value.duckdb} + to_months({months.duckdb})) AS DATE)"
    return strict(DATE, duckdb, call.spark, (value, months), own=is_null(duckdb))


# Making -------------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "make_date", "int, int, int", "date", "year, month, day; raises when there is no such day")
def _make_date(call: Call) -> Typed:
    call.count(3)
    parts = [call.int_(i) for i in range(3)]
    duckdb = f"TRY(make_date({', '.join(p.duckdb for p in parts)}))"
    return strict(DATE, duckdb, call.spark, parts, own=is_null(duckdb))


@scalar(_SECTION, "unix_seconds unix_millis unix_micros", "timestamp", "bigint", "since 1970, rounded down")
def _unix(call: Call) -> Typed:
    call.count(1)
    value = call.instant(0)
    unit = {"unix_millis": 1000, "unix_micros": 1}.get(call.name, 1_000_000)
    micros = f"epoch_us({value.duckdb})"
    duckdb = micros if unit == 1 else f"({micros} // {unit} - CAST({micros} % {unit} < 0 AS BIGINT))"
    return strict(BIGINT, duckdb, call.spark, (value,))


@scalar(_SECTION, "timestamp_seconds timestamp_millis timestamp_micros", "integer", "timestamp", "since 1970")
def _from_unix(call: Call) -> Typed:
    call.count(1)
    value = call.bigint(0)
    unit = {"timestamp_millis": 1000, "timestamp_micros": 1}.get(call.name, 1_000_000)
    duckdb = f"TRY(make_timestamp({value.duckdb} * {unit}))"
    return strict(TIMESTAMP, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(_SECTION, "unix_date", "date", "int", "days since 1970")
def _unix_date(call: Call) -> Typed:
    call.count(1)
    value = call.date(0)
    return strict(INT, f"CAST({value.duckdb} - DATE '1970-01-01' AS INTEGER)", call.spark, (value,))


@scalar(_SECTION, "date_from_unix_date", "int", "date", "days since 1970")
def _from_unix_date(call: Call) -> Typed:
    call.count(1)
    value = call.int_(0)
    return strict(DATE, f"TRY(DATE '1970-01-01' + {value.duckdb})", call.spark, (value,))
