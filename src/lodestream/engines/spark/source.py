"""A project's own sources and formats as a Spark data source, so that every engine reads the same rows and rejects.

Batches are the flow's plans: Spark's offset is a plan's number, and the plan says what is read. The Python workers read
and decode; the driver's part only plans.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, InputPartition

from lodestream.drivers.registry import registries
from lodestream.engines.embedded.checkpoints import Checkpoint, checkpoint_at
from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.spark.files import ddl_of
from lodestream.engines.spark.pins import pins_of
from lodestream.errors import DataLossRefused
from lodestream.lake.disk import Disk, LocalDisk
from lodestream.lake.layout import component_cache
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchLimit, BatchPlan, SourceRange
from lodestream.model.steps import ReadSource
from lodestream.model.table import Component, TableName
from lodestream.model.types import BIGINT, BINARY, STRING, TIMESTAMP, Column, Schema, parse_type
from lodestream.ports.plugins import make_source
from lodestream.ports.source import Acknowledges, Decoded, Marks, PlansUnread, Reading, Source, Waiter

REASONS, DETAIL, RECORD = "_parse_reasons", "_parse_detail", "_parse_record"
"""Of a record that does not decode: why, what more is known, and its bytes. NULL in rows."""
FOUND = "_found"
"""Columns that drift found in the piece that a row came in, as a pickled schema; NULL for none."""
ARRIVED = "_arrived"
"""What orders rows in arrival: of a source the place of their range in the plan, of a table the batch above."""

_PART_ROWS_MIN = 50_000
_PATIENCE_S, _LOOK_S = 10.0, 0.05


@dataclass(frozen=True)
class Recipe:
    """All that a reader needs, in a form that can be sent to other processes.

    Attributes:
        step: the step that reads; its settings have values in the place of their references.
        reserved: names that the table's own columns have.
        clock: gives microseconds since 1970 UTC.
        checkpoint: the query's checkpoint.
        disk: where the lake is.
        looked_up: tables whose versions the plans name.
        delay_us: how far the watermark is behind the newest event time; None without event time.
        tasks: among how many tasks a batch is spread.
    """

    step: ReadSource
    root: str
    lake: str
    table: TableName
    epoch: int
    group: str
    definition: str
    reserved: frozenset[str]
    registries: Mapping[str, Any]
    limit: BatchLimit
    clock: Callable[[], int]
    checkpoint: Checkpoint
    disk: Disk
    looked_up: tuple[TableName, ...] = ()
    delay_us: int | None = None
    tasks: int = 8

    @property
    def schema(self) -> Schema:
        """Columns of rows and rejects together."""
        raw = (Column("_raw", BINARY),) if self.step.keep_raw else ()
        return self.step.schema.with_columns(
            Column("_source", STRING), Column("_position", BIGINT), *raw, Column("_ingest_time", TIMESTAMP),
            Column(REASONS, parse_type("array<string>")), Column(DETAIL, STRING), Column(RECORD, BINARY),
            Column(ARRIVED, BIGINT), *((Column(FOUND, BINARY),) if self.drifts else ()),
        )  # fmt: skip

    @property
    def drifts(self) -> bool:
        """Whether the source may show columns that the table does not have."""
        return self.step.drift in ("add", "widen")

    @property
    def store(self) -> FlowStore:
        """Where the plans are."""
        return FlowStore(self.disk, self.lake, self.table, self.epoch)

    def source(self) -> Source:
        """The source, opened; close it."""
        home = self.disk.beside(self.lake)
        cache = component_cache(home)
        reading = Reading(
            self.step.schema, self.step.keep_raw, self.step.drift, self.root, self.reserved,
            registries(self.registries, cache), self.group, "", home, str(self.table),
        )  # fmt: skip
        return make_source(self.step.source, self.step.format, reading)

    def marks(self, ranges: Sequence[SourceRange]) -> Mapping[str, int]:
        """Positions that the source wants written into the commit under names of their own."""
        source = self.source()
        try:
            return source.marks(ranges) if isinstance(source, Marks) else {}
        finally:
            source.close()

    def to_text(self) -> str:
        """As an option of a data source has it."""
        plain = [Component(part.name, dict(part.settings)) for part in (self.step.source, self.step.format)]
        step = replace(self.step, source=plain[0], format=plain[1])
        return b64encode(pickle.dumps(replace(self, step=step, registries=dict(self.registries)))).decode()

    @classmethod
    def from_text(cls, text: str) -> Recipe:
        """Read `to_text`'s form."""
        made: Recipe = pickle.loads(b64decode(text))
        return made


