"""Compiles a table that is kept up to date from changes: keys, order, what deletes, the span of a row with history."""

from __future__ import annotations

from dataclasses import replace

from lodestream.model.steps import ApplyChanges
from lodestream.model.table import VALID_FROM, VALID_TO, Changes
from lodestream.model.types import Column
from lodestream.planning.rows import comparable
from lodestream.planning.scope import Scope

_ORDERED = ("string", "date", "timestamp", "decimal")


def compile_changes(scope: Scope, changes: Changes) -> ApplyChanges | None:
    """The step, or None when it cannot run; mistakes are noted."""
    before = len(scope.mistakes.found)
    for i, name in enumerate(changes.keys):
        column = scope.column(name, ("changes", "keys", i))
        if column is not None and comparable(scope, column, ("changes", "keys", i)):
            _exact(scope, column, ("changes", "keys", i))
    for i, name in enumerate(changes.sequence_by):
        column = scope.column(name, ("changes", "sequence_by", i))
        if column is not None and not (column.type.is_integer or column.type.name in _ORDERED):
            message = "changes cannot be put in order by this type"
            place = scope.place("changes", "sequence_by", i)
            scope.mistakes.add(place, "D311", message, column=name, type=column.type)
    timed = scope.table.event_time
    if timed is not None and timed.column != changes.sequence_by[0]:
        message = "event time is not what orders the changes"
        place = scope.place("event_time", "column")
        scope.mistakes.add(place, "P207", message, event_time=timed.column, sequence_by=changes.sequence_by[0])
    _selected(scope, changes)
    path = ("changes", "delete_when")
    condition = None if changes.delete_when is None else scope.scalar(changes.delete_when, path)
    if condition is not None and condition.type.name != "boolean":
        message = "delete_when is not a condition"
        scope.mistakes.add(scope.place(*path), "D305", message, rule="delete_when", type=condition.type)
    if len(scope.mistakes.found) > before or (changes.delete_when is not None and condition is None):
        return None
    return ApplyChanges(changes, condition, forgets=timed is not None)


def add_span(scope: Scope, changes: Changes) -> None:
    """The columns that say in which span a row with history holds: values of `sequence_by`."""
    names = {name.lower(): name for name in scope.shape.schema.names}
    for taken in (VALID_FROM, VALID_TO):
        if taken in names:
            fix = f"leave {names[taken]} out with select:, or give it another name in the table above"
            place = scope.place("changes")
            scope.mistakes.add(place, "D307", "name is taken by the history", column=names[taken], fix=fix)
    sequence = scope.shape.schema.get(changes.sequence_by[0])
    if sequence is not None:
        span = [Column(VALID_FROM, sequence.type, nullable=False), Column(VALID_TO, sequence.type)]
        scope.add([replace(column, comment="") for column in span], set())


def _exact(scope: Scope, column: Column, path: tuple[str | int, ...]) -> None:
    if column.type.name in ("float", "double"):
        message = "a key must be exact"
        scope.mistakes.add(scope.place(*path), "D311", message, column=column.name, type=column.type)


def _selected(scope: Scope, changes: Changes) -> None:
    """Keys and sequence are stored: the table itself says how far each key is."""
    kept = scope.table.select
    for name in (*changes.keys, *changes.sequence_by):
        if kept and name not in kept:
            message = "select leaves out a column that changes need"
            scope.mistakes.add(scope.place("select"), "D310", message, column=name, fix=f"add {name} to select")
