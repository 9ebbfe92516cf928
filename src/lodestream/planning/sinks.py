"""Checks a table's sinks against its columns and says what each of them publishes."""

from __future__ import annotations

from lodestream.model.steps import Publish
from lodestream.model.table import Component, SinkName
from lodestream.model.types import Schema
from lodestream.planning.scope import Scope
from lodestream.ports.plugins import sink_wants
from lodestream.project.components import component_class


def compile_sinks(scope: Scope, stored: Schema) -> tuple[Publish, ...]:
    """What each sink of the table publishes; mistakes are noted.

    Args:
        scope: the table.
        stored: its columns as stored.
    """
    found: list[Publish] = []
    for index, sink in enumerate(scope.table.sinks):
        if component_class("sinks", sink.name) is None:  # noted where the declaration was read
            continue
        made = _compile(scope, stored, index, sink)
        if any(made.name == other.name for other in found):
            fix = "keep one of them; two sinks of a table publish to two targets"
            scope.mistakes.add(scope.place("sinks", index), "D113", "sink appears twice", sink=made.name.sink, fix=fix)
        found.append(made)
    return tuple(found)


def _compile(scope: Scope, stored: Schema, index: int, sink: Component) -> Publish:
    table, wants = scope.table, sink_wants(sink)
    at = ("sinks", index, sink.name)
    for path, column in wants.columns:
        if column not in stored:
            scope.missing(column, (*at, *path), stored.names)
    changing = table.window is not None or table.sql is not None or table.changes is not None
    key = wants.key
    if key is None:
        key = table.row_keys
    if changing and not key:
        scope.mistakes.add(scope.place(*at), "D212", "rows of this table change, so a sink needs a key", sink=sink.name)
    name = SinkName(table.name, f"{sink.name}:{wants.target}")
    if wants.note:
        scope.sink_notes.append((scope.place(*at), str(name), wants.note))
    beside = tuple(dict.fromkeys(column for _, column in wants.columns))
    return Publish(name, sink, wants.value, beside, key, changing, wants.exactly_once, wants.start)
