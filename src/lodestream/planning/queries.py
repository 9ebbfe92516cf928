"""Compiles a batch table: one query over the tables below it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from sqlglot import exp

from lodestream.expressions.dialect import parse_select
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.query import compile_query
from lodestream.model.steps import RunQuery
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.planning.scope import Scope, Shape
from lodestream.project.inputs import query_inputs


def compile_sql(scope: Scope, shapes: Mapping[TableName, Shape]) -> RunQuery | None:
    """The query step; the scope then holds the result's columns. None when it is wrong or cannot be judged."""
    text = scope.table.sql
    assert text is not None
    scope.shape = Shape(lost=True)
    used = [shapes[name] for name in query_inputs(text) if name in shapes]
    if any(shape.lost or shape.unknown for shape in used):
        return None
    known = {str(name): shape.schema for name, shape in shapes.items() if not shape.lost and name != scope.table.name}
    try:
        query = compile_query(text, known, portable=scope.portable, describe=scope.describer(Schema()))
    except ExpressionError as error:
        scope.refuse(text, ("sql",), error)
        return None
    if not query.portable:
        scope.notes.append((scope.place("sql"), "sql"))
    ours = [name for name in query.schema.names if name.startswith("_")]
    for name in ours:
        near = name.lstrip("_") or None
        scope.mistakes.add(scope.place("sql"), "D111", "names that begin with _ are ours", column=name, nearest=near)
    if ours:
        return None
    scope.shape = Shape(query.schema)
    return RunQuery(
        text=query.text,
        duckdb=query.duckdb,
        inputs=tuple(TableName.parse(name) for name in query.inputs),
        schedule=scope.table.schedule,
        columns=_columns_read(text, {name: known[name] for name in query.inputs}),
        lineage=tuple(
            (name, tuple(sorted((TableName.parse(table), column) for table, column in origins)))
            for name, origins in query.lineage.items()
        ),
    )


def _columns_read(text: str, schemas: Mapping[str, Schema]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """For each input, the columns that the query names anywhere: never too few, at least one; none when it says `*`."""
    tree = parse_select(text)
    if any(isinstance(star.parent, exp.Select | exp.Column) for star in tree.find_all(exp.Star)):
        return ()
    words = {identifier.name.lower() for identifier in tree.find_all(exp.Identifier)}
    found: list[tuple[str, tuple[str, ...]]] = []
    for table, schema in schemas.items():
        named = tuple(name for name in schema.names if name.lower() in words)
        found.append((table, named or schema.names[:1]))
    return tuple(found)


def deciding_words(text: str) -> frozenset[str]:
    """Every name, in lower case, by which a query joins, leaves out, groups or ranks rows, behind aliases too."""
    tree = parse_select(text)
    aliases: dict[str, list[exp.Expr]] = defaultdict(list)
    for select in tree.find_all(exp.Select):
        for one in select.selects:
            aliases[one.alias_or_name.lower()].append(one)
    waiting: list[exp.Expr] = list(tree.find_all(exp.Where, exp.Join, exp.Having, exp.Qualify, exp.Group, exp.Window))
    for group in tree.find_all(exp.Group):
        chosen = group.parent.selects if isinstance(group.parent, exp.Select) else []
        places = {int(one.this) for one in group.expressions if isinstance(one, exp.Literal) and one.is_int}
        waiting += [one for place, one in enumerate(chosen, 1) if place in places]
    words: set[str] = set()
    while waiting:
        named = {found.name.lower() for found in waiting.pop().find_all(exp.Identifier)} - words
        words |= named
        waiting += [one for name in named for one in aliases.get(name, ())]
    return frozenset(words)
