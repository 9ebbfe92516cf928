"""Operators: arithmetic with ANSI overflow, comparison, logic."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from lodestream.expressions.coercion import as_decimal, decimal_type, meet, widen
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import (
    VOID,
    Typed,
    all_of,
    any_of,
    duckdb_type,
    eager,
    in_turn,
    is_null,
    lazy,
    let,
    literal,
    strict,
)
from lodestream.model.types import BIGINT, BOOLEAN, DOUBLE, DataType


def _refuse(symbol: str, left: DataType, right: DataType, offset: int | None) -> ExpressionError:
    hint = None
    if "string" in (left.name, right.name):
        hint = f"cast(… as {right if left.name == 'string' else left})"
    return ExpressionError("P111", f"no {left} {symbol} {right}", nearest=hint, offset=offset)


# Arithmetic ---------------------------------------------------------------------------------------------------------


def arithmetic(symbol: str, left: Typed, right: Typed, offset: int | None) -> Typed:
    """`left symbol right` for + - * / % div.

    Raises:
        ExpressionError: P111, P103.
    """
    left, right = (replace(v, type=DataType("int")) if v.type == VOID else v for v in (left, right))
    a, b = left.type, right.type
    spark = f"({left.spark} {symbol} {right.spark})"
    if not (a.is_numeric and b.is_numeric):
        raise _refuse(symbol, a, b, offset)
    if symbol == "div":
        return _whole_division(left, right, spark, offset)
    if "decimal" in (a.name, b.name) and not {a.name, b.name} & {"double", "float"}:
        return _decimal(symbol, left, right, spark, offset)
    if symbol == "/":
        return _division(left, right, spark)
    common = meet(a, b)
    assert common
    left, right = widen(left, common), widen(right, common)
    pair = (left, right)
    if common.is_integer and symbol != "%":
        duckdb = f"TRY({left.duckdb} {symbol} {right.duckdb})"
        return strict(common, duckdb, spark, pair, own=is_null(duckdb))
    if symbol != "%":
        return strict(common, f"({left.duckdb} {symbol} {right.duckdb})", spark, pair)
    return _remainder(left, right, common, spark)


def _remainder(left: Typed, right: Typed, common: DataType, spark: str) -> Typed:
    own = _is_zero(right)
    target, wide = duckdb_type(common), duckdb_type(common)
    if common.is_integer and (own or right.constant == -1):
        # MIN % -1 is 0 in Spark and an overflow in DuckDB unless there is room
        wide = "HUGEINT" if common.name == "bigint" else "BIGINT"
    a, b = (v.duckdb if wide == target else f"CAST({v.duckdb} AS {wide})" for v in (left, right))
    by = b if own is None else f"nullif({b}, 0)"
    duckdb = f"({a} % {by})" if wide == target else f"CAST({a} % {by} AS {target})"
    return strict(common, duckdb, spark, (left, right), own=own, order=(right, left))


def _is_zero(value: Typed) -> str | None:
    """True where a divisor is zero; None when it is a literal that is not."""
    if value.is_literal and value.constant is not None and value.constant != 0:
        return None
    return f"{value.duckdb} = 0"


def _division(left: Typed, right: Typed, spark: str) -> Typed:
    left, right = widen(left, DOUBLE), widen(right, DOUBLE)
    own = _is_zero(right)
    by = right.duckdb if own is None else f"nullif({right.duckdb}, 0)"
    return strict(DOUBLE, f"({left.duckdb} / {by})", spark, (left, right), own=own, order=(right, left))


def _whole_division(left: Typed, right: Typed, spark: str, offset: int | None) -> Typed:
    if not (left.type.is_integer and right.type.is_integer):
        raise _refuse("div", left.type, right.type, offset)
    left, right = widen(left, BIGINT), widen(right, BIGINT)
    duckdb = f"TRY({left.duckdb} // nullif({right.duckdb}, 0))"
    safe = isinstance(right.constant, int) and right.constant not in (0, -1)
    own = None if safe else is_null(duckdb)
    return strict(
        BIGINT, f"({left.duckdb} // {right.duckdb})" if safe else duckdb, spark, (left, right), own=own,
        order=(right, left),
    )  # fmt: skip


def _decimal(symbol: str, left: Typed, right: Typed, spark: str, offset: int | None) -> Typed:
    """Spark's DecimalPrecision rules, refused where Spark would drop digits to stay within 38."""
    a, b = as_decimal(left, tight=True), as_decimal(right, tight=True)
    left, right = widen(left, a), widen(right, b)
    if symbol == "/":
        return _decimal_division(left, right, spark, offset)
    if symbol == "*":
        precision, scale = a.precision + b.precision + 1, a.scale + b.scale
    else:
        scale = max(a.scale, b.scale)
        whole = [t.precision - t.scale for t in (a, b)]
        precision = (min(whole) if symbol == "%" else max(whole) + 1) + scale
    if precision > 38 and (symbol == "*" or scale > 6 or precision - scale > 38):
        raise ExpressionError("P103", f"{a} {symbol} {b} needs {precision} digits", offset=offset)
    common = decimal_type(min(precision, 38), scale)
    target = duckdb_type(common)
    if symbol == "%":
        own = _is_zero(right)
        by = right.duckdb if own is None else f"nullif({right.duckdb}, 0)"
        duckdb = f"CAST({left.duckdb} % {by} AS {target})"
        return strict(common, duckdb, spark, (left, right), own=own, order=(right, left))
    operands = _roomy(left.duckdb, a, b, precision), right.duckdb
    if precision <= 38:
        return strict(common, f"CAST({operands[0]} {symbol} {operands[1]} AS {target})", spark, (left, right))
    duckdb = f"TRY(CAST({operands[0]} {symbol} {operands[1]} AS {target}))"
    return strict(common, duckdb, spark, (left, right), own=is_null(duckdb))


