"""The rows of one data file in a form in which a few of them are taken in microseconds."""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.errors import TransientError
from lodestream.lake.actions import AddFile
from lodestream.lake.disk import Disk
from lodestream.lake.partitions import constant
from lodestream.model.arrow import to_arrow
from lodestream.model.types import Schema


class UnusableError(Exception):
    """The file cannot be read in this way; whoever reads it in the ordinary way tells what is wrong with it."""


class Rows:
    """Rows of one data file; in memory, or mapped from a file that several processes share.

    Args:
        batches: what the file stores, row after row.
        partitions: values of the columns that are not stored.
        in_memory: whether the batches take up this process's memory.
    """

    def __init__(
        self, batches: Sequence[pa.RecordBatch], partitions: Mapping[str, str | None], *, in_memory: bool
    ) -> None:
        self._batches = list(batches)
        self._partitions = partitions
        self.in_memory = in_memory
        self.nbytes = sum(batch.nbytes for batch in self._batches)
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        self._shown: dict[tuple[str, ...], tuple[list[pa.RecordBatch], bool]] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def take(self, rows: Sequence[int], wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Some rows in the columns and types of `wanted`.

        Args:
            rows: their numbers, in rising order.
            wanted: columns of the table; those that the file does not have are NULL. One name has one type for as
                long as this object lives.
        """
        shown, whole = self._shown.get(tuple(wanted.names)) or self._show(wanted)
        if len(rows) == 1:
            number = bisect_right(self._starts, rows[0]) - 1
            piece = shown[number].slice(rows[0] - self._starts[number], 1)
            yield piece if whole else self._filled(piece, wanted)
            return
        at = 0
        while at < len(rows):
            number = bisect_right(self._starts, rows[at]) - 1
            start, end = self._starts[number], self._starts[number + 1]
            here = [row - start for row in rows[at:] if row < end]
            at += len(here)
            piece = shown[number].take(pa.array(here, pa.int64()))
            yield piece if whole else self._filled(piece, wanted)

    def columns(self, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
        """All rows in these columns, piece by piece."""
        shown, whole = self._show(wanted)
        for piece in shown:
            yield piece if whole else self._filled(piece, wanted)

    def _show(self, wanted: pa.Schema) -> tuple[list[pa.RecordBatch], bool]:
        """The stored columns among the wanted ones, and whether nothing is to be added to them."""
        stored = self._batches[0].schema if self._batches else wanted
        there = [name for name in wanted.names if name in stored.names and name not in self._partitions]
        whole = len(there) == len(wanted) and all(stored.field(name).type == wanted.field(name).type for name in there)
        if whole:
            shown = [
                pa.RecordBatch.from_arrays([batch.column(name) for name in there], schema=wanted)
                for batch in self._batches
            ]
        else:
            shown = [batch.select(there or stored.names[:1]) for batch in self._batches]
        self._shown[tuple(wanted.names)] = shown, whole
        return shown, whole

    def _filled(self, piece: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
        columns = []
        for field in wanted:
            if field.name in self._partitions:
                column = constant(self._partitions[field.name], field.type, piece.num_rows)
            elif field.name in piece.schema.names:
                column = piece.column(field.name)
                column = column if column.type == field.type else column.cast(field.type)
            else:
                column = pa.nulls(piece.num_rows, field.type)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=wanted)


def read(
    disk: Disk, root: str, add: AddFile, schema: Schema, names: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """What a data file stores of the table's columns, in their types, one row group at a time.

    Args:
        disk: where the table is.
        root: folder of the table.
        add: the file.
        schema: the table's columns.
        names: columns to read; all when None.

    Raises:
        UnusableError: the file is gone, is damaged, or has none of the columns.
    """
    full = to_arrow(schema)
    try:
        (path,) = disk.copies([os.path.join(root, add.file)])
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
            there = set(file.schema_arrow.names) - set(add.partition_values)
            found = [name for name in full.names if name in there]
            if not found:
                raise UnusableError("the file has no column of the table")
            wanted = [name for name in found if names is None or name in names] or found[:1]
            kinds = pa.schema([full.field(name) for name in wanted])
            for number in range(file.metadata.num_row_groups):
                group = file.read_row_group(number, wanted, use_threads=False).select(wanted)
                yield from group.cast(kinds).combine_chunks().to_batches()
    except (pa.ArrowException, OSError, ValueError, TransientError) as error:
        raise UnusableError(str(error)) from error


def load(disk: Disk, root: str, add: AddFile, schema: Schema) -> Rows:
    """The rows of a small data file, in memory. Raises UnusableError."""
    return Rows(list(read(disk, root, add, schema)), add.partition_values, in_memory=True)


def write(path: str, batches: Iterable[pa.RecordBatch], version: int, file: str) -> None:
    """Write rows to a file that `opened` maps; it is whole as soon as it has its name. No rows make no file.

    Args:
        path: of the file to make.
        batches: the rows.
        version: the newest version of the table that the writer knew.
        file: path of the data file, as in the log.
    """
    unfinished = f"{path}.tmp"
    facts = json.dumps({"version": version, "file": file})
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        return
    schema = first.schema.with_metadata({b"lodestream": facts.encode()})
    try:
        with pa.OSFile(unfinished, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(first.replace_schema_metadata(schema.metadata))
            for batch in iterator:
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        settle(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def settle(unfinished: str, path: str) -> None:
    """Give a written file its name; what has the name is whole, also after a power loss."""
    descriptor = os.open(unfinished, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(unfinished, path)


def opened(path: str, partitions: Mapping[str, str | None]) -> Rows:
    """The rows of a file that `write` made. Raises FileNotFoundError, or UnusableError when it is damaged."""
    try:
        with pa.memory_map(path) as file, pa.ipc.open_file(file) as reader:
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise UnusableError(str(error)) from error
    return Rows([batch.replace_schema_metadata(None) for batch in batches], partitions, in_memory=False)


def facts(path: str) -> tuple[int, str]:
    """Version and data file that `write` was told. Raises UnusableError."""
    try:
        with pa.memory_map(path) as file, pa.ipc.open_file(file) as reader:
            told = json.loads((reader.schema.metadata or {})[b"lodestream"])
        return int(told["version"]), str(told["file"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UnusableError(str(error)) from error
