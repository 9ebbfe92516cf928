"""Functions that choose between values."""

from __future__ import annotations

from lodestream.expressions import conditionals
from lodestream.expressions.operators import truth
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, eager, literal
from lodestream.model.types import BOOLEAN

_SECTION = "Choice"


@scalar(_SECTION, "coalesce nvl ifnull", "value, value, …", "the common type", "later arguments are not evaluated")
def _coalesce(call: Call) -> Typed:
    call.count(1 if call.name == "coalesce" else 2, 100 if call.name == "coalesce" else 2)
    return conditionals.coalesce(call.arguments, call.spark, call.offset)


@scalar(_SECTION, "nvl2", "value, if not null, if null", "the common type", "")
def _nvl2(call: Call) -> Typed:
    call.count(3)
    test = truth(call[0], "NULL", True, call.offset)
    return conditionals.if_(test, call[1], call[2], call.offset).with_spark(call.spark)


@scalar(_SECTION, "nullif", "value, value", "type of the first", "NULL where both are equal")
def _nullif(call: Call) -> Typed:
    call.count(2)
    return conditionals.nullif(call[0], call[1], call.offset)


@scalar(_SECTION, "greatest least", "value, value, …", "the common type", "NULLs are skipped")
def _extreme(call: Call) -> Typed:
    call.count(2, 100)
    return conditionals.extreme(call.name, call.arguments, call.spark, call.offset)


@scalar(_SECTION, "isnull isnotnull", "value", "boolean", "")
def _isnull(call: Call) -> Typed:
    call.count(1)
    return truth(call[0], "NULL", call.name == "isnotnull", call.offset).with_spark(call.spark)


@scalar(_SECTION, "isnan", "double", "boolean", "false for NULL")
def _isnan(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)
    if value.type == literal(None).type:
        return literal(False)
    duckdb = f"coalesce(isnan({value.duckdb}), false)"
    return eager(BOOLEAN, duckdb, call.spark, (value,), nullable=False)
