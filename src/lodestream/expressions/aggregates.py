"""Aggregate functions as mergeable pieces and a final formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from lodestream.expressions.coercion import decimal_type
from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.operators import (
    boolean,
    comparable,
    rounded_quotient,
    unscaled,
)  # fmt: skip
from lodestream.expressions.pieces import OVER, Made, Piece
from lodestream.expressions.statistics import BUILDERS, PAIRS, SORTED
from lodestream.expressions.typed import NOT_CONSTANT, VOID, Typed, all_of, any_of, duckdb_type, literal, union
from lodestream.expressions.walk import Walker
from lodestream.model.types import BIGINT, BOOLEAN, DOUBLE, INT, DataType

_WIDE = decimal_type(38, 0)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate call as read: its argument (None for `*`), DISTINCT and FILTER."""

    name: str
    argument: Typed | None
    distinct: bool
    condition: Typed | None
    offset: int | None
    second: Typed | None = None

    @classmethod
    def read(
        cls, name: str, node: exp.Expr, rows: Walker, condition: Typed | None, *, ordered: bool = False
    ) -> Aggregation:
        """Read a call; its argument is compiled by `rows`. `ordered`: it stands directly inside a sort.

        Raises:
            ExpressionError: P111, P113.
        """
        offset = offset_of(node)
        arguments, distinct = list(node.expressions), False
        if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            arguments, distinct = list(arguments[0].expressions), True
        count = 2 if name in PAIRS else 1
        if len(arguments) != count:
            plural = "s" if count > 1 else ""
            raise ExpressionError(
                "P111", f"{name}: takes {count} argument{plural}, not {len(arguments)}", offset=offset
            )
        if name in SORTED and not ordered:
            raise ExpressionError("P104", f"{name} has no order", nearest=f"sort_array({name}(…))", offset=offset)
        if condition is not None:
            condition = boolean(condition, "filter", offset)
        if isinstance(arguments[0], exp.Star):
            if name != "count" or distinct:
                raise ExpressionError("P111", f"{name}: takes no *", nearest="count(*)", offset=offset)
            return cls(name, None, False, condition, offset)
        values = [rows.walk(argument) for argument in arguments]
        return cls(name, values[0], distinct, condition, offset, values[1] if count == 2 else None)

    @property
    def spark(self) -> str:
        """The call as Spark text."""
        inner = ", ".join(v.spark for v in (self.argument, self.second) if v is not None) or "*"
        text = f"{self.name}({'DISTINCT ' if self.distinct else ''}{inner})"
        return text if self.condition is None else f"{text} FILTER (WHERE {self.condition.spark})"

    @property
    def inner(self) -> str:
        """What DuckDB aggregates."""
        if self.argument is None:
            return "*"
        return f"DISTINCT {self.argument.duckdb}" if self.distinct else self.argument.duckdb

    @property
    def filter(self) -> str:
        """DuckDB's FILTER clause, if any, and the place where a window goes."""
        return OVER if self.condition is None else f" FILTER (WHERE {self.condition.duckdb}){OVER}"

    @property
    def parts(self) -> list[Typed]:
        """What the call reads."""
        return [part for part in (self.argument, self.second, self.condition) if part is not None]

    @property
    def input_error(self) -> str | None:
        """True for a row whose argument or condition errs; rows that the filter leaves out are not evaluated."""
        late = any_of(*(value.error for value in (self.argument, self.second) if value is not None))
        if self.condition is None or late is None:
            return any_of(late, self.condition.error if self.condition else None)
        return any_of(self.condition.error, all_of(f"{self.condition.duckdb} IS NOT DISTINCT FROM true", late))

    def build(self) -> Made:
        """The call in pieces. Raises ExpressionError P111, P103."""
        argument = self.argument
        if argument is not None and argument.type == VOID:
            argument = literal(None, BOOLEAN if self.name in _BOOLEANS else INT)
        if self.distinct and self.name not in ("count", "sum", "avg", "mean", "min", "max"):
            raise self.refuse("takes no distinct")
        return _BUILDERS[self.name](replace(self, argument=argument))

    def made(
        self, pieces: Sequence[Piece], kind: DataType, final: Callable[..., str], *,
        error: Callable[..., str] | None = None, nullable: bool = True,
    ) -> Made:  # fmt: skip
        """A `Made` whose result is `final` over the names of the pieces."""
        portable = all(part.portable for part in self.parts)

        def result(names: Sequence[str]) -> Typed:
            return Typed(
                kind, final(*names), self.spark, error(*names) if error else None, nullable, union(self.parts),
                NOT_CONSTANT, portable,
            )  # fmt: skip

        return Made(tuple(pieces), self.input_error, result)

    def refuse(self, message: str, code: str = "P111", nearest: str | None = None) -> ExpressionError:
        """An error that points at this call."""
        return ExpressionError(code, f"{self.name}: {message}", nearest=nearest, offset=self.offset)


def _count(call: Aggregation) -> Made:
    piece = Piece(f"count({call.inner}){call.filter}", "CAST(sum({}) AS BIGINT)", BIGINT)
    return call.made([piece], BIGINT, lambda p: f"coalesce({p}, 0)", nullable=False)


def _argument(call: Aggregation) -> Typed:
    if call.argument is None:
        raise call.refuse("takes one value")
    return call.argument


def _count_if(call: Aggregation) -> Made:
    value = _flag(call)
    piece = Piece(f"count(nullif({value.duckdb}, false)){call.filter}", "CAST(sum({}) AS BIGINT)", BIGINT)
    return call.made([piece], BIGINT, lambda p: f"coalesce({p}, 0)", nullable=False)


