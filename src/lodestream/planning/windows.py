"""Compiles a table of event-time windows: groups and measures."""

from __future__ import annotations

from collections.abc import Iterator

from lodestream.model.expression import Expression
from lodestream.model.steps import Aggregation
from lodestream.model.table import WINDOW_END, WINDOW_START, Table
from lodestream.model.types import BIGINT, BOOLEAN, TIMESTAMP, Column, Schema, parse_type
from lodestream.planning.rows import NESTED
from lodestream.planning.scope import BATCH, Scope, Shape

WINDOW_COLUMNS = (Column(WINDOW_START, TIMESTAMP, nullable=False), Column(WINDOW_END, TIMESTAMP, nullable=False))
WINDOW_META_COLUMNS = (Column("_rows", BIGINT, nullable=False), Column("_digest", BIGINT, nullable=False), BATCH)

COVERS = parse_type("array<struct<source: string, first: bigint, last: bigint, rows: bigint, digest: bigint>>")
COMPLETENESS_COLUMNS = (Column("_final", BOOLEAN), Column("_covers", COVERS))


def window_meta(table: Table) -> tuple[Column, ...]:
    """Our own columns of a table of windows."""
    if not table.completeness:
        return WINDOW_META_COLUMNS
    return (*WINDOW_META_COLUMNS[:-1], *COMPLETENESS_COLUMNS, WINDOW_META_COLUMNS[-1])


def _embedded_only(table: Table) -> Iterator[tuple[tuple[str, ...], str]]:
    """Parts of a table of windows that Spark's structured streaming does not have, and what they are."""
    if table.late == "update" and (table.lookups or table.python is not None):
        yield ("late",), "Spark corrects no closed window of rows that are looked up or made in the same table"


def compile_window(scope: Scope) -> Aggregation | None:
    """The aggregation; the scope then holds the window's columns. None when it cannot run."""
    table = scope.table
    assert table.window is not None
    columns: list[Column] = list(WINDOW_COLUMNS)
    unknown: set[str] = set()
    groups: list[tuple[str, Expression]] = []
    for named in table.group_by:
        compiled = scope.scalar(named.text, ("group_by", named.name))
        if compiled is not None and compiled.type.name in NESTED:
            place, kind = scope.place("group_by", named.name), str(compiled.type)
            scope.mistakes.add(place, "D306", "cannot group by this type", column=named.name, type=kind)
            compiled = None
        if compiled is None:
            unknown.add(named.name)
            continue
        groups.append((named.name, compiled))
        columns.append(Column(named.name, compiled.type, compiled.nullable))
    measures = scope.measures(table.measures)
    taken = {named.name.lower() for named in table.group_by}
    for named in table.measures:
        if named.name.lower() in taken:
            fix = "name the measure differently from the grouping column"
            place = scope.place("measures", named.name)
            scope.mistakes.add(place, "D307", "column appears twice", column=named.name, fix=fix)
    if measures is None:
        unknown |= {named.name for named in table.measures}
    else:
        columns += [Column(name, measure.type, measure.nullable) for name, measure in measures]
    if scope.portable:
        scope.notes += [(scope.place(*path), f"{'.'.join(path)}: {why}") for path, why in _embedded_only(table)]
    distinct = {column.name: column for column in columns}
    scope.shape = Shape(Schema(tuple(distinct.values())), frozenset(unknown - set(distinct)), scope.shape.lost)
    return (
        None
        if measures is None
        else Aggregation(table.window, tuple(groups), measures, table.emit, table.late, table.completeness)
    )
