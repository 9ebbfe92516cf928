"""Recomputes which input rows a window covers, from the upstream table and the quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.correction import not_covered
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.frames import connect, select
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.windows import assign
from lodestream.errors import DataLossRefused
from lodestream.lake.actions import AddFile
from lodestream.lake.layout import quarantine_name
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow_type
from lodestream.model.batch import BatchPlan
from lodestream.model.chained import as_rows
from lodestream.model.digest import fold, position_digest
from lodestream.model.steps import Aggregation, FlowPlan, LookUp, ReadTable, Watermark
from lodestream.model.table import WINDOW_END, WINDOW_START, WINDOW_TIME, Lookup, Session
from lodestream.model.types import TIMESTAMP, DataType
from lodestream.operations.tracing.findings import Hop
from lodestream.operations.tracing.keys import Test, all_of
from lodestream.operations.tracing.plain import command, moment, number
from lodestream.operations.tracing.rows import trace_of
from lodestream.operations.tracing.sessions import begun
from lodestream.operations.tracing.view import View, at_version

SAMPLE = 10
_SPREAD = pa.schema(
    [("_source", pa.string()), ("_position", pa.int64()), ("_event", pa.int64()), ("_start", pa.int64())]
)


@dataclass(frozen=True)
class Covered:
    """A window and the input rows in it.

    Attributes:
        start: its first instant.
        end: the first instant after it.
        group: its group's values.
        state: `closed` (the watermark has passed its end), or `open`: it may still grow.
        watermark: of the flow's last batch.
        rows: input rows that fall into it, counted again from upstream.
        digest: the XOR of their position hashes, as tables store it.
        stored_rows: `_rows` of the window's row, None when there is no row.
        stored_digest: its `_digest`.
        sample: the first of the input rows: source, position, event time, what to type to trace it.
        notes: what the count could not take into account.
    """

    start: str | None
    end: str | None
    group: Mapping[str, Any]
    state: str
    watermark: str | None
    rows: int
    digest: int
    stored_rows: int | None
    stored_digest: int | None
    sample: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether count and digest are those of the window's row."""
        if self.stored_rows is None:
            return None
        return (self.rows, self.digest) == (self.stored_rows, self.stored_digest)

    def lines(self) -> Iterator[str]:
        """Bounds, proof, sample."""
        yield f"window {self.start} to {self.end}, {self.state}; watermark {self.watermark}"
        if self.stored_rows is None:
            yield (
                f"{number(self.rows, 'input row')} fall into it so far"
                if self.rows != 1
                else "1 input row falls into it so far"
            )
        elif self.agrees:
            yield f"covers {number(self.rows, 'input row')}: counted again from upstream, count and digest agree"
        else:
            yield (
                f"DOES NOT AGREE: the row says {self.stored_rows} rows with digest {self.stored_digest},"
                f" upstream has {self.rows} with digest {self.digest}"
            )
        yield from self.notes
        for one in self.sample:
            yield f"  {one['event_time']}  {one['trace']}"
        if self.rows > len(self.sample):
            yield f"  … and {self.rows - len(self.sample)} more"


