"""The rows of a flow that wait for an answer: part of its state, in the order in which they came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_QUESTION, _SINCE, _NUMBER = "_question", "_since_us", "_number"

Mask = npt.NDArray[np.bool_]


class WaitingRows:
    """Rows as their stages left them, each with its question, since when it waits, and a number of its own."""

    def __init__(self) -> None:
        self.table: pa.Table | None = None
        self.entered = 0

    def __len__(self) -> int:
        return 0 if self.table is None else len(self.table)

    @property
    def questions(self) -> list[str]:
        """The question of each row."""
        return [] if self.table is None else self.table.column(_QUESTION).to_pylist()

    @property
    def since_us(self) -> npt.NDArray[np.int64]:
        """Since when each row waits."""
        if self.table is None:
            return np.empty(0, np.int64)
        found: npt.NDArray[np.int64] = self.table.column(_SINCE).to_numpy()
        return found

    @property
    def rows(self) -> pa.Table | None:
        """The rows themselves, None before the first."""
        return None if self.table is None else self.table.drop_columns([_QUESTION, _SINCE, _NUMBER])

    def take_in(self, rows: pa.Table, questions: list[str], since_us: int) -> int:
        """Put n rows behind those that wait; returns how many waited before."""
        before, count = len(self), len(rows)
        numbers = np.arange(self.entered, self.entered + count, dtype=np.int64)
        rows = rows.append_column(_QUESTION, pa.array(questions, pa.string()))
        rows = rows.append_column(_SINCE, pa.array(np.full(count, since_us, np.int64)))
        self._join(rows.append_column(_NUMBER, pa.array(numbers)))
        self.entered += count
        return before

    def release(self, leaving: Mask, before: int) -> tuple[pa.Table, list[str], pa.Table, pa.Table]:
        """Let rows go.

        Args:
            leaving: one flag per row.
            before: how many rows had waited before this batch.

        Returns:
            (rows, questions, stayed, left): those that go; then for the state's next link the rows of this batch that
            stay, and the numbers of those from before it that go.
        """
        assert self.table is not None
        table = self.table
        gone = table.filter(pa.array(leaving))
        stayed = table.slice(before).filter(pa.array(~leaving[before:]))
        left = table.slice(0, before).filter(pa.array(leaving[:before])).select([_NUMBER])
        self.table = table.filter(pa.array(~leaving)) if leaving.any() else table
        questions: list[str] = gone.column(_QUESTION).to_pylist()
        return gone.drop_columns([_QUESTION, _SINCE, _NUMBER]), questions, stayed, left

    def apply(self, stayed: pa.Table | None, left: pa.Table | None, entered: int) -> None:
        """Take in one stored link: the rows that came and stayed, the numbers of those that went."""
        if left is not None and self.table is not None:
            numbers = self.table.column(_NUMBER).to_numpy()
            self.table = self.table.filter(pa.array(~np.isin(numbers, left.column(_NUMBER).to_numpy())))
        if stayed is not None:
            self._join(stayed)
        self.entered = entered

    def _join(self, rows: pa.Table) -> None:
        if self.table is None or not len(self.table):
            self.table = rows
        elif len(rows):
            table = pa.concat_tables([self.table, rows], promote_options="permissive")
            self.table = table.combine_chunks() if table.column(_NUMBER).num_chunks > 64 else table
