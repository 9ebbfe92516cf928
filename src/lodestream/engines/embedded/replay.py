"""Taking quarantined rows again: read them back as input rows, and close the entries that passed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.rejects import QUARANTINE_ARROW, decode_rows
from lodestream.errors import ConfigError
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan, Mend
from lodestream.model.steps import FlowPlan, ReadSource, ReadTable
from lodestream.model.types import TIMESTAMP, Column, Schema
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


def entries_before(table: DeltaTable, batch: int, columns: Sequence[str] | None = None) -> pa.Table:
    """All quarantine rows of batches before `batch`, in batch order; `columns`, with `_batch`, or all."""
    table.refresh()
    rows = table.read(table.files(), columns=columns)
    rows = rows.filter(pc.less(rows.column("_batch"), batch))
    order = pc.sort_indices(rows, sort_keys=[("_batch", "ascending")])
    return rows.take(order)


def replayed_rows(
    quarantine: DeltaTable, batch: BatchPlan, plan: FlowPlan, read_again: ReadAgain | None
) -> tuple[pa.Table, pa.Table | None]:
    """The input rows that a replay batch takes again, and the quarantine rows of records that still do not decode.

    Entries without a row or a record, duplicates and dropped rows, are not taken.
    """
    entries = open_entries(entries_before(quarantine, batch.batch))
    wanted = set(batch.replay)
    mends = mends_of(batch)
    entries = entries.filter(pa.array([key in wanted for key in positions_of(entries)], pa.bool_()))
    undecoded = entries.filter(pc.is_valid(entries.column("raw")))
    decoded = entries.filter(pc.is_valid(entries.column("row")))
    texts = decoded.column("row").to_pylist()
    again = [mended(text, mends.get(key)) for text, key in zip(texts, positions_of(decoded), strict=True)]
    rows = decode_rows(again, input_schema(plan))
    rows = rows.append_column("_source", decoded.column("_source")).append_column(
        "_position", decoded.column("_position")
    )
    if not len(undecoded):
        return rows, None
    if read_again is None:
        raise ConfigError("only a source can decode a quarantined record again", records=len(undecoded))
    keys = positions_of(undecoded)
    raws, details = undecoded.column("raw").to_pylist(), undecoded.column("detail").to_pylist()
    records = [
        (_record(raw, mends.get(key)), *key, detail) for raw, key, detail in zip(raws, keys, details, strict=True)
    ]
    read, rejects = read_again(batch, records)
    return pa.concat_tables([rows, read], promote_options="permissive"), rejects


def input_schema(plan: FlowPlan) -> Schema:
    """The columns of the rows that a flow takes in, as its quarantine keeps them."""
    first = plan.steps[0]
    assert isinstance(first, ReadSource | ReadTable)
    return first.schema.without("_source", "_position", "_batch").with_columns(Column("_ingest_time", TIMESTAMP))


def mends_of(batch: BatchPlan) -> dict[tuple[str, int], Mend]:
    """The mends of a replay batch by position."""
    return {(source, position): Mend.from_json(text) for source, position, text in batch.mended}


def mended(row: str, mend: Mend | None) -> str:
    """A row of the quarantine, as JSON, with its new values."""
    return row if mend is None or not mend.values else json.dumps(json.loads(row) | dict(mend.values))


def _record(raw: bytes, mend: Mend | None) -> bytes:
    return raw if mend is None or mend.raw is None else mend.raw.encode()


def resolutions(batch: BatchPlan, taken: Iterable[tuple[str, int]], again: list[pa.Table]) -> pa.Table:
    """One `resolved` row for each position that was taken again and not set aside again.

    Its detail says how the row was mended, if it was.
    """
    aside = [table.filter(pc.not_equal(table.column("kind"), "late_window")) for table in again]
    back = {key for table in aside for key in positions_of(table)}
    passed = [key for key in taken if key not in back]
    mends = {(source, position): text for source, position, text in batch.mended}
    reasons = [["replayed", "mended"] if key in mends else ["replayed"] for key in passed]
    count = len(passed)
    return pa.table(
        [
            [source for source, _ in passed],
            [position for _, position in passed],
            [batch.batch] * count,
            pa.array([batch.clock_us] * count, pa.timestamp("us", tz="UTC")),
            ["resolved"] * count,
            pa.array(reasons, pa.list_(pa.string())),
            pa.nulls(count, pa.string()),
            pa.array([mends.get(key) for key in passed], pa.string()),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.binary()),
        ],
        schema=QUARANTINE_ARROW,
    )
