"""Lookups within a query: each batch sees the version of the table that its plan names.

What a stream is joined with is given to Spark once, when the query starts, and Spark reads it anew for each batch. So
it is given a data source whose tasks ask the plan of the batch that is under way which version to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from lodestream.engines.embedded.checkpoints import Checkpoint
from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.spark.as_of import met_then, unsent
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.files import ddl_of
from lodestream.engines.spark.pins import opened
from lodestream.engines.spark.seeds import SEED_ASIDE, was
from lodestream.errors import DataLossRefused
from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.steps import FlowPlan, LookUp
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.engines.spark.tables import Tables

AMBIGUOUS = "_ambiguous"
"""Whether a row's key stands more than once in a table that was looked up."""

_SPLITS = 8


@dataclass(frozen=True)
class Pinned:
    """All that a task needs to find the version.

    Attributes:
        disk, lake: where the tables are.
        columns: of the table looked up, those that are read.
        flow, epoch: whose plans say which version.
        checkpoint: the query's checkpoint, which tells the batch that is under way.
    """

    disk: Disk
    lake: str
    table: TableName
    columns: Schema
    flow: TableName
    epoch: int
    checkpoint: Checkpoint

    def open(self) -> DeltaTable:
        """The table looked up."""
        table = DeltaTable.open(self.disk, table_path(self.lake, self.table))
        if table is None:
            raise DataLossRefused("lookup table is gone", table=str(self.table))
        return table

    def version(self) -> int:
        """The version that the batch under way is to see; its plan, the newest, stands before anything of it is read.

        Other machines may be shown the folder of the checkpoint as it was a moment ago.
        """
        store, number = FlowStore(self.disk, self.lake, self.flow, self.epoch), self.checkpoint.started
        plan = store.plan(number)
        if plan is None:
            raise DataLossRefused("a plan is gone", table=str(self.flow), batch=number)
        while (later := store.plan(plan.batch + 1)) is not None:
            plan = later
        return plan.pins[str(self.table)]


class PinnedTable(DataSource):  # type: ignore[misc]
    """The data source; `named` makes that of one lookup."""

    pinned: ClassVar[Pinned]
    short_name: ClassVar[str]

    @classmethod
    def named(cls, name: str, pinned: Pinned) -> type[PinnedTable]:
        """A class that Spark can register under that name."""
        return type("PinnedTable", (cls,), {"pinned": pinned, "short_name": name})

    @classmethod
    def name(cls) -> str:
        """What `format` takes."""
        return cls.short_name

    def schema(self) -> str:
        """Columns as DDL."""
        return ddl_of(self.pinned.columns)

    def reader(self, schema: object) -> PinnedReader:
        """The reader."""
        return PinnedReader(self.pinned)


@dataclass
class Share(InputPartition):  # type: ignore[misc]
    """Which files a task reads: every `of`-th, from `number` on."""

    number: int
    of: int


class PinnedReader(DataSourceReader):  # type: ignore[misc]
    """Reads the version that is pinned for the batch under way."""

    def __init__(self, pinned: Pinned) -> None:
        self._pinned = pinned

    def partitions(self) -> Sequence[Share]:
        """As many as there are files by now, within bounds; a later version's files are shared out in the same way."""
        count = min(max(len(self._pinned.open().files()), 1), _SPLITS)
        return [Share(number, count) for number in range(count)]

    def read(self, partition: Share) -> Iterator[pa.RecordBatch]:
        """The rows of a share."""
        table = self._pinned.open()
        files = sorted(table.read_version(self._pinned.version()), key=lambda file: file.path)
        target = to_arrow(self._pinned.columns, nullable=True)
        for file in files[partition.number :: partition.of]:
            yield from conform(table.read([file], columns=target.names), target).to_batches()


