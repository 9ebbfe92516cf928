"""Spark's ANSI type rules: which types meet, and in which type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import NOT_CONSTANT, VOID, Typed, any_of, duckdb_type, given, is_null, literal
from lodestream.model.types import DATE, DOUBLE, INTEGERS, TIMESTAMP, DataType

_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 20}


def decimal_type(precision: int, scale: int) -> DataType:
    """`decimal(precision, scale)`."""
    return DataType("decimal", precision=precision, scale=scale)


def as_decimal(value: Typed, *, tight: bool = False) -> DataType:
    """The decimal that holds an integer type; `tight` counts a literal's own digits (Spark's DecimalPrecision)."""
    if value.type.name == "decimal":
        return value.type
    if tight and isinstance(value.constant, int):
        return decimal_type(len(str(abs(value.constant))), 0)
    return decimal_type(_DIGITS[value.type.name], 0)


def wider_decimal(left: DataType, right: DataType) -> DataType | None:
    """The decimal that holds both without loss; None when that takes more than 38 digits."""
    scale = max(left.scale, right.scale)
    digits = max(left.precision - left.scale, right.precision - right.scale) + scale
    return decimal_type(digits, scale) if digits <= 38 else None


def meet(left: DataType, right: DataType) -> DataType | None:
    """The type in which values of both types meet (CASE, COALESCE, comparisons); None when they must be cast."""
    if left == right or right == VOID:
        return left
    if left == VOID:
        return right
    if left.name in INTEGERS and right.name in INTEGERS:
        return left if INTEGERS.index(left.name) > INTEGERS.index(right.name) else right
    names = {left.name, right.name}
    if names == {"date", "timestamp"}:
        return TIMESTAMP
    if not (left.is_numeric and right.is_numeric):
        return None
    if names & {"double", "float"}:
        return DOUBLE
    decimals = [t if t.name == "decimal" else decimal_type(_DIGITS[t.name], 0) for t in (left, right)]
    return wider_decimal(*decimals)


def meet_all(values: Sequence[Typed], what: str, offset: int | None) -> DataType:
    """The type in which all values meet. Raises ExpressionError P111 when there is none."""
    found = VOID
    for value in values:
        common = meet(found, value.type)
        if common is None:
            raise ExpressionError("P111", f"{what} mixes {found} and {value.type}", offset=offset)
        found = common
    return found


def widen(value: Typed, to: DataType) -> Typed:
    """An implicit cast along `meet`: it loses nothing, and Spark does it by itself, so the Spark text stays."""
    if value.type == to:
        return value
    if value.type == VOID:
        return replace(literal(None, to), spark=value.spark)
    if value.is_literal and to.is_numeric and isinstance(value.constant, int | Decimal):
        number = value.constant
        if to.name == "double":
            return replace(literal(float(number), to), spark=value.spark)
        return replace(literal(Decimal(number) if to.name == "decimal" else number, to), spark=value.spark)
    if value.type == DATE and to == TIMESTAMP:
        duckdb = f"TRY_CAST({value.duckdb} AS TIMESTAMP)"
        if value.is_literal:
            return replace(value, type=to, duckdb=duckdb)
        error = any_of(value.error, given(value, is_null(duckdb)))
        return replace(value, type=to, duckdb=duckdb, error=error, nullable=True)
    return replace(value, type=to, duckdb=f"CAST({value.duckdb} AS {duckdb_type(to)})", constant=NOT_CONSTANT)
