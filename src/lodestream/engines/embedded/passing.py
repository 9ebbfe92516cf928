"""A batch's rows on their way through the stages: which still stand, and what became of the others."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.correction import Correction
from lodestream.engines.embedded.leaving import Erased
from lodestream.engines.embedded.merge import Merge
from lodestream.engines.embedded.rejects import rejected
from lodestream.engines.embedded.state import Changes, FlowState
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName
from lodestream.model.types import Schema

INDEX = "_index"
"""Column that holds the number of the input row while a batch passes the stages."""


@dataclass
class Outcome:
    """What a batch of rows became.

    Attributes:
        rows: rows that passed, with their derived and looked-up columns (empty for window flows).
        rejects: quarantine rows.
        closed: closed windows, in the form of `OpenWindows.table`; None without a window stage.
        touched: whether any open window changed.
        changes: what to add to the stored state.
        counts: rows by disposition; `rule:<name>` counts rows that broke a rule.
        schema: the table's new columns when drift changed them, else None.
        reopened: starts of closed windows that accepted late rows belong to.
        correction: the new content of those windows.
        merge: what a batch of changes does to its table.
        erased: what an erasing batch takes out.
    """

    rows: pa.Table
    rejects: list[pa.Table] = field(default_factory=list)
    closed: pa.Table | None = None
    touched: bool = False
    changes: Changes = field(default_factory=Changes)
    counts: dict[str, int] = field(default_factory=dict)
    schema: Schema | None = None
    reopened: frozenset[int] = frozenset()
    correction: Correction | None = None
    merge: Merge | None = None
    erased: Erased | None = None

    def count(self, kind: str, number: int) -> None:
        """Add to a count."""
        if number:
            self.counts[kind] = self.counts.get(kind, 0) + number

    def reject_first(self, rejects: pa.Table | None) -> None:
        """Put quarantine rows of records that never came to a stage in front of the others."""
        if rejects is not None and len(rejects):
            self.rejects.insert(0, rejects)
            for kind, number in collections.Counter(rejects.column("kind").to_pylist()).items():
                self.count(kind, number)


class Pass:
    """One batch on its way through the stages.

    Attributes:
        connection: the flow's DuckDB.
        given: the input rows.
        batch: the batch's plan.
        state: that of the batch before; stages move it on.
        out: what became of the rows so far.
        table: the flow's table.
        event_column: name of the event-time column, empty before the watermark stage.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        given: pa.Table,
        batch: BatchPlan,
        state: FlowState,
        out: Outcome,
        table: TableName,
    ) -> None:
        self.connection = connection
        self.given = given
        self.batch = batch
        self.state = state
        self.out = out
        self.table = table
        self.event_column = ""
        self._alive: np.ndarray | None = None

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the rows that still stand."""
        values = self.out.rows.column(name)
        return values if self._alive is None else values.filter(pa.array(self._alive))

    def drop(self, gone: np.ndarray) -> np.ndarray:
        """Take the flagged rows, of those that still stand, out of the batch; returns their input numbers.

        The table is copied once for the whole batch, in `settle`, not once for every stage.
        """
        bad: np.ndarray = self.column(INDEX).to_numpy()[gone]
        if self._alive is None:
            self._alive = ~gone
        else:
            self._alive[np.flatnonzero(self._alive)[gone]] = False
        return bad

    def settle(self) -> pa.Table:
        """Copy out the rows that still stand."""
        if self._alive is not None:
            self.out.rows = self.out.rows.filter(pa.array(self._alive))
            self._alive = None
        return self.out.rows

    def put(self, name: str, values: pa.ChunkedArray) -> None:
        """Set a column of the current rows, or append it; call `settle` before."""
        rows = self.out.rows
        at = rows.schema.get_field_index(name)
        self.out.rows = rows.set_column(at, name, values) if at >= 0 else rows.append_column(name, values)

    def reject(
        self,
        mask: np.ndarray,
        kind: str,
        reasons: list[list[str]] | pa.Array,
        details: list[str | None] | None = None,
    ) -> None:
        """Set aside the current rows where `mask` is true; `reasons` has one list per such row."""
        self.record(self.drop(mask), kind, reasons, details)

    def record(
        self,
        bad: np.ndarray,
        kind: str,
        reasons: list[list[str]] | pa.Array,
        details: list[str | None] | None = None,
    ) -> None:
        """Write quarantine rows for the input rows numbered `bad`."""
        keep_row = kind not in ("duplicate", "dropped")
        unwanted = {"_batch", "_raw"} if keep_row else set(self.given.column_names) - {"_source", "_position"}
        source = self.given.drop_columns([c for c in self.given.column_names if c in unwanted])
        # A filter is ten times as fast as a take here; rows are set aside in order but for the python step's.
        if len(bad) > 1 and (np.diff(bad) <= 0).any():
            source = source.take(pa.array(bad))
        else:
            chosen = np.zeros(len(source), np.bool_)
            chosen[bad] = True
            source = source.filter(pa.array(chosen))
        self.out.rejects.append(
            rejected(
                source, kind, reasons, batch=self.batch.batch, clock_us=self.batch.clock_us,
                keep_row=keep_row, details=details,
            )
        )  # fmt: skip
        self.out.count(kind, len(bad))

    def reject_missing_time(self) -> None:
        """Set aside the rows without event time."""
        missing = pc.is_null(self.column(self.event_column))
        if pc.any(missing).as_py():
            mask = mask_of(missing)
            self.reject(mask, "quarantine", [["null_event_time"]] * int(mask.sum()))

    def reject_late(self, late: np.ndarray) -> None:
        """Set aside the flagged rows as late."""
        if late.any():
            self.reject(late, "late", [["late"]] * int(late.sum()))

    def events(self) -> np.ndarray:
        """Event times of the current rows, int64 microseconds."""
        times: np.ndarray = self.column(self.event_column).cast(pa.int64()).to_numpy()
        return times


def mask_of(column: pa.ChunkedArray) -> np.ndarray:
    """A boolean column without NULL as a NumPy array."""
    flags: np.ndarray = column.to_numpy().astype(np.bool_, copy=False)
    return flags
