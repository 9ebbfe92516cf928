"""Windows that Spark has no operator for, or cannot make late enough in a query, folded in its Python workers.

`engines.embedded.kept` says which. A task has the open windows of some groups and the batch's rows of those, and runs
the embedded engine's own code over them. The open windows lie in a small Delta table beside the flow's plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.aggregate import aggregate
from lodestream.engines.embedded.correction import correct
from lodestream.engines.embedded.frames import conform, connect
from lodestream.engines.embedded.kept import kept_schema, signed, unsigned
from lodestream.engines.embedded.passing import INDEX, Outcome, Pass
from lodestream.engines.embedded.sessions import open_windows
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.spark.expressions import quoted, value
from lodestream.engines.spark.files import HOT, reading
from lodestream.engines.spark.marks import PARTITIONS
from lodestream.errors import LodestreamError
from lodestream.lake.actions import AddFile
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, FlowPlan, Watermark
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

OPEN, SHOWN = "_open", "_shown"
"""A window as the state has it; a window as the table has it. One of them is NULL."""
_ROW, _SHARE = "_row", "_share"


@dataclass(frozen=True)
class Folding:
    """What tasks need to fold the windows of a flow."""

    plan: FlowPlan

    @cached_property
    def step(self) -> Aggregation:
        """The windows."""
        step = self.plan.step(Aggregation)
        assert step is not None
        return step

    @cached_property
    def event(self) -> str:
        """The column of event time."""
        watermark = self.plan.step(Watermark)
        assert watermark is not None
        return watermark.event_time.column

    @cached_property
    def state(self) -> Schema:
        """Columns of open windows as they are stored."""
        with connect() as connection:
            return kept_schema(open_windows(connection, self.step).schema)

    @cached_property
    def reads(self) -> list[str]:
        """Columns of rows that are read."""
        with connect() as connection:
            needed = open_windows(connection, self.step).needed
        return sorted({*needed, self.event, "_source", "_position"})

    @cached_property
    def shown(self) -> Schema:
        """Columns of the table that windows have themselves."""
        computed = {"_batch", *self.plan.partition_columns}
        return Schema(tuple(column for column in self.plan.schema if column.name not in computed))

    def fold(self, rows: DataFrame, before: Sequence[AddFile], table: DeltaTable, batch: BatchPlan) -> DataFrame:
        """The windows that the table gets, in `SHOWN` with `HOT`, and those that are open after the batch, in `OPEN`.

        Args:
            rows: those that go on.
            before: files of the windows that were open before.
            table: what they are files of.
            batch: the batch's plan.
        """
        given = self._given(rows)
        if before:
            there = reading(rows.sparkSession, table.disk, table.path, before, self.state)
            groups = [quoted(name) for name, _ in self.step.group_by]
            given = given.unionByName(_shared(there, OPEN, self.state.names, groups), allowMissingColumns=True)
        columns = f"{SHOWN} {_struct(self.shown)}, {HOT} boolean, {OPEN} {_struct(self.state)}"
        return self._spread(given).mapInArrow(_Task(self, batch).fold, columns)

    def correct(self, rows: DataFrame, reopened: frozenset[int]) -> DataFrame:
        """Windows that closed, made again from all their rows; in the table's columns.

        Args:
            rows: every row of theirs.
            reopened: their starts, microseconds.
        """
        task = _Correction(self, reopened)
        made = self._spread(self._given(rows)).mapInArrow(task.correct, f"{SHOWN} {_struct(self.shown)}")
        return made.selectExpr(f"{SHOWN}.*")

    def _given(self, rows: DataFrame) -> DataFrame:
        return _shared(rows, _ROW, self.reads, [value(e) for _, e in self.step.group_by])

    def _spread(self, given: DataFrame) -> DataFrame:
        """Rows and windows of a group in one task."""
        partitions = str(given.sparkSession.conf.get(PARTITIONS))
        return given.repartition(int(partitions) if self.step.group_by else 1, _SHARE)

    def rows_of(self, table: pa.Table, column: str, kinds: Schema) -> pa.Table:
        """The values of a column of structs, without NULL, as rows."""
        structs = table.column(column).drop_null().combine_chunks()
        structs = structs if isinstance(structs, pa.StructArray) else structs.chunk(0)
        rows = pa.Table.from_arrays(structs.flatten(), names=[field.name for field in structs.type])
        return rows if not len(kinds) else conform(rows, to_arrow(kinds, nullable=True))


@dataclass(frozen=True)
class _Task:
    """What one task does; runs in a worker."""

    folding: Folding
    batch: BatchPlan

    def fold(self, pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows and open windows in, windows out."""
        given = list(pieces)
        if not given:
            return
        folding, table = self.folding, pa.Table.from_batches(given)
        with connect() as connection:
            state = FlowState()
            windows = state.windows = open_windows(connection, folding.step)
            if OPEN in table.column_names:
                windows.refill(unsigned(folding.rows_of(table, OPEN, folding.state), windows.schema))
            rows = folding.rows_of(table, _ROW, Schema())
            out = Outcome(rows.append_column(INDEX, pa.array(np.arange(len(rows), dtype=np.int64))))
            passing = Pass(connection, rows, self.batch, state, out, folding.plan.table.name)
            passing.event_column = folding.event
            aggregate(passing, folding.step)
            if out.counts.get("output", 0) != len(rows):
                raise LodestreamError("engines disagree on a row of a window, please report it")
            closed = out.closed if out.closed is not None else windows.schema.empty_table()
            parts = [(windows.finished(closed), False)]
            if folding.step.emit == "updates":
                parts.append((windows.finished(windows.table, final=False), True))
            for shown, hot in parts:
                yield from self._told(shown, hot)
            yield from self._stored(windows.table)

    def _told(self, shown: pa.Table, hot: bool) -> Iterator[pa.RecordBatch]:
        rows = conform(shown, to_arrow(self.folding.shown, nullable=True))
        yield from _batches(rows, SHOWN, [pa.repeat(pa.scalar(hot), len(rows)), _nothing(self.folding.state, rows)])

    def _stored(self, windows: pa.Table) -> Iterator[pa.RecordBatch]:
        for piece in signed(windows).combine_chunks().to_batches():
            shown = pa.nulls(len(piece), pa.struct(list(to_arrow(self.folding.shown, nullable=True))))
            hot = pa.nulls(len(piece), pa.bool_())
            yield pa.record_batch([shown, hot, piece.to_struct_array()], [SHOWN, HOT, OPEN])


