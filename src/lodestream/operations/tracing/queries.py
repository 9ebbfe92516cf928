"""Follows a row of a `sql:` table to the input rows with the values that it was grouped by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from lodestream.engines.embedded.frames import connect, select
from lodestream.expressions.dialect import parse_select
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.scalar import to_expression
from lodestream.expressions.walk import Walker
from lodestream.lake.actions import AddFile
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow_type
from lodestream.model.expression import Expression
from lodestream.model.steps import FlowPlan, RunQuery
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.operations.tracing.keys import Test, all_of, equal
from lodestream.operations.tracing.plain import number, safe, shown
from lodestream.operations.tracing.rows import trace_of
from lodestream.operations.tracing.view import View, at_version

SAMPLE = 10
Schemas = Mapping[str, Schema]


@dataclass(frozen=True)
class InputRows:
    """Rows of one input of a query.

    Attributes:
        table: the input.
        version: the version that the refresh read; None when the table was never refreshed.
        by: result columns that were followed, with the value each input row has to give.
        filtered: whether the query's own WHERE was applied too.
        rows: input rows that fit; all rows of the input when nothing could be followed.
        newest: the same count in the input's newest version; None when that is the version read.
        newest_version: that version.
        sample: what to type to trace the first of them.
        note: what is no longer kept.
    """

    table: str
    version: int | None
    by: Mapping[str, Any]
    filtered: bool
    rows: int
    newest: int | None
    newest_version: int
    sample: tuple[str, ...]
    note: str | None = None

    def lines(self) -> Iterator[str]:
        """A heading and the sample."""
        how = f"with {shown(self.by)}" if self.by else "in all: no column of the key names rows of it"
        how += ", that meet the query's condition" if self.filtered else ""
        at = f" at version {self.version}" if self.version is not None else ""
        yield f"from {self.table}{at}: {number(self.rows, 'row')} {how}"
        if self.newest is not None:
            yield f"  now, at version {self.newest_version}: {number(self.newest, 'row')}"
        if self.note:
            yield f"  {self.note}"
        yield from (f"  {one}" for one in self.sample)
        if self.sample and self.rows > len(self.sample):
            yield f"  … and {self.rows - len(self.sample)} more"


@dataclass(frozen=True)
class Asked:
    """The query behind a row, and its inputs."""

    text: str
    inputs: tuple[InputRows, ...]

    def lines(self) -> Iterator[str]:
        """The query, then each input."""
        yield f"query: {safe(self.text, 2000)}"
        for one in self.inputs:
            yield from one.lines()


class QueryFlow:
    """The input side of one `sql:` table."""

    def __init__(self, view: View, plan: FlowPlan) -> None:
        first = plan.steps[0]
        assert isinstance(first, RunQuery)
        self.view, self.plan, self.step = view, plan, first
        self._connection = connect()

    def tests(self, row: Mapping[str, Any]) -> list[Test]:
        """The tests that a result row passes, on all columns that may be asked for."""
        kinds = {c.name: c.type for c in self.plan.schema if not c.name.startswith("_")}
        plain = {name: kind for name, kind in kinds.items() if kind.name not in ("array", "map", "struct")}
        return [equal(name, row[name], kind) for name, kind in plain.items() if name in row]

    def asked(self, tests: Sequence[Test], pins: Mapping[str, int]) -> Asked:
        """The input rows behind values of the result.

        Args:
            tests: what the result row has, or should have.
            pins: versions that the refresh read; empty when there was none.
        """
        tables = {name: table for name in self.step.inputs if (table := self.view.table(name)) is not None}
        schemas = {str(name): table.snapshot.metadata.schema for name, table in tables.items()}
        tree = parse_select(self.step.text)
        followed = follow(tree, schemas)
        inputs = [self._input(name, table, followed, tests, pins.get(str(name))) for name, table in tables.items()]
        return Asked(self.step.text, tuple(inputs))

    def _input(
        self, name: TableName, table: DeltaTable, followed: Followed, tests: Sequence[Test], version: int | None
    ) -> InputRows:
        items = [(t, followed.results[t.column][1]) for t in tests
                 if t.column in followed.results and followed.results[t.column][0] == str(name)]  # fmt: skip
        condition = followed.condition if followed.table == str(name) else None
        newest = table.snapshot.version
        files, note = (table.files(), None) if version is None else at_version(table, version)
        count, rows = self._matching(table, files, items, condition)
        now = None
        if version is not None and newest != version and note is None:
            now, _ = self._matching(table, table.files(), items, condition)
        sample = tuple(trace_of(self.view, name, row) for row in rows) if items else ()
        by = {test.column: test.value.as_py() for test, _ in items}
        return InputRows(str(name), version, by, condition is not None, count, now, newest, sample, note)

    def _matching(
        self,
        table: DeltaTable,
        files: Sequence[AddFile],
        items: Sequence[tuple[Test, Expression]],
        condition: Expression | None,
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many rows give these values, and the first of them; one file is in memory at a time."""
        needed = {c for _, e in items for c in e.columns} | (set(condition.columns) if condition else set())
        schema = table.snapshot.metadata.schema
        columns = [c for c in schema.names if c in needed] or list(schema.names[:1])
        count, rows = 0, list[dict[str, Any]]()
        for add in files:
            keys = table.read([add], columns=columns)
            values = [(f"v{i}", e.duckdb) for i, (_, e) in enumerate(items)]
            values.append(("_keep", f"coalesce({condition.duckdb}, false)" if condition else "true"))
            try:
                made = select(self._connection, keys, values)
            except duckdb.Error:  # an expression of `engine: embedded` that raises on this file; count none of it
                continue
            named = pa.table(
                {test.column: made.column(f"v{i}").cast(to_arrow_type(e.type)) for i, (test, e) in enumerate(items)}
                | {"_keep": made.column("_keep")}
            )
            fits = [same for test, e in items if (same := test.retyped(e.type))]
            mask = all_of([*fits, Test("_keep", pa.scalar(value=True), "true")], named)
            hits = pa.array(range(len(keys)), pa.int64()).filter(_flat(mask))
            count += len(hits) if len(fits) == len(items) else 0
            if len(hits) and len(rows) < SAMPLE and items:
                rows += table.read([add]).take(hits[: SAMPLE - len(rows)]).to_pylist()
        return count, rows


