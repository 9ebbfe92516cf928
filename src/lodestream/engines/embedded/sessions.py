"""Open sessions of a flow: partial aggregates per session and group, merged where rows bring them together."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.frames import conform, quoted, select
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.passing import mask_of
from lodestream.engines.embedded.spill import Spill
from lodestream.engines.embedded.windows import START, OpenWindows
from lodestream.model.steps import Aggregation
from lodestream.model.table import Session

END = "_end_us"


class OpenSessions(OpenWindows):
    """The sessions that the watermark has not closed; those of one group neither overlap nor touch.

    `table` has `_end_us` after `_start_us`.
    """

    bounds = (START, END)

    def fold(self, rows: pa.Table, start_us: np.ndarray, digests: np.ndarray) -> pa.Table:
        """Add rows to their sessions; `start_us` are their event times.

        Returns:
            The sessions that grew, in the form of `table`; each stands for all that lie within its bounds.
        """
        batch = self._batch(rows, start_us, digests)
        folded = conform(self._sessions(batch), self.schema)
        touched = f"EXISTS (SELECT 1 FROM folded c WHERE {self._same(self._groups)})"
        near = self._run(
            "SELECT *, true AS _new FROM folded"
            f" UNION ALL BY NAME SELECT o.*, false AS _new FROM open o WHERE {touched}",
            folded=folded, open=self.table,
        )  # fmt: skip
        merged = self._compacted(self._merge(near))
        changed = conform(merged.filter(merged.column("_new")), self.schema)
        everything = self._stream(
            f"SELECT * FROM (SELECT * FROM merged UNION ALL BY NAME SELECT o.* FROM open o WHERE NOT {touched})"
            f" ORDER BY {', '.join([START, *map(quoted, self._groups)])}",
            merged=conform(merged, self.schema), folded=folded, open=self.table,
        )  # fmt: skip
        self._keep(everything)
        return changed

    def ends(self, windows: pa.Table) -> pa.ChunkedArray:
        """The end of each session: the gap after its last row."""
        return windows.column(END)

    def _sessions(self, batch: pa.Table) -> pa.Table:
        """The rows of one batch by themselves, as sessions."""
        gap_us = self._step.window.span_us
        groups = [(name, e.duckdb) for name, e in self._step.group_by]
        values = select(self._connection, batch, groups).columns if groups else []
        start_us = batch.column(START).to_numpy()
        ends_us = start_us + gap_us
        session = numbered_sessions(values, start_us, ends_us, np.zeros(len(batch), np.bool_))
        bounds = [f"min({START}) AS {START}", f"max({START}) + {gap_us} AS {END}"]
        keys = "".join(f", {i + 3}" for i in range(len(groups)))
        return self._run(
            f"SELECT {', '.join([*bounds, *self._initial()])} FROM batch GROUP BY _session{keys}",
            batch=batch.append_column("_session", pa.array(session)),
        )

    def _merge(self, near: pa.Table) -> pa.Table:
        """Sessions that overlap or touch as one; `_new` says whether one of them was new."""
        start_us, ends_us = near.column(START).to_numpy(), near.column(END).to_numpy()
        values = [near.column(name) for name in self._groups]
        session = numbered_sessions(values, start_us, ends_us, mask_of(near.column("_new")))
        bounds = [f"min({START}) AS {START}", f"max({END}) AS {END}"]
        groups = [quoted(name) for name in self._groups]
        return self._run(
            f"SELECT {', '.join([*bounds, *groups, *self._merged()])} FROM near"
            f" GROUP BY {', '.join([*groups, '_session'])}",
            near=near.append_column("_session", pa.array(session)),
        )

    def _replaced(self) -> str:
        """Whether session `o` of the state lies within session `c`, which it became part of."""
        return f"o.{START} >= c.{START} AND o.{END} <= c.{END} AND {self._same(self._groups)}"


def numbered_sessions(
    groups: Sequence[pa.ChunkedArray], start_us: np.ndarray, ends_us: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """Number the sessions that n spans make: those of a group that overlap, or touch, are one.

    Args:
        groups: group columns of n values each; none makes one group of all.
        start_us: where each span begins, n times in microseconds.
        ends_us: where it ends; a later start has no earlier end among those with equal `new`.
        new: n flags that part the spans into two such kinds.

    Returns:
        n numbers; equal numbers are one session.
    """
    high, low = hash_keys(groups) if groups and len(start_us) else (np.zeros(len(start_us)),) * 2
    order = np.lexsort((start_us, low, high))
    start, ends, kinds = start_us[order], ends_us[order], new[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    group = np.cumsum(~same)
    reached = np.zeros(len(order), np.bool_)
    for kind in (kinds, ~kinds):  # the span before of each kind is the one of its kind that ends last
        last = np.maximum.accumulate(np.where(kind, np.arange(len(order)), -1))
        before = np.concatenate([[-1], last[:-1]]) if len(order) else last
        reached |= (before >= 0) & (group[before] == group) & (start <= ends[before])
    session = np.empty(len(order), np.int64)
    session[order] = np.cumsum(~reached)
    return session


def open_windows(connection: duckdb.DuckDBPyConnection, step: Aggregation, spill: Spill | None = None) -> OpenWindows:
    """No open windows yet, of the kind that the step makes."""
    return (OpenSessions if isinstance(step.window, Session) else OpenWindows)(connection, step, spill)
