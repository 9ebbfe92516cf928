"""Compiles a batch table: one query over the tables below it."""

from __future__ import annotations

from collections.abc import Mapping

from lodestream.expressions.errors import ExpressionError
from lodestream.model.steps import RunQuery
from lodestream.model.table import TableName
from lodestream.planning.scope import Scope, Shape
from lodestream.project.inputs import query_inputs


def compile_sql(scope: Scope, shapes: Mapping[TableName, Shape]) -> RunQuery | None:
    """The query step; the scope then holds the result's columns. None when it is wrong or cannot be judged."""
    from lodestream.expressions.query import compile_query

    text = scope.table.sql
    assert text is not None
    scope.shape = Shape(lost=True)
    used = [shapes[name] for name in query_inputs(text) if name in shapes]
    if any(shape.lost or shape.unknown for shape in used):
        return None
    known = {str(name): shape.schema for name, shape in shapes.items() if not shape.lost and name != scope.table.name}
    try:
        query = compile_query(text, known, portable=scope.portable)
    except ExpressionError as error:
        scope.refuse(text, ("sql",), error)
        return None
    if not query.portable:
        scope.notes.append((scope.place("sql"), "sql"))
    good = True
    for name in query.schema.names:
        if name.startswith("_"):
            scope.mistakes.add(scope.place("sql"), "D111", "names that begin with _ are ours", column=name)
            good = False
    scope.shape = Shape(query.schema)
    if not good:
        return None
    return RunQuery(
        text=query.text,
        duckdb=query.duckdb,
        inputs=tuple(TableName.parse(str(name)) for name in query.inputs),
        schedule=scope.table.schedule,
    )
