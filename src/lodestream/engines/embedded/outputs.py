"""How a batch's outcome becomes files and removals of the table: appended rows, window rows, or a whole new content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import duckdb
import pyarrow as pa

from lodestream.engines.embedded.correction import without_windows
from lodestream.engines.embedded.drift import rewritten
from lodestream.engines.embedded.frames import conform, select
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.lake.actions import AddFile, Metadata, RemoveFile
from lodestream.lake.table import DeltaTable, Staged
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, FlowPlan, Write
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
        columns = to_arrow(schema or self._table.snapshot.metadata.schema)
        for field in columns:  # a replayed row has no raw record any more
            if field.name not in rows.column_names:
                rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
        return conform(rows, pa.schema([f.with_nullable(True) for f in columns]))


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
        if correction is not None:
            kept, removes = without_windows(self._table, correction.start_us, f"kept-{batch.batch}-{attempt}")
            staged = self._write(windows.finished(correction.windows), batch, f"corrected-{batch.batch}-{attempt}")
            adds += (*kept, *staged.adds)
        if self._updates and (outcome.touched or adds):
            removes = [*removes, *(RemoveFile.of(a) for a in self._table.hot_files())]
            if len(windows.table):
                adds += self._write(
                    windows.finished(windows.table), batch, f"hot-{batch.batch}-{attempt}", hot=True
                ).adds
        return Prepared(adds, removes)


class QueryOutput(_Writer):
    """Replaces the table's content in one commit."""

    def stage(self, outcome: Outcome, state: FlowState, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the result and remove all that was there."""
        rows = outcome.rows
        adds = self._write(rows, batch, f"{batch.batch}-{attempt}").adds if len(rows) else ()
        return Prepared(adds, [RemoveFile.of(a) for a in self._table.files()], operation="REFRESH")
