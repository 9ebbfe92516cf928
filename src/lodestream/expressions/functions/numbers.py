"""Functions of numbers."""

from __future__ import annotations

from dataclasses import replace

from lodestream.expressions.casts import cast
from lodestream.expressions.coercion import decimal_type, widen
from lodestream.expressions.operators import arithmetic, negate
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import NOT_CONSTANT, Typed, duckdb_type, in_turn, is_null, let, strict
from lodestream.model.types import BIGINT, DOUBLE, DataType, parse_type

_SECTION = "Numbers"
_ULP = "engines may differ in the last digit"


@scalar(_SECTION, "abs", "number", "its type", "raises for the smallest integer")
def _abs(call: Call) -> Typed:
    call.count(1)
    value = call.number(0)
    if value.type.is_integer:
        duckdb = f"TRY(abs({value.duckdb}))"
        return strict(value.type, duckdb, call.spark, (value,), own=is_null(duckdb))
    if value.type.precision > 34:
        raise call.error(f"Spark rounds {value.type} to 34 digits", "P103")
    return strict(value.type, f"abs({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "negative", "number", "its type", "as the minus sign")
def _negative(call: Call) -> Typed:
    call.count(1)
    return negate(replace(call.number(0), constant=NOT_CONSTANT), call.offset).with_spark(call.spark)


@scalar(_SECTION, "positive", "number", "its type", "the number itself")
def _positive(call: Call) -> Typed:
    call.count(1)
    return call.number(0).with_spark(call.spark)


@scalar(_SECTION, "sign signum", "number", "double", "-1.0, 0.0 or 1.0")
def _sign(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)
    body = let(value.duckdb, lambda x: f"CASE WHEN isnan({x}) OR {x} = 0 THEN {x} ELSE CAST(sign({x}) AS DOUBLE) END")
    return strict(DOUBLE, body, call.spark, (value,))


@scalar(_SECTION, "ceil ceiling floor", "number", "bigint; decimal(p-s+1,0) for decimals", "")
def _whole(call: Call) -> Typed:
    call.count(1)
    value = call.number(0)
    name = "floor" if call.name == "floor" else "ceil"
    if value.type.is_integer:
        return widen(value, BIGINT).with_spark(call.spark)
    if value.type.name == "decimal":
        kind = decimal_type(min(38, value.type.precision - value.type.scale + 1), 0)
        return strict(kind, f"CAST({name}({value.duckdb}) AS {duckdb_type(kind)})", call.spark, (value,))
    value = widen(value, DOUBLE)

    def build(x: str) -> str:
        # Java's conversion saturates and reads NaN as 0
        low, high = f"WHEN {x} <= -9223372036854775808 THEN -9223372036854775808", f"WHEN isnan({x}) THEN 0"
        top = f"WHEN {x} >= 9223372036854775807 THEN 9223372036854775807"
        return f"CASE {high} {low} {top} ELSE TRY_CAST({name}({x}) AS BIGINT) END"

    return strict(BIGINT, let(value.duckdb, build), call.spark, (value,))


def digits_of(call: Call) -> int:
    """The digits that the second argument of a rounding asks for, 0 without it."""
    digits = call.literal_int(1) if len(call) == 2 else 0
    if not 0 <= digits <= 18:
        raise call.error("digits must be a literal from 0 to 18", "P101")
    return digits


def rounded_decimal(kind: DataType, digits: int) -> DataType:
    """The type of a decimal rounded to `digits`."""
    scale = min(kind.scale, digits)
    return decimal_type(min(38, kind.precision - kind.scale + 1 + scale), scale)


@scalar(
    _SECTION,
    "round",
    "number[, int]",
    "its type; decimal(p-s+d+1,d) for decimals",
    "half away from zero; literal d >= 0",
)
def _round(call: Call) -> Typed:
    call.count(1, 2)
    value, digits = call.number(0), digits_of(call)
    if value.type.is_integer:
        return value.with_spark(call.spark)
    if value.type.name == "decimal":
        kind = rounded_decimal(value.type, digits)
        return strict(kind, f"CAST({value.duckdb} AS {duckdb_type(kind)})", call.spark, (value,))
    if value.type.name == "float":
        raise call.error("takes double, not float", nearest="round(cast(… as double))")

    def build(x: str) -> str:
        # Spark rounds the shortest decimal text of the number: 1.005 is 1.01
        exact = f"TRY_CAST(CAST({x} AS VARCHAR) AS DECIMAL(38,{digits}))"
        slow = f"coalesce(CAST(CAST({exact} AS VARCHAR) AS DOUBLE), {x})"
        if digits > 9:
            return slow
        # away from ties the product decides; adding zero turns -0.0 into the 0.0 that the decimal text gives
        scaled = f"({x} * CAST('1e{digits}' AS DOUBLE))"
        near = f"abs({scaled}) < 1e9 AND abs(abs({scaled} - trunc({scaled})) - 0.5) > 1e-6"
        fast = f"round({scaled}) / CAST('1e{digits}' AS DOUBLE) + CAST('0' AS DOUBLE)"
        return f"CASE WHEN {near} THEN {fast} ELSE {slow} END"

    return strict(DOUBLE, let(value.duckdb, build), call.spark, (value,))


@scalar(_SECTION, "sqrt", "number", "double", "NaN below 0")
def _sqrt(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)
    body = let(value.duckdb, lambda x: f"CASE WHEN {x} < 0 THEN CAST('nan' AS DOUBLE) ELSE sqrt({x}) END")
    return strict(DOUBLE, body, call.spark, (value,))


@scalar(_SECTION, "exp", "number", "double", _ULP)
def _exp(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)
    return strict(DOUBLE, f"exp({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "ln log10 log2", "number", "double", f"NULL at or below 0; {_ULP}")
def _log(call: Call) -> Typed:
    call.count(1)
    value = call.double(0)
    body = let(value.duckdb, lambda x: f"CASE WHEN {x} > 0 THEN {call.name}({x}) END")
    return strict(DOUBLE, body, call.spark, (value,), nullable=True)


@scalar(_SECTION, "power pow", "number, number", "double", _ULP)
def _power(call: Call) -> Typed:
    call.count(2)
    a, b = call.double(0), call.double(1)
    return strict(DOUBLE, f"pow({a.duckdb}, {b.duckdb})", call.spark, (a, b))


@scalar(_SECTION, "mod", "number, number", "as %", "sign of the dividend; raises for 0")
def _mod(call: Call) -> Typed:
    call.count(2)
    return arithmetic("%", call.number(0), call.number(1), call.offset).with_spark(call.spark)


@scalar(_SECTION, "pmod", "integer, integer", "the wider type", "never negative for a positive divisor; raises for 0")
def _pmod(call: Call) -> Typed:
    call.count(2)
    a, b = call.number(0), call.number(1)
    if not (a.type.is_integer and b.type.is_integer):
        raise call.error("takes integers")
    made = arithmetic("%", a, b, call.offset)
    a, b = widen(a, made.type), widen(b, made.type)
    target = duckdb_type(made.type)
    wide = "HUGEINT" if made.type == BIGINT else "BIGINT"

    # the sum wraps around in Spark when both are negative and large; small types are added as ints there
    low = -(2**63) if made.type == BIGINT else -(2**31)

    def build(r: str) -> str:
        n = f"CAST({b.duckdb} AS {wide})"
        total = let(
            f"(CAST({r} AS {wide}) + {n})",
            lambda s: f"CASE WHEN {s} < {low} THEN {s} - 2 * ({low}::{wide}) ELSE {s} END",
        )
        return f"CASE WHEN {r} < 0 THEN ({total}) % nullif({n}, 0) ELSE {r} END"

    return replace(made, duckdb=f"CAST({let(made.duckdb, build)} AS {target})", spark=call.spark)


@scalar(
    _SECTION,
    "try_add try_subtract try_multiply try_divide",
    "number, number",
    "as the operator",
    "NULL where it raises",
)
def _try(call: Call) -> Typed:
    call.count(2)
    symbol = {"try_add": "+", "try_subtract": "-", "try_multiply": "*", "try_divide": "/"}[call.name]
    return attempted(call, symbol)


@scalar(
    _SECTION, "tinyint smallint int bigint float double boolean binary", "value", "the type named", "as cast(… as type)"
)
def _to_type(call: Call) -> Typed:
    call.count(1)
    return cast(call[0], parse_type(call.name), offset=call.offset).with_spark(call.spark)


@scalar("Strings", "string", "value", "string", "as cast(… as string)")
def _to_string(call: Call) -> Typed:
    call.count(1)
    return cast(call[0], DataType("string"), offset=call.offset).with_spark(call.spark)


def attempted(call: Call, symbol: str) -> Typed:
    """An operator that is NULL where it raises; its operands may still raise, divisors before dividends."""
    made = arithmetic(symbol, call.number(0), call.number(1), call.offset)
    order = (call[1], call[0]) if symbol in ("/", "%") else (call[0], call[1])
    return replace(made, spark=call.spark, error=in_turn(order), nullable=True)
