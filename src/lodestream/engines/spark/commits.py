"""What a batch writes and commits: the data files of the table and its quarantine, each in a commit with `txn` N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.correction import without_windows
from lodestream.engines.embedded.drift import rewritten
from lodestream.engines.spark.batch import Batch, encoded, stored
from lodestream.engines.spark.files import HOT, Target, writing, written
from lodestream.engines.spark.folded import OPEN, SHOWN
from lodestream.engines.spark.windows import corrected, with_open
from lodestream.errors import ConflictError
from lodestream.lake.actions import AddFile, Metadata, RemoveFile
from lodestream.lake.disk import random_id
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, ApplyChanges, FlowPlan
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.engines.spark.tables import Tables

_SET_ASIDE = ("quarantine", "late", "duplicate", "dropped", "late_window")
"""What is counted of rows that the quarantine gets."""


@dataclass(frozen=True, slots=True)
class Written:
    """Files on disk that no version knows yet.

    Attributes:
        adds: files of the table.
        removes: files of the table that those replace.
        aside: files of its quarantine.
        open: files of the windows that are open afterwards, of a flow that folds them; None when they stay
            as they are.
        metadata: the table's, when its columns change.
    """

    adds: tuple[AddFile, ...]
    removes: Sequence[AddFile | RemoveFile]
    aside: tuple[AddFile, ...]
    open: tuple[AddFile, ...] | None = None
    metadata: Metadata | None = None


def write_files(
    decided: Batch, batch: BatchPlan, plan: FlowPlan, tables: Tables, table: DeltaTable, quarantine: DeltaTable,
    app: str, schema: Schema, folded: DataFrame | None = None, kept: DeltaTable | None = None,
) -> Written:  # fmt: skip
    """Write the data files of a batch in one job; they are durable when this returns.

    Args:
        decided: its rows.
        batch: its plan.
        plan: the flow.
        tables: those of the lake.
        table: the flow's table, at its newest version.
        quarantine: its quarantine; when that has reached the batch nothing is written for it.
        app: the flow's application id.
        schema: the table's columns after the batch.
        folded: what `Folding.fold` gives, of a flow that folds its windows.
        kept: where its open windows lie.
    """
    frames: list[DataFrame] = []
    adds: tuple[AddFile, ...] = ()
    removes: list[AddFile | RemoveFile] = []
    name = f"{batch.batch}-{random_id()}"
    before = table.snapshot.metadata
    metadata = replace(before, schema=schema) if schema != before.schema else None
    if metadata is not None:
        adds, taken = rewritten(table, schema, f"widened-{name}")
        removes += taken
    target = replace(Target.of(table, name), schema=schema)
    aside = any(decided.counts.get(kind) for kind in _SET_ASIDE)
    if aside and quarantine.refresh().txns.get(app, 0) < batch.batch:
        prepare = partial(encoded, batch=batch.batch, clock_us=batch.clock_us)
        frames += [writing(frame, Target.of(quarantine, name), prepare) for frame in decided.aside]
    window, reopened = plan.step(Aggregation), decided.reopened
    if reopened:
        made = corrected(tables, plan, batch, reopened)
        frames.append(writing(stored(made, schema, plan, batch.batch), target))
        adds, taken = without_windows(table, reopened, f"kept-{name}")
        removes += taken
    if decided.output is not None and plan.step(ApplyChanges) is None:  # Delta's own MERGE writes a table of changes
        rows = stored(decided.output, schema, plan, batch.batch)
        if window is not None and window.emit == "updates":
            removes += table.hot_files()
            rows = with_open(rows, table, window, batch.evict_us, reopened)
        frames.append(writing(rows, target))
    if folded is not None:
        assert kept is not None
        shown = folded.where(f"{SHOWN} IS NOT NULL").selectExpr(f"{SHOWN}.*", HOT)
        rows = stored(shown, schema, plan, batch.batch, beside=[HOT])
        removes += table.hot_files()
        state = folded.where(f"{OPEN} IS NOT NULL").selectExpr(f"{OPEN}.*")
        frames += [writing(rows, target), writing(state, Target.of(kept, name))]
    files = written(frames)
    left = files.get(kept.path, ()) if kept is not None else None
    return Written((*adds, *files.get(table.path, ())), removes, files.get(quarantine.path, ()), left, metadata)


def commit_batch(
    table: DeltaTable, adds: Sequence[AddFile], removes: Sequence[AddFile | RemoveFile], batch: BatchPlan, app: str,
    info: Mapping[str, Any], marks: Mapping[str, int], metadata: Metadata | None = None,
) -> None:  # fmt: skip
    """Commit the files as batch N of a flow, with the positions that its source wants written.

    Raises:
        ConflictError: the table has come as far, or another writer took files away; nothing is left of `adds`.
    """
    txns = {app: batch.batch, **{f"{app}/{name}": position for name, position in marks.items()}}
    try:
        table.commit(adds=adds, removes=removes, txn=txns, info=info, metadata=metadata, clock_us=batch.clock_us)
    except ConflictError:
        table.discard(adds)
        raise
