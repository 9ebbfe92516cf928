"""Functions of strings that look for, cut out and count parts."""

from __future__ import annotations

import re

from lodestream.expressions.coercion import meet_all, widen
from lodestream.expressions.functions.patterns import consuming
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, any_of, duckdb_text, given, lazy, let, literal, strict, unless_null
from lodestream.model.types import BINARY, INT, STRING, DataType

_SECTION = "Strings"
_LONGEST = 10_000


@scalar(
    _SECTION,
    "substring_index",
    "string, string, int",
    "string",
    "literal delimiter that cannot overlap itself; literal count",
)
def _substring_index(call: Call) -> Typed:
    call.count(3)
    text, mark, count = call.text(0), call.literal_text(1), call.literal_int(2)
    if any(mark[:n] == mark[-n:] for n in range(1, len(mark))):
        raise call.error(f"the delimiter {mark!r} can overlap itself", "P101", "split_part(…)")
    if not mark or count == 0:
        return strict(STRING, f"left({text.duckdb}, 0)", call.spark, (text,))
    part = duckdb_text(mark)

    def build(p: str) -> str:
        kept = f"1, {count}" if count > 0 else f"greatest(len({p}) - {-count - 1}, 1), len({p})"
        return f"array_to_string(list_slice({p}, {kept}), {part})"

    duckdb = unless_null((text,), lambda s: let(f"string_split({s}, {part})", build, above=0))
    return strict(STRING, duckdb, call.spark, (text,))


@scalar(_SECTION, "overlay", "string, string, int[, int]", "string", "replaces from a literal position; literal length")
def _overlay(call: Call) -> Typed:
    call.count(3, 4)
    text, part, start = call.text(0), call.text(1), call.literal_int(2)
    if start < 1:
        raise call.error("the position must be at least 1", "P101")
    size = str(call.literal_int(3)) if len(call) == 4 else "-1"
    skip = f"length({part.duckdb})" if int(size) < 0 else size
    rest = f"substring({text.duckdb}, {start} + {skip})"
    return strict(STRING, f"(left({text.duckdb}, {start - 1}) || {part.duckdb} || {rest})", call.spark, (text, part))


@scalar(_SECTION, "space", "int", "string", f"literal up to {_LONGEST}")
def _space(call: Call) -> Typed:
    call.count(1)
    size = call.literal_int(0)
    if size > _LONGEST:
        raise call.error(f"at most {_LONGEST}", "P114")
    return literal(" " * max(size, 0)).with_spark(call.spark)


@scalar(_SECTION, "find_in_set", "string, string", "int", "its place in a list with commas, from 1; 0 when absent")
def _find_in_set(call: Call) -> Typed:
    call.count(2)
    item, among = call.texts()

    def build(i: str, a: str) -> str:
        found = f"coalesce(list_position(string_split({a}, ','), {i}), 0)"
        return f"CASE WHEN contains({i}, ',') THEN 0 ELSE CAST({found} AS INTEGER) END"

    duckdb = unless_null((item, among), build)
    return strict(INT, duckdb, call.spark, (item, among))


@scalar("Choice", "elt", "int, value, value, …", "the common type", "the value of that number; raises outside")
def _elt(call: Call) -> Typed:
    call.count(2, 100)
    at, values = call.int_(0), call.arguments[1:]
    kind = meet_all(values, "elt", call.offset)
    if kind not in (STRING, BINARY):
        raise call.error(f"takes strings, not {kind}", nearest="cast(… as string)")
    values = tuple(widen(value, kind) for value in values)
    duckdb = f"CASE {at.duckdb} " + " ".join(f"WHEN {i} THEN {v.duckdb}" for i, v in enumerate(values, 1)) + " END"
    late = [f"({at.duckdb} = {i} AND {v.error})" for i, v in enumerate(values, 1) if v.error]
    own = any_of(f"({at.duckdb} < 1 OR {at.duckdb} > {len(values)})", *late)
    error = any_of(at.error, given(at, own))
    return lazy(kind, duckdb, call.spark, (at, *values), error=error, nullable=True)


