"""Where a batch's rows come from: a source, the commits of an upstream table, or whole tables for a query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.barred import Barred
from lodestream.engines.embedded.drift import drifted
from lodestream.engines.embedded.erased_view import ErasedView, view_of
from lodestream.engines.embedded.frames import naive
from lodestream.engines.embedded.history import check_kept
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.rebuild import REBUILD
from lodestream.engines.embedded.rejects import rejected_raw
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused, TransientError
from lodestream.lake.actions import AddFile
from lodestream.lake.erasures import is_finished
from lodestream.lake.layout import epoch_of, table_path
from lodestream.lake.log import commit_path
from lodestream.lake.retention import kept_from_us
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchKind, BatchPlan, SourceRange
from lodestream.model.chained import as_rows
from lodestream.model.steps import RunQuery
from lodestream.model.table import WINDOW_TIME, TableName
from lodestream.model.types import Schema
from lodestream.model.widening import unify_schemas
from lodestream.planning.scope import PROVENANCE
from lodestream.ports.source import Decoded, Decoder, RawRecord, ReadsTogether, Source

MakeSource = Callable[[Schema, str, str], Source]
"""Opens the source for the given columns, as the given member of the given group (`Reading.group`, `.member`)."""


Span = tuple[str, int, int]
"""A column of event time, and from when (inclusive) to when (exclusive), in microseconds."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What the next batch takes in."""

    kind: BatchKind
    ranges: tuple[SourceRange, ...] = ()
    after: int = -1
    upto: int = -1
    pins: Mapping[str, int] = field(default_factory=dict)


def reader_group(name: TableName, table_id: str, epoch: int) -> str:
    """A name of one flow that no other lake, table or rebuild has, for services that keep track of readers."""
    return f"lodestream.{name}.{table_id[:8]}.{epoch}"


class Input(Protocol):
    """One kind of input."""

    def next(self, state: FlowState, room: int | None = None) -> Planned | None:
        """What to take in after `state`, `room` rows at most; None when there is nothing new, or it has no room."""

    def read(self, batch: BatchPlan) -> tuple[pa.Table, pa.Table | None]:
        """(rows with provenance columns, quarantine rows of records that did not decode)."""


class SourceInput:
    """Ranges of an outside source.

    Args:
        open_source: opens the source for the given columns.
        schema: the columns to decode to.
        around: the flow's surroundings.
        barred: of whom no record comes in any more.
    """

    def __init__(
        self,
        open_source: Callable[[Schema], Source],
        schema: Schema,
        around: Surroundings,
        barred: Barred | None = None,
    ) -> None:
        self.barred = barred
        self._open_source = open_source
        self._around = around
        self.schema = schema
        self.source = open_source(schema)

    def next(self, state: FlowState, room: int | None = None) -> Planned | None:
        """Ask the source for ranges after those consumed."""
        return self.next_after(state.consumed)

    def next_after(self, consumed: Mapping[str, SourceRange]) -> Planned | None:
        """Ask the source for ranges after `consumed`."""
        ranges = tuple(self.source.plan(consumed, self._around.limit, self._around.clock()))
        backwards = [one for one in ranges if one.end < one.start]
        if backwards:  # to run it would read again what follows
            raise CorruptionError("a source plans backwards", unit=backwards[0].unit, start=backwards[0].start)
        return Planned("data", ranges=ranges) if ranges else None

    def read(self, batch: BatchPlan) -> tuple[pa.Table, pa.Table | None]:
        """Read and decode the planned ranges; columns that drift found are taken in at once.

        There is none in the batch with which Spark begins a table whose source has nothing yet.
        """
        if not batch.ranges:
            return to_arrow(self.schema.with_columns(*PROVENANCE)).empty_table(), None
        return self._decoded(batch, lambda source: list(_pieces(source, batch.ranges)))

    def read_again(self, batch: BatchPlan, records: list[RawRecord]) -> tuple[pa.Table, pa.Table | None]:
        """Decode quarantined records under the columns of now.

        Raises:
            ConfigError: the source cannot.
        """
        if not isinstance(self.source, Decoder):
            raise ConfigError("this source cannot decode a quarantined record again", records=len(records))

        def decode(source: Source) -> list[Decoded]:
            assert isinstance(source, Decoder)
            return [source.decode_raw(*record) for record in records]

        return self._decoded(batch, decode)

    def _decoded(self, batch: BatchPlan, decode: Callable[[Source], list[Decoded]]) -> tuple[pa.Table, pa.Table | None]:
        pieces = decode(self.source)
        found = unify_schemas([piece.found for piece in pieces])
        if len(found):
            self.schema = drifted(self.schema, found)
            self.source.close()
            self.source = self._open_source(self.schema)
            pieces = decode(self.source)
        rows = pa.concat_tables([p.rows for p in pieces])
        rejects = pa.concat_tables([p.rejects for p in pieces])
        stamp = pa.scalar(batch.clock_us, pa.timestamp("us", tz="UTC"))
        rows = rows.append_column("_ingest_time", pa.repeat(stamp, len(rows)))
        aside = rejected_raw(rejects, batch=batch.batch, clock_us=batch.clock_us)
        if self.barred is None:
            return rows, aside
        rows, barred = self.barred.leave_out(rows, batch)
        return rows, pa.concat_tables([self.barred.silence(aside, batch), barred])