@dataclass(frozen=True)
class Followed:
    """Result columns that are functions of one input row: name to (table, expression), and the WHERE of a single table.

    Attributes:
        results: by result column.
        table: the one table of a plain SELECT, whose condition is known.
        condition: its WHERE.
    """

    results: Mapping[str, tuple[str, Expression]]
    table: str | None = None
    condition: Expression | None = None


def follow(tree: exp.Expr, schemas: Schemas) -> Followed:
    """Which result columns of a compiled query can be asked of its input rows.

    Args:
        tree: the query's canonical text, parsed; every column in it is qualified.
        schemas: columns of its inputs, by table name.
    """
    return _expressions(tree, schemas) or _columns(tree, schemas)


def _expressions(tree: exp.Expr, schemas: Schemas) -> Followed | None:
    """For a plain SELECT over one table: every result column without an aggregate in it."""
    if not isinstance(tree, exp.Select) or tree.args.get("with_") or tree.args.get("joins"):
        return None
    table = _table(tree.args["from_"].this) if tree.args.get("from_") else None
    if table is None or table not in schemas:
        return None
    results = {}
    for projection in tree.expressions:
        made = _compiled(projection.unalias(), schemas[table])
        if made is not None:
            results[projection.alias_or_name] = (table, made)
    where = tree.args.get("where")
    return Followed(results, table, _compiled(where.this, schemas[table]) if where else None)


def _compiled(node: exp.Expr, schema: Schema) -> Expression | None:
    """The expression over one table, or None when it is none: an aggregate, a window function, a subquery."""
    bare = node.copy().transform(lambda n: exp.Column(this=n.this.copy()) if isinstance(n, exp.Column) else n)
    try:
        return to_expression(Walker(schema).walk(bare))
    except ExpressionError:
        return None


def _columns(tree: exp.Expr, schemas: Schemas) -> Followed:
    """For any other query: result columns that are a column of an input, through subqueries and CTEs."""
    names = tree.named_selects if isinstance(tree, exp.Query) else []
    results = {}
    for name in names:
        origin = _origin(tree, name, {}, schemas)
        made = _compiled(exp.column(origin[1]), schemas[origin[0]]) if origin else None
        if origin and made:
            results[name] = (origin[0], made)
    return Followed(results)


def _origin(node: exp.Expr, name: str, ctes: Mapping[str, exp.Expr], schemas: Schemas) -> tuple[str, str] | None:
    """The (table, column) that a result column shows unchanged, or None."""
    while isinstance(node, exp.Subquery):
        node = node.this
    if not isinstance(node, exp.Select):
        return None
    if node.args.get("with_"):
        ctes = {**ctes, **{cte.alias.lower(): cte.this for cte in node.args["with_"].expressions}}
    projection = next((p for p in node.expressions if p.alias_or_name.lower() == name.lower()), None)
    column = projection.unalias() if projection is not None else None
    if not isinstance(column, exp.Column) or node.args.get("from_") is None:
        return None
    for source in (node.args["from_"].this, *(join.this for join in node.args.get("joins") or ())):
        if column.table and column.table.lower() != source.alias_or_name.lower():
            continue
        table = _table(source)
        if table is not None and table in schemas:
            near = next((c for c in schemas[table].names if c.lower() == column.name.lower()), None)
            if near:
                return table, near
            continue
        inner = ctes.get(source.name.lower()) if isinstance(source, exp.Table) else source
        if inner is not None and (found := _origin(inner, column.name, ctes, schemas)):
            return found
    return None


def _table(node: exp.Expr) -> str | None:
    return f"{node.db}.{node.name}".lower() if isinstance(node, exp.Table) and node.db else None


def _flat(mask: Any) -> pa.Array:
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
