"""One SELECT, compiled in layers: rows, groups, windows, result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from lodestream.expressions.aggregates import Aggregation
from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.operators import boolean, comparable
from lodestream.expressions.ordering import order_and_limit, order_keys
from lodestream.expressions.relations import (
    FAILED,
    Output,
    Relation,
    RowWalker,
    Seen,
    Sources,
    checked_condition,
    from_clause,
    raising,
)  # fmt: skip
from lodestream.expressions.scalar import bare
from lodestream.expressions.typed import Typed, quote, spark_name
from lodestream.expressions.walk import Walker
from lodestream.expressions.windows import compile_window

_KNOWN = ("with_", "expressions", "from_", "joins", "where", "group", "having", "order", "limit", "distinct", "kind")


def compile_select(node: exp.Select, sources: Sources) -> Relation:
    """Compile a SELECT without its CTEs.

    Raises:
        ExpressionError: a part of it is refused.
    """
    extra = [key for key, value in node.args.items() if value not in (None, False, []) and key not in _KNOWN]
    if extra or node.args.get("kind") or (node.args.get("distinct") and node.args["distinct"].args.get("on")):
        what = extra[0] if extra else "select with this modifier"
        raise ExpressionError("P101", f"not admitted in a query: {what.rstrip('_')}", offset=offset_of(node))
    layers = _Layers(node, sources)
    items = layers.items()
    tail = layers.spark_tail
    distinct = "DISTINCT " if node.args.get("distinct") else ""
    shown = ", ".join(f"{raising(value).duckdb} AS {quote(name)}" for name, value in items)
    spark = ", ".join(f"{bare(value.spark)} AS {spark_name(name)}" for name, value in items)
    outputs = tuple(Output(name, value.type, value.nullable, value.columns) for name, value in items)
    if distinct and not all(comparable(o.type) for o in outputs):
        raise ExpressionError("P111", "distinct over arrays or structs", offset=offset_of(node))
    portable = layers.sight.portable and all(value.portable for _, value in items)
    relation = Relation("", f"SELECT {distinct}{spark}{tail}", outputs, portable)
    hidden = None if distinct else layers.final
    keys, hidden_columns = order_keys(node, outputs, hidden)
    for index, value in enumerate(hidden_columns):
        shown += f", {raising(value).duckdb} AS {quote(f'_o{index}')}"
    relation = replace(relation, duckdb=f"SELECT {distinct}{shown} FROM {layers.duckdb()}")
    return order_and_limit(node, relation, keys)


class _Layers:
    """The layers below the result, and the walkers that see them."""

    def __init__(self, node: exp.Select, sources: Sources) -> None:
        self.node = node
        self.sources = sources
        self.sight, self._from, from_spark = from_clause(node, sources)
        self.rows = RowWalker(self.sight, portable=sources.portable, describe=sources.describe)
        self._where = ""
        self.spark_tail = f" FROM {from_spark}"
        self._windows: list[str] = []
        self._settled: list[str] = []
        if node.args.get("where"):
            condition = checked_condition(node.args["where"].this, self.rows, "where")
            self._where = f" WHERE {bare(condition.duckdb)}"
            self.spark_tail += f" WHERE {bare(condition.spark)}"
            self.sight.portable = self.sight.portable and condition.portable
        group, having = node.args.get("group"), node.args.get("having")
        self.windowed = any(True for e in node.expressions for _ in e.find_all(exp.Window))
        grouped = group is not None or having is not None or _aggregates(node)
        self.final: Walker
        if grouped:
            self._make_groups(group, having)
        else:
            if self.windowed:
                self._project()
            self.final = _RowWindowWalker(self)

    def _make_groups(self, group: exp.Expr | None, having: exp.Expr | None) -> None:
        walker = _GroupWalker(self)
        self.final = self._groups = walker
        if group is not None:
            extra = [k for k, v in group.args.items() if v not in (None, False, []) and k != "expressions"]
            if extra:
                raise ExpressionError("P101", f"not admitted: group by {extra[0]}", offset=offset_of(self.node))
            for item in group.expressions:
                walker.add_key(self._group_item(item), offset_of(item))
            self.spark_tail += " GROUP BY " + ", ".join(bare(key.spark) for key in walker.keys)
        self._having = ""
        if having is not None:
            condition = raising(boolean(walker.walk(having.this), "having", offset_of(having)))
            self._having = f" WHERE {condition.duckdb}"
            self.spark_tail += f" HAVING {bare(condition.spark)}"

    def _group_item(self, item: exp.Expr) -> Typed:
        """A GROUP BY item: an expression, a position, or (when no column has that name) an alias of the result."""
        if isinstance(item, exp.Literal) and not item.is_string and item.name.isdigit():
            index = int(item.name)
            if not 1 <= index <= len(self.node.expressions):
                raise ExpressionError("P112", f"no result column {index}", offset=offset_of(item))
            return self.rows.walk(self.node.expressions[index - 1].unalias())
        if isinstance(item, exp.Column) and len(item.parts) == 1:
            try:
                return self.rows.walk(item)
            except ExpressionError:
                for shown in self.node.expressions:
                    if isinstance(shown, exp.Alias) and shown.alias.lower() == item.name.lower():
                        return self.rows.walk(shown.this)
                raise
        return self.rows.walk(item)

    def _project(self) -> None:
        """Give every column in sight a name of its own, so that windows and result see one flat relation."""
        renamed: dict[str, str] = {}
        shown = []
        for index, seen in enumerate([*self.sight.columns, *self.sight.merged]):
            renamed.setdefault(seen.value.duckdb, quote(f"_c{index}"))
            shown.append(f"{seen.value.duckdb} AS {quote(f'_c{index}')}")
        self._from = f'(SELECT {", ".join(shown)} FROM {self._from}{self._where}) AS "_rows"'
        self._where = ""

        def rename(seen: Seen) -> Seen:
            return replace(seen, value=replace(seen.value, duckdb=renamed[seen.value.duckdb]))

        self.sight.columns = [rename(seen) for seen in self.sight.columns]
        self.sight.merged = [rename(seen) for seen in self.sight.merged]

    def add_window(self, text: str) -> str:
        """Compute a window in the layer below the result; its column there."""
        if text not in self._windows:
            self._windows.append(text)
        return quote(f"_w{self._windows.index(text)}")

    def settle(self, value: Typed) -> Typed:
        """The value without its error: where it errs the layer below the windows raises (a window cannot)."""
        if value.error is None:
            return value
        text = raising(value).duckdb
        if text not in self._settled:
            self._settled.append(text)
        return replace(value, duckdb=quote(f"_s{self._settled.index(text)}"), error=None)

    def ties(self) -> Sequence[Typed]:
        """Values that make an order total: the group keys, or all columns in sight."""
        if isinstance(self.final, _GroupWalker):
            return self.final.shown_keys
        return [seen.value for seen in self.sight.star]

    def items(self) -> list[tuple[str, Typed]]:
        """The result's columns, * spelled out."""
        items: list[tuple[str, Typed]] = []
        for index, shown in enumerate(self.node.expressions):
            inner = shown.unalias()
            star = isinstance(inner, exp.Star) or (isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star))
            if star:
                items.extend(self._star(inner))
                continue
            value = self.final.walk(inner)
            name = shown.alias if isinstance(shown, exp.Alias) else _name(inner)
            if not name and isinstance(self.node.parent, exp.Union) and self.node.arg_key == "expression":
                name = f"_u{index}"  # the first part of a union names its columns
            if not name:
                message = f"result column {index + 1} needs a name"
                raise ExpressionError("P112", message, nearest="… as name", offset=offset_of(shown))
            items.append((name.lower(), value))
        return items

    def _star(self, node: exp.Expr) -> list[tuple[str, Typed]]:
        if isinstance(self.final, _GroupWalker) or node.args.get("except_") or node.args.get("replace"):
            raise ExpressionError("P101", "not admitted: * here", nearest="name the columns", offset=offset_of(node))
        seen = self.sight.star
        if isinstance(node, exp.Column):
            if self.sight.merged:
                message = "alias.* beside using: engines show its columns in another order"
                raise ExpressionError("P101", message, nearest="name the columns", offset=offset_of(node))
            alias = node.table.lower()
            seen = [column for column in self.sight.columns if column.alias.lower() == alias]
            if not seen:
                aliases = [column.alias for column in self.sight.columns]
                raise ExpressionError(
                    "P110", f"no such table: {alias!r}", nearest=nearest(alias, aliases), offset=offset_of(node)
                )
        return [(column.name, column.value) for column in seen]

    def duckdb(self) -> str:
        """FROM of the result."""
        base = f"{self._from}{self._where}"
        if isinstance(self.final, _GroupWalker):
            base = f'({self.final.layer(base)}) AS "_groups"{self._having}'
        if self._settled:
            shown = ", ".join(f"{text} AS {quote(f'_s{i}')}" for i, text in enumerate(self._settled))
            base = f'(SELECT *, {shown} FROM {base}) AS "_settled"'
        if self._windows:
            shown = ", ".join(f"{text} AS {quote(f'_w{i}')}" for i, text in enumerate(self._windows))
            base = f'(SELECT *, {shown} FROM {base}) AS "_windows"'
        return base


