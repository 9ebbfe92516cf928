"""Compiles the stages that every row passes on its own: derive, expect, event time, dedup, lookups, enrichers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lodestream.model.expression import Expression
from lodestream.model.steps import Dedupe, Derive, Expect, JoinStreams, LookUp, Rule, RunPython, Step, Watermark
from lodestream.model.table import VALID_FROM, Join, Lookup, TableName
from lodestream.model.types import Column, DataType, Schema
from lodestream.planning.enrichers import compile_enrichers
from lodestream.planning.scope import PROVENANCE, Scope, Shape

NESTED = ("array", "map", "struct")


def compile_stages(scope: Scope, shapes: Mapping[TableName, Shape]) -> list[Step]:
    """The steps from the python function to the join, in the fixed order; the scope ends after the last one."""
    steps: list[Step] = []
    table = scope.table
    if table.python is not None and table.columns is not None:
        steps.append(RunPython(table.python, table.columns))
        scope.shape = Shape(table.columns, scope.project.unsure.get(table.name, frozenset()) - {"*"}, raw=False)
    if table.derive:
        steps.append(_derive(scope))
    unsure = scope.project.unsure.get(table.name, frozenset())
    scope.add([], {name for name in unsure if name != "*" and name not in scope.shape.schema})
    if table.expect:
        steps.append(_expect(scope))
    steps += _event_time(scope)
    steps += _dedup(scope)
    for i, lookup in enumerate(table.lookups):
        steps.append(_lookup(scope, i, lookup, shapes.get(lookup.table, Shape(lost=True))))
    steps += compile_enrichers(scope)
    if table.join is not None:  # last: a joined row is no input row any more, so nothing may set it aside
        steps.append(compile_join(scope, table.join, shapes.get(table.join.table, Shape(lost=True))))
    return steps


def _derive(scope: Scope) -> Derive:
    """All columns from the input row at once: one derived column does not see another."""
    made: list[tuple[str, Expression]] = []
    columns: list[Column] = []
    broken: set[str] = set()
    names = [named.name for named in scope.table.derive]
    for named in scope.table.derive:
        path = ("derive", named.name)
        twin = next((one for one in scope.shape.schema.names if one.lower() == named.name.lower()), named.name)
        if twin != named.name:
            scope.mistakes.add(
                scope.place(*path), "D307", "differs only in case from a column", column=named.name, nearest=twin
            )
            broken |= {named.name, twin}
            continue
        before = len(scope.mistakes.found)
        compiled = scope.scalar(named.text, path)
        if compiled is None:
            broken.add(named.name)
            _explain_sibling(scope, before, names)
            continue
        made.append((named.name, compiled))
        columns.append(Column(named.name, compiled.type, compiled.nullable or compiled.error is not None))
    scope.add(columns, broken)
    return Derive(tuple(made))


def _explain_sibling(scope: Scope, before: int, names: list[str]) -> None:
    """Say it when an unknown column is a derived one, since all of them are computed from the input row."""
    for i, one in enumerate(scope.mistakes.found[before:], before):
        sibling = next((name for name in names if f"'{name}'" in str(one)), None)
        if one.code == "P110" and sibling is not None and not scope.shape.has(sibling):
            fix = f"derive sees input columns only: repeat the expression of {sibling}, or derive it in the table above"
            scope.mistakes.found[i] = replace(one, fix=fix)


def _expect(scope: Scope) -> Expect:
    rules: list[Rule] = []
    for rule in scope.table.expect:
        path = ("expect", rule.name, "that")
        condition = scope.scalar(rule.that, path)
        if condition is None:
            continue
        if condition.type.name != "boolean":
            scope.mistakes.add(
                scope.place(*path), "D305", "rule is not a condition", rule=rule.name, type=condition.type
            )
            continue
        rules.append(Rule(rule.name, condition, rule.otherwise))
    return Expect(tuple(rules))


def _event_time(scope: Scope) -> list[Step]:
    declared = scope.table.event_time
    if declared is None:
        return []
    column = scope.column(declared.column, ("event_time", "column"))
    if column is not None and column.type.name != "timestamp":
        place = scope.place("event_time", "column")
        scope.mistakes.add(place, "D301", "event time is not a timestamp", column=column.name, type=column.type)
    above = scope.project.tables.get(scope.table.from_) if scope.table.from_ is not None else None
    return [Watermark(declared, above.name if above is not None and above.window is not None else None)]


def _dedup(scope: Scope) -> list[Step]:
    declared, event_time = scope.table.dedup, scope.table.event_time
    if declared is None or event_time is None:
        return []
    for i, key in enumerate(declared.keys):
        column = scope.column(key, ("dedup", "keys", i))
        if column is not None:
            comparable(scope, column, ("dedup", "keys", i))
    return [Dedupe(declared, event_time.delay_us if declared.within_us is None else declared.within_us)]


def comparable(scope: Scope, column: Column, path: tuple[str | int, ...]) -> bool:
    """Whether values of a column can be compared for equality; noted when not."""
    if column.type.name in NESTED:
        place = scope.place(*path)
        scope.mistakes.add(place, "D306", "cannot compare values of this type", column=column.name, type=column.type)
        return False
    return True


def _lookup(scope: Scope, i: int, lookup: Lookup, there: Shape) -> LookUp:
    check_keys(scope, ("lookups", i, "on"), lookup.on, there)
    _as_of(scope, i, lookup, there)
    declared = scope.project.tables.get(lookup.table)
    keys = declared.changes.keys if declared is not None and declared.changes is not None else None
    unique = keys is not None and {there_name for _, there_name in lookup.on} >= set(keys)
    return LookUp(lookup, Schema(tuple(brought(scope, ("lookups", i, "columns"), lookup.columns, there))), unique)


def check_keys(scope: Scope, path: tuple[str | int, ...], on: Iterable[tuple[str, str]], there: Shape) -> None:
    """Note pairs of key columns that are not there or cannot be equal."""
    for here_name, there_name in on:
        here = scope.column(here_name, path)
        if there.lost or there_name in there.unknown:
            continue
        other = scope.column(there_name, path, within=there.schema)
        if here is None or other is None or not comparable(scope, here, path):
            continue
        if not _joinable(here.type, other.type):
            place, near = scope.place(*path), f"{there_name} {other.type}"
            message = f"{'join' if path[0] == 'join' else 'lookup'} key types differ"
            scope.mistakes.add(place, "D303", message, column=here_name, type=here.type, other=near)


def brought(
    scope: Scope, path: tuple[str | int, ...], columns: Iterable[tuple[str, str]], there: Shape
) -> list[Column]:
    """The columns that come over from another table; the scope has them from now on."""
    added: list[Column] = []
    unknown: set[str] = set()
    for there_name, here_name in columns:
        taken = {one.lower(): one for one in (*scope.shape.schema.names, *(c.name for c in added))}
        if here_name.lower() in taken:
            fix = f"rename it: columns: {{{there_name}: another_name}}"
            scope.mistakes.add(scope.place(*path), "D307", "column appears twice", column=here_name, fix=fix)
            continue
        column = None
        if not (there.lost or there_name in there.unknown):
            column = scope.column(there_name, path, within=there.schema)
        if column is None:
            unknown.add(here_name)
        else:
            added.append(Column(here_name, column.type, nullable=True))
    scope.add(added, unknown)
    return added


def compile_join(scope: Scope, join: Join, there: Shape) -> JoinStreams:
    """The join; the scope then holds the columns that come over."""
    check_keys(scope, ("join", "on"), join.on, there)
    names = {there_name for _, there_name in join.on} | {there_name for there_name, _ in join.columns}
    if not there.lost and join.event_time.column not in there.unknown:
        path = ("join", "event_time", "column")
        time = scope.column(join.event_time.column, path, within=there.schema)
        if time is not None and time.type.name != "timestamp":
            place = scope.place(*path)
            scope.mistakes.add(place, "D301", "event time is not a timestamp", column=time.name, type=time.type)
        names.add(join.event_time.column)
    added = brought(scope, ("join", "columns"), join.columns, there)
    read = [column for column in there.schema if column.name in names]
    return JoinStreams(join, Schema(tuple(read)).with_columns(*PROVENANCE), Schema(tuple(added)))


def _as_of(scope: Scope, i: int, lookup: Lookup, there: Shape) -> None:
    """A table with history is looked up as of a moment, and no other table is."""
    declared = scope.project.tables.get(lookup.table)
    history = declared is not None and declared.changes is not None and declared.changes.history
    if lookup.as_of is None:
        if history:
            message, fix = "lookup in a history needs a moment", "add as_of: a column that says when"
            scope.mistakes.add(scope.place("lookups", i), "D215", message, table=lookup.table, fix=fix)
        return
    path = ("lookups", i, "as_of")
    if declared is not None and not history:
        fix = "remove as_of, or look in a table with changes: {…, type: 2}"
        scope.mistakes.add(scope.place(*path), "D215", "this table has no history", table=lookup.table, fix=fix)
        return
    here, start = scope.column(lookup.as_of, path), there.schema.get(VALID_FROM)
    if history and here is not None and start is not None and not _joinable(here.type, start.type):
        near = f"{VALID_FROM} {start.type}"
        scope.mistakes.add(
            scope.place(*path), "D303", "lookup key types differ", column=here.name, type=here.type, other=near
        )


def _joinable(here: DataType, there: DataType) -> bool:
    return here == there or (here.is_integer and there.is_integer)