class PlannedSource(DataSource):  # type: ignore[misc]
    """The data source of one flow; `named` makes it, so that no option, which Spark shows, holds a setting."""

    recipe: ClassVar[str]
    short_name: ClassVar[str]

    @classmethod
    def named(cls, name: str, recipe: Recipe) -> type[PlannedSource]:
        """A class that Spark can register under that name."""
        return type("FlowSource", (cls,), {"recipe": recipe.to_text(), "short_name": name})

    @classmethod
    def name(cls) -> str:
        """What `format` takes."""
        return cls.short_name

    def schema(self) -> str:
        """Columns as DDL."""
        return ddl_of(Recipe.from_text(self.recipe).schema)

    def streamReader(self, schema: Any) -> PlannedReader:  # noqa: N802 - Spark's name
        """The reader."""
        return PlannedReader(Recipe.from_text(self.recipe))

    def reader(self, schema: Any) -> PlannedAgain:
        """A reader of one batch, which has a plan; the option `batch` says which."""
        return PlannedAgain(PlannedReader(Recipe.from_text(self.recipe)), int(self.options["batch"]))


@dataclass
class Ranges(InputPartition):  # type: ignore[misc]
    """What one task reads; `places` are those of its units in the plan."""

    ranges: tuple[SourceRange, ...]
    clock_us: int
    places: tuple[int, ...]


