"""Functions of the bits of integers, and whole-number functions."""

from __future__ import annotations

from lodestream.expressions import conditionals
from lodestream.expressions.coercion import widen
from lodestream.expressions.functions.numbers import attempted, digits_of, rounded_decimal
from lodestream.expressions.operators import compare, from_unscaled, unscaled
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import VOID, Typed, any_of, duckdb_type, lazy, let, literal, strict
from lodestream.model.types import BIGINT, BINARY, DOUBLE, INT, STRING, DataType

_SECTION = "Numbers"
_WIDTH = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}


def _integer(call: Call, index: int) -> Typed:
    """An integer argument; below int it becomes one, as in Spark."""
    value = call.number(index)
    if not value.type.is_integer:
        raise call.error(f"argument {index + 1} must be an integer, not {value.type}", nearest="cast(… as bigint)")
    return value if value.type == BIGINT else widen(value, INT)


@scalar(
    _SECTION,
    "shiftleft shiftright shiftrightunsigned",
    "int or bigint, int",
    "its type",
    "by the count modulo 32 or 64",
)
def _shift(call: Call) -> Typed:
    call.count(2)
    value, count = _integer(call, 0), call.int_(1)
    bits = _WIDTH[value.type.name]
    ones = f"{2**bits - 1}::HUGEINT"
    by = f"({count.duckdb} & {bits - 1})"
    if call.name == "shiftright":
        return strict(value.type, f"({value.duckdb} >> {by})", call.spark, (value, count))
    factor = f"(1::HUGEINT << {by}::HUGEINT)"
    unsigned = f"(CAST({value.duckdb} AS HUGEINT) & {ones})"
    moved = f"(({unsigned} * {factor}) & {ones})" if call.name == "shiftleft" else f"({unsigned} // {factor})"
    signed = let(moved, lambda n: f"CASE WHEN {n} >= {2 ** (bits - 1)} THEN {n} - {2**bits}::HUGEINT ELSE {n} END")
    return strict(value.type, f"CAST({signed} AS {duckdb_type(value.type)})", call.spark, (value, count))


@scalar(_SECTION, "bit_count", "integer or boolean", "int", "ones of the 64-bit form")
def _bit_count(call: Call) -> Typed:
    call.count(1)
    value = call[0] if call[0].type.name == "boolean" else call.bigint(0)
    return strict(INT, f"CAST(bit_count(CAST({value.duckdb} AS BIGINT)) AS INTEGER)", call.spark, (value,))


@scalar(_SECTION, "bit_get getbit", "integer, int", "tinyint", "from the lowest, 0; raises outside")
def _bit_get(call: Call) -> Typed:
    call.count(2)
    value, at = call.number(0), call.int_(1)
    if not value.type.is_integer:
        raise call.error(f"argument 1 must be an integer, not {value.type}")
    bits = _WIDTH[value.type.name]
    duckdb = f"CAST((CAST({value.duckdb} AS BIGINT) >> greatest(least({at.duckdb}, 63), 0)) & 1 AS TINYINT)"
    own = f"({at.duckdb} < 0 OR {at.duckdb} >= {bits})"
    duckdb = f"CASE WHEN NOT {own} AND {value.duckdb} IS NOT NULL THEN {duckdb} END"
    return strict(DataType("tinyint"), duckdb, call.spark, (value, at), own=own)


@scalar(_SECTION, "bin", "integer", "string", "binary digits; 64 of them below 0")
def _bin(call: Call) -> Typed:
    call.count(1)
    value = call.bigint(0)
    return strict(STRING, f"bin({value.duckdb})", call.spark, (value,))


@scalar("Strings", "hex", "integer, string or binary", "string", "upper case; 16 digits below 0; strings as UTF-8")
def _hex(call: Call) -> Typed:
    call.count(1)
    value = call[0] if call[0].type in (STRING, BINARY) else call.bigint(0)
    return strict(STRING, f"hex({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "factorial", "int", "bigint", "NULL outside 0 to 20")
def _factorial(call: Call) -> Typed:
    call.count(1)
    value = call.int_(0)
    duckdb = f"CASE WHEN {value.duckdb} BETWEEN 0 AND 20 THEN CAST(factorial({value.duckdb}) AS BIGINT) END"
    return strict(BIGINT, duckdb, call.spark, (value,), nullable=True)


@scalar(_SECTION, "bround", "integer or decimal[, int]", "as round", "half to even; literal d >= 0")
def _bround(call: Call) -> Typed:
    call.count(1, 2)
    value, digits = call.number(0), digits_of(call)
    if value.type.is_integer:
        return value.with_spark(call.spark)
    if value.type.name != "decimal":
        raise call.error(f"takes integers and decimals, not {value.type}", nearest="bround(cast(… as decimal(…)))")
    kind = rounded_decimal(value.type, digits)
    if value.type.precision + value.type.scale > 37 or kind.precision + kind.scale > 38:
        raise call.error(f"needs more than 38 digits for {value.type}", "P103", "bround(cast(… as decimal(18,…)))")
    unit = 10 ** (value.type.scale - kind.scale)
    if unit == 1:
        return strict(kind, f"CAST({value.duckdb} AS {duckdb_type(kind)})", call.spark, (value,))

    def build(u: str) -> str:
        whole, rest = f"({u} // {unit})", f"(2 * abs({u} % {unit}))"
        up = f"{rest} > {unit} OR ({rest} = {unit} AND {whole} % 2 <> 0)"
        return f"({whole} + CASE WHEN {up} THEN sign({u}) ELSE 0 END)"

    number = let(unscaled(value.duckdb, value.type), build)
    return strict(kind, from_unscaled(f"CAST({number} AS HUGEINT)", kind), call.spark, (value,))


@scalar(_SECTION, "nanvl", "number, number", "double", "the second where the first is NaN")
def _nanvl(call: Call) -> Typed:
    call.count(2)
    a, b = call.double(0), call.double(1)
    duckdb = f"CASE WHEN isnan({a.duckdb}) THEN {b.duckdb} ELSE {a.duckdb} END"
    late = f"coalesce(isnan({a.duckdb}), false) AND {b.error}" if b.error else None
    error = any_of(a.error, f"({late})" if late else None)
    return lazy(DOUBLE, duckdb, call.spark, (a, b), error=error, nullable=a.nullable or b.nullable)


@scalar(_SECTION, "nullifzero", "number", "its type", "NULL for 0")
def _nullifzero(call: Call) -> Typed:
    call.count(1)
    value = call.number(0)
    return conditionals.nullif(value, literal(0), call.offset).with_spark(call.spark)


@scalar(_SECTION, "zeroifnull", "number", "its type", "0 for NULL")
def _zeroifnull(call: Call) -> Typed:
    call.count(1)
    return conditionals.coalesce((call.number(0), literal(0)), call.spark, call.offset)


@scalar(_SECTION, "try_mod", "number, number", "as %", "NULL for 0")
def _try_mod(call: Call) -> Typed:
    call.count(2)
    return attempted(call, "%")


@scalar("Choice", "equal_null", "value, value", "boolean", "as <=>")
def _equal_null(call: Call) -> Typed:
    call.count(2)
    return compare("<=>", call[0], call[1], call.offset).with_spark(call.spark)


@scalar("Choice", "typeof", "value", "string", "its type as Spark writes it; the value is not evaluated")
def _typeof(call: Call) -> Typed:
    call.count(1)
    name = str(call[0].type)
    if call[0].type == VOID:
        raise call.error("takes a value that has a type")
    return literal(name).with_spark(call.spark)
