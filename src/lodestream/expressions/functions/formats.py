"""Moments to text and back by a pattern, as far as the engines read its letters alike."""

from __future__ import annotations

import re
from itertools import pairwise

from lodestream.expressions.casts import cast, common_era
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, duckdb_text, is_null, let, strict
from lodestream.model.types import DATE, STRING, TIMESTAMP

_SECTION = "Dates and times"
# the letters of a pattern -> (DuckDB's code to write it, the field it sets, the digits to read it)
_LETTERS: dict[str, tuple[str, str | None, str]] = {
    "yyyy": ("%Y", "year", "[0-9]{4}"), "yy": ("%y", None, ""), "MM": ("%m", "month", "[0-9]{2}"),
    "M": ("%-m", "month", "[0-9]{1,9}"), "dd": ("%d", "day", "[0-9]{2}"), "d": ("%-d", "day", "[0-9]{1,9}"),
    "HH": ("%H", "hour", "[0-9]{2}"), "H": ("%-H", "hour", "[0-9]{1,9}"), "mm": ("%M", "minute", "[0-9]{2}"),
    "m": ("%-M", "minute", "[0-9]{1,9}"), "ss": ("%S", "second", "[0-9]{2}"), "s": ("%-S", "second", "[0-9]{1,9}"),
    "SSS": ("%g", "micros", "[0-9]{1,3}"), "SSSSSS": ("%f", "micros", "[0-9]{1,6}"), "hh": ("%I", None, ""),
    "a": ("%p", None, ""), "E": ("%a", None, ""), "EEE": ("%a", None, ""), "EEEE": ("%A", None, ""),
    "MMM": ("%b", None, ""), "MMMM": ("%B", None, ""), "DDD": ("%j", None, ""),
}  # fmt: skip
_TOKEN = re.compile(r"([A-Za-z])\1*|'((?:[^']|'')+)'|''|[-/:., _]")
_NOTE = "a literal of yyyy MM dd HH mm ss SSS, single letters, - / : . , _ space and 'text'"


def _tokens(call: Call, pattern: str) -> list[tuple[str, str]]:
    """(letters, '') or ('', text) for each part of a pattern. Raises P101."""
    found, at = [], 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        letters = token[0] if token and token[1] else ""
        if token is None or (letters and letters not in _LETTERS):
            raise call.error(f"format from {pattern[at:]!r} on", "P101", "yyyy-MM-dd HH:mm:ss")
        text = "'" if token[0] == "''" else (token[2] or token[0]).replace("''", "'")
        found.append((letters, "") if letters else ("", text))
        at = token.end()
    return found


@scalar(_SECTION, "date_format", "timestamp, format", "string", _NOTE + "; also yy hh a E EEEE MMM MMMM DDD")
def _date_format(call: Call) -> Typed:
    call.count(2)
    return _written(call, call.timestamp(0), call.literal_text(1))


def _written(call: Call, value: Typed, pattern: str) -> Typed:
    made = "".join(
        _LETTERS[letters][0] if letters else text.replace("%", "%%") for letters, text in _tokens(call, pattern)
    )
    duckdb = common_era(value, f"strftime({value.duckdb}, {duckdb_text(made)})")
    return strict(STRING, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(_SECTION, "from_unixtime", "bigint[, format]", "string", "seconds since 1970 as date_format writes them")
def _from_unixtime(call: Call) -> Typed:
    call.count(1, 2)
    value = call.bigint(0)
    pattern = call.literal_text(1) if len(call) == 2 else "yyyy-MM-dd HH:mm:ss"
    moment = f"TRY(make_timestamp({value.duckdb} * 1000000))"
    made = strict(TIMESTAMP, moment, call.spark, (value,), own=is_null(moment))
    return _written(call, made, pattern).with_spark(call.spark)


def read_moment(call: Call, value: Typed, pattern: str) -> str:
    """DuckDB text of the timestamp that `pattern` reads, NULL where it reads none.

    Raises:
        ExpressionError: P101, a letter that is not read alike.
    """
    shape = ""
    groups: dict[str, int] = {}
    tokens = _tokens(call, pattern)
    for letters, text in tokens:
        if not letters:
            shape += re.escape(text)
            continue
        field, digits = _LETTERS[letters][1:]
        if field is None or field in groups:
            raise call.error(f"cannot read {letters!r} back", "P101", "yyyy-MM-dd HH:mm:ss")
        groups[field] = len(groups) + 1
        shape += f"({digits})"
    if any(a and b for (a, _), (b, _) in pairwise(tokens) if len(a) == 1 or len(b) == 1):
        raise call.error("a single letter beside another", "P101", "yyyy-MM-dd HH:mm:ss")
    default = {"year": "1970", "month": "1", "day": "1", "hour": "0", "minute": "0", "second": "0"}
    names = list(groups)

    def build(parts: str) -> str:
        def field(name: str) -> str:
            return f"TRY_CAST({parts}[{names.index(name) + 1}] AS BIGINT)" if name in groups else default[name]

        whole = f"make_timestamp({', '.join(field(name) for name in default)})"
        if "micros" in groups:
            part = f"{parts}[{names.index('micros') + 1}]"
            whole = f"{whole} + to_microseconds(CAST(rpad({part}, 6, '0') AS BIGINT))"
        return f"CASE WHEN {field('hour')} < 24 THEN TRY({whole}) END"

    matched = f"regexp_matches({value.duckdb}, {duckdb_text(f'^{shape}$')})"
    pieces = ", ".join(
        f"regexp_extract({value.duckdb}, {duckdb_text(f'^{shape}$')}, {index})" for index in groups.values()
    )
    return f"CASE WHEN {matched} THEN {let(f'[{pieces}]', build, above=0)} END"


@scalar(_SECTION, "to_timestamp timestamp", "string, date or timestamp[, format]", "timestamp", f"ISO text; or {_NOTE}")
def _to_timestamp(call: Call) -> Typed:
    call.count(1, 2 if call.name == "to_timestamp" else 1)
    if len(call) == 1:
        return cast(call[0], TIMESTAMP, offset=call.offset).with_spark(call.spark)
    value = call.text(0)
    duckdb = read_moment(call, value, call.literal_text(1))
    return strict(TIMESTAMP, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(_SECTION, "to_date date", "string, date or timestamp[, format]", "date", f"ISO text; or {_NOTE}")
def _to_date(call: Call) -> Typed:
    call.count(1, 2 if call.name == "to_date" else 1)
    if len(call) == 1:
        return cast(call[0], DATE, offset=call.offset).with_spark(call.spark)
    value = call.text(0)
    duckdb = f"CAST({read_moment(call, value, call.literal_text(1))} AS DATE)"
    return strict(DATE, duckdb, call.spark, (value,), own=is_null(duckdb))


@scalar(
    _SECTION, "try_to_timestamp try_to_date", "string, format", "timestamp; date",
    "NULL where to_timestamp and to_date raise",
)  # fmt: skip
def _try_to(call: Call) -> Typed:
    call.count(2)
    kind = TIMESTAMP if call.name == "try_to_timestamp" else DATE
    value = call.text(0)
    duckdb = read_moment(call, value, call.literal_text(1))
    duckdb = duckdb if kind == TIMESTAMP else f"CAST({duckdb} AS DATE)"
    return strict(kind, duckdb, call.spark, (value,), nullable=True)