def _pieces(source: Source, ranges: Sequence[SourceRange]) -> Iterator[Decoded]:
    if isinstance(source, ReadsTogether):
        return source.read_together(ranges)
    return (piece for planned in ranges for piece in source.read(planned))


class StreamInput:
    """Rows that a table's commits added.

    Args:
        table: the table.
        schema: its columns that are read, those of provenance among them.
        reader: the table whose flow reads it.
        around: the flow's surroundings.
        windows: the table's groups when its rows are windows, whose time and positions are made here; else None.
        applied: id of the last erasure that went through the reader.
    """

    def __init__(
        self, table: TableName, schema: Schema, reader: TableName, around: Surroundings,
        windows: tuple[str, ...] | None = None, applied: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        self._applied, self._known_finished = applied, ""
        self._around = around
        self._name = table
        self._reader = reader
        self._path = table_path(around.lake, table)
        self._schema = to_arrow(schema)
        self._windows = windows
        added = () if windows is None else (WINDOW_TIME, "_source", "_position")
        self._columns = [name for name in schema.names if name not in added]
        self.watermark_us = 0
        self._table: DeltaTable | None = None
        self._looked = -1
        self._begun: int | None = None

    def next(self, state: FlowState, room: int | None = None) -> Planned | None:
        """The upstream commits after `state.upto` that added rows, up to the batch limit.

        A commit is taken whole: one that is larger than all the room there is must wait until no row does.
        """
        return self.next_after(state.upto, room, whole=not len(state.waiting))

    def next_after(self, taken: int, room: int | None = None, *, whole: bool = True) -> Planned | None:
        """The commits after version `taken`, -1 for none, that added rows, up to the batch limit or `room`.

        With `whole` one commit is taken in any case.
        """
        table = self._upstream()
        if table is None:
            return None
        table.refresh()
        rows, upto = 0, -1
        most = self._around.limit.rows_max if room is None else min(room, self._around.limit.rows_max)
        after = taken if taken >= 0 else self._begin(table)
        if after is None:
            anything = any(add.num_records for add in table.files())
            return Planned("data", after=-1, upto=table.snapshot.version) if anything else None
        for commit in table.commits(max(after, self._looked)):
            if commit.version:
                check_kept(commit, str(self._name), self._reader)
            added = sum(a.num_records or 0 for a in commit.adds if a.data_change)
            if (rows or (added and not whole)) and rows + added > most:
                break
            self.watermark_us = max(self.watermark_us, commit.info.get("watermark_us") or 0)
            if added:
                rows, upto = rows + added, commit.version
            elif not rows:
                self._looked = commit.version
        return Planned("data", after=after, upto=upto) if rows else None

    def read(self, batch: BatchPlan) -> tuple[pa.Table, pa.Table | None]:
        """The rows added by the batch's versions of the upstream table."""
        return self.between(batch.after, batch.upto), None

    def between(self, after: int, upto: int) -> pa.Table:
        """The rows added by versions `after` < v <= `upto`, in commit order.

        Where the log no longer tells the first ones, the rows that are live at `upto`: they are the same, all at once.
        """
        if upto <= after:
            return self._schema.empty_table()
        table = self._standing()
        view = self._view(table)
        if after < 0 and not self._tells(0):
            if view is not None:
                return self._rows(view.upto(upto, self._columns))
            rows = table.read(table.read_version(upto), columns=[*self._columns, "_batch"])
            return self._rows(rows.sort_by("_batch").select(self._columns))
        parts: list[pa.Table] = []
        for commit in table.commits(after, upto):
            adds = [a for a in commit.adds if a.data_change]
            if not adds:
                continue
            if view is not None and view.touches(commit):
                parts.append(view.brought(commit, self._columns))
                continue
            cached = self._around.handover.take(self._path, commit.version) if self._around.handover else None
            rows = cached.select(self._columns) if cached is not None else table.read(adds, columns=self._columns)
            parts.append(rows)
        if not parts:
            return self._schema.empty_table()
        return self._rows(pa.concat_tables(parts, promote_options="permissive"))

    def kept_from_us(self) -> int | None:
        """Rows committed before may have left by retention; as of the version that was looked at last."""
        table = self._upstream()
        return None if table is None else kept_from_us(table, self._name)

    def _rows(self, found: pa.Table) -> pa.Table:
        """Windows get the time and the positions that they have as rows."""
        return found if self._windows is None else as_rows(found, self._name, self._windows)

    def everything(self, version: int, span: Span | None = None) -> pa.Table:
        """All rows of the upstream table at a version, -1 for none; files without any in the span may be left out."""
        if version < 0:
            return self._schema.empty_table()
        table = self._standing()
        if (view := self._view(table)) is not None:
            return self._rows(view.upto(version, self._columns))
        return self._rows(table.read(self._files(table, version, span), columns=self._columns))

    def pieces(self, version: int, span: Span | None = None) -> Iterator[pa.Table]:
        """The same rows, a file at a time; all at once where rows were erased."""
        table = self._standing()
        if (view := self._view(table)) is not None:
            yield self._rows(view.upto(version, self._columns))
            return
        for add in self._files(table, version, span):
            yield self._rows(table.read([add], columns=self._columns))

    def _files(self, table: DeltaTable, version: int, span: Span | None) -> list[AddFile]:
        files = table.read_version(version)
        if span is not None and span[0] in self._columns:
            event, low_us, high_us = span
            files = [add for add in files if _any_within(table.read([add], columns=[event]), low_us, high_us)]
        return files

    def _view(self, table: DeltaTable) -> ErasedView | None:
        return view_of(table, self._name, self._applied(), self._finished)

    def _finished(self, erasure: str) -> bool:
        """Whether an erasure has gone through all tables; what has is not asked again."""
        if erasure != self._known_finished and is_finished(self._around.disk, self._around.lake, erasure):
            self._known_finished = erasure
        return erasure == self._known_finished

    def present(self) -> pa.Table:
        """All rows of the upstream table as it is now."""
        table = self._standing()
        return self._rows(table.read(table.files(), columns=self._columns))

    def _standing(self) -> DeltaTable:
        table = self._upstream()
        if table is None:
            raise DataLossRefused("upstream table is gone", table=str(self._name))
        table.refresh()
        return table

    def _upstream(self) -> DeltaTable | None:
        if self._table is None:
            self._table = DeltaTable.follow(self._around.disk, self._path)
        return self._table

    def _begin(self, table: DeltaTable) -> int | None:
        """The version after which the upstream's present epoch begins, None when the log no longer tells.

        What a rebuild took away is not for those who begin to read after it.
        """
        if self._begun is None:
            if epoch_of(table.snapshot.metadata.configuration) == 1:
                return -1 if self._tells(0) else None
            for version in range(table.snapshot.version, 0, -1):
                if not self._tells(version):
                    return None
                if any(c.info.get("operation") == REBUILD for c in table.commits(version - 1, version)):
                    self._begun = version
                    break
        return self._begun

    def _tells(self, version: int) -> bool:
        return self._around.disk.exists(commit_path(self._path, version))


def _any_within(times: pa.Table, low_us: int, high_us: int) -> bool:
    values = times.column(0).cast(pa.int64())
    inside = pc.and_(pc.greater_equal(values, low_us), pc.less(values, high_us))
    return bool(pc.any(inside).as_py())


class RefreshInput:
    """Whole tables at pinned versions, for a `sql:` table."""

    def __init__(self, step: RunQuery, readers: Readers) -> None:
        self._step = step
        self._readers = readers

    def next(self, state: FlowState, room: int | None = None) -> Planned | None:
        """A refresh when an input has a version that the last one did not read."""
        pins = {}
        for name in self._step.inputs:
            table = self._readers.open(name)
            if table is None:
                return None
            pins[str(name)] = table.refresh().version
        return Planned("refresh", pins=pins) if pins != state.pins else None

    def read(self, batch: BatchPlan) -> tuple[pa.Table, pa.Table | None]:
        """Not used: a refresh runs its query instead."""
        raise NotImplementedError

    def refresh(self, batch: BatchPlan, connection: duckdb.DuckDBPyConnection) -> tuple[BatchPlan, Outcome]:
        """Run the query at the planned versions, or at the present ones when those are gone; and what was run.

        Files of open windows are deleted soon after they are swapped, and a plan may be found long after it was made.
        The result replaces the whole table in one commit, so nothing hangs on which versions it was.
        """
        try:
            return batch, self.run(batch, connection)
        except (CorruptionError, DataLossRefused):
            present = self.next(FlowState())
            if present is None or present.pins == batch.pins:
                raise
            batch = replace(batch, pins=present.pins)
            return batch, self.run(batch, connection)

    def run(self, batch: BatchPlan, connection: duckdb.DuckDBPyConnection) -> Outcome:
        """Run the query over the pinned versions.

        Raises:
            ConfigError: the query errs on this data; the table keeps its last version.
        """
        registered = []
        try:
            for text, version in batch.pins.items():
                table = self._readers.open(TableName.parse(text))
                if table is None:
                    raise TransientError("input table is gone", table=text)
                columns = dict(self._step.columns).get(text)
                if not set(columns or ()) <= set(table.snapshot_at(version).metadata.schema.names):
                    raise DataLossRefused("columns were renamed since", table=text, version=version)
                connection.register(
                    text, naive(table.read(table.read_version(version), columns=list(columns) if columns else None))
                )
                registered.append(text)
            result = connection.sql(self._step.duckdb).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(
                "query failed; the table keeps its last version", cause=str(error).split("\n")[0]
            ) from error
        finally:
            for text in registered:
                connection.unregister(text)
        return Outcome(result, counts={"output": len(result)})