@dataclass(frozen=True)
class _Correction:
    """What one task does to windows that closed; runs in a worker."""

    folding: Folding
    reopened: frozenset[int]

    def correct(self, pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """All rows of some groups in, windows out."""
        given = list(pieces)
        if not given:
            return
        folding = self.folding
        rows = folding.rows_of(pa.Table.from_batches(given), _ROW, Schema())
        with connect() as connection:
            fresh = open_windows(connection, folding.step)
            made = correct(fresh, folding.step, rows, folding.event, self.reopened, set()).windows
            shown = conform(fresh.finished(made), to_arrow(folding.shown, nullable=True))
        yield from _batches(shown, SHOWN, [])


def _shared(frame: DataFrame, name: str, columns: Sequence[str], groups: Sequence[str]) -> DataFrame:
    """The columns as one struct of that name, with the number that all of a group have."""
    return frame.selectExpr(
        f"struct({', '.join(map(quoted, columns))}) AS {name}", f"xxhash64({', '.join(['0', *groups])}) AS {_SHARE}"
    )


def _batches(rows: pa.Table, name: str, beside: Sequence[pa.Array]) -> Iterator[pa.RecordBatch]:
    for piece in rows.combine_chunks().to_batches():
        yield pa.record_batch([piece.to_struct_array(), *beside], [name, HOT, OPEN][: 1 + len(beside)])


def _nothing(kinds: Schema, rows: pa.Table) -> pa.Array:
    return pa.nulls(len(rows), pa.struct(list(to_arrow(kinds, nullable=True))))


def _struct(kinds: Schema) -> str:
    return f"struct<{', '.join(f'{quoted(column.name)}: {column.type}' for column in kinds)}>"
