"""Angles, hyperbolas, logarithms to a base and other functions of doubles."""

from __future__ import annotations

import math

from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, let, literal, strict
from lodestream.model.types import BIGINT, DOUBLE

_SECTION = "Numbers"
_ULP = "engines may differ in the last digit"
_NAN = "CAST('nan' AS DOUBLE)"


@scalar(_SECTION, "sin cos tan", "number", "double", f"radians; NaN for the infinities; {_ULP}")
def _circular(call: Call) -> Typed:
    return _inside(call, "isfinite({x})", f"{call.name}({{x}})")


@scalar(_SECTION, "cot sec csc", "number", "double", f"1/tan, 1/cos, 1/sin; infinite where those are 0; {_ULP}")
def _reciprocal(call: Call) -> Typed:
    below = {"cot": "tan", "sec": "cos", "csc": "sin"}[call.name]
    call.count(1)
    value = call.double(0)

    def build(x: str) -> str:
        # 1/-0.0 is the negative infinity
        infinite = (
            f"CASE WHEN atan2({x}, CAST('-1' AS DOUBLE)) < 0 THEN CAST('-inf' AS DOUBLE) ELSE CAST('inf' AS DOUBLE) END"
        )
        over = f"CASE WHEN {below}({x}) = 0 THEN {infinite} ELSE CAST('1' AS DOUBLE) / {below}({x}) END"
        return f"CASE WHEN isfinite({x}) THEN {over} WHEN {x} IS NOT NULL THEN {_NAN} END"

    return strict(DOUBLE, let(value.duckdb, build), call.spark, (value,))


@scalar(_SECTION, "asin acos", "number", "double", f"NaN outside -1 to 1; {_ULP}")
def _inverse(call: Call) -> Typed:
    return _inside(call, "abs({x}) <= 1", f"{call.name}({{x}})")


@scalar(_SECTION, "atan sinh cosh tanh asinh cbrt", "number", "double", _ULP)
def _everywhere(call: Call) -> Typed:
    return _inside(call, None, f"{call.name}({{x}})")


@scalar(_SECTION, "acosh", "number", "double", f"NaN below 1; {_ULP}")
def _acosh(call: Call) -> Typed:
    return _inside(call, "{x} >= 1", "acosh({x})")


@scalar(_SECTION, "atanh", "number", "double", f"NaN outside -1 to 1; {_ULP}")
def _atanh(call: Call) -> Typed:
    inner = "CASE WHEN abs({x}) = 1 THEN {x} * CAST('inf' AS DOUBLE) ELSE atanh({x}) END"
    return _inside(call, "abs({x}) <= 1", inner)


def _inside(call: Call, domain: str | None, template: str) -> Typed:
    """A function of one double that is NaN outside its domain."""
    call.count(1)
    value = call.double(0)

    def build(x: str) -> str:
        made = template.format(x=x)
        if domain is None:
            return made
        return f"CASE WHEN {domain.format(x=x)} THEN {made} WHEN {x} IS NOT NULL THEN {_NAN} END"

    return strict(DOUBLE, let(value.duckdb, build), call.spark, (value,))


@scalar(_SECTION, "atan2", "number, number", "double", f"the angle of (second, first); {_ULP}")
def _atan2(call: Call) -> Typed:
    call.count(2)
    # Spark adds 0.0 to both, so that a negative zero counts as a positive one
    a, b = call.double(0), call.double(1)
    zero = "CAST('0' AS DOUBLE)"
    return strict(DOUBLE, f"atan2({a.duckdb} + {zero}, {b.duckdb} + {zero})", call.spark, (a, b))


@scalar(_SECTION, "degrees radians", "number", "double", _ULP)
def _angle(call: Call) -> Typed:
    return _inside(call, None, f"{call.name}({{x}})")


@scalar(_SECTION, "rint", "number", "double", "half to even")
def _rint(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)

    def build(x: str) -> str:
        # what is larger has no fraction; the sign of a zero stays
        near = f"CASE WHEN {x} < 0 THEN -round_even(-{x}, 0) ELSE round_even({x}, 0) END"
        return f"CASE WHEN abs({x}) < 4503599627370496 AND {x} <> 0 THEN {near} ELSE {x} END"

    return strict(DOUBLE, let(value.duckdb, build), call.spark, (value,))


@scalar(
    _SECTION, "log", "[number, ]number", "double", f"natural, or to the base of the first; NULL at or below 0; {_ULP}"
)
def _log(call: Call) -> Typed:
    call.count(1, 2)
    value = call.double(len(call) - 1)
    if len(call) == 1:
        body = let(value.duckdb, lambda x: f"CASE WHEN {x} > 0 THEN ln({x}) END")
        return strict(DOUBLE, body, call.spark, (value,), nullable=True)
    base = call.double(0)

    def build(x: str) -> str:
        def over(b: str) -> str:
            return f"CASE WHEN {x} > 0 AND {b} > 0 THEN ln({x}) / ln({b}) END"

        return let(base.duckdb, over)

    return strict(DOUBLE, let(value.duckdb, build), call.spark, (base, value), nullable=True)


@scalar(_SECTION, "e pi", "", "double", "the constant")
def _constant(call: Call) -> Typed:
    call.count(0)
    return literal(math.e if call.name == "e" else math.pi).with_spark(call.spark)


@scalar(
    _SECTION, "width_bucket", "value, min, max, buckets", "bigint", "0 below, buckets + 1 above; NULL for no buckets"
)
def _width_bucket(call: Call) -> Typed:
    call.count(4)
    operands = [call.double(0), call.double(1), call.double(2), call.bigint(3)]
    v, low, high, n = (o.duckdb for o in operands)
    finite = f"isfinite({low}) AND isfinite({high}) AND NOT isnan({v})"
    usable = f"{n} > 0 AND {n} < 9223372036854775807 AND {low} <> {high} AND {finite}"
    up = f"({n} * (({v} - {low}) / ({high} - {low})))"
    down = f"({n} * (({low} - {v}) / ({low} - {high})))"
    rising = f"CASE WHEN {v} < {low} THEN 0 WHEN {v} >= {high} THEN {n} + 1 ELSE CAST(trunc({up}) AS BIGINT) + 1 END"
    falling = f"CASE WHEN {v} > {low} THEN 0 WHEN {v} <= {high} THEN {n} + 1 ELSE CAST(trunc({down}) AS BIGINT) + 1 END"
    duckdb = f"TRY(CASE WHEN {usable} THEN CASE WHEN {low} < {high} THEN {rising} ELSE {falling} END END)"
    return strict(BIGINT, duckdb, call.spark, operands, nullable=True)