class _RowWindowWalker(RowWalker):
    """Result expressions of a select without groups."""

    def __init__(self, layers: _Layers) -> None:
        super().__init__(layers.sight, portable=layers.sources.portable, describe=layers.sources.describe)
        self._layers = layers

    def window(self, node: exp.Window) -> Typed:
        """A window function over rows."""
        return compile_window(node, self._layers.rows, self._layers.ties, self._layers.settle, self._layers.add_window)


class _GroupWalker(Walker):
    """Result expressions of a grouped select: group keys, aggregates, and what is made of them."""

    def __init__(self, layers: _Layers) -> None:
        super().__init__(layers.rows.schema, portable=layers.sources.portable, describe=None)
        self._layers = layers
        self.keys: list[Typed] = []
        self._pieces: list[str] = []
        self._errors: list[str] = []
        self._inside = False

    def add_key(self, key: Typed, offset: int | None) -> None:
        """Add a GROUP BY expression."""
        if not comparable(key.type):
            raise ExpressionError("P111", f"cannot group by {key.type}", offset=offset)
        self.keys.append(key)

    @property
    def shown_keys(self) -> list[Typed]:
        """The keys as columns of the group layer."""
        return [replace(key, duckdb=quote(f"_g{i}"), error=None) for i, key in enumerate(self.keys)]

    def walk(self, node: exp.Expr) -> Typed:
        """A node that equals a group key is that key."""
        if not isinstance(node, exp.Literal | exp.Null | exp.Boolean | exp.Window) and not self._inside:
            try:
                row = self._layers.rows.walk(node)
            except ExpressionError:
                row = None
            if row is not None:
                for key, shown in zip(self.keys, self.shown_keys, strict=True):
                    if row.duckdb == key.duckdb and row.type == key.type:
                        return shown
        return super().walk(node)

    def fields(self, parts: list[str], offset: int | None) -> Typed:
        """A column that is not a group key."""
        self._layers.sight.find(parts, offset)
        name = ".".join(parts)
        raise ExpressionError(
            "P113", f"column {name!r} is neither grouped nor aggregated", nearest=f"max({name})", offset=offset
        )

    def aggregate(self, name: str, node: exp.Expr) -> Typed:
        """An aggregate over the rows of a group."""
        return self._add(Aggregation.read(name, node, self._layers.rows, None, ordered=self.sorting))

    def filtered(self, node: exp.Filter) -> Typed:
        """aggregate(…) FILTER (WHERE …)."""
        condition = self._layers.rows.walk(node.expression.this)
        return self._add(Aggregation.read(node.this.name.lower(), node.this, self._layers.rows, condition))

    def _add(self, call: Aggregation) -> Typed:
        made = call.build()
        if made.input_error and made.input_error not in self._errors:
            self._errors.append(made.input_error)
        names = []
        for piece in made.pieces:
            text = piece.initial
            if text not in self._pieces:
                self._pieces.append(text)
            names.append(quote(f"_a{self._pieces.index(text)}"))
        return made.final(names)

    def window(self, node: exp.Window) -> Typed:
        """A window function over groups."""
        return compile_window(node, self, self._layers.ties, self._layers.settle, self._layers.add_window)

    def layer(self, base: str) -> str:
        """The group layer; it raises when an aggregate's argument erred on a row."""
        shown = [f"{raising(key).duckdb} AS {quote(f'_g{i}')}" for i, key in enumerate(self.keys)]
        shown += [f"{text} AS {quote(f'_a{i}')}" for i, text in enumerate(self._pieces)]
        by = f" GROUP BY {', '.join(str(i + 1) for i in range(len(self.keys)))}" if self.keys else ""
        if self._errors:
            failed = " OR ".join(self._errors)
            shown.append(f"CASE WHEN bool_or({failed}) THEN error('{FAILED}') END AS \"_failed\"")
            inner = f"SELECT {', '.join(shown)} FROM {base}{by}"
            return f'SELECT * FROM ({inner}) WHERE "_failed" IS NULL'
        return f"SELECT {', '.join(shown) or '1'} FROM {base}{by}"


def _aggregates(node: exp.Select) -> bool:
    """Whether a select without GROUP BY aggregates: an aggregate call that no OVER belongs to."""
    from lodestream.expressions.functions import AGGREGATES

    for shown in node.expressions:
        for call in shown.find_all(exp.Anonymous):
            parent = call.parent.parent if isinstance(call.parent, exp.Filter) else call.parent
            if call.name.lower() in AGGREGATES and not (isinstance(parent, exp.Window) and _is_over(parent, call)):
                return True
    return False


def _is_over(window: exp.Window, call: exp.Expr) -> bool:
    return window.this is call or (isinstance(window.this, exp.Filter) and window.this.this is call)


def _name(node: exp.Expr) -> str:
    return node.name if isinstance(node, exp.Column) else ""


_RowWindowWalker.HANDLERS = {**Walker.HANDLERS, exp.Window: _RowWindowWalker.window}
_GroupWalker.HANDLERS = {
    **Walker.HANDLERS, exp.Window: _GroupWalker.window, exp.Filter: _GroupWalker.filtered,
}  # fmt: skip
