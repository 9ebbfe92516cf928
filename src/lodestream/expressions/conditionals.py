"""CASE, IF, COALESCE and their kin: the forms in which a branch not taken cannot err."""

from __future__ import annotations

from collections.abc import Sequence

from lodestream.expressions.coercion import meet_all, widen
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.operators import boolean, comparable, compare, logic
from lodestream.expressions.typed import Typed, any_of, duckdb_type, eager, lazy, literal, union
from lodestream.model.types import BOOLEAN, DataType


def case(branches: Sequence[tuple[Typed, Typed]], default: Typed | None, offset: int | None) -> Typed:
    """CASE WHEN … THEN … ELSE … END; the first true condition decides, later ones are not evaluated."""
    conditions = [boolean(condition, "when", offset) for condition, _ in branches]
    last = default if default is not None else literal(None)
    kind = meet_all([*(value for _, value in branches), last], "case", offset)
    values = [widen(value, kind) for _, value in branches]
    final = widen(last, kind)
    pairs = list(zip(conditions, values, strict=True))
    duckdb = "CASE " + "".join(f"WHEN {c.duckdb} THEN {v.duckdb} " for c, v in pairs) + f"ELSE {final.duckdb} END"
    spark = "CASE " + "".join(f"WHEN {c.spark} THEN {v.spark} " for c, v in pairs)
    spark += f"ELSE {default.spark} END" if default is not None else "END"
    error = final.error
    for condition, value in reversed(pairs):
        if value.error or error:
            error = f"CASE WHEN {condition.duckdb} THEN {value.error or 'false'} ELSE {error or 'false'} END"
        error = any_of(condition.error, error)
    parts = [*conditions, *values, final]
    nullable = any(v.nullable for v in [*values, final])
    return lazy(kind, duckdb, spark, parts, error=error, nullable=nullable)


def if_(condition: Typed, then: Typed, otherwise: Typed, offset: int | None) -> Typed:
    """IF(condition, then, otherwise)."""
    made = case([(condition, then)], otherwise, offset)
    return made.with_spark(f"if({condition.spark}, {then.spark}, {otherwise.spark})")


def coalesce(values: Sequence[Typed], spark: str, offset: int | None) -> Typed:
    """The first value that is not NULL; later ones are not evaluated."""
    kind = meet_all(values, "coalesce", offset)
    values = [widen(value, kind) for value in values]
    error: str | None = None
    for value in reversed(values):
        late = f"({value.duckdb} IS NULL AND {error})" if error else None
        error = any_of(value.error, late)
    nullable = all(value.nullable for value in values)
    duckdb = f"coalesce({', '.join(v.duckdb for v in values)})"
    return lazy(kind, duckdb, spark, values, error=error, nullable=nullable)


def nullif(left: Typed, right: Typed, offset: int | None) -> Typed:
    """NULL where both are equal, else the left one; Spark defines it as IF(left = right, NULL, left)."""
    made = if_(compare("=", left, right, offset), literal(None), left, offset)
    return made.with_spark(f"nullif({left.spark}, {right.spark})")


def extreme(name: str, values: Sequence[Typed], spark: str, offset: int | None) -> Typed:
    """GREATEST and LEAST; NULLs are skipped."""
    kind = meet_all(values, name, offset)
    if not comparable(kind):
        raise ExpressionError("P111", f"{name}: {kind} has no order", offset=offset)
    values = [widen(value, kind) for value in values]
    duckdb = f"{name}({', '.join(v.duckdb for v in values)})"
    return eager(kind, duckdb, spark, values, nullable=all(v.nullable for v in values))


def between(value: Typed, low: Typed, high: Typed, offset: int | None) -> Typed:
    """BETWEEN, both bounds inclusive: value >= low AND value <= high."""
    made = logic("AND", compare(">=", value, low, offset), compare("<=", value, high, offset), offset)
    return made.with_spark(f"({value.spark} BETWEEN {low.spark} AND {high.spark})")


def in_list(value: Typed, items: Sequence[Typed], offset: int | None) -> Typed:
    """IN over a list: NULL when nothing equals but something is NULL; items after a match are not evaluated."""
    kind = meet_all([value, *items], "in", offset)
    if not comparable(kind):
        raise ExpressionError("P111", f"in: {kind} cannot be compared", offset=offset)
    wide = widen(value, kind)
    items = [widen(item, kind) for item in items]
    spark = f"({value.spark} IN ({', '.join(item.spark for item in items)}))"
    error: str | None = None
    for item in reversed(items):
        missed = f"({wide.duckdb} IS DISTINCT FROM {item.duckdb} AND {error})" if error else None
        error = any_of(item.error, missed)
    if error and value.nullable:
        error = f"({wide.duckdb} IS NOT NULL AND {error})"
    parts = [wide, *items]
    duckdb = f"({wide.duckdb} IN ({', '.join(item.duckdb for item in items)}))"
    nullable = any(part.nullable for part in parts)
    return lazy(BOOLEAN, duckdb, spark, parts, error=any_of(wide.error, error), nullable=nullable)


def foreign(kind: DataType, inner: str, spark: str, arguments: Sequence[Typed]) -> Typed:
    """A function of DuckDB's own, which may raise."""
    errors = any_of(*(argument.error for argument in arguments), f"TRY({inner} IS NULL) IS NULL")
    return Typed(
        kind,
        f"TRY(CAST({inner} AS {duckdb_type(kind)}))",
        spark,
        errors,
        True,
        union(arguments),
        portable=False,
        masked=any(argument.error for argument in arguments),
    )
