"""How a batch's outcome becomes files and removals of the table: new rows, window rows, merged changes, new content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.correction import without_windows
from lodestream.engines.embedded.drift import rewritten
from lodestream.engines.embedded.frames import conform, select
from lodestream.engines.embedded.merge import Merge, Rewrite
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.errors import LodestreamError
from lodestream.lake.actions import AddFile, Metadata, RemoveFile
from lodestream.lake.table import DeltaTable, Staged
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, ApplyChanges, FlowPlan, RunQuery, Write
from lodestream.model.table import VALID_TO
from lodestream.model.types import Schema


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main commit will add and remove; `rows` are what it adds, in stored order, for the handover."""

    adds: tuple[AddFile, ...] = ()
    removes: Sequence[RemoveFile] = ()
    rows: pa.Table | None = None
    metadata: Metadata | None = None
    operation: str = "WRITE"


class Output(Protocol):
    """One way to write."""

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the data files durably; the caller commits them."""


class _Writer:
    def __init__(self, plan: FlowPlan, connection: duckdb.DuckDBPyConnection, table: DeltaTable) -> None:
        self._connection = connection
        self._table = table
        self._partitions = next(s.partitions for s in plan.steps if isinstance(s, Write))

    def _write(
        self, rows: pa.Table, batch: BatchPlan, name: str, *, schema: Schema | None = None, hot: bool = False
    ) -> Staged:
        """Write `rows` durably, one file per partition; `name` tells this attempt's files from others."""
        partitions = [p.name for p in self._partitions]
        rows = self._stored(rows, batch.batch, schema)
        return self._table.stage(rows, name=name, partitions=partitions, schema=schema, hot=hot)

    def _stored(self, rows: pa.Table, batch: int, schema: Schema | None = None) -> pa.Table:
        """`rows` with `_batch` and partition columns, in the table's schema or in `schema`."""
        if "_batch" in rows.column_names:
            rows = rows.drop_columns(["_batch"])
        rows = rows.append_column("_batch", pa.repeat(pa.scalar(batch, pa.int64()), len(rows)))
        computed = [p for p in self._partitions if p.name not in rows.column_names]
        if computed:
            values = select(self._connection, rows, [(p.name, p.expression.duckdb) for p in computed])
            for column in computed:
                rows = rows.append_column(column.name, values.column(column.name))
        columns = to_arrow(schema or self._table.snapshot.metadata.schema, nullable=True)
        for field in columns:  # a replayed row has no raw record any more
            if field.name not in rows.column_names:
                rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
        return conform(rows, columns)


class RowOutput(_Writer):
    """Appends the rows that passed."""

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write one file per partition; nothing when no row passed."""
        adds: tuple[AddFile, ...] = ()
        removes: Sequence[RemoveFile] = ()
        metadata = None
        if outcome.schema is not None:
            metadata = replace(self._table.snapshot.metadata, schema=outcome.schema)
            adds, removes = rewritten(self._table, outcome.schema, f"widened-{batch.batch}-{attempt}")
        if not len(outcome.rows):
            return Prepared(adds, removes, metadata=metadata)
        staged = self._write(outcome.rows, batch, f"{batch.batch}-{attempt}", schema=outcome.schema)
        return Prepared((*adds, *staged.adds), removes, rows=staged.rows, metadata=metadata)


class WindowOutput(_Writer):
    """Appends closed windows; with `emit: updates` keeps the open ones in one hot file that is swapped."""

    def __init__(
        self, plan: FlowPlan, connection: duckdb.DuckDBPyConnection, table: DeltaTable, step: Aggregation
    ) -> None:
        super().__init__(plan, connection, table)
        self._updates = step.emit == "updates"

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the closed windows and, if any open window changed, a new hot file."""
        windows = state.windows
        assert isinstance(windows, OpenWindows)
        adds: tuple[AddFile, ...] = ()
        removes: Sequence[RemoveFile] = ()
        closed = outcome.closed
        if closed is not None and len(closed):
            adds += self._write(windows.finished(closed), batch, f"{batch.batch}-{attempt}").adds
        correction = outcome.correction
        scattered = self._updates and state.scattered
        if correction is not None or scattered:
            reopened = frozenset[int]() if correction is None else correction.start_us
            open_after_us = batch.late_us if scattered else None
            kept, removes = without_windows(self._table, reopened, f"kept-{batch.batch}-{attempt}", open_after_us)
            adds += kept
        if correction is not None:
            adds += self._write(windows.finished(correction.windows), batch, f"corrected-{batch.batch}-{attempt}").adds
        if self._updates and (outcome.touched or adds or scattered):
            hot = [] if scattered else self._table.hot_files()
            removes = [*removes, *(RemoveFile.of(a) for a in hot)]
            open_rows = windows.finished(windows.table, final=False)
            adds += self.windows_file(open_rows, batch, f"hot-{batch.batch}-{attempt}", hot=True)
        return Prepared(adds, removes)

    def windows_file(self, rows: pa.Table, batch: BatchPlan, name: str, *, hot: bool = False) -> tuple[AddFile, ...]:
        """Windows as a reader sees them as durable files, `hot` when they are open; nothing for none."""
        return self._write(rows, batch, name, hot=hot).adds if len(rows) else ()


