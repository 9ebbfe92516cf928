"""Taking quarantined rows again: read them back as input rows, and close the entries that passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.rejects import QUARANTINE_ARROW, decode_rows
from lodestream.errors import ConfigError
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import FlowPlan, ReadSource, ReadTable
from lodestream.model.types import TIMESTAMP, Column
from lodestream.ports.source import RawRecord

ReadAgain = Callable[[BatchPlan, list[RawRecord]], tuple[pa.Table, pa.Table | None]]
"""Decodes quarantined records."""


def open_entries(entries: pa.Table) -> pa.Table:
    """The entries that still stand: per position the latest one, unless a resolution closed it.

    `entries` are quarantine rows in commit order; notes of kind `late_window` are not entries of their own.
    """
    latest: dict[tuple[str, int], int] = {}
    kinds = entries.column("kind").to_pylist()
    for i, key in enumerate(positions_of(entries)):
        if kinds[i] == "late_window":
            continue
        if kinds[i] == "resolved":
            latest.pop(key, None)
        else:
            latest[key] = i
    return entries.take(pa.array(sorted(latest.values()), pa.int64()))


def entries_before(table: DeltaTable, batch: int) -> pa.Table:
    """All quarantine rows of batches before `batch`, in batch order."""
    table.refresh()
    rows = table.read(table.files())
    rows = rows.filter(pc.less(rows.column("_batch"), batch))
    order = pc.sort_indices(rows, sort_keys=[("_batch", "ascending")])
    return rows.take(order)


def replayed_rows(
    quarantine: DeltaTable, batch: BatchPlan, plan: FlowPlan, read_again: ReadAgain | None
) -> tuple[pa.Table, pa.Table | None]:
    """The input rows that a replay batch takes again, and the quarantine rows of records that still do not decode.

    Entries without a row or a record, duplicates and dropped rows, are not taken.
    """
    first = plan.steps[0]
    assert isinstance(first, ReadSource | ReadTable)
    entries = open_entries(entries_before(quarantine, batch.batch))
    wanted = set(batch.replay)
    entries = entries.filter(pa.array([key in wanted for key in positions_of(entries)], pa.bool_()))
    undecoded = entries.filter(pc.is_valid(entries.column("raw")))
    decoded = entries.filter(pc.is_valid(entries.column("row")))
    schema = first.schema.without("_source", "_position", "_batch").with_columns(Column("_ingest_time", TIMESTAMP))
    rows = decode_rows(decoded.column("row").to_pylist(), schema)
    rows = rows.append_column("_source", decoded.column("_source")).append_column(
        "_position", decoded.column("_position")
    )
    if not len(undecoded):
        return rows, None
    if read_again is None:
        raise ConfigError("only a source can decode a quarantined record again", records=len(undecoded))
    keys = positions_of(undecoded)
    raws, details = undecoded.column("raw").to_pylist(), undecoded.column("detail").to_pylist()
    records = [(raw, *key, detail) for raw, key, detail in zip(raws, keys, details, strict=True)]
    again, rejects = read_again(batch, records)
    return pa.concat_tables([rows, again], promote_options="permissive"), rejects


def resolutions(batch: BatchPlan, taken: Iterable[tuple[str, int]], again: list[pa.Table]) -> pa.Table:
    """One `resolved` row for each position that was taken again and not set aside again."""
    aside = [table.filter(pc.not_equal(table.column("kind"), "late_window")) for table in again]
    back = {key for table in aside for key in positions_of(table)}
    passed = [key for key in taken if key not in back]
    count = len(passed)
    return pa.table(
        [
            [source for source, _ in passed],
            [position for _, position in passed],
            [batch.batch] * count,
            pa.array([batch.clock_us] * count, pa.timestamp("us", tz="UTC")),
            ["resolved"] * count,
            pa.array([["replayed"]] * count, pa.list_(pa.string())),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.binary()),
        ],
        schema=QUARANTINE_ARROW,
    )
