"""Schema drift: columns that a source shows and the table does not have, or has too narrow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lodestream.errors import ConfigError
from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.table import DeltaTable
from lodestream.model.types import Column, Schema

COLUMNS_MAX = 1000


def drifted(schema: Schema, found: Iterable[Column]) -> Schema:
    """The columns to decode to once drift is taken in: wider types in place, new columns last.

    Raises:
        ConfigError: the table would have more than a thousand columns.
    """
    merged = {column.name: column for column in schema}
    for column in found:
        old = merged.get(column.name)
        merged[column.name] = Column(column.name, column.type) if old is None else replace(old, type=column.type)
    if len(merged) > COLUMNS_MAX:
        raise ConfigError(
            "drift would give the table too many columns; declare what you need and set drift: quarantine",
            columns=len(merged), columns_max=COLUMNS_MAX,
        )  # fmt: skip
    return Schema(tuple(merged.values()))


def stored_columns(declared: Schema, stored: Schema, planned: Schema) -> Schema:
    """The columns to decode to when the table took in drift after the plan was made.

    Args:
        declared: the source's columns as planned.
        stored: the table's columns now.
        planned: the table's columns as planned.
    """
    columns = [replace(c, type=stored[c.name].type) if c.name in stored else c for c in declared]
    return Schema((*columns, *(c for c in stored if c.name not in planned)))


def evolved(stored: Schema, decoded: Schema) -> Schema | None:
    """The table's new columns, or None when nothing changed.

    New columns come after the last of the source's own, before the provenance columns.

    Args:
        stored: the table's columns.
        decoded: the source's columns as they are decoded now.
    """
    wider = [replace(c, type=decoded[c.name].type) if c.name in decoded else c for c in stored]
    new = [c for c in decoded if c.name not in stored]
    if not new and tuple(wider) == stored.columns:
        return None
    last = max((i for i, c in enumerate(wider) if c.name in decoded), default=-1)
    return Schema((*wider[: last + 1], *new, *wider[last + 1 :]))


def rewritten(table: DeltaTable, schema: Schema, name: str) -> tuple[tuple[AddFile, ...], list[RemoveFile]]:
    """All files of the table in the types of `schema`, if a type changed; the same rows, so no reader sees a change."""
    stored = table.snapshot.metadata.schema
    if all(schema[c.name].type == c.type for c in stored):
        return (), []
    adds: list[AddFile] = []
    for i, old in enumerate(table.files()):
        rows = table.read([old], schema=schema)
        staged = table.stage(rows, name=f"{name}-{i}", schema=schema)
        adds += [replace(add, data_change=False) for add in staged.adds]
    return tuple(adds), [RemoveFile.of(old, data_change=False) for old in table.files()]
