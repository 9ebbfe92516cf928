"""CAST and TRY_CAST as Spark's ANSI mode has them, pair of types by pair of types."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import (
    NOT_CONSTANT,
    VOID,
    Typed,
    any_of,
    duckdb_type,
    given,
    is_null,
    let,
    literal,
)
from lodestream.model.types import DATE, TIMESTAMP, DataType

# Spark trims ASCII white space and control characters before it reads a number, date or boolean.
_BLANK = r"[\x00-\x20\x7f]*"
_DIGITS = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_SPECIAL = r"[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN]"
_TRUE, _FALSE = ("t", "true", "y", "yes", "1"), ("f", "false", "n", "no", "0")
_DAY = r"[0-9]{4}(?:-[0-9]{1,2}(?:-[0-9]{1,2})?)?"
_CLOCK = r"(?:[01]?[0-9]|2[0-3]):[0-5]?[0-9](?::[0-5]?[0-9](?:\.[0-9]{0,9})?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-][0-9]{1,2}:[0-9]{1,2}))?"


def cast(value: Typed, to: DataType, *, attempt: bool = False, offset: int | None = None) -> Typed:
    """`CAST(value AS to)`, or `TRY_CAST` when `attempt`.

    Raises:
        ExpressionError: P111, no such cast in Spark's ANSI mode, or none that both engines do alike.
    """
    word = "TRY_CAST" if attempt else "CAST"
    spark = f"{word}({value.spark} AS {to})"
    if value.type == VOID:
        return replace(literal(None, to), spark=spark)
    if value.type == to:
        return replace(value, spark=spark, constant=NOT_CONSTANT)
    duckdb, total = _convert(value, to, offset)
    own = None if total else is_null(duckdb)
    if own and value.type.name in ("double", "float") and to.name == "decimal":
        own = f"({own} AND isfinite({value.duckdb}))"  # Spark gives NULL for NaN and the infinities
    return replace(
        value, type=to, duckdb=duckdb, spark=spark, constant=NOT_CONSTANT,
        error=value.error if attempt or total else any_of(value.error, given(value, own)),
        nullable=value.nullable or not total,
    )  # fmt: skip


def parse_moment(text: str, kind: DataType, offset: int | None) -> Typed:
    """The constant that Spark reads from a date or timestamp literal in ISO form.

    Raises:
        ExpressionError: P111, not such a text; P105, it names a time zone.
    """
    try:
        value: dt.datetime | dt.date = dt.date.fromisoformat(text) if kind == DATE else dt.datetime.fromisoformat(text)
    except ValueError:
        example = "2024-01-31" if kind == DATE else "2024-01-31 12:00:00"
        raise ExpressionError("P111", f"not a {kind}: {text!r}", nearest=example, offset=offset) from None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|\+00:00)?)?", text):
        code = "P105" if kind == TIMESTAMP and re.search(r"[A-Za-z+-]", text[10:]) else "P111"
        raise ExpressionError(code, f"not a {kind} in ISO form: {text!r}", offset=offset)
    if isinstance(value, dt.datetime):
        value = value.replace(tzinfo=None)
    return literal(value, kind)


def _convert(value: Typed, to: DataType, offset: int | None) -> tuple[str, bool]:
    """(DuckDB text that is NULL where the cast fails, whether it never fails)."""
    source, text, target = value.type, value.duckdb, duckdb_type(to)
    if source.name == "string":
        return _from_string(text, to, offset)
    if to.name == "string":
        return _to_string(value, offset)
    if source.is_numeric and to.is_numeric:
        return _numeric(value, to)
    if source.name == "boolean" and to.is_numeric and to.name != "decimal":
        return f"CAST({text} AS {target})", True
    if source.is_numeric and to.name == "boolean":
        return f"({text} <> 0)", True
    if source == DATE and to == TIMESTAMP:
        return f"TRY_CAST({text} AS TIMESTAMP)", False
    if source == TIMESTAMP and to == DATE:
        return f"CAST({text} AS DATE)", True
    if source == TIMESTAMP and to.name == "bigint":
        return f"(epoch_us({text}) // 1000000 - CAST(epoch_us({text}) % 1000000 < 0 AS BIGINT))", True
    raise ExpressionError("P111", f"cannot cast {source} to {to}", offset=offset)


def _numeric(value: Typed, to: DataType) -> tuple[str, bool]:
    source, text, target = value.type, value.duckdb, duckdb_type(to)
    if (source.name, to.name) == ("double", "float"):

        def narrow(x: str) -> str:
            infinite = f"CASE WHEN {x} > 0 THEN CAST('inf' AS FLOAT) WHEN {x} < 0 THEN CAST('-inf' AS FLOAT) END"
            return f"coalesce(TRY_CAST({x} AS FLOAT), {infinite})"

        return let(text, narrow), True
    if to.name in ("double", "float"):
        return f"CAST({text} AS {target})", True
    fraction = source.name in ("double", "float")
    if to.is_integer:
        if source.is_integer:
            order = ("tinyint", "smallint", "int", "bigint")
            widens = order.index(source.name) < order.index(to.name)
            return (f"CAST({text} AS {target})", True) if widens else (f"TRY_CAST({text} AS {target})", False)
        if to.name == "bigint" and fraction:
            # 2^63 as a double is one more than the largest bigint; Spark's range check lets it through.
            top = f"CASE WHEN {text} = 9223372036854775808 THEN 9223372036854775807"
            return f"{top} ELSE TRY_CAST(trunc({text}) AS BIGINT) END", False
        return f"TRY_CAST(trunc({text}) AS {target})", False
    if source.is_integer:
        digits = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}[source.name]
        total = to.precision - to.scale >= digits
        return (f"CAST({text} AS {target})", True) if total else (f"TRY_CAST({text} AS {target})", False)
    if fraction:
        # through the shortest decimal text, as Spark does: 1.005 is 1.01 there, not 1.00
        return let(f"CAST({text} AS VARCHAR)", lambda number: _decimal(number, to)), False
    total = to.scale >= source.scale and to.precision - to.scale >= source.precision - source.scale
    return (f"CAST({text} AS {target})", True) if total else (f"TRY_CAST({text} AS {target})", False)


def _from_string(text: str, to: DataType, offset: int | None) -> tuple[str, bool]:
    target = duckdb_type(to)
    if to.is_integer:
        return f"TRY_CAST({_inside(text, '[+-]?[0-9]+')} AS {target})", False
    if to.name == "decimal":
        slow = let(_inside(text, _NUMBER), lambda number: _decimal(number, to))
        fast = f"TRY_CAST({_inside(text, _DIGITS)} AS {target})"
        return f"CASE WHEN contains({text}, 'e') OR contains({text}, 'E') THEN {slow} ELSE {fast} END", False
    if to.name in ("double", "float"):
        plain, suffixed = _inside(text, f"{_NUMBER}|{_SPECIAL}"), _inside(text, _NUMBER, "[dDfF]")
        return f"coalesce(TRY_CAST({plain} AS {target}), TRY_CAST({suffixed} AS {target}))", False
    if to.name == "boolean":
        when = "".join(f" WHEN '{word}' THEN true" for word in _TRUE)
        when += "".join(f" WHEN '{word}' THEN false" for word in _FALSE)
        return f"CASE lower({_inside(text, '[a-zA-Z01]+')}){when} END", False
    if to == DATE:
        day = _inside(text, _DAY, "(?:[ T](?s:.*))?")
        return f"TRY_CAST({_whole_day(day)} AS DATE)", False
    if to == TIMESTAMP:
        return _moment(text), False
    if to.name == "binary":
        return f"encode({text})", True
    raise ExpressionError("P111", f"cannot cast string to {to}", offset=offset)


def _decimal(number: str, to: DataType) -> str:
    """A decimal from the text of a number; NULL out of range, which DuckDB does not see when there is an exponent."""
    fits = f"abs(TRY_CAST({number} AS DOUBLE)) < 1e{38 - to.scale}"
    return f"CASE WHEN {fits} THEN TRY_CAST(TRY_CAST({number} AS DECIMAL(38,{to.scale})) AS {duckdb_type(to)}) END"


def _inside(text: str, pattern: str, tail: str = "") -> str:
    """The part of `text` between blanks if it is what `pattern` says, else an empty string."""
    return f"regexp_extract({text}, '^{_BLANK}({pattern}){tail}{_BLANK}$', 1)"


def _whole_day(day: str) -> str:
    """Month and day added where a date text has none."""
    return f"regexp_replace(regexp_replace({day}, '^([0-9]{{4}})$', '\\1-1'), '^([0-9]{{4}}-[0-9]{{1,2}})$', '\\1-1')"


def _moment(text: str) -> str:
    """A timestamp text with or without clock and zone offset, as UTC."""

    def build(body: str) -> str:
        day = _whole_day(f"regexp_extract({body}, '^{_DAY}')")
        clock = f"coalesce(nullif(regexp_extract({body}, '[ T]({_CLOCK})', 1), ''), '0:0:0')"
        zone = f"regexp_extract({body}, '([+-][0-9]{{1,2}}:[0-9]{{1,2}})$', 1)"
        minutes = let(zone, _zone_minutes)
        return f"TRY(TRY_CAST({day} || ' ' || {clock} AS TIMESTAMP) - to_minutes({minutes}))"

    return let(_inside(text, f"{_DAY}|[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}[ T]{_CLOCK}{_ZONE}"), build)


def _zone_minutes(zone: str) -> str:
    """Minutes east of UTC of `+hh:mm`, 0 for no zone, NULL beyond 18 hours."""
    hours, minutes = (
        f"TRY_CAST(split_part({zone}, ':', 1) AS INTEGER)",
        f"TRY_CAST(split_part({zone}, ':', 2) AS INTEGER)",
    )
    total = f"{hours} * 60 + CASE WHEN starts_with({zone}, '-') THEN -{minutes} ELSE {minutes} END"
    return f"CASE WHEN {zone} = '' THEN 0 WHEN {minutes} < 60 AND abs({total}) <= 1080 THEN {total} END"


def common_era(value: Typed, duckdb: str) -> str:
    """`duckdb`, the text of a date or timestamp, in the years 1 to 9999; NULL beyond.

    Engines write other years differently, and DuckDB 2.0 invalidates the whole database when it writes a timestamp
    at the end of the 64-bit range.
    """
    last = "9999-12-31" if value.type == DATE else "9999-12-31 23:59:59.999999"
    name = value.type.name.upper()
    return f"CASE WHEN {value.duckdb} BETWEEN {name} '0001-01-01' AND {name} '{last}' THEN {duckdb} END"


def _to_string(value: Typed, offset: int | None) -> tuple[str, bool]:
    source, text = value.type, value.duckdb
    if source.is_integer or source.name in ("boolean", "decimal"):
        return f"CAST({text} AS VARCHAR)", True
    if source in (DATE, TIMESTAMP):
        return common_era(value, f"CAST({text} AS VARCHAR)"), False
    hint = "cast to decimal first" if source.name in ("double", "float") else None
    raise ExpressionError("P111", f"cannot cast {source} to string alike on both engines", nearest=hint, offset=offset)
