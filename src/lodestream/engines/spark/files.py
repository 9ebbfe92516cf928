"""Data files of the lake that Spark's tasks write: whole and durable before the driver hears of them.

Rows leave Spark as Arrow, and the lake's own writer makes the files of them. The driver gets what a commit adds, so a
batch costs Spark one job, and the log of a table is written by `lake` alone.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.spark.expressions import quoted
from lodestream.lake.actions import AddFile
from lodestream.lake.data import Encodings, conform, read_files
from lodestream.lake.disk import Disk, random_id
from lodestream.lake.partitions import without_empty_text
from lodestream.lake.staging import stage_files
from lodestream.lake.table import DeltaTable
from lodestream.model.types import STRING, Column, Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOT = "_hot"
"""A column that says which rows belong into files of open windows; frames need not have it."""

_FILE_BYTES = 256 << 20
"""Rows of one file in memory: as many as a task holds at once."""
_STAGED = "target string, add binary"
_TASK_BYTES = 32 << 20
"""Stored bytes of one task that reads."""

Prepare = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True)
class Target:
    """A table that rows are written for.

    Attributes:
        disk: where the table is; sent to the tasks, with the credentials that it has.
        root: folder of the table.
        schema: its columns.
        partitions: its partition columns.
        name: part of the file names.
    """

    disk: Disk
    root: str
    schema: Schema
    partitions: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, table: DeltaTable, name: str) -> Target:
        """A table as it is known now."""
        metadata = table.snapshot.metadata
        return cls(table.disk, table.path, metadata.schema, tuple(metadata.partition_columns), name)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a commit does to a table: the rows of new files, None for none, and the files that leave."""

    table: DeltaTable
    rows: DataFrame | None = None
    removes: Sequence[AddFile] = ()


def writing(frame: DataFrame, target: Target, prepare: Prepare | None = None) -> DataFrame:
    """A frame that writes the rows of `frame` when it is computed: one row per file, for `written`.

    Args:
        frame: rows in the table's columns, perhaps with `HOT`.
        target: where they go.
        prepare: makes such rows of those of `frame`; runs in Spark's Python workers.
    """

    def write(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encodings = Encodings()
        for rows in _gathered(pieces):
            prepared = rows if prepare is None else prepare(rows)
            adds = [add for part, hot in _by_heat(prepared) for add in _stage(part, target, hot, encodings)]
            names = pa.array([target.root] * len(adds), pa.string())
            yield pa.record_batch([names, pa.array(map(pickle.dumps, adds), pa.binary())], ["target", "add"])

    return frame.mapInArrow(write, _STAGED)


def written(frames: list[DataFrame]) -> Mapping[str, tuple[AddFile, ...]]:
    """Compute the frames of `writing` in one job; the files by table folder."""
    found: dict[str, tuple[AddFile, ...]] = {}
    if frames:
        for row in reduce(lambda one, other: one.unionAll(other), frames).collect():
            found[row["target"]] = (*found.get(row["target"], ()), pickle.loads(row["add"]))
    return found


def reading(
    session: SparkSession, disk: Disk, root: str, adds: Sequence[AddFile], schema: Schema, place: str | None = None
) -> DataFrame:
    """The rows of files that the driver names, in the columns of `schema`.

    `place` names a further column: the path of each row's file, as the log has it.
    """
    shown = schema if place is None else schema.with_columns(Column(place, STRING))

    def read(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            for add in map(pickle.loads, piece.column(0).to_pylist()):
                rows = read_files(disk, root, [add], schema)
                if place is not None:
                    rows = rows.append_column(place, pa.repeat(pa.scalar(add.path), len(rows)))
                yield from rows.to_batches()

    named = session.createDataFrame([(pickle.dumps(sendable(add)),) for add in adds], "add binary")
    return named.repartition(len(shares(adds)) or 1).mapInArrow(read, ddl_of(shown))


def ddl_of(schema: Schema) -> str:
    """The columns as Spark wants them said; all may be NULL."""
    return ", ".join(f"{quoted(column.name)} {column.type}" for column in schema)


def shares(adds: Sequence[AddFile]) -> list[list[AddFile]]:
    """Files spread over tasks, so that each has enough to do; none for none."""
    count = min(max(-(-sum(add.size for add in adds) // _TASK_BYTES), 1), len(adds))
    return [list(adds[number::count]) for number in range(count)]


def sendable(add: AddFile) -> AddFile:
    """The file without what cannot be sent to another process."""
    return AddFile(add.path, dict(add.partition_values), add.size, file=add.file, tags={})


def _gathered(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Pieces put together, so that a task writes few files."""
    held: list[pa.RecordBatch] = []
    size = 0
    for piece in pieces:
        if not piece.num_rows:
            continue
        held.append(piece)
        size += piece.nbytes
        if size >= _FILE_BYTES:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _by_heat(rows: pa.Table) -> Iterator[tuple[pa.Table, bool]]:
    if HOT not in rows.column_names:
        yield rows, False
        return
    mask, rows = rows.column(HOT), rows.drop_columns([HOT])
    for hot in (False, True):
        part = rows.filter(pc.equal(mask, hot))
        if len(part):
            yield part, hot


def _stage(rows: pa.Table, target: Target, hot: bool, encodings: Encodings) -> tuple[AddFile, ...]:
    rows = without_empty_text(conform(rows, target.schema), target.partitions)
    return stage_files(
        target.disk, target.root, rows, partitions=target.partitions, name=f"{target.name}-{random_id()}", hot=hot,
        encodings=encodings,
    ).adds  # fmt: skip
