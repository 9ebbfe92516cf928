"""Measures: expressions over aggregate functions, taken apart into pieces that merge across batches."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from lodestream.expressions.aggregates import AGGREGATES, Aggregation
from lodestream.expressions.dialect import offset_of, parse_expression
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.scalar import bare, to_expression
from lodestream.expressions.typed import INTERVAL, VOID, Typed, any_of, quote
from lodestream.expressions.walk import Describe, Walker
from lodestream.model.expression import Aggregate, Partial
from lodestream.model.types import Schema


def compile_measures(
    items: Sequence[tuple[str, str]], schema: Schema, *, portable: bool = True, describe: Describe | None = None
) -> tuple[tuple[str, Aggregate], ...]:
    """Check, type and compile measures over one input schema.

    Args:
        items: pairs (measure name, Spark SQL text).
        schema: columns of the input rows.
        portable: see `scalar.compile_scalar`.
        describe: see `scalar.compile_scalar`.

    Returns:
        Pairs (name, aggregate); partials are named p0, p1, … over the whole list and equal ones are shared.

    Raises:
        ExpressionError: a text is refused; the measure's place in `items` is its `item` attribute.
    """
    pieces: dict[tuple[str, str], Partial] = {}
    made: list[tuple[str, Aggregate]] = []
    for index, (name, text) in enumerate(items):
        try:
            made.append((name, _measure(text, schema, pieces, portable, describe)))
        except ExpressionError as error:
            error.item = index
            raise
    return tuple(made)


def _measure(
    text: str, schema: Schema, pieces: dict[tuple[str, str], Partial], portable: bool, describe: Describe | None
) -> Aggregate:
    walker = _MeasureWalker(schema, pieces, portable=portable, describe=describe)
    value = walker.walk(parse_expression(text))
    if value.type in (VOID, INTERVAL):
        raise ExpressionError("P106", "the result has no type that tables store", offset=0)
    if not walker.used:
        raise ExpressionError("P113", "a measure must aggregate", nearest=f"max({text})", offset=0)
    initial_error = any_of(*walker.errors)
    return Aggregate(
        text=bare(value.spark), type=value.type, nullable=value.nullable, partials=tuple(walker.used.values()),
        final=to_expression(value).duckdb, final_error=bare(value.error) if value.error else None,
        initial_error=bare(initial_error) if initial_error else None,
        columns=frozenset(name for _, name in value.columns), portable=value.portable,
    )  # fmt: skip


class _MeasureWalker(Walker):
    """Scalar syntax over partials: columns only inside aggregate calls."""

    def __init__(
        self, schema: Schema, pieces: dict[tuple[str, str], Partial], *, portable: bool, describe: Describe | None
    ) -> None:
        super().__init__(schema, portable=portable, describe=None)
        self._rows = Walker(schema, portable=portable, describe=describe)
        self._pieces = pieces
        self.used: dict[str, Partial] = {}
        self.errors: list[str] = []

    def named(self, name: str, offset: int | None) -> Typed:
        """A column outside any aggregate."""
        super().named(name, offset)
        raise ExpressionError("P113", f"column {name!r} outside an aggregate", nearest=f"max({name})", offset=offset)

    def aggregate(self, name: str, node: exp.Expr) -> Typed:
        """An aggregate call, with or without FILTER."""
        return self._call(name, node, None)

    def filtered(self, node: exp.Filter) -> Typed:
        """aggregate(…) FILTER (WHERE condition)."""
        call = node.this
        if not isinstance(call, exp.Anonymous) or call.name.lower() not in AGGREGATES:
            raise ExpressionError("P113", "filter belongs to an aggregate", offset=offset_of(node))
        return self._call(call.name.lower(), call, self._rows.walk(node.expression.this))

    def _call(self, name: str, node: exp.Expr, condition: Typed | None) -> Typed:
        call = Aggregation.read(name, node, self._rows, condition, ordered=self.sorting)
        if call.distinct:
            raise ExpressionError(
                "P113", f"{name}(distinct …) cannot be merged across batches", nearest=f"{name}(…)", offset=call.offset
            )
        made = call.build()
        if not made.merges:
            raise ExpressionError(
                "P113", f"{name} keeps every value and cannot be merged across batches", nearest="a sql: table",
                offset=call.offset,
            )  # fmt: skip
        self.errors.extend([made.input_error] if made.input_error else [])
        names = []
        for piece in made.pieces:
            key = (piece.initial, piece.merge)
            partial = self._pieces.get(key)
            if partial is None:
                column = f"p{len(self._pieces)}"
                merge = piece.merge.replace("{}", quote(column))
                partial = self._pieces[key] = Partial(column, piece.initial, merge, piece.type)
            self.used[partial.name] = partial
            names.append(quote(partial.name))
        return made.final(names)


_MeasureWalker.HANDLERS = {**Walker.HANDLERS, exp.Filter: _MeasureWalker.filtered}
