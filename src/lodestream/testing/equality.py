"""Holds two lakes to the same rows, whatever engines and batches made them."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa

from lodestream.app import App
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import RunQuery
from lodestream.model.table import TableName

_OF_A_RUN = frozenset({"_batch", "_ingest_time", "_time"})


def rows_of(app: App, name: TableName) -> Counter[str]:
    """A table as a multiset of rows, without what depends on when a row came; empty when there is none."""
    table = DeltaTable.open(app.disk, table_path(app.lake, name))
    found: Counter[str] = Counter()
    if table is None:
        return found
    for row in _whole(table.read(table.files())).to_pylist():
        kept = {column: value for column, value in row.items() if column not in _OF_A_RUN}
        if isinstance(kept.get("row"), str):  # a quarantined row as JSON
            text = json.loads(kept["row"])
            kept["row"] = json.dumps({column: value for column, value in text.items() if column not in _OF_A_RUN})
        found[repr(kept)] += 1
    return found


def _whole(rows: pa.Table) -> pa.Table:
    """Times as microseconds: a window may end after the year 9999, where Python's times end."""
    timed = [pa.types.is_timestamp(field.type) for field in rows.schema]
    columns = [
        column.cast(pa.int64()) if is_time else column for column, is_time in zip(rows.columns, timed, strict=True)
    ]
    return pa.table(columns, names=rows.column_names)


def compare_lakes(one: App, other: App) -> tuple[int, list[str]]:
    """Rows of `one`, quarantines included, and what differs in `other`, a line per table."""
    compared, found = 0, []
    for name, plan in one.flows.items():
        queried = isinstance(plan.steps[0], RunQuery)
        for table in (name,) if queried else (name, quarantine_name(name)):
            ours, theirs = rows_of(one, table), rows_of(other, table)
            compared += ours.total()
            if ours != theirs:
                here, there = ours - theirs, theirs - ours
                found.append(
                    f"{table}: {here.total()} rows only in one, such as {list(here)[:2]};"
                    f" {there.total()} only in the other, such as {list(there)[:2]}"
                )
    return compared, found