def _roomy(duckdb: str, left: DataType, right: DataType, digits: int) -> str:
    """The left operand, wide enough that DuckDB does not compute in 64 bits: it stays there when both fit into them."""
    if digits <= 18 or left.precision > 18 or right.precision > 18:
        return duckdb
    return f"CAST({duckdb} AS DECIMAL(19,{left.scale}))"


def _decimal_division(left: Typed, right: Typed, spark: str, offset: int | None) -> Typed:
    """Exact integer division, rounded half away from zero, while all digits fit into 128 bits."""
    a, b = left.type, right.type
    scale = max(6, a.scale + b.precision + 1)
    precision = a.precision - a.scale + b.scale + scale
    shift = scale - a.scale + b.scale
    kind = decimal_type(min(precision, 38), scale) if scale <= 38 else None
    if precision > 38 or a.precision + shift > 37 or not kind or not exact_quotient(kind, a, b):
        raise ExpressionError(
            "P103", f"{a} / {b} cannot be exact in 38 digits", nearest="cast(… as double) / …", offset=offset
        )
    own = _is_zero(right)
    if isinstance(right.constant, Decimal):
        digits = int(right.constant.scaleb(b.scale))
        above = f"({unscaled(left.duckdb, a)} * {10**shift}::HUGEINT)"
        if digits:
            return strict(kind, rounded_quotient(above, f"({digits})::HUGEINT", kind), spark, (left, right))
    below = unscaled(right.duckdb, b) if own is None else f"nullif({unscaled(right.duckdb, b)}, 0)"
    above = f"({unscaled(left.duckdb, a)} * {10**shift}::HUGEINT)"
    return strict(kind, rounded_quotient(above, below, kind), spark, (left, right), own=own, order=(right, left))


def exact_quotient(kind: DataType, *operands: DataType) -> bool:
    """Whether `unscaled` and `rounded_quotient` can carry these decimals."""
    return 2 * kind.scale <= 38 and all(o.precision + o.scale + 1 <= 38 for o in operands)


def unscaled(duckdb: str, kind: DataType) -> str:
    """A decimal without its point, as a HUGEINT."""
    if kind.scale == 0:
        return f"CAST({duckdb} AS HUGEINT)"
    factor = decimal_type(kind.scale + 1, 0)
    roomy = _roomy(duckdb, kind, factor, kind.precision + factor.precision)
    return f"CAST({roomy} * CAST({10**kind.scale} AS {duckdb_type(factor)}) AS HUGEINT)"


def rounded_quotient(above: str, below: str, kind: DataType) -> str:
    """DuckDB text of `above / below` (HUGEINTs), the unscaled digits of `kind`, rounded half away from zero."""
    digits = let(above, lambda a: let(below, lambda b: f"(({a} + sign({a}) * (abs({b}) // 2)) // {b})"))
    if kind.precision + kind.scale <= 38:
        return from_unscaled(digits, kind)
    return let(digits, lambda d: from_unscaled(d, kind), above=800)


def from_unscaled(digits: str, kind: DataType) -> str:
    """A decimal from its digits without the point, a HUGEINT."""
    if kind.scale == 0:
        return f"CAST({digits} AS {duckdb_type(kind)})"
    unit = f"CAST({format(Decimal(1).scaleb(-kind.scale), 'f')} AS DECIMAL({kind.scale},{kind.scale}))"
    if kind.precision + kind.scale <= 38:
        roomy = decimal_type(max(kind.precision, min(19, 38 - kind.scale)), 0)
        return f"CAST(CAST({digits} AS {duckdb_type(roomy)}) * {unit} AS {duckdb_type(kind)})"
    whole = f"CAST({digits} // {10**kind.scale} AS {duckdb_type(kind)})"
    fraction = decimal_type(max(kind.scale, 19 if kind.scale > 9 else 0), 0)
    part = f"CAST({digits} % {10**kind.scale} AS {duckdb_type(fraction)}) * {unit}"
    return f"CAST({whole} + {part} AS {duckdb_type(kind)})"


