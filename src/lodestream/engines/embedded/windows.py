"""Open event-time windows of a flow: partial aggregates per window and group, folded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import conform, naive, quoted
from lodestream.engines.embedded.spill import ROWS, Kept, Spill, filtered
from lodestream.errors import LodestreamError
from lodestream.model.arrow import to_arrow_type
from lodestream.model.steps import Aggregation
from lodestream.model.table import WINDOW_END, WINDOW_START, Session, Window

START = "_start_us"
COVERS = "_covers"
_COVERS = pa.list_(
    pa.struct([("source", pa.string()), *((name, pa.int64()) for name in ("first", "last", "rows", "digest"))])
)
_ONE = (
    'struct_pack(source := CAST(_source AS VARCHAR), "first" := _position, "last" := _position, "rows" := 1::BIGINT,'
    " digest := _signed)"
)
_COMPACT = f"""
WITH numbered AS (SELECT *, row_number() OVER () AS _window FROM new),
entries AS (SELECT _window, unnest({COVERS}) AS e FROM numbered),
sources AS (
  SELECT _window, struct_pack(source := e.source, "first" := min(e.first), "last" := max(e.last),
    "rows" := sum(e.rows)::BIGINT, digest := bit_xor(e.digest)) AS entry
  FROM entries GROUP BY _window, e.source),
