"""LIKE and regular expressions over literal patterns."""

from __future__ import annotations

import re

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.functions.case import lower
from lodestream.expressions.regex import Pattern, translate
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, duckdb_text, strict
from lodestream.model.types import BOOLEAN, STRING, DataType

_SECTION = "Patterns"
_AT_END = r"(?:\r\n|[\n\r\x{85}\x{2028}\x{2029}])?\z"


def like(value: Typed, pattern: Typed, escape: str, fold: bool, offset: int | None) -> Typed:
    """LIKE and ILIKE. The pattern is a literal.

    Raises:
        ExpressionError: P111, P114.
    """
    word = "ILIKE" if fold else "LIKE"
    if value.type != STRING or not isinstance(pattern.constant, str):
        code, what = ("P114", "its pattern must be a literal") if value.type == STRING else ("P111", "takes strings")
        raise ExpressionError(code, f"{word.lower()}: {what}", offset=offset)
    text = pattern.constant
    if re.search(rf"{re.escape(escape)}(?![%_{re.escape(escape)}])", text.replace(escape * 2, "")):
        raise ExpressionError("P111", f"{word.lower()}: {escape} must stand before %, _ or itself", offset=offset)
    spark = f"({value.spark} {word} {pattern.spark}" + ("" if escape == "\\" else f" ESCAPE '{escape}'") + ")"
    subject = lower(value.duckdb) if fold else value.duckdb
    shape = duckdb_text(text)
    shape = lower(shape) if fold else shape
    tail = f" ESCAPE {duckdb_text(escape)}" if escape in text else ""
    return strict(BOOLEAN, f"({subject} LIKE {shape}{tail})", spark, (value,))


def matches(value: Typed, pattern: Typed, spark: str, offset: int | None) -> Typed:
    """RLIKE: whether the pattern is found anywhere."""
    if value.type != STRING:
        raise ExpressionError("P111", f"rlike: takes strings, not {value.type}", offset=offset)
    shape = _read("rlike", pattern, offset)
    re2 = shape.re2 + (_AT_END if shape.at_end else "")
    return strict(BOOLEAN, f"regexp_matches({value.duckdb}, {duckdb_text(re2)})", spark, (value,))


def _read(name: str, pattern: Typed, offset: int | None) -> Pattern:
    if not isinstance(pattern.constant, str):
        raise ExpressionError("P114", f"{name}: its pattern must be a literal", offset=offset)
    try:
        return translate(pattern.constant)
    except ValueError as error:
        message = f"{name}: engines differ on this in a pattern: {error}"
        raise ExpressionError("P101", message, offset=offset) from error


@scalar(_SECTION, "regexp_like regexp rlike", "string, pattern", "boolean", "also the operator RLIKE")
def _regexp_like(call: Call) -> Typed:
    call.count(2)
    return matches(call.text(0), call.text(1), call.spark, call.offset)


@scalar(_SECTION, "regexp_extract", "string, pattern[, int]", "string", "group 1 by default; empty when not found")
def _extract(call: Call) -> Typed:
    call.count(2, 3)
    value, shape = call.text(0), _read(call.name, call.text(1), call.offset)
    group = call.literal_int(2) if len(call) == 3 else 1
    if not 0 <= group <= shape.groups:
        raise call.error(f"the pattern has {shape.groups} groups", "P111", "regexp_extract(…, …, 0)")
    if shape.at_end and group == 0:
        re2 = f"({shape.re2}){_AT_END}"
        group = 1
    else:
        re2 = shape.re2 + (_AT_END if shape.at_end else "")
    return strict(STRING, f"regexp_extract({value.duckdb}, {duckdb_text(re2)}, {group})", call.spark, (value,))


@scalar(_SECTION, "regexp_replace", "string, pattern, replacement", "string", "every match; $1 names a group")
def _replace(call: Call) -> Typed:
    call.count(3)
    value, shape = call.text(0), consuming(call)
    text = call.literal_text(2)
    numbers = re.findall(r"\$(\d)", text)
    if re.search(r"\\|\$(?!\d)|\$\d\d", text) or any(int(n) > shape.groups for n in numbers):
        raise call.error("a replacement holds text and $1 to $9", "P101")
    to = duckdb_text(re.sub(r"\$(\d)", r"\\\1", text))
    duckdb = f"regexp_replace({value.duckdb}, {duckdb_text(shape.re2)}, {to}, 'g')"
    return strict(STRING, duckdb, call.spark, (value,))


@scalar(_SECTION, "split", "string, pattern", "array<string>", "the pattern must not match an empty string")
def _split(call: Call) -> Typed:
    call.count(2)
    value, shape = call.text(0), consuming(call)
    duckdb = f"regexp_split_to_array({value.duckdb}, {duckdb_text(shape.re2)})"
    return strict(DataType("array", element=STRING), duckdb, call.spark, (value,))


def consuming(call: Call) -> Pattern:
    """The literal pattern of argument 2, which matches at least one character. Raises P101."""
    shape = _read(call.name, call.text(1), call.offset)
    if shape.empty or shape.at_end:
        raise call.error("the pattern must match at least one character and not end with $", "P101")
    return shape