def negate(value: Typed, offset: int | None) -> Typed:
    """`-value`."""
    if isinstance(value.constant, int | float) and not isinstance(value.constant, bool):
        return literal(-value.constant) if value.type.name == "int" else replace(
            literal(-value.constant, value.type), spark=f"(-{value.spark})"
        )  # fmt: skip
    if not value.type.is_numeric:
        raise ExpressionError("P111", f"no minus for {value.type}", offset=offset)
    spark = f"(-{value.spark})"
    if value.type.is_integer:
        duckdb = f"TRY(-{value.duckdb})"
        return strict(value.type, duckdb, spark, (value,), own=is_null(duckdb))
    if value.type.precision > 34:
        raise ExpressionError("P103", f"Spark rounds -{value.type} to 34 digits", offset=offset)
    return strict(value.type, f"(-{value.duckdb})", spark, (value,))


def bits(symbol: str, left: Typed, right: Typed, offset: int | None) -> Typed:
    """& | ^ over integers."""
    common = meet(left.type, right.type)
    if common is None or not common.is_integer:
        raise _refuse(symbol, left.type, right.type, offset)
    a, b = widen(left, common), widen(right, common)
    duckdb = f"xor({a.duckdb}, {b.duckdb})" if symbol == "^" else f"({a.duckdb} {symbol} {b.duckdb})"
    return strict(common, duckdb, f"({left.spark} {symbol} {right.spark})", (a, b))


def flip(value: Typed, offset: int | None) -> Typed:
    """~value."""
    if not value.type.is_integer:
        raise ExpressionError("P111", f"no ~ for {value.type}", offset=offset)
    return strict(value.type, f"(~{value.duckdb})", f"(~{value.spark})", (value,))


# Comparison ---------------------------------------------------------------------------------------------------------


def comparable(kind: DataType) -> bool:
    """Whether values of the type can be compared and ordered alike on both engines."""
    return kind.name not in ("array", "map", "struct", "interval")


def compare(symbol: str, left: Typed, right: Typed, offset: int | None) -> Typed:
    """`left symbol right` for = <> < <= > >= and <=>."""
    left, right = meet_pair(symbol, left, right, offset)
    spark = f"({left.spark} {symbol} {right.spark})"
    if symbol == "<=>":
        duckdb = f"({left.duckdb} IS NOT DISTINCT FROM {right.duckdb})"
        return eager(BOOLEAN, duckdb, spark, (left, right), nullable=False)
    return strict(BOOLEAN, f"({left.duckdb} {symbol} {right.duckdb})", spark, (left, right))


def meet_pair(symbol: str, left: Typed, right: Typed, offset: int | None) -> tuple[Typed, Typed]:
    """Both sides in the type in which they meet."""
    names = {left.type.name, right.type.name}
    if "decimal" in names and not names & {"double", "float"}:
        left, right = (
            widen(v, as_decimal(v, tight=True)) if v.is_literal and v.type.is_integer else v for v in (left, right)
        )
    common = meet(left.type, right.type)
    if common is None or not (comparable(left.type) and comparable(right.type)):
        raise _refuse(symbol, left.type, right.type, offset)
    return widen(left, common), widen(right, common)


# Logic --------------------------------------------------------------------------------------------------------------


def boolean(value: Typed, what: str, offset: int | None) -> Typed:
    """`value` if it is boolean (or NULL). Raises ExpressionError P111 otherwise."""
    if value.type == VOID:
        return widen(value, BOOLEAN)
    if value.type != BOOLEAN:
        raise ExpressionError("P111", f"{what} must be boolean, not {value.type}", offset=offset)
    return value


def logic(word: str, left: Typed, right: Typed, offset: int | None) -> Typed:
    """AND and OR: Spark does not evaluate the right side when the left one decides."""
    left, right = boolean(left, word, offset), boolean(right, word, offset)
    decided = "false" if word == "AND" else "true"
    late = right.error and all_of(f"{left.duckdb} IS DISTINCT FROM {decided}", right.error)
    duckdb, spark = f"({left.duckdb} {word} {right.duckdb})", f"({left.spark} {word} {right.spark})"
    nullable = left.nullable or right.nullable
    return lazy(BOOLEAN, duckdb, spark, (left, right), error=any_of(left.error, late), nullable=nullable)


def invert(value: Typed, offset: int | None) -> Typed:
    """NOT."""
    value = boolean(value, "not", offset)
    return strict(BOOLEAN, f"(NOT {value.duckdb})", f"(NOT {value.spark})", (value,))


def truth(value: Typed, word: str, negated: bool, offset: int | None) -> Typed:
    """`value IS [NOT] NULL|TRUE|FALSE`; never NULL."""
    if word != "NULL":
        value = boolean(value, f"is {word.lower()}", offset)
    test = f"IS NOT {word}" if negated else f"IS {word}"
    if word == "NULL" and value.members:
        # Spark knows that it is not NULL and does not make it
        return Typed(BOOLEAN, str(negated).lower(), f"({value.spark} {test})", None, False, value.columns)
    duckdb = test if word == "NULL" else f"IS {'' if negated else 'NOT '}DISTINCT FROM {word.lower()}"
    return eager(BOOLEAN, f"({value.duckdb} {duckdb})", f"({value.spark} {test})", (value,), nullable=False)


__all__ = [
    "arithmetic", "boolean", "comparable", "compare", "in_turn", "invert", "logic", "meet_pair", "negate",
    "rounded_quotient", "truth",
]  # fmt: skip
