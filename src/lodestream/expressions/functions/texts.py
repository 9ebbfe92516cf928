"""Functions of strings."""

from __future__ import annotations

from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, strict
from lodestream.model.types import INT, STRING

_SECTION = "Strings"


@scalar(_SECTION, "upper ucase", "string", "string", "")
def _upper(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    return strict(STRING, f"upper({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "lower lcase", "string", "string", "")
def _lower(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    return strict(STRING, f"lower({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "length char_length character_length len", "string", "int", "Unicode code points")
def _length(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    return strict(INT, f"CAST(length({value.duckdb}) AS INTEGER)", call.spark, (value,))