def _flag(call: Aggregation) -> Typed:
    return boolean(_argument(call), call.name, call.offset)


def _sum(call: Aggregation) -> Made:
    value = _argument(call)
    if value.type.is_integer:
        piece = _whole(call, value)
        return call.made(
            [piece], BIGINT, lambda p: f"TRY_CAST({p} AS BIGINT)",
            error=lambda p: f"({p} IS NOT NULL AND TRY_CAST({p} AS BIGINT) IS NULL)",
        )  # fmt: skip
    if value.type.name == "decimal":
        kind = decimal_type(min(38, value.type.precision + 10), value.type.scale)
        return call.made([_decimal_sum(call, value)], kind, lambda p: f"CAST({p} AS {duckdb_type(kind)})")
    return call.made([_double_sum(call, value)], DOUBLE, lambda p: p)


def _whole(call: Aggregation, value: Typed) -> Piece:
    # 2^63 values of 2^63 stay below 10^38, so no sum of bigints leaves the state's type
    return Piece(f"CAST(sum({call.inner}){call.filter} AS DECIMAL(38,0))", "CAST(sum({}) AS DECIMAL(38,0))", _WIDE)


def _decimal_sum(call: Aggregation, value: Typed) -> Piece:
    kind = decimal_type(min(38, value.type.precision + 10), value.type.scale)
    if value.type.precision > 28:
        nearest = f"{call.name}(cast(… as decimal(28,{min(value.type.scale, 28)})))"
        raise call.refuse(f"a sum of {value.type} can exceed 38 digits", "P103", nearest)
    target = duckdb_type(kind)
    return Piece(f"CAST(sum({call.inner}){call.filter} AS {target})", f"CAST(sum({{}}) AS {target})", kind)


def _double_sum(call: Aggregation, value: Typed) -> Piece:
    if value.type.name not in ("double", "float") and not value.type.is_integer:
        raise call.refuse(f"takes a number, not {value.type}")
    distinct = "DISTINCT " if call.distinct else ""
    return Piece(f"sum({distinct}CAST({value.duckdb} AS DOUBLE)){call.filter}", "sum({})", DOUBLE)


def _avg(call: Aggregation) -> Made:
    value = _argument(call)
    count = Piece(f"count({call.inner}){call.filter}", "CAST(sum({}) AS BIGINT)", BIGINT)
    if value.type.name != "decimal":
        if not value.type.is_numeric:
            raise call.refuse(f"takes a number, not {value.type}")
        return call.made([_double_sum(call, value), count], DOUBLE, lambda s, n: f"({s} / nullif({n}, 0))")
    total = _decimal_sum(call, value)
    kind = decimal_type(value.type.precision + 4, value.type.scale + 4)
    if kind.scale > 19 or total.type.precision + total.type.scale + 1 > 38 or total.type.precision + 4 > 37:
        nearest = "avg(cast(… as double))"
        raise call.refuse(f"an exact average of {value.type} needs more than 38 digits", "P103", nearest)

    def final(s: str, n: str) -> str:
        above = f"({unscaled(s, total.type)} * 10000::HUGEINT)"
        return rounded_quotient(above, f"CAST(nullif({n}, 0) AS HUGEINT)", kind)

    return call.made([total, count], kind, final)


def _paired_avg(call: Aggregation) -> Made:
    """REGR_AVGX and REGR_AVGY: the average of one value over rows in which both are known."""
    y, x = _argument(call), call.second
    assert x is not None
    if not (x.type.is_numeric and y.type.is_numeric):
        raise call.refuse("takes two numbers")
    value, other = (x, y) if call.name == "regr_avgx" else (y, x)
    both = f"CASE WHEN {other.duckdb} IS NOT NULL THEN {value.duckdb} END"
    made = _avg(replace(call, argument=replace(value, duckdb=both, nullable=True, constant=NOT_CONSTANT)))
    # `final` carries the text and the columns of this call, not of the rewritten one
    return replace(
        made, final=lambda names: replace(made.final(names), spark=call.spark, columns=union(call.parts)),
        input_error=call.input_error,
    )  # fmt: skip


def _extreme(call: Aggregation) -> Made:
    value = _argument(call)
    if not comparable(value.type):
        raise call.refuse(f"{value.type} has no order")
    piece = Piece(f"{call.name}({call.inner}){call.filter}", f"{call.name}({{}})", value.type)
    return call.made([piece], value.type, lambda p: p)


def _all(call: Aggregation) -> Made:
    value = _flag(call)
    word = "bool_and" if call.name in ("bool_and", "every") else "bool_or"
    return call.made([Piece(f"{word}({value.duckdb}){call.filter}", f"{word}({{}})", BOOLEAN)], BOOLEAN, lambda p: p)


_BOOLEANS = ("count_if", "bool_and", "bool_or", "every", "some", "any")
_BUILDERS: dict[str, Callable[[Aggregation], Made]] = {
    "count": _count, "count_if": _count_if, "sum": _sum, "avg": _avg, "mean": _avg, "min": _extreme, "max": _extreme,
    "bool_and": _all, "every": _all, "bool_or": _all, "some": _all, "any": _all, "regr_avgx": _paired_avg,
    "regr_avgy": _paired_avg, **BUILDERS,
}  # fmt: skip
AGGREGATES = frozenset(_BUILDERS)
"""Names of the aggregate functions."""