lists AS (SELECT _window, list(entry ORDER BY entry) AS {COVERS} FROM sources GROUP BY _window)
SELECT numbered.* EXCLUDE (_window, {COVERS}), lists.{COVERS} FROM numbered JOIN lists USING (_window) ORDER BY _window
"""


def assign(event_us: pa.Array, window: Window | Session) -> tuple[np.ndarray, np.ndarray]:
    """The windows that each event falls into, aligned to 1970-01-01 UTC.

    Args:
        event_us: n event times as int64 microseconds, no NULL.
        window: which windows. A row's session begins with the row itself until it is merged with others.

    Returns:
        (row, start_us): m row numbers and window starts, m = n unless windows hop; ordered by row.
    """
    events = event_us.to_numpy(zero_copy_only=False)
    if isinstance(window, Session):
        return np.arange(len(events)), events
    every_us, step_us = window.every_us, window.step_us
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

    `table` has one row per window and group: `_start_us`, the groups, the partials p0 …, `_rows`, `_digest`. It lies
    in a file when it takes more than a quarter of the room that `spill` has.
    """

    bounds: tuple[str, ...] = (START,)
    """Columns of `table` that say where a window begins and ends."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, step: Aggregation, spill: Spill | None = None) -> None:
        self._connection = connection
        self._step = step
        self._spill = spill
        self._groups = [name for name, _ in step.group_by]
        self._partials = {p.name: p for _, measure in step.measures for p in measure.partials}
        fields = [pa.field(name, pa.int64()) for name in self.bounds]
        fields += [pa.field(name, to_arrow_type(e.type)) for name, e in step.group_by]
        fields += [pa.field(p.name, to_arrow_type(p.type)) for p in self._partials.values()]
        fields += [pa.field("_rows", pa.int64()), pa.field("_digest", pa.uint64())]
        if step.completeness:
            fields.append(pa.field(COVERS, _COVERS))
        self.schema = pa.schema(fields)
        self._kept = Kept(self.schema.empty_table())

    @property
    def table(self) -> pa.Table:
        """The open windows."""
        return self._kept.table

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._kept.held

    @property
    def spilled(self) -> int:
        """Bytes in a file."""
        return self._kept.spilled

    def _keep(self, parts: Iterable[pa.Table]) -> None:
        """Have the windows of these tables, which may have further columns, for the open ones from now on."""
        batches = (batch for part in parts for batch in conform(part, self.schema).to_batches())
        if self._spill is None:
            table = pa.Table.from_batches(list(batches), self.schema)
            self._kept = Kept(table, table.nbytes)
        else:
            self._kept = self._spill.keep(self.schema, batches, self._spill.room() // 4)

    @property
    def needed(self) -> frozenset[str]:
        """Columns that `fold` reads."""
        groups = [expression.columns for _, expression in self._step.group_by]
        measures = [measure.columns for _, measure in self._step.measures]
        covers = [frozenset({"_source", "_position"})] if self._step.completeness else []
        return frozenset[str]().union(*groups, *measures, *covers)

    def fold(self, rows: pa.Table, start_us: np.ndarray, digests: np.ndarray) -> pa.Table:
        """Add rows to their windows.

        Args:
            rows: one row per (event, window) pair, with the columns that groups and measures read.
            start_us: the window start of each row.
            digests: the position hash of each row.

        Returns:
            The windows that changed, in the form of `table`.
        """
        batch = self._batch(rows, start_us, digests)
        keys = ", ".join(str(i + 1) for i in range(1 + len(self._groups)))
        folded = self._run(f"SELECT {', '.join([START, *self._initial()])} FROM batch GROUP BY {keys}", batch=batch)
        names = ", ".join([START, *map(quoted, self._groups)])
        merged = self._stream(
            f"SELECT {', '.join([names, *self._merged()])} FROM (SELECT *, true AS _new FROM folded UNION ALL BY NAME"
            f" SELECT *, false AS _new FROM open) GROUP BY {names} ORDER BY {names}",
            folded=conform(folded, self.schema), open=self.table,
        )  # fmt: skip
        changed: list[pa.Table] = []

        def kept() -> Iterator[pa.Table]:
            for part in merged:
                new = part.column("_new")
                changed.append(part.filter(new))
                yield part.filter(pc.invert(new)) if self._step.completeness else part
            changed[:] = [conform(self._compacted(pa.concat_tables(changed)), self.schema)]
            if self._step.completeness:
                yield changed[0]

        self._keep(kept())
        return changed[0]

    def upsert(self, changed: pa.Table) -> None:
        """Replace the windows that `changed` holds; used when state is loaded."""
        if not len(changed):
            return
        order = ", ".join(map(quoted, [START, *self._groups]))
        merged = self._stream(
            f"SELECT * FROM (SELECT * FROM changed UNION ALL BY NAME SELECT o.* FROM open o WHERE NOT EXISTS"
            f" (SELECT 1 FROM changed c WHERE {self._replaced()})) ORDER BY {order}",
            changed=changed, open=self.table,
        )  # fmt: skip
        self._keep(merged)

    def _replaced(self) -> str:
        """Whether window `o` of the state is window `c` as it was before."""
        return self._same([START, *self._groups])

    def refill(self, windows: pa.Table) -> None:
        """Hold these windows instead, in the form of `table`."""
        self._keep([windows])

    def close(self, evict_us: int) -> pa.Table:
        """Take out and return the windows that end at or before `evict_us`, in the form of `table`."""
        parts = [part for part, _ in filtered(self.table, lambda part: pc.less_equal(self.ends(part), evict_us))]
        closed = pa.concat_tables([self.schema.empty_table(), *parts])
        if len(closed):
            self._keep(part for part, _ in filtered(self.table, lambda part: pc.greater(self.ends(part), evict_us)))
        return closed

    def ends(self, windows: pa.Table) -> pa.ChunkedArray:
        """The first microsecond after each window of `windows`, which is in the form of `table`."""
        return pc.add(windows.column(START), self._step.window.span_us)

    def finished(self, windows: pa.Table, *, final: bool = True) -> pa.Table:
        """The rows that a reader sees for `windows`: bounds, groups, measures, `_rows`, `_digest`.

        With `completeness`, `_final` says whether they are closed, and `_covers` is among them.

        Raises:
            LodestreamError: a measure errs where Spark would raise, such as a sum that overflows.
        """
        windows = windows.append_column("_ends", self.ends(windows))
        items = [f"make_timestamp({START}) AS {WINDOW_START}", f"make_timestamp(_ends) AS {WINDOW_END}"]
        items += [quoted(name) for name in self._groups]
        items += [f"{measure.final} AS {quoted(name)}" for name, measure in self._step.measures]
        errors = [m.final_error for _, m in self._step.measures if m.final_error is not None]
        failed = (
            f"({' OR '.join(f'coalesce(({e}), false)' for e in errors)}) AS _failed" if errors else "false AS _failed"
        )
        if self._step.completeness:
            items += [f"{final} AS _final", COVERS]
        result = self._run(f"SELECT {', '.join([*items, '_rows', '_digest', failed])} FROM done", done=windows)
        if pc.any(result.column("_failed")).as_py():
            raise LodestreamError("a measure overflows or errs; the table keeps its last version")
        digest = pa.chunked_array([c.view(pa.int64()) for c in result.column("_digest").chunks], pa.int64())
        return result.drop_columns(["_failed", "_digest"]).append_column("_digest", digest)

    def _batch(self, rows: pa.Table, start_us: np.ndarray, digests: np.ndarray) -> pa.Table:
        columns = {START: pa.array(start_us), "_hash": pa.array(digests), "_signed": pa.array(digests.view(np.int64))}
        return pa.table({**columns, **dict(zip(rows.column_names, naive(rows).columns, strict=True))})

    def _initial(self) -> list[str]:
        """Groups, partials, count and digest over rows."""
        groups = [f"{e.duckdb} AS {quoted(name)}" for name, e in self._step.group_by]
        partials = [f"{p.initial} AS {quoted(p.name)}" for p in self._partials.values()]
        covers = [f"list({_ONE}) AS {COVERS}"] if self._step.completeness else []
        return [*groups, *partials, "count(*) AS _rows", "bit_xor(_hash) AS _digest", *covers]

    def _merged(self) -> list[str]:
        """Partials, count and digest over windows, and whether one of these is new."""
        partials = [f"{p.merge} AS {quoted(p.name)}" for p in self._partials.values()]
        covers = [f"flatten(list({COVERS})) AS {COVERS}"] if self._step.completeness else []
        counted = ["sum(_rows)::BIGINT AS _rows", "bit_xor(_digest) AS _digest", "bool_or(_new) AS _new"]
        return [*partials, *counted, *covers]

    def _compacted(self, merged: pa.Table) -> pa.Table:
        """The windows with one entry per source in `_covers` where new ones have joined."""
        if not self._step.completeness:
            return merged
        new = merged.column("_new")
        compact = self._run(_COMPACT, new=merged.filter(new)).select(merged.column_names)
        return pa.concat_tables([compact.cast(merged.schema), merged.filter(pc.invert(new))])

    def _same(self, names: Iterable[str]) -> str:
        return " AND ".join(f"o.{quoted(n)} IS NOT DISTINCT FROM c.{quoted(n)}" for n in names) or "true"

    def _run(self, sql: str, **tables: pa.Table) -> pa.Table:
        with self._seen(tables):
            return self._connection.sql(sql).to_arrow_table()

    def _stream(self, sql: str, **tables: pa.Table) -> Iterator[pa.Table]:
        """What `_run` gives, in parts; the connection is of no other use until the last has been taken."""
        with self._seen(tables):
            reader = self._connection.sql(sql).to_arrow_reader(ROWS)
            yield reader.schema.empty_table()
            for batch in reader:
                yield pa.Table.from_batches([batch])

    @contextmanager
    def _seen(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        for name, table in tables.items():
            self._connection.register(name, naive(table))
        try:
            yield
        finally:
            for name in tables:
                self._connection.unregister(name)