class PlannedReader(DataSourceStreamReader):  # type: ignore[misc]
    """Plans batches and reads them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._readers = recipe, Readers(recipe.disk, recipe.lake)
        self._source: Source | None = None
        self._consumed: dict[str, SourceRange] = {}
        self._folded = 0
        self._newest = recipe.checkpoint.batch
        self._caught_up = False

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """Before the query's first plan."""
        return {"batch": self._recipe.checkpoint.batch}

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """The next plan, made now if there is none yet; when nothing is new, the last one that reads something.

        Spark begins with a batch even if there is nothing to read, which has a plan too. To name that one would be
        something new again, and so on without end.
        """
        store = self._recipe.store
        planned, started = store.last_planned(), self._recipe.checkpoint.started
        if planned > started:
            return {"batch": started + 1}
        if self._source is None:
            self._source = self._recipe.source()
            self._begin()
        self._take_in(store, planned)
        now_us, ranges = self._ranges(self._source)
        if not ranges:
            return {"batch": self._newest}
        recipe, (late_us, evict_us) = self._recipe, self._watermarks()
        plan = BatchPlan(
            epoch=recipe.epoch, batch=planned + 1, kind="data", clock_us=now_us, definition=recipe.definition,
            ranges=ranges, pins=pins_of(recipe.looked_up, self._readers), late_us=late_us,
            evict_us=evict_us,
        )  # fmt: skip
        return {"batch": store.put_plan(plan).batch}

    def _watermarks(self) -> tuple[int, int]:
        """W(n-1) and W(n) of the next batch, as Spark will have them: it moves on by what the last commit has seen."""
        delay_us, name = self._recipe.delay_us, self._recipe.table
        table = None if delay_us is None else self._readers.open(name)
        if table is None or delay_us is None:
            return 0, 0
        table.refresh()
        commit = flow_commit(table, name)
        if commit is None:
            return 0, 0
        late_us = int(commit.info["watermark_us"])
        return late_us, next_watermark(late_us, commit.info["max_event_us"], delay_us)

    def _ranges(self, source: Source) -> tuple[int, tuple[SourceRange, ...]]:
        """The time, and what is new; what was there at the start is waited for, as some sources take a moment."""
        deadline = time.monotonic() + (0 if self._caught_up else _PATIENCE_S)
        while True:
            now_us = self._recipe.clock()
            if isinstance(source, PlansUnread):  # what is there is known at once, and the tasks read it
                return now_us, tuple(source.plan_unread(self._consumed, self._recipe.limit, now_us))
            ranges = tuple(source.plan(self._consumed, self._recipe.limit, now_us))
            self._caught_up = self._caught_up or (not ranges and source.finished(self._consumed, now_us))
            if ranges or self._caught_up or time.monotonic() > deadline:
                return now_us, ranges
            if isinstance(source, Waiter):
                source.wait(_LOOK_S)
            else:
                time.sleep(_LOOK_S)

    def _begin(self) -> None:
        """Where the query began; too much to be sent to every task."""
        checkpoint = self._recipe.checkpoint
        began = checkpoint_at(LocalDisk(), os.path.dirname(checkpoint.path), checkpoint.batch)
        if began is not None:
            self._consumed, self._folded = {planned.unit: planned for planned in began.consumed}, began.batch

    def _take_in(self, store: FlowStore, upto: int) -> None:
        for number in range(self._folded + 1, upto + 1):
            plan = store.plan(number)
            if plan is None:
                raise DataLossRefused("a plan is gone", table=str(self._recipe.table), batch=number)
            self._consumed.update({planned.unit: planned for planned in plan.ranges})
            self._newest = number if plan.ranges else self._newest
        self._folded = max(self._folded, upto)

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[Ranges]:
        """The ranges of the plans after `start`, spread over some tasks."""
        store = self._recipe.store
        found: list[Ranges] = []
        before = 0
        for number in range(start["batch"] + 1, end["batch"] + 1):
            plan = store.plan(number)
            if plan is None:
                raise DataLossRefused("a plan is gone", table=str(self._recipe.table), batch=number)
            places = {one.unit: before + i for i, one in enumerate(plan.ranges)}
            parts = self._spread(plan.ranges)
            found += [Ranges(part, plan.clock_us, tuple(places[one.unit] for one in part)) for part in parts]
            before += len(plan.ranges)
        return found

    def _spread(self, ranges: Sequence[SourceRange]) -> Iterator[tuple[SourceRange, ...]]:
        """What each task reads: neighbours, or parts of about the same size where ranges can be read in parts."""
        tasks, source = self._recipe.tasks, self._source or self._recipe.source()
        if not isinstance(source, PlansUnread):
            size = -(-len(ranges) // tasks) or 1
            yield from (tuple(ranges[i : i + size]) for i in range(0, len(ranges), size))
            return
        whole = sum(one.end - one.start for one in ranges)
        parts = [part for one in ranges for part in source.parts(one, max(_PART_ROWS_MIN, -(-whole // tasks)))]
        loads: list[list[SourceRange]] = [[] for _ in range(min(tasks, len(parts)))]
        for part in sorted(parts, key=lambda part: part.start - part.end):
            min(loads, key=lambda load: sum(one.end - one.start for one in load)).append(part)
        yield from map(tuple, loads)

    def read(self, partition: Ranges) -> Iterator[pa.RecordBatch]:
        """Rows and rejects of the ranges."""
        source = self._recipe.source()
        target = to_arrow(self._recipe.schema, nullable=True)
        try:
            for arrived, planned in zip(partition.places, partition.ranges, strict=True):
                for piece in source.read(planned):
                    yield from _both(piece, partition.clock_us, arrived, target).to_batches()
        finally:
            source.close()

    def commit(self, end: dict[str, int]) -> None:
        """The source is told what is durable, for those who look at it from outside; nothing hangs on it."""
        source: object = self._source
        if isinstance(source, Acknowledges) and end["batch"] >= self._folded:
            source.acknowledge(self._consumed)

    def stop(self) -> None:
        """Let go of the source."""
        if self._source is not None:
            self._source.close()


class PlannedAgain(DataSourceReader):  # type: ignore[misc]
    """Reads a batch once more."""

    def __init__(self, reader: PlannedReader, batch: int) -> None:
        self._reader, self._batch = reader, batch

    def partitions(self) -> Sequence[Ranges]:
        """The ranges of its plan."""
        return self._reader.partitions({"batch": self._batch - 1}, {"batch": self._batch})

    def read(self, partition: Ranges) -> Iterator[pa.RecordBatch]:
        """Rows and rejects of the ranges."""
        return self._reader.read(partition)


def version_of(offset: str) -> int:
    """The last version that is in: those before Delta's offset; of the table as it was at the start, that too."""
    told = json.loads(offset) if offset.startswith("{") else {}
    if "reservoirVersion" not in told:
        return int(told.get("upto", -1))
    return int(told["reservoirVersion"]) - (0 if told.get("isStartingVersion") else 1)


def next_watermark(late_us: int, max_event_us: int | None, delay_us: int) -> int:
    """W(n) after W(n-1) and the newest event time that has been seen by then; Spark keeps it in milliseconds."""
    return late_us if max_event_us is None else max(late_us, (max_event_us - delay_us) // 1000 * 1000)


def _both(piece: Decoded, clock_us: int, arrived: int, target: pa.Schema) -> pa.Table:
    """Rows and rejects in one table; a reject has NULL in every column of the data."""
    rows, rejects = piece.rows, piece.rejects
    rejects = rejects.rename_columns(
        [{"_reasons": REASONS, "_detail": DETAIL, "_raw": RECORD}.get(name, name) for name in rejects.column_names]
    )
    parts, found = [], pa.scalar(pickle.dumps(piece.found) if len(piece.found) else None, pa.binary())
    for table in (rows, rejects):
        table = table.append_column(FOUND, pa.repeat(found, len(table)))
        table = table.append_column(ARRIVED, pa.repeat(pa.scalar(arrived, pa.int64()), len(table)))
        missing = [field for field in target if field.name not in table.column_names and field.name != "_ingest_time"]
        for field in missing:
            table = table.append_column(field.name, pa.nulls(len(table), field.type))
        stamp = pa.scalar(clock_us, pa.timestamp("us", tz="UTC"))
        parts.append(conform(table.append_column("_ingest_time", pa.repeat(stamp, len(table))), target))
    return pa.concat_tables(parts)
