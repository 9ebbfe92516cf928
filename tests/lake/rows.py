"""What a table holds, as our own reader gives it, and in a form in which other readers' rows are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestream.errors import CorruptionError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable


def with_ours(path: str) -> pa.Table:
    """Rows of the newest version. Raises CorruptionError when they cannot be read."""
    table = DeltaTable.open(LocalDisk(), path)
    if table is None:
        raise CorruptionError("no table", path=path)
    return table.read(table.files())


def rows_of(table: pa.Table | Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Rows of a table, or rows, as text, sorted."""
    rows = table.to_pylist() if isinstance(table, pa.Table) else table
    return sorted(repr([_plain(row[name]) for name in columns]) for row in rows)


def tables_under(folder: Path) -> Iterator[Path]:
    """The folders below that are Delta tables."""
    return (log.parent for log in sorted(folder.rglob("_delta_log")) if log.is_dir())


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value