# Encodings ----------------------------------------------------------------------------------------------------------


@scalar(
    _SECTION, "base64", "string or binary", "string", "with padding, in lines of 76 characters that end with \\r\\n"
)
def _base64(call: Call) -> Typed:
    call.count(1)
    value = call[0] if call[0].type == BINARY else call.text(0)
    blob = value.duckdb if value.type == BINARY else f"encode({value.duckdb})"

    def build(text: str) -> str:
        lines = f"regexp_replace({text}, '(.{{76}})', '\\1' || chr(13) || chr(10), 'g')"
        return f"CASE WHEN length({text}) > 76 THEN regexp_replace({lines}, '\\r\\n$', '') ELSE {text} END"

    return strict(STRING, let(f"base64({blob})", build), call.spark, (value,))


@scalar(_SECTION, "encode", "string, 'UTF-8'", "binary", "only UTF-8")
def _encode(call: Call) -> Typed:
    call.count(2)
    _utf8(call)
    value = call.text(0)
    return strict(BINARY, f"encode({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "decode", "binary, 'UTF-8'", "string", "only UTF-8; raises when it is none")
def _decode(call: Call) -> Typed:
    call.count(2)
    _utf8(call)
    value = call[0]
    if value.type != BINARY:
        raise call.error(f"argument 1 must be binary, not {value.type}", nearest="cast(… as binary)")
    duckdb = f"TRY(decode({value.duckdb}))"
    return strict(STRING, duckdb, call.spark, (value,), own=f"{duckdb} IS NULL")


def _utf8(call: Call) -> None:
    if call.literal_text(1).upper() not in ("UTF-8", "UTF8"):
        raise call.error("only UTF-8", "P101", f"{call.name}(…, 'UTF-8')")


@scalar(_SECTION, "unhex", "string", "binary", "NULL when a character is no hexadecimal digit")
def _unhex(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    duckdb = f"CASE WHEN regexp_matches({value.duckdb}, '^[0-9A-Fa-f]*$') THEN TRY(unhex({value.duckdb})) END"
    return strict(BINARY, duckdb, call.spark, (value,), nullable=True)


@scalar(_SECTION, "url_encode", "string", "string", "as HTML forms do: a space becomes +")
def _url_encode(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    duckdb = f"url_encode({value.duckdb})"
    for of, to in (("%20", "+"), ("~", "%7E"), ("%2A", "*")):
        duckdb = f"replace({duckdb}, '{of}', '{to}')"
    return strict(STRING, duckdb, call.spark, (value,))


# Patterns -----------------------------------------------------------------------------------------------------------


@scalar("Patterns", "regexp_count", "string, pattern", "int", "matches; the pattern must not match an empty string")
def _regexp_count(call: Call) -> Typed:
    call.count(2)
    value, shape = call.text(0), consuming(call)
    found = f"regexp_extract_all({value.duckdb}, {duckdb_text(shape.re2)})"
    return strict(INT, f"CAST(len({found}) AS INTEGER)", call.spark, (value,))


@scalar("Patterns", "regexp_substr", "string, pattern", "string", "the first match; NULL when there is none")
def _regexp_substr(call: Call) -> Typed:
    call.count(2)
    value, shape = call.text(0), consuming(call)
    duckdb = f"nullif(regexp_extract({value.duckdb}, {duckdb_text(shape.re2)}), '')"
    return strict(STRING, duckdb, call.spark, (value,), nullable=True)


@scalar("Patterns", "regexp_extract_all", "string, pattern[, int]", "array<string>", "group 1 by default")
def _regexp_extract_all(call: Call) -> Typed:
    call.count(2, 3)
    value, shape = call.text(0), consuming(call)
    group = call.literal_int(2) if len(call) == 3 else 1
    if not 0 <= group <= shape.groups:
        raise call.error(f"the pattern has {shape.groups} groups", "P111", "regexp_extract_all(…, …, 0)")
    found = f"regexp_extract_all({value.duckdb}, {duckdb_text(shape.re2)}, {group})"
    duckdb = f"list_transform({found}, lambda x: coalesce(x, ''))"
    return strict(DataType("array", element=STRING), duckdb, call.spark, (value,))


@scalar(
    "Patterns", "regexp_instr", "string, pattern", "int", "where the first match begins, from 1; 0 when there is none"
)
def _regexp_instr(call: Call) -> Typed:
    call.count(2)
    value, shape = call.text(0), consuming(call)
    if shape.re2.startswith("^"):
        raise call.error("a pattern that begins with ^", "P101", "regexp_like(…)")
    before, found = duckdb_text(f"^((?s:.*?))(?:{shape.re2})"), duckdb_text(shape.re2)

    def build(s: str) -> str:
        place = f"CAST({let(f'regexp_extract({s}, {before}, 1)', _units, above=0)} AS INTEGER) + 1"
        return f"CASE WHEN regexp_matches({s}, {found}) THEN {place} ELSE 0 END"

    duckdb = unless_null((value,), build)
    return strict(INT, duckdb, call.spark, (value,))


# Formats ------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"%(?:%|(-?)(0?)(\d{0,3})([sd]))")


@scalar(
    _SECTION, "format_string printf", "format, value, …", "string", "literal format of %s and %d, with a width, - or 0"
)
def _format_string(call: Call) -> Typed:
    call.count(1, 100)
    text, values, pieces, at = call.literal_text(0), list(call.arguments[1:]), [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if text[at] == "%" and (token is None or (token[1] and token[2]) or (token[2] and token[4] != "d")):
            raise call.error(f"format from {text[at:]!r} on", "P101", "%s and %d")
        if token is None:
            end = text.find("%", at)
            end = len(text) if end < 0 else end
            pieces.append(duckdb_text(text[at:end]))
            at = end
            continue
        at = token.end()
        if token[4] is None:
            pieces.append("'%'")
            continue
        if not values:
            raise call.error("more places than values")
        pieces.append(_place(call, values.pop(0), token[1], token[2], token[3], token[4]))
    if values:
        raise call.error("more values than places")
    operands = call.arguments[1:]
    return lazy(
        STRING, "(" + " || ".join(pieces or ["''"]) + ")", call.spark, operands,
        error=any_of(*(o.error for o in operands)), nullable=False,
    )  # fmt: skip


def _units(text: str) -> str:
    """The length of a text in Java, which counts what lies beyond the first plane twice."""
    return f"(length({text}) + len(regexp_extract_all({text}, '[\\x{{10000}}-\\x{{10FFFF}}]')))"


def _place(call: Call, value: Typed, left: str, zero: str, width: str, letter: str) -> str:
    """DuckDB text of one value in its place."""
    if not (value.type.is_integer or (letter == "s" and value.type.name in ("string", "boolean", "date"))):
        raise call.error(f"%{letter} of {value.type}", "P101", "cast(… as string)")
    if (left or zero) and not width:
        raise call.error(f"%{left}{zero}{letter} has no width")
    shown = f"coalesce(CAST({value.duckdb} AS VARCHAR), 'null')"
    if not width:
        return shown

    def pad(s: str) -> str:
        size = _units(s)
        room = f"repeat(' ', greatest({width} - {size}, 0))"
        if zero:
            zeros = f"repeat('0', greatest({width} - {size}, 0))"
            signed = f"CASE WHEN starts_with({s}, '-') THEN '-' || {zeros} || substring({s}, 2) ELSE {zeros} || {s} END"
            return f"CASE WHEN {value.duckdb} IS NULL THEN {room} || {s} ELSE {signed} END"
        return f"({s} || {room})" if left else f"({room} || {s})"

    return let(shown, pad)
