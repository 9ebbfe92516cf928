"""What a batch writes and commits: the data files of the table and its quarantine, each in a commit with `txn` N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.correction import without_windows
from lodestream.engines.embedded.drift import rewritten
from lodestream.engines.spark.batch import Batch, encoded, stored
from lodestream.engines.spark.changes import Merge
from lodestream.engines.spark.files import HOT, Rewriting, Target, writing, written
from lodestream.engines.spark.folded import OPEN, SHOWN
from lodestream.engines.spark.windows import corrected, with_open
from lodestream.errors import ConflictError
from lodestream.lake.actions import AddFile, Metadata, RemoveFile
from lodestream.lake.disk import random_id
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, FlowPlan
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
        operation: what the table's history calls it.
        deletions: what happens to the deletions that a table of changes remembers; None for nothing.
        remembering: files of those.
    """

    adds: tuple[AddFile, ...]
    removes: Sequence[AddFile | RemoveFile]
    aside: tuple[AddFile, ...]
    open: tuple[AddFile, ...] | None = None
    metadata: Metadata | None = None
    operation: str = "WRITE"
    deletions: Rewriting | None = None
    remembering: tuple[AddFile, ...] = ()


def write_files(
    decided: Batch, batch: BatchPlan, plan: FlowPlan, tables: Tables, table: DeltaTable, quarantine: DeltaTable,
    app: str, schema: Schema, merge: Merge | None = None, folded: DataFrame | None = None,
    kept: DeltaTable | None = None,
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
        merge: what the batch does to a table of changes.
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
    reopened = decided.reopened
    if reopened:
        made = corrected(tables, plan, batch, reopened)
        frames.append(writing(stored(made, schema, plan, batch.batch), target))
        adds, taken = without_windows(table, reopened, f"kept-{name}")
        removes += taken
    main = _changing(decided, batch, plan, table, schema) if merge is None else merge.table
    deletions = None if merge is None else merge.deletions
    if deletions is not None and deletions.rows is not None:
        frames.append(writing(deletions.rows, Target.of(deletions.table, name)))
    if folded is not None:
        assert kept is not None
        shown = folded.where(f"{SHOWN} IS NOT NULL").selectExpr(f"{SHOWN}.*", HOT)
        main = Rewriting(table, stored(shown, schema, plan, batch.batch, beside=[HOT]), table.hot_files())
        frames.append(writing(folded.where(f"{OPEN} IS NOT NULL").selectExpr(f"{OPEN}.*"), Target.of(kept, name)))
    if main.rows is not None:
        frames.append(writing(main.rows, target))
    files = written(frames)
    return Written(
        (*adds, *files.get(table.path, ())), [*removes, *main.removes], files.get(quarantine.path, ()),
        files.get(kept.path, ()) if kept is not None else None, metadata, "WRITE" if merge is None else "MERGE",
        deletions, () if deletions is None else files.get(deletions.table.path, ()),
    )  # fmt: skip


def _changing(decided: Batch, batch: BatchPlan, plan: FlowPlan, table: DeltaTable, schema: Schema) -> Rewriting:
    """What a batch of rows or windows does to its table, beside the closed windows that are computed again."""
    if decided.output is None:
        return Rewriting(table)
    rows, window = stored(decided.output, schema, plan, batch.batch), plan.step(Aggregation)
    if window is None or window.emit != "updates":
        return Rewriting(table, rows)
    return Rewriting(table, with_open(rows, table, window, batch.evict_us, decided.reopened), table.hot_files())


def commit_batch(
    table: DeltaTable, adds: Sequence[AddFile], removes: Sequence[AddFile | RemoveFile], batch: BatchPlan, app: str,
    info: Mapping[str, Any], marks: Mapping[str, int], metadata: Metadata | None = None, operation: str = "WRITE",
) -> None:  # fmt: skip
    """Commit the files as batch N of a flow, with the positions that its source wants written.

    Raises:
        ConflictError: the table has come as far, or another writer took files away; nothing is left of `adds`.
    """
    txns = {app: batch.batch, **{f"{app}/{name}": position for name, position in marks.items()}}
    try:
        table.commit(
            adds=adds, removes=removes, txn=txns, info=info, metadata=metadata, clock_us=batch.clock_us,
            operation=operation,
        )  # fmt: skip
    except ConflictError:
        table.discard(adds)
        raise
