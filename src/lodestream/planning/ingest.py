"""Finds the columns of a table that is fed by a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from lodestream.model.table import META_COLUMNS, Component, Table, TableName
from lodestream.model.types import INTEGERS, Column, DataType, Schema
from lodestream.planning.scope import Scope
from lodestream.ports.plugins import added_columns
from lodestream.project.components import component_class

DEFAULT_FORMAT = Component("json")
Sample = Callable[[Table], Schema | None]


def with_format(table: Table) -> Table:
    """The table with the format it gets when it names none."""
    return table if table.format is not None else replace(table, format=DEFAULT_FORMAT)


def ingest_schema(scope: Scope, existing: Mapping[TableName, Schema], sample: Sample | None) -> Schema | None:
    """Columns that the source's records are decoded to; None when nobody knows them (noted).

    The first that knows decides: the declaration, the component itself (a generator), the table in the lake (where
    an earlier plan froze them), a sample of the source. What drift added to or widened in the lake stays.
    """
    assert scope.table.source is not None
    source_class = component_class("sources", scope.table.source.name)
    added = added_columns(source_class, scope.table.source.settings)
    decoded = _decoded_schema(scope, existing, sample, added.names)
    return decoded.without(*added.names).with_columns(*added) if decoded is not None else None


def _decoded_schema(
    scope: Scope, existing: Mapping[TableName, Schema], sample: Sample | None, added: Sequence[str]
) -> Schema | None:
    """The columns that the format decodes."""
    table = scope.table
    kept = _user_columns(scope, existing.get(table.name), added)
    found = table.columns if table.columns is not None else _known_to_component(table)
    if found is not None:
        return _drifted(found, kept, table.drift) if kept is not None else found
    if table.derive or table.select or table.lookups:
        fix = "declare columns: what a table stores after derive, select or enrich cannot stand for its input"
        scope.mistakes.add(scope.place("source"), "D304", "columns not known", table=table.name, fix=fix)
        return None
    if kept is not None:
        return kept
    found = sample(with_format(table)) if sample is not None else None
    if found is None or not len(found):
        scope.mistakes.add(scope.place("source"), "D304", "columns not known", table=table.name)
        return None
    return found


def _known_to_component(table: Table) -> Schema | None:
    assert table.source is not None
    component = component_class("sources", table.source.name)
    declares = getattr(component, "declares", None)
    if component is None or declares is None:
        return None
    try:
        schema: Schema | None = declares(component.settings.model_validate(dict(table.source.settings)))
    except ValidationError:  # noted where the settings were read, or to be resolved when the system starts
        return None
    return schema


def _user_columns(scope: Scope, stored: Schema | None, added: Sequence[str]) -> Schema | None:
    """The stored columns without those that Lodestream adds."""
    if stored is None:
        return None
    derived = {named.name for named in scope.table.derive}
    looked_up = {here for lookup in scope.table.lookups for _, here in lookup.columns}
    physical = {name for name in stored.names if _is_physical(name, stored, scope.table)}
    return stored.without(*META_COLUMNS, "_raw", *derived, *looked_up, *physical, *added)


def _is_physical(name: str, stored: Schema, table: Table) -> bool:
    base, _, part = name.rpartition("_")
    return part in ("date", "hour", "month", "year") and base in stored and any(base in by for by in table.partition_by)


def _drifted(declared: Schema, stored: Schema, drift: str) -> Schema:
    """The declared columns, with what drift did to the table since."""
    columns: list[Column] = []
    for column in declared:
        now = stored.get(column.name)
        wider = now is not None and drift in ("add", "widen") and _is_wider(now.type, column.type)
        columns.append(replace(column, type=now.type) if wider and now is not None else column)
    if drift in ("add", "widen"):
        columns += [column for column in stored if column.name not in declared]
    return Schema(tuple(columns))


def _is_wider(new: DataType, old: DataType) -> bool:
    """Whether drift may have turned `old` into `new`."""
    if old.is_integer and new.is_integer:
        return INTEGERS.index(new.name) > INTEGERS.index(old.name)
    if old.name == "decimal" and new.name == "decimal":
        return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale and new != old
    return (old.is_numeric and new.name == "double" and old.name != "double") or (
        new.name == "string" and old.name not in ("string", "array", "map", "struct", "binary")
    )