def pinned_tables(tables: Tables, plan: FlowPlan, epoch: int, checkpoint: Checkpoint) -> tuple[DataFrame, ...]:
    """For each lookup of a flow the table, as every batch is to see it. Raises ConfigError when there is none yet."""
    found, readers = [], Readers(tables.disk, tables.lake)
    for number, step in enumerate(step for step in plan.steps if isinstance(step, LookUp)):
        schema = opened(step.lookup.table, readers).snapshot.metadata.schema
        columns = Schema(tuple(column for column in schema if column.name in step.lookup.reads))
        name = f"lodestream_lookup_{plan.table.name.layer}_{plan.table.name.name}_{number}"
        pinned = Pinned(tables.disk, tables.lake, step.lookup.table, columns, plan.table.name, epoch, checkpoint)
        tables.session.dataSource.register(PinnedTable.named(name, pinned))
        found.append(tables.session.read.format(name).load())
    return tuple(found)


def with_lookups(rows: DataFrame, plan: FlowPlan, tables: Sequence[DataFrame]) -> DataFrame:
    """The rows of a stream with all columns that are looked up, and `AMBIGUOUS`.

    Rows that only make state bring along what they met in their time.
    """
    steps = [step for step in plan.steps if isinstance(step, LookUp)]
    rows = rows.selectExpr("*", f"false AS {AMBIGUOUS}")
    rows = reduce(lambda made, each: _one_more(made, *each), zip(steps, tables, range(len(steps)), strict=True), rows)
    if SEED_ASIDE not in rows.columns:
        return rows
    met = {here: f"CASE WHEN {SEED_ASIDE} IS NULL THEN {quoted(here)} ELSE {quoted(was(here))} END AS {quoted(here)}"
           for step in steps for _, here in step.lookup.columns if was(here) in rows.columns}  # fmt: skip
    met[AMBIGUOUS] = f"{AMBIGUOUS} AND {SEED_ASIDE} IS NULL AS {AMBIGUOUS}"
    return rows.selectExpr(*(met.get(name, quoted(name)) for name in rows.columns))


def _one_more(rows: DataFrame, step: LookUp, there: DataFrame, number: int) -> DataFrame:
    many = f"_l{number}_many"
    found = looked_up(rows, there, step, number, many)
    others = [quoted(name) for name in found.columns if name not in (many, AMBIGUOUS)]
    return found.selectExpr(*others, f"{AMBIGUOUS} OR coalesce({many}, false) AS {AMBIGUOUS}")


def looked_up(rows: DataFrame, there: DataFrame, step: LookUp, number: int, many: str) -> DataFrame:
    """A left join with the columns that a lookup adds.

    Args:
        rows: of the stream.
        there: the table.
        step: the lookup.
        number: of the lookup in its flow.
        many: name of the column that is true where the key stands there more than once.
    """
    lookup = step.lookup
    keys = [f"_l{number}_key{i}" for i in range(len(lookup.on))]
    values = [f"_l{number}_value{i}" for i in range(len(lookup.columns))]
    met = _met if lookup.as_of is None else met_then
    joined = met(rows, there, step, keys, values, many)
    names = {
        here: f"cast({v} AS {step.schema[here].type})" for v, (_, here) in zip(values, lookup.columns, strict=True)
    }
    kept = [quoted(name) for name in rows.columns if name not in names]
    return joined.selectExpr(*kept, *(f"{text} AS {quoted(name)}" for name, text in names.items()), many)


def _met(
    rows: DataFrame, there: DataFrame, step: LookUp, keys: Sequence[str], values: Sequence[str], many: str
) -> DataFrame:
    """A left join by key, `many` where the key stands there more than once."""
    from pyspark.sql import functions as fn

    lookup = step.lookup
    there = there.selectExpr(
        *(f"{quoted(theirs)} AS {key}" for key, (_, theirs) in zip(keys, lookup.on, strict=True)),
        *(f"{quoted(theirs)} AS {name}" for name, (theirs, _) in zip(values, lookup.columns, strict=True)),
    ).where(" AND ".join(f"{key} IS NOT NULL" for key in keys))
    there = there.groupBy(*keys).agg(fn.expr("count(1) > 1").alias(many), *(fn.first(v).alias(v) for v in values))
    equal = [rows[quoted(ours)] == there[key] for key, (ours, _) in zip(keys, lookup.on, strict=True)]
    return rows.join(unsent(there, rows), equal, "left")
