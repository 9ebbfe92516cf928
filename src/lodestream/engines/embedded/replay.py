"""Taking quarantined rows again: read them back as input rows, and close the entries that passed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.rejects import QUARANTINE_ARROW, decode_rows, rejected_raw
from lodestream.errors import ConfigError
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import FlowPlan, ReadSource, ReadTable
from lodestream.model.types import TIMESTAMP, Column
from lodestream.ports.source import Source


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
    quarantine: DeltaTable, batch: BatchPlan, plan: FlowPlan, source: Source | None
) -> tuple[pa.Table, pa.Table | None]:
    """The input rows that a replay batch takes again, and those that still do not decode."""
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
    rejects = None
    if len(undecoded):
        rows, rejects = _decode_again(undecoded, rows, batch, source)
    return rows, rejects


def _decode_again(
    undecoded: pa.Table, rows: pa.Table, batch: BatchPlan, source: Source | None
) -> tuple[pa.Table, pa.Table | None]:
    if source is None or not hasattr(source, "decode_raw"):
        raise ConfigError("this source cannot decode a quarantined record again", records=len(undecoded))
    pieces = [
        source.decode_raw(raw, unit, position)
        for raw, (unit, position) in zip(undecoded.column("raw").to_pylist(), positions_of(undecoded), strict=True)
    ]
    stamp = pa.scalar(batch.clock_us, pa.timestamp("us", tz="UTC"))
    parts = [rows]
    for piece in pieces:
        again = piece.rows.append_column("_ingest_time", pa.repeat(stamp, len(piece.rows)))
        parts.append(again.select([c for c in rows.column_names if c in again.column_names]))
    rejects = rejected_raw(pa.concat_tables([p.rejects for p in pieces]), batch=batch.batch, clock_us=batch.clock_us)
    return pa.concat_tables(parts, promote_options="permissive"), rejects


def resolutions(batch: BatchPlan, again: list[pa.Table]) -> pa.Table:
    """One `resolved` row for each replayed position that was not set aside again."""
    back = {key for table in again for key in positions_of(table)}
    passed = [key for key in batch.replay if key not in back]
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
