"""Parquet files: columns are matched by name, and taken only when their type holds every value unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestream.errors import ConfigError
from lodestream.formats._records import Reject, rejected, rejects_table, rows_table
from lodestream.model.arrow import from_arrow_type, to_arrow_type
from lodestream.model.types import Column, Schema
from lodestream.model.widening import may_become_column, widens
from lodestream.ports.format import Part
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

_KEPT_BYTES = 64 << 10
_FAILURES = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError)


class ParquetSettings(Settings):
    """How Parquet is read: there is nothing to set."""


class ParquetFormat:
    """Reads Parquet by row groups; positions are row numbers.

    A file that cannot be opened is one reject (`parse:file`, position 0, its first 64 KiB kept); rows of a row group
    that cannot be read are rejects likewise. A column whose type would change a value, a missing one and an unknown
    one follow the drift policy. A row has no bytes of its own: `_raw` is NULL, and a reject's is the row as JSON.
    """

    settings: ClassVar[type[Settings]] = ParquetSettings
    framing: Literal["lines", "file"] = "file"
    head_lines = 0
    row_bytes_max = 64 << 20

    def __init__(self, settings: ParquetSettings, reading: Reading) -> None:
        self._reading = reading

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Not for file framing."""
        raise NotImplementedError

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: npt.NDArray[np.int64]) -> Decoded:
        """Parquet has no records that stand alone."""
        raise ConfigError("parquet is for files; messages are json, csv or avro")

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Parquet has no records that stand alone."""
        raise ConfigError("parquet is for files; messages are json, csv or avro")

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Not for file framing."""
        raise NotImplementedError

    def parts(self, path: str) -> Sequence[Part]:
        """The row groups; one part of one record when the file cannot be opened."""
        try:
            with pq.ParquetFile(path) as file:
                groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
                return [Part(group.num_rows, group.total_byte_size) for group in groups if group.num_rows]
        except _FAILURES:
            return [Part(1, _KEPT_BYTES)]

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Rows by number, a row group at a time."""
        try:
            file = pq.ParquetFile(path)
        except _FAILURES:
            with open(path, "rb") as broken:
                yield rejected(self._reading, unit, [(0, ["parse:file"], broken.read(_KEPT_BYTES))])
            return
        with file:
            reasons = self._misfits(file.schema_arrow)
            found = self._found(file.schema_arrow)
            at = 0
            for i in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(i).num_rows
                low, high = max(start, at), min(end, at + count)
                if low < high:
                    yield self._group(file, i, unit, low, high - low, low - at, reasons, found)
                at += count

    def infer_file(self, path: str) -> Schema:
        """The file's columns; those that no table can store are left out.

        Raises:
            ConfigError: the file cannot be opened.
        """
        try:
            schema = pq.read_schema(path)
        except _FAILURES as error:
            raise ConfigError("not a readable Parquet file; declare `columns:`", file=path) from error
        return Schema(tuple(column for field in schema if (column := _column(field))))

    def _misfits(self, schema: pa.Schema) -> list[str]:
        """Reasons why no row of the file can be taken. Raises ConfigError when drift is `stop`."""
        drift = self._reading.drift
        reasons: list[str] = []
        for column in self._reading.schema:
            at = schema.get_field_index(column.name)
            if at < 0:
                if drift in ("quarantine", "stop") or not column.nullable:
                    reasons.append(f"parse:{column.name}:missing")
                continue
            seen = _column(schema.field(at))
            if seen is None or not widens(seen.type, column.type):
                reasons.append(f"drift:{column.name}")
        if drift in ("quarantine", "stop"):
            reasons += [f"drift:{name}" for name in schema.names if name not in self._reading.schema]
        else:
            reasons += [f"drift:{name}" for name in schema.names if self._is_refused(name)]
        if reasons and drift == "stop":
            raise ConfigError(
                "the source changed and drift is stop: the file's columns do not fit the declared ones; "
                "change `columns:` or choose another drift",
                reasons=reasons,
            )
        return reasons

    def _found(self, schema: pa.Schema) -> Schema:
        if self._reading.drift not in ("add", "widen"):
            return Schema()
        found = []
        for field in schema:
            seen = _column(field)
            declared = self._reading.schema.get(field.name)
            if self._is_refused(field.name):
                continue
            if seen is None or (declared is not None and declared.type == seen.type):
                continue
            if declared is None or (self._reading.drift == "widen" and widens(declared.type, seen.type)):
                found.append(seen)
        return Schema(tuple(found))

    def _is_refused(self, name: str) -> bool:
        return name not in self._reading.schema and not may_become_column(name, self._reading.taken)

    def _group(
        self, file: pq.ParquetFile, i: int, unit: str, first: int, count: int, skip: int, reasons: list[str],
        found: Schema,
    ) -> Decoded:  # fmt: skip
        """Rows `first` to `first + count` of the file, which are those after `skip` of row group `i`."""
        names = None if reasons else [c.name for c in self._reading.schema if c.name in file.schema_arrow.names]
        if names is not None and any("." in name for name in names):
            names = None
        try:
            table = file.read_row_group(i, columns=names).slice(skip, count)
            table.validate(full=True)
        except _FAILURES:
            return rejected(self._reading, unit, ((first + k, ["parse:file"], b"") for k in range(count)))
        if reasons:
            rejects = rejected(
                self._reading, unit, ((first + k, reasons, raw) for k, raw in enumerate(_rows_as_json(table)))
            )
            return Decoded(rejects.rows, rejects.rejects, found)
        return self._decoded(table, unit, first, found)

    def _decoded(self, table: pa.Table, unit: str, first: int, found: Schema) -> Decoded:
        """Cast to the declared types; rows with a value that would change are rejects."""
        why: dict[int, list[str]] = {}
        columns = []
        for column in self._reading.schema:
            kind = to_arrow_type(column.type)
            if column.name not in table.column_names:
                columns.append(pa.nulls(len(table), kind))
                continue
            values = pc.cast(table[column.name].combine_chunks(), _plain(table[column.name].type))
            values, bad = _cast(values, kind)
            for at in bad:
                why.setdefault(at, []).append(f"parse:{column.name}:precision")
            if not column.nullable and values.null_count:
                for at in np.flatnonzero(np.asarray(values.is_null())).tolist():
                    if at not in bad:
                        why.setdefault(at, []).append(f"parse:{column.name}:null")
            columns.append(values)
        rejects: list[Reject] = []
        positions = np.arange(first, first + len(table), dtype=np.int64)
        if why:
            keep = np.ones(len(table), np.bool_)
            keep[list(why)] = False
            places = sorted(why)
            raws = _rows_as_json(table.take(pa.array(places)))
            rejects = [(first + at, why[at], raw) for at, raw in zip(places, raws, strict=True)]
            chosen = pa.array(np.flatnonzero(keep))
            columns, positions = [column.take(chosen) for column in columns], positions[keep]
        raw = pa.nulls(len(positions), pa.binary()) if self._reading.keep_raw else None
        return Decoded(rows_table(self._reading, columns, unit, positions, raw), rejects_table(unit, rejects), found)


def _column(field: pa.Field) -> Column | None:
    try:
        return Column(field.name, from_arrow_type(field.type))
    except ValueError:
        return None


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cast(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, set[int]]:
    """The values as `kind`, and which rows would have changed (nanoseconds cut off); those are NULL."""
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = values.cast(pa.timestamp(values.type.unit, tz="UTC"))
    try:
        return values.cast(kind), set()
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(values.type):
            raise
    numbers = values.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    factor = {"s": 1_000_000, "ms": 1000, "us": 1}.get(values.type.unit, 0)
    bad = numbers % 1000 != 0 if not factor else np.abs(numbers) > (1 << 63) // factor - 1
    made = pc.if_else(pa.array(~bad), values, None).cast(kind)
    return made, set(np.flatnonzero(bad).tolist())


def _rows_as_json(table: pa.Table) -> list[bytes]:
    """Each row as JSON; times as text, because Python cannot hold all that Parquet can."""
    for i, field in enumerate(table.schema):
        if pa.types.is_temporal(field.type):
            table = table.set_column(i, field.name, pc.cast(table.column(i), pa.string()))
    rows = table.to_pylist()
    return [json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "replace") for row in rows]


component = ParquetFormat