class MergeOutput(_Writer):
    """Adds the rows that changes make and writes again the files whose rows they change, without those.

    All files are hot: each may be swapped with the next batch. Files hold at most `file_rows` rows, so that a change
    makes little to be written again, and small ones are put together when there are many.
    """

    file_rows = 1 << 16
    small_files_max = 16

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the new files; memory is bounded by the batch and two files."""
        merge = outcome.merge
        assert merge is not None
        rewrites = [*merge.rewrites, *self._small(merge)] if len(merge.rows) or merge.rewrites else []
        adds: list[AddFile] = []

        def put(rows: pa.Table, *, rest: bool) -> pa.Table:
            """Write whole files, with `rest` all of it; returns what is left."""
            while len(rows) >= self.file_rows or (rest and len(rows)):
                name = f"{batch.batch}-{attempt}-{len(adds)}"
                adds.extend(self._table.stage(rows.slice(0, self.file_rows), name=name, hot=True).adds)
                rows = rows.slice(self.file_rows)
            return rows

        try:
            changed = [self._stored(merge.rows, batch.batch)]
            kept = changed[0].slice(0, 0)
            for rewrite in rewrites:
                stay, ended = _split(self._table.read([rewrite.file]), rewrite)
                changed.append(self._stored(ended, batch.batch))
                kept = put(pa.concat_tables([kept, conform(stay, kept.schema)]), rest=False)
            put(kept, rest=True)
            put(pa.concat_tables(changed), rest=True)
        except LodestreamError:
            self._table.discard(adds)
            raise
        return Prepared(tuple(adds), [RemoveFile.of(one.file) for one in rewrites], operation="MERGE")

    def _small(self, merge: Merge) -> list[Rewrite]:
        """Small files that stand, if there are so many that they should be one."""
        changing = {rewrite.file.path for rewrite in merge.rewrites}
        none = np.empty(0, np.int64)
        small = [
            Rewrite(file, none, none, pa.nulls(0))
            for file in self._table.files()
            if file.path not in changing and (file.num_records or 0) < self.file_rows // 4
        ]
        return small if len(small) >= self.small_files_max else []


def _split(rows: pa.Table, rewrite: Rewrite) -> tuple[pa.Table, pa.Table]:
    """The rows of a file that stay as they are, and those whose span ends elsewhere now."""
    stays = np.ones(len(rows), np.bool_)
    stays[rewrite.gone] = stays[rewrite.ended] = False
    ended = rows.take(pa.array(rewrite.ended))
    if len(ended):
        at = ended.schema.get_field_index(VALID_TO)
        ended = ended.set_column(at, ended.schema.field(at), rewrite.until.cast(ended.schema.field(at).type))
    return rows.filter(pa.array(stays)), ended


class QueryOutput(_Writer):
    """Replaces the table's content in one commit."""

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the result and remove all that was there."""
        rows = outcome.rows
        adds = self._write(rows, batch, f"{batch.batch}-{attempt}").adds if len(rows) else ()
        return Prepared(adds, [RemoveFile.of(a) for a in self._table.files()], operation="REFRESH")


def make_output(plan: FlowPlan, connection: duckdb.DuckDBPyConnection, table: DeltaTable) -> Output:
    """How a flow writes its table."""
    window = plan.step(Aggregation)
    if window is not None:
        return WindowOutput(plan, connection, table, window)
    if any(isinstance(step, ApplyChanges) for step in plan.steps):
        return MergeOutput(plan, connection, table)
    if isinstance(plan.steps[0], RunQuery):
        return QueryOutput(plan, connection, table)
    return RowOutput(plan, connection, table)
