"""Accepted late rows for closed windows: the windows they belong to are computed anew and replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.leaving import Positions
from lodestream.engines.embedded.replay import entries_before, open_entries
from lodestream.engines.embedded.windows import OpenWindows, assign
from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.digest import position_digest
from lodestream.model.steps import Aggregation, FlowPlan
from lodestream.model.table import WINDOW_END, WINDOW_START, Lookup

if TYPE_CHECKING:
    from lodestream.engines.embedded.inputs import Span, StreamInput
    from lodestream.engines.embedded.lookups import LookupTable
    from lodestream.engines.embedded.stages import RowStages


@dataclass(frozen=True, slots=True)
class Correction:
    """Closed windows that a batch replaces.

    Attributes:
        windows: their new content, in the form of `OpenWindows.table`.
        start_us: which windows they are.
    """

    windows: pa.Table
    start_us: frozenset[int]


def not_covered(
    quarantine: DeltaTable, batch: BatchPlan, rejects: Iterable[pa.Table] | None = None
) -> tuple[set[tuple[str, int]], set[tuple[str, int, int]]]:
    """What the windows do not cover: positions set aside, and (source, position, window) that a row missed.

    With `rejects`, that is so after the batch: what it takes again is covered, what it sets aside itself is not.
    """
    entries = entries_before(quarantine, batch.batch)
    aside = open_entries(entries)
    notes = entries.filter(pc.equal(entries.column("kind"), "late_window"))
    missed = {
        (row["_source"], row["_position"], start)
        for row in notes.to_pylist()
        for start in json.loads(row["detail"])["window_starts_us"]
    }
    if rejects is None:
        return set(positions_of(aside)), missed
    return (set(positions_of(aside)) - set(batch.replay)) | _set_aside(rejects), missed


def _set_aside(rejects: Iterable[pa.Table]) -> set[tuple[str, int]]:
    """Positions that a batch itself sets aside; notes on windows that a row missed are not among them."""
    tables = [table.filter(pc.not_equal(table.column("kind"), "late_window")) for table in rejects]
    return {key for table in tables for key in positions_of(table)}


def taken_in(
    stream: StreamInput, stages: RowStages, lookups: dict[Lookup, LookupTable], batch: BatchPlan,
    aside: Iterable[tuple[str, int]], span: Span | None = None,
) -> pa.Table:  # fmt: skip
    """All upstream rows but those set aside, as they stand before event time is looked at."""
    rows = stream.everything(batch.upto, span)
    return stages.passing(rows.filter(pa.array(~Positions(aside).among(rows))), batch, lookups)


def span_of(plan: FlowPlan, event: str, step: Aggregation, reopened: frozenset[int]) -> tuple[str, int, int] | None:
    """Where the rows of reopened windows lie in event time; None when that is made here, not in the table above."""
    return None if is_made_here(plan, event) else (event, min(reopened), max(reopened) + step.window.span_us)


def is_made_here(plan: FlowPlan, event: str) -> bool:
    """Whether the flow may make the column of event time itself, so that the table above has another or none."""
    return plan.table.python is not None or event in {one.name for one in plan.table.derive}


def correct(
    fresh: OpenWindows,
    step: Aggregation,
    rows: pa.Table,
    event: str,
    affected: Iterable[int],
    missed: set[tuple[str, int, int]],
) -> Correction:
    """Compute the affected windows from all rows that belong to them.

    Args:
        fresh: an empty state to fold into.
        step: the aggregation.
        rows: every row that the table covers, the accepted ones among them, after the row stages.
        event: their column of event time; rows without one belong to no window.
        affected: starts of the windows to compute.
        missed: (source, position, window start) of rows that were late for one of their windows only.
    """
    rows = rows.filter(pc.is_valid(rows.column(event)))
    event_us = rows.column(event).cast(pa.int64())
    wanted = np.array(sorted(affected), np.int64)
    row, start_us = assign(event_us, step.window)
    keep = np.isin(start_us, wanted)
    if missed:
        positions = positions_of(rows)
        for i in np.flatnonzero(keep):
            keep[i] = (*positions[row[i]], int(start_us[i])) not in missed
    row, start_us = row[keep], start_us[keep]
    chosen = rows.take(pa.array(row))
    hashes = position_digest(chosen.column("_source"), chosen.column("_position"))
    return Correction(fresh.fold(chosen, start_us, hashes), frozenset(wanted.tolist()))


def without_windows(
    table: DeltaTable, start_us: frozenset[int], name: str, open_after_us: int | None = None
) -> tuple[tuple[AddFile, ...], list[RemoveFile]]:
    """The closed files that hold any of these windows, written again without them.

    With `open_after_us`, windows that end after it are taken out too, and hot files go: what they hold of closed
    windows stays.
    """
    adds: list[AddFile] = []
    removes: list[RemoveFile] = []
    wanted = pa.array(sorted(start_us), pa.int64())
    for i, file in enumerate(f for f in table.files() if open_after_us is not None or not f.hot):
        rows = table.read([file])
        hit = pc.is_in(rows.column(WINDOW_START).cast(pa.int64()), wanted)
        if open_after_us is not None:
            hit = pc.or_(hit, pc.greater(rows.column(WINDOW_END).cast(pa.int64()), open_after_us))
        if not file.hot and not pc.any(hit).as_py():
            continue
        removes.append(RemoveFile.of(file))
        left = rows.filter(pc.invert(hit))
        if len(left):
            adds += table.stage(left, name=f"{name}-{i}").adds
    return tuple(adds), removes