class WindowFlow:
    """The input side of one window flow, as of its last committed batch.

    Args:
        view: the lake.
        plan: a flow with an `Aggregation`, whose table and upstream table are in the lake.
    """

    def __init__(self, view: View, plan: FlowPlan) -> None:
        self.view, self.plan, self.name = view, plan, plan.table.name
        self.step = next(s for s in plan.steps if isinstance(s, Aggregation))
        self.event = next(s for s in plan.steps if isinstance(s, Watermark)).event_time.column
        self.info = view.last(self.name)
        self.upto, self.watermark_us = int(self.info.get("upto", -1)), int(self.info.get("watermark_us", 0))
        assert plan.upstream is not None
        upstream = view.table(plan.upstream)
        assert upstream is not None
        self.upstream: DeltaTable = upstream
        self.notes: list[str] = []
        self._connection = connect()
        around = view.pipeline.around
        self._stages = RowStages(self._connection, plan, around.functions, Enrichment(plan, around))
        self._lookups: dict[Lookup, LookupTable] | None = None
        self._batch = BatchPlan(
            epoch=view.epoch(self.name), batch=view.committed(self.name) + 1, kind="data", clock_us=0,
            definition=plan.definition,
        )  # fmt: skip
        quarantine = view.table(quarantine_name(self.name))
        self.aside, self.missed = not_covered(quarantine, self._batch) if quarantine else (set(), set())

    def files(self) -> list[AddFile]:
        """Upstream files that the flow had read by its last batch."""
        if self.upto < 0:
            return []
        files, note = at_version(self.upstream, self.upto)
        self.notes += [note] if note and note not in self.notes else []
        return files

    def unread(self) -> list[AddFile]:
        """Upstream files that came after them; none when the log no longer tells."""
        try:
            commits = list(self.upstream.commits(self.upto, self.upstream.snapshot.version))
        except DataLossRefused:
            return []
        return [add for commit in commits for add in commit.adds if add.data_change]

    def spread(
        self,
        files: Iterable[AddFile],
        *,
        between: tuple[int, int] | None = None,
        tests: Sequence[Test] = (),
        everything: bool = False,
    ) -> pa.Table:
        """One row for each (input row, window): provenance, event time, window start (both microseconds), groups.

        Args:
            files: upstream files to take.
            between: only windows that begin from the first up to before the second instant.
            tests: what the input rows must have, on columns of the upstream table.
            everything: rows that were set aside, and windows that a row missed, too.
        """
        if isinstance(self.step.window, Session):  # where a session begins is known when all of its rows are
            parts = [self._file(add, None, (), everything=everything) for add in files]
            rows = pa.concat_tables([self._empty(), *parts], promote_options="permissive")
            rows = begun(rows, self._stored(), [name for name, _ in self.step.group_by], self.step.window.gap_us)
            start = rows.column("_start")
            if between is not None:
                inside = pc.and_(pc.greater_equal(start, between[0]), pc.less(start, between[1]))
                rows = rows.filter(inside)
            return rows.filter(all_of(tests, rows))
        parts = [self._file(add, between, tests, everything=everything) for add in files]
        return pa.concat_tables([self._empty(), *parts], promote_options="permissive")

    def _stored(self) -> pa.Table:
        """The sessions that the table holds: bounds and groups."""
        table = self.view.table(self.name)
        assert table is not None
        return table.read(table.files(), columns=[WINDOW_START, WINDOW_END, *(name for name, _ in self.step.group_by)])

    def _empty(self) -> pa.Table:
        groups = [pa.field(name, to_arrow_type(e.type)) for name, e in self.step.group_by]
        return pa.schema([*_SPREAD, *groups]).empty_table()

    def _file(
        self, add: AddFile, between: tuple[int, int] | None, tests: Sequence[Test], *, everything: bool
    ) -> pa.Table:
        first = self.plan.steps[0]
        assert isinstance(first, ReadTable)
        if first.windows is not None:
            made = ("_source", "_position", WINDOW_TIME)
            rows = self.upstream.read([add], columns=[name for name in first.schema.names if name not in made])
            rows = as_rows(rows, first.table, first.windows)
            rows = rows.filter(all_of(tests, rows))
        else:
            asked = [*tests, *self._event_tests(first, between)]
            if asked:
                keys = self.upstream.read([add], columns=list(dict.fromkeys(test.column for test in asked)))
                hits = all_of(asked, keys)
                if not pc.any(hits).as_py():
                    return self._empty()
            wanted = dict.fromkeys([*first.schema.names, "_source", "_position", "_ingest_time"])
            rows = self.upstream.read([add], columns=[name for name in wanted if name != "_batch"])
            if asked:
                rows = rows.filter(hits)
        rows = self._stages.passing(rows, self._batch, self._tables())
        rows = rows.filter(pc.is_valid(rows.column(self.event)))
        return self._windows(rows, between, everything=everything)

    def _event_tests(self, first: ReadTable, between: tuple[int, int] | None) -> list[Test]:
        """Which event times can fall into the windows, when upstream has them as they are used here."""
        made = {one.name for one in self.plan.table.derive}
        if between is None or self.event not in first.schema or self.event in made or self.plan.table.python:
            return []
        low, high = (
            pa.scalar(us, to_arrow_type(TIMESTAMP)) for us in (between[0], between[1] + self.step.window.span_us)
        )
        return [Test(self.event, low, "", until=high)]

    def _windows(self, rows: pa.Table, between: tuple[int, int] | None, *, everything: bool) -> pa.Table:
        events = rows.column(self.event).cast(pa.int64()).combine_chunks()
        index, start = assign(events, self.step.window)
        keep = np.ones(len(index), np.bool_)
        if between is not None:
            keep &= (start >= between[0]) & (start < between[1])
        if not everything and (self.aside or self.missed):
            sources, positions = rows.column("_source").to_pylist(), rows.column("_position").to_pylist()
            for i in np.flatnonzero(keep):
                key = (sources[index[i]], positions[index[i]])
                keep[i] = key not in self.aside and (*key, int(start[i])) not in self.missed
        index, start = index[keep], start[keep]
        made = [(name, e.duckdb) for name, e in self.step.group_by]
        groups = select(self._connection, rows, made or [("_one", "1")])
        columns = {
            "_source": rows.column("_source"), "_position": rows.column("_position"),
            "_event": pa.chunked_array([events]),
            **{name: groups.column(name).cast(to_arrow_type(e.type)) for name, e in self.step.group_by},
        }  # fmt: skip
        taken = pa.table(columns).take(pa.array(index))
        return taken.add_column(3, "_start", pa.array(start, pa.int64()))

    def _tables(self) -> dict[Lookup, LookupTable]:
        """Lookup tables at the versions of the flow's last batch."""
        if self._lookups is None:
            self._lookups = {}
            pins = self.info.get("pins") or {}
            for step in (s for s in self.plan.steps if isinstance(s, LookUp)):
                table = self.view.table(step.lookup.table)
                assert table is not None
                files, note = at_version(table, pins.get(str(step.lookup.table), table.snapshot.version))
                self.notes += [note] if note else []
                rows = table.read(files, columns=step.lookup.reads)
                self._lookups[step.lookup] = LookupTable(self._connection, step, rows)
            if self._lookups:
                self.notes.append("lookups are those of the last batch; earlier batches may have read earlier versions")
        return self._lookups

    def covered(self, row: Mapping[str, Any]) -> Covered:
        """What the window of a row of this table covers."""
        start_us = instant(row[WINDOW_START])
        rows = self.spread(self.files(), between=(start_us, start_us + 1))
        tests = [_same(name, row[name], rows.schema.field(name).type) for name, _ in self.step.group_by]
        return self.window(
            start_us, {name: row[name] for name, _ in self.step.group_by}, rows.filter(all_of(tests, rows)), row
        )

    def window(self, start_us: int, group: Mapping[str, Any], rows: pa.Table, row: Mapping[str, Any] | None) -> Covered:
        """A window of which the input rows are known."""
        end_us = start_us + self.step.window.span_us
        if isinstance(self.step.window, Session):
            last_us = pc.max(rows.column("_event")).as_py() if len(rows) else start_us
            end_us = instant(row[WINDOW_END]) if row else last_us + self.step.window.gap_us
        digest = fold(position_digest(rows.column("_source"), rows.column("_position"))) if len(rows) else 0
        order = pc.sort_indices(
            rows, sort_keys=[("_event", "ascending"), ("_source", "ascending"), ("_position", "ascending")]
        )
        sample = [
            {"source": one["_source"], "position": one["_position"], "event_time": moment(one["_event"]),
             "trace": self._trace(one["_source"], one["_position"])}
            for one in rows.take(order[:SAMPLE]).to_pylist()
        ]  # fmt: skip
        return Covered(
            moment(start_us), moment(end_us), group, "closed" if end_us <= self.watermark_us else "open",
            moment(self.watermark_us), len(rows), digest,
            row["_rows"] if row else None, row["_digest"] if row else None,
            tuple(sample), tuple(self.notes),
        )  # fmt: skip

    def _trace(self, source: str, position: int) -> str:
        """What to type to trace an input row: for a window, its columns."""
        assert self.plan.upstream is not None
        row = self.view.window_at(self.plan.upstream, source, position)
        if row is None:
            return command(self.plan.upstream, f"{source}:{position}")
        return trace_of(self.view, self.plan.upstream, row)

    def kind(self, name: str) -> DataType:
        """The type of a group."""
        return dict(self.step.group_by)[name].type

    def hop(self, row: Mapping[str, Any]) -> Hop:
        """The window's own row and the batch that wrote it."""
        return Hop(str(self.name), row=row, written=self.view.written(self.name, row["_batch"]))


def instant(value: Any) -> int:
    """A timestamp of a row as microseconds since 1970."""
    return int(pa.scalar(value, pa.timestamp("us", tz="UTC")).value)


def _same(column: str, value: Any, kind: pa.DataType) -> Test:
    return Test(column, pa.scalar(value, kind), str(value), quoted=True)
