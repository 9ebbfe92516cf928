"""Open event-time windows of a flow: partial aggregates per window and group, folded a batch at a time."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import conform, naive, quoted
from lodestream.errors import LodestreamError
from lodestream.model.arrow import to_arrow_type
from lodestream.model.steps import Aggregation
from lodestream.model.table import WINDOW_END, WINDOW_START

_START = "_start_us"


def assign(event_us: pa.Array, every_us: int, step_us: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows that each event falls into, aligned to 1970-01-01 UTC.

    Args:
        event_us: n event times as int64 microseconds, no NULL.
        every_us: window length.
        step_us: distance of window starts; equal to `every_us` for tumbling windows.

    Returns:
        (row, start_us): m row numbers and window starts, m = n for tumbling windows; ordered by row.
    """
    events = event_us.to_numpy(zero_copy_only=False)
    last = events // step_us * step_us
    rows = np.arange(len(events))
    if step_us == every_us:
        return rows, last
    count = -(-every_us // step_us)
    starts = last[:, None] - np.arange(count) * step_us
    inside = starts + every_us > events[:, None]
    return np.broadcast_to(rows[:, None], starts.shape)[inside], starts[inside]


class OpenWindows:
    """The windows that the watermark has not closed.

    `table` has one row per window and group: `_start_us`, the groups, the partials p0 …, `_rows`, `_digest`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, step: Aggregation) -> None:
        self._connection = connection
        self._step = step
        self._every_us = step.window.every_us
        self._groups = [name for name, _ in step.group_by]
        self._partials = {p.name: p for _, measure in step.measures for p in measure.partials}
        fields = [pa.field(_START, pa.int64())]
        fields += [pa.field(name, to_arrow_type(e.type)) for name, e in step.group_by]
        fields += [pa.field(p.name, to_arrow_type(p.type)) for p in self._partials.values()]
        fields += [pa.field("_rows", pa.int64()), pa.field("_digest", pa.uint64())]
        self.schema = pa.schema(fields)
        self.table: pa.Table = self.schema.empty_table()

    def fold(self, rows: pa.Table, start_us: np.ndarray, digests: np.ndarray) -> pa.Table:
        """Add rows to their windows.

        Args:
            rows: one row per (event, window) pair, with the columns that groups and measures read.
            start_us: the window start of each row.
            digests: the position hash of each row.

        Returns:
            The windows that changed, in the form of `table`.
        """
        columns = {_START: pa.array(start_us), "_hash": pa.array(digests)}
        batch = pa.table({**columns, **dict(zip(rows.column_names, naive(rows).columns, strict=True))})
        groups = [f"{e.duckdb} AS {quoted(name)}" for name, e in self._step.group_by]
        partials = [f"{p.initial} AS {quoted(p.name)}" for p in self._partials.values()]
        listed = ", ".join([_START, *groups, *partials, "count(*) AS _rows", "bit_xor(_hash) AS _digest"])
        keys = ", ".join(str(i + 1) for i in range(1 + len(groups)))
        folded = self._run(f"SELECT {listed} FROM batch GROUP BY {keys}", batch=batch)
        merges = [f"{p.merge} AS {quoted(p.name)}" for p in self._partials.values()]
        names = ", ".join([_START, *map(quoted, self._groups)])
        listed = ", ".join([names, *merges, "sum(_rows)::BIGINT AS _rows", "bit_xor(_digest) AS _digest"])
        merged = self._run(
            f"SELECT {listed}, bool_or(_new) AS _new FROM (SELECT *, true AS _new FROM folded UNION ALL BY NAME"
            f" SELECT *, false AS _new FROM open) GROUP BY {names} ORDER BY {names}",
            folded=conform(folded, self.schema), open=self.table,
        )  # fmt: skip
        changed = merged.filter(merged.column("_new"))
        self.table = conform(merged, self.schema)
        return conform(changed, self.schema)

    def upsert(self, changed: pa.Table) -> None:
        """Replace the windows that `changed` holds; used when state is loaded."""
        if not len(changed):
            return
        names = [_START, *self._groups]
        equal = " AND ".join(f"o.{quoted(n)} IS NOT DISTINCT FROM c.{quoted(n)}" for n in names)
        order = ", ".join(map(quoted, names))
        merged = self._run(
            f"SELECT * FROM (SELECT * FROM changed UNION ALL BY NAME SELECT o.* FROM open o WHERE NOT EXISTS"
            f" (SELECT 1 FROM changed c WHERE {equal})) ORDER BY {order}",
            changed=changed, open=self.table,
        )  # fmt: skip
        self.table = conform(merged, self.schema)

    def close(self, evict_us: int) -> pa.Table:
        """Take out and return the windows that end at or before `evict_us`, in the form of `table`."""
        closes = pc.less_equal(self.table.column(_START), evict_us - self._every_us)
        closed = self.table.filter(closes)
        if len(closed):
            self.table = self.table.filter(pc.invert(closes))
        return closed

    def finished(self, windows: pa.Table) -> pa.Table:
        """The rows that a reader sees for `windows`: bounds, groups, measures, `_rows`, `_digest`.

        Raises:
            LodestreamError: a measure errs where Spark would raise, such as a sum that overflows.
        """
        items = [
            f"make_timestamp({_START}) AS {WINDOW_START}",
            f"make_timestamp({_START} + {self._every_us}) AS {WINDOW_END}",
        ]
        items += [quoted(name) for name in self._groups]
        items += [f"{measure.final} AS {quoted(name)}" for name, measure in self._step.measures]
        errors = [m.final_error for _, m in self._step.measures if m.final_error is not None]
        failed = (
            f"({' OR '.join(f'coalesce(({e}), false)' for e in errors)}) AS _failed" if errors else "false AS _failed"
        )
        result = self._run(f"SELECT {', '.join([*items, '_rows', '_digest', failed])} FROM done", done=windows)
        if pc.any(result.column("_failed")).as_py():
            raise LodestreamError("a measure overflows or errs; the table keeps its last version")
        digest = pa.chunked_array([c.view(pa.int64()) for c in result.column("_digest").chunks], pa.int64())
        return result.drop_columns(["_failed", "_digest"]).append_column("_digest", digest)

    def _run(self, sql: str, **tables: pa.Table) -> pa.Table:
        for name, table in tables.items():
            self._connection.register(name, naive(table))
        try:
            return self._connection.sql(sql).to_arrow_table()
        finally:
            for name in tables:
                self._connection.unregister(name)
