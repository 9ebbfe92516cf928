"""Which files of a table a query need not read: those of which the log says that no row meets its conditions."""

from __future__ import annotations

import datetime as dt
import functools
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from lodestream.lake.actions import AddFile
from lodestream.lake.bounds import Bounds, bounds_of
from lodestream.lake.log import Snapshot
from lodestream.model.access import TableAccess
from lodestream.model.types import INTEGERS, Column, Schema
from lodestream.query.conditions import Condition, all_of
from lodestream.query.guard import syntax_tree
from lodestream.query.occurrences import Occurrence

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?\Z")
_KEPT_COLUMNS = 256


class Pruner:
    """Leaves files out. Keeps what the log says of a column once that was asked; safe from any thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Bounds]] = {}

    def kept(self, snapshot: Snapshot, alternatives: Sequence[Sequence[Condition]]) -> list[AddFile] | None:
        """The files that may hold a row that meets all conditions of one of the alternatives, by path; None for all.

        Args:
            snapshot: a version of a table.
            alternatives: conditions on stored columns, without qualifiers.
        """
        schema, files = snapshot.metadata.schema, snapshot.files
        tests = [[test for one in each if (test := _test(one, schema)) is not None] for each in alternatives]
        if not all(tests):
            return None
        columns = {column.name: column for each in tests for column, _, _ in each}
        known = {name: self._bounds(snapshot, column) for name, column in columns.items()}
        adds = [
            add
            for path, add in files.items()
            if any(all(_may(known[column.name][path], how, value) for column, how, value in each) for each in tests)
        ]
        return sorted(adds, key=lambda add: add.path)

    def _bounds(self, snapshot: Snapshot, column: Column) -> dict[str, Bounds]:
        """Bounds of a column by file; those of files that are gone are let go when they are many."""
        key, files = (snapshot.metadata.id, f"{column.name} {column.type}"), snapshot.files
        known = self._known.get(key, {})
        if len(known) > 2 * len(files) + 64:
            known = {path: known[path] for path in files if path in known}
        for path, add in files.items():
            if path not in known:
                known[path] = bounds_of(add, column)
        if key not in self._known and len(self._known) >= _KEPT_COLUMNS:
            self._known.clear()
        self._known[key] = known
        return known


def alternatives(
    found: Iterable[Occurrence], name: tuple[str, str], schemas: Mapping[tuple[str, str], Schema], access: TableAccess
) -> list[list[Condition]]:
    """What a query asks of the rows of one table: in each place all conditions of one list.

    Conditions on columns that somebody sees masked say nothing of what is stored, and are left out. Row filters hold
    in every place.

    Args:
        found: every place.
        name: (layer, label) of the table.
        schemas: columns that the caller sees of each table.
        access: how it is seen.
    """
    plain = {column.lower() for column, masked in access.columns if masked is None}
    filters = [one for text in access.filters for one in filter_conditions(text) if one.qualifier is None]
    listed = []
    for place in found:
        if (place.layer, place.label) != name:
            continue
        others = {column.lower() for other in place.beside for column in schemas[other].names}
        own = [one for one in place.conditions if one.qualifier not in plain]  # else a part of a column may be meant
        own += [one for one in place.shared if one.column not in others]
        listed.append([*(one for one in own if one.column in plain), *filters])
    return listed


@functools.lru_cache(256)
def filter_conditions(text: str) -> tuple[Condition, ...]:
    """The simple conditions that a row filter, compiled to DuckDB, consists of at its top."""
    tree = syntax_tree(f"SELECT 1 FROM t WHERE {text}")
    return tuple(all_of(tree["node"]["where_clause"]))


def _test(condition: Condition, schema: Schema) -> tuple[Column, str, Any] | None:
    """Column, operator and value that can be compared with its bounds; None when that says nothing."""
    column = next((one for one in schema if one.name.lower() == condition.column), None)
    if column is None:
        return None
    if condition.operator in ("null", "not null"):
        return column, condition.operator, None
    if condition.operator == "in":
        assert isinstance(condition.value, tuple)
        values = [_comparable(value, column) for value in condition.value]
        return None if None in values else (column, "in", values)
    value = _comparable(condition.value, column)
    return None if value is None else (column, condition.operator, value)


def _may(bounds: Bounds, operator: str, value: Any) -> bool:
    """Whether a row of the file may meet the condition."""
    match operator:
        case "=":
            return bounds.may_be(value)
        case "<" | "<=":
            return bounds.may_go_below(value, equal=operator == "<=")
        case ">" | ">=":
            return bounds.may_reach(value, equal=operator == ">=")
        case "in":
            return any(bounds.may_be(one) for one in value)
        case "null":
            return not bounds.no_null
        case _:
            return not bounds.only_nulls


def _comparable(value: object, column: Column) -> Any:
    """A value as DuckDB compares it with the column, in the kind of its bounds; None when that is not plain."""
    kind = column.type.name
    if isinstance(value, bool) or value is None:
        return None
    if kind in INTEGERS:
        return value if isinstance(value, int) else None
    if kind == "decimal":
        exact = isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite())
        return Decimal(value) if exact else None  # type: ignore[arg-type]
    if kind in ("float", "double"):
        return _floating(value, kind)
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "date":
        if isinstance(value, str) and _DATE.match(value):
            return _parsed(dt.date, value)
        return value if type(value) is dt.date else None
    if kind == "timestamp":
        if isinstance(value, str) and (_DATE.match(value) or _TIME.match(value)):
            return _parsed(dt.datetime, value)
        if type(value) is dt.date:
            return dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
    return None


def _floating(value: object, kind: str) -> float | None:
    """A number that the type holds exactly."""
    if not isinstance(value, int | float | Decimal):
        return None
    try:
        made = float(value)
        same = struct.unpack("f", struct.pack("f", made))[0] if kind == "float" else made
    except OverflowError:
        return None
    return made if same == made == value else None


def _parsed(kind: type[dt.date], text: str) -> Any:
    try:
        return kind.fromisoformat(text)
    except ValueError:
        return None
