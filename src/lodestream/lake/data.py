"""Data files: rows to Parquet and back, exactly as stored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.actions import AddFile
from lodestream.lake.disk import Disk
from lodestream.lake.partitions import constant
from lodestream.model.arrow import to_arrow
from lodestream.model.types import Schema

_SAMPLE_ROWS = 10_000
_REPEATS_MIN = 4
_INCOMPRESSIBLE = 0.9
DICTIONARY = "DICTIONARY"
_MISSING = "lodestream doctor shows what is lost; restore the file from a copy"
_THREADS_FROM_BYTES = 1 << 20  # below it, waking the pool takes longer than reading


class Encodings:
    """How each column is best stored, learnt from the rows that pass by.

    A column whose values come at least four times each, in a sample of ten thousand rows, gets a dictionary. Other
    whole numbers and times are stored as differences. Other text that Snappy cannot shrink, such as random ids, is
    stored with its lengths apart: Snappy then sees that it can do nothing and steps over it, at a third of the CPU.
    A column is looked at again when a batch has twice the rows of its sample.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}

    def choose(self, rows: pa.Table) -> dict[str, str]:
        """The Parquet encoding of each column that does not keep the plain one; `DICTIONARY` for a dictionary."""
        sample = min(rows.num_rows, _SAMPLE_ROWS)
        chosen = {}
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            looked, encoding = self._seen.get(name, (0, ""))
            if sample >= 2 * looked:
                encoding = _encoding(column.slice(0, sample), sample)
                self._seen[name] = (sample, encoding)
            if encoding:
                chosen[name] = encoding
        return chosen


def _encoding(column: pa.ChunkedArray, rows: int) -> str:
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
        return ""
    if _REPEATS_MIN * pc.count_distinct(column, mode="all").as_py() <= rows:
        return DICTIONARY
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind):
        return "DELTA_BINARY_PACKED"
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        data = b"".join(value.as_buffer() for value in column.drop_null())
        if data and pa.compress(data, codec="snappy").size > _INCOMPRESSIBLE * len(data):
            return "DELTA_LENGTH_BYTE_ARRAY"
    return ""


def conform(rows: pa.Table, schema: Schema) -> pa.Table:
    """`rows` in the table's columns, order and types; columns that are not there become NULL.

    Raises:
        ConfigError: a column is unknown, of another type, or NULL where it may not be.
    """
    wanted = to_arrow(schema)
    if unknown := set(rows.column_names) - set(schema.names):
        raise ConfigError("rows have columns that the table does not have", columns=sorted(unknown))
    columns = []
    for field in wanted:
        index = rows.schema.get_field_index(field.name)
        column = rows.column(index) if index >= 0 else pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ConfigError(
                    "rows do not have the table's type",
                    column=field.name,
                    type=str(column.type),
                    wanted=str(field.type),
                ) from error
        if not field.nullable and column.null_count:
            raise ConfigError("rows have NULL in a column that may not be", column=field.name)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=wanted)


def parquet_bytes(rows: pa.Table, encodings: Mapping[str, str]) -> pa.Buffer:
    """The rows as one Snappy Parquet file, with each column encoded as `Encodings.choose` says.

    Footer statistics are kept for columns of fixed width only: there they cost 2 % of the write, on text 25 %. A column
    with NaN has none: they pass NaN over, and readers then take it for a number between the bounds.
    """
    measured = [field.name for field, column in zip(rows.schema, rows.columns, strict=True) if _measured(column)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="snappy", write_statistics=measured or False, store_schema=False,
        use_dictionary=[name for name, encoding in encodings.items() if encoding == DICTIONARY],
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding != DICTIONARY} or None,
    )  # fmt: skip
    return sink.getvalue()


def _measured(column: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(column.type):
        return not pc.any(pc.is_nan(column)).as_py()
    return bool(pa.types.is_primitive(column.type))


def local_paths(
    disk: Disk, root: str, adds: Iterable[AddFile], columns: Collection[str] | None = None
) -> Sequence[str]:
    """Where files of the table at `root`, or copies of them, are on this machine, in the order of `adds`.

    Args:
        disk: where the table is.
        root: folder of the table.
        adds: the files.
        columns: whoever reads them needs no others; None for all.

    Raises:
        CorruptionError: one is missing, which only a disk that makes copies finds out.
        TransientError: the disk cannot give them now.
    """
    try:
        if columns is None:
            return disk.copies([os.path.join(root, add.file) for add in adds])
        return disk.excerpts([(os.path.join(root, add.file), add.size) for add in adds], columns)
    except FileNotFoundError as error:
        raise CorruptionError("data file is missing", path=str(error.filename), fix=_MISSING) from error


def read_files(
    disk: Disk, root: str, adds: Iterable[AddFile], schema: Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of the files in the given order, in the table's types.

    Args:
        disk: where the table is.
        root: folder of the table.
        adds: files to read.
        schema: the table's columns.
        columns: names to read, in this order; all when None.

    Raises:
        CorruptionError: a file is missing or damaged.
        ConfigError: a column is not in the table.
    """
    full = to_arrow(schema)
    if unknown := [name for name in columns or () if name not in schema]:
        raise ConfigError("no such column", columns=unknown, table=root)
    wanted = full if columns is None else pa.schema([full.field(name) for name in columns])
    adds = tuple(adds)
    parts = [_read(path, add, wanted) for path, add in zip(local_paths(disk, root, adds), adds, strict=True)]
    return pa.concat_tables(parts) if parts else wanted.empty_table()


def _read(path: str, add: AddFile, wanted: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:  # Spark's OPTIMIZE writes INT96
            rows = file.metadata.num_rows
            stored = set(file.schema_arrow.names)
            names = [name for name in wanted.names if name in stored and name not in add.partition_values]
            found = file.read(names, use_threads=add.size > _THREADS_FROM_BYTES)
        columns = []
        for field in wanted:
            if field.name in add.partition_values:
                column = constant(add.partition_values[field.name], field.type, rows)
            elif field.name in stored:
                column = found.column(field.name)
            else:
                column = pa.nulls(rows, field.type)
            columns.append(column if column.type == field.type else column.cast(field.type))
        return pa.Table.from_arrays(columns, schema=wanted)
    except FileNotFoundError as error:
        raise CorruptionError("data file is missing", path=path, fix=_MISSING) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        fix = "restore the file from a copy"
        raise CorruptionError("data file is damaged", path=path, reason=str(error)[:200], fix=fix) from error
