"""Avro object container files: blocks of rows, which are read several at a time."""

from __future__ import annotations

import bz2
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from lodestream.formats._avro_one import FaultError, read_long
from lodestream.formats._avro_program import Limits, Want, compile_program
from lodestream.formats._avro_records import AvroRecords
from lodestream.formats._avro_resolve import zigzag
from lodestream.formats._avro_schema import AvroField, AvroType, BadSchemaError, parse_schema
from lodestream.formats._lines import Ints
from lodestream.formats._records import merged, rejected
from lodestream.formats._wire_rows import decoded_rows
from lodestream.ports.source import Decoded, Reading

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16
_HEADER_BYTES_MAX = 16 << 20
_ENTRIES_MAX = 1000
ROWS_PER_BYTE_MAX = 1024
"""A block that claims more rows for each byte in the file is broken: deflate makes no byte of more."""
_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 64 << 20
_DEPTH_BEFORE = 2  # the record and the array that the rows of a block are read as


class NotAvroError(ValueError):
    """The file is no object container, or one that is not read here; the text says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block: where its data stands in the file, how many rows it says it has, and about how many bytes they take.

    One that is `broken` counts as one row: it has no end, or more rows than it can have.
    """

    at: int
    stored: int
    rows: int
    size: int
    broken: bool = False


@dataclass(frozen=True, slots=True)
class _FromFile:
    """Rows of a file: they have no bytes of their own, and a reject's are what was read of it, as JSON."""

    positions: Ints
    names: Sequence[str]
    rows: pa.StructArray

    def raw_column(self, rows: Ints | None) -> pa.Array:
        return pa.nulls(len(self.positions) if rows is None else len(rows), pa.binary())

    def raw(self, row: int) -> bytes:
        value = self.rows[row].as_py()
        named = {self.names[int(place)]: item for place, item in value.items()}
        return json.dumps(named, default=_as_text, ensure_ascii=False).encode()


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class AvroFile:
    """An open file (Avro 1.12, "Object Container Files").

    Attributes:
        blocks: those with rows, in order; behind a block that has no end nothing more is.

    Raises:
        NotAvroError: it has no header.
    """

    def __init__(self, path: str, block_bytes_max: int) -> None:
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise NotAvroError(str(error.strerror)) from error
        try:
            self._bytes_max = block_bytes_max
            self._size = os.fstat(self._file.fileno()).st_size
            self._begin, self._sync, meta = self._read_header()
            self._codec = meta.get("avro.codec", b"null").decode("latin-1")
            self._text = meta.get("avro.schema", b"")
            self.blocks = list(self._find_blocks())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AvroFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def read(self, records: AvroRecords | None, reading: Reading, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Rows `start <= number < end`; without `records`, because the schema is bad, all are rejects.

        Raises:
            ConfigError: drift is `stop` and there is some.
        """
        group: list[tuple[Block, int]] = []
        first = rows = size = 0
        for block in self.blocks:
            if first < end and first + block.rows > start:
                group.append((block, first))
                rows, size = rows + block.rows, size + block.size
                if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                    yield self._read_group(group, records, reading, unit, start, end)
                    group, rows, size = [], 0, 0
            first += block.rows
        if group:
            yield self._read_group(group, records, reading, unit, start, end)

    def _read_group(
        self, group: Sequence[tuple[Block, int]], records: AvroRecords | None, reading: Reading, unit: str, start: int,
        end: int,
    ) -> Decoded:  # fmt: skip
        """Read blocks as if each were a record with one array, its rows."""
        if records is None:
            return merged([self._rejected(block, first, reading, unit, start, end) for block, first in group])
        datas = [self._data(block) for block, _ in group]
        payloads = [
            b"" if data is None else zigzag(block.rows) + data + b"\0"
            for data, (block, _) in zip(datas, group, strict=True)
        ]
        ends = np.cumsum([len(payload) for payload in payloads])
        starts = ends - [len(payload) for payload in payloads]
        around = AvroType("record", "block", fields=(AvroField("rows", AvroType("array", inner=(records.writer,))),))
        program = compile_program(around, Want({0: Want({0: records.want})}))
        limits = Limits(records.limits.depth_max + _DEPTH_BEFORE, 1 << 40)
        codes, array = records.run(program, np.frombuffer(b"".join(payloads), np.uint8), starts, ends, limits)
        lists = array.field("0")
        pieces = []
        for i, (block, first) in enumerate(group):
            low, high = max(start, first), min(end, first + block.rows)
            positions = np.arange(low, high, dtype=np.int64)
            if codes[i]:
                pieces.append(self._rejected(block, first, reading, unit, start, end))
                continue
            begin = lists.offsets[i].as_py() + low - first
            rows = lists.values.slice(begin, len(positions))
            origin = _FromFile(positions, [field.name for field in records.writer.fields], rows)
            pieces.append(decoded_rows(reading, unit, origin, None, records.columns(rows), records.strange(), {}))
        return merged(pieces)

    def _rejected(self, block: Block, first: int, reading: Reading, unit: str, start: int, end: int) -> Decoded:
        """The rows of a block that cannot be read; the first has the begin of the block's bytes."""
        rows = range(max(start, first), min(end, first + block.rows))
        raw = self._peek(block)
        return rejected(reading, unit, [(at, ["parse:file"], raw if at == first else b"") for at in rows])

    def _peek(self, block: Block) -> bytes:
        """The begin of a block that cannot be read."""
        self._file.seek(block.at)
        return self._file.read(min(block.stored, 64 << 10))

    def _data(self, block: Block) -> bytes | None:
        """A block's data, decompressed; None when it cannot be."""
        if block.broken:
            return None
        self._file.seek(block.at)
        try:
            return _CODECS[self._codec](self._file.read(block.stored), self._bytes_max)
        except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError):
            return None

    def _read_header(self) -> tuple[int, bytes, Mapping[str, bytes]]:
        data = self._file.read(_HEADER_BYTES_MAX)
        if not data.startswith(_MAGIC):
            raise NotAvroError("it does not begin with Obj and 1")
        try:
            meta, at = _read_metadata(data, len(_MAGIC))
        except FaultError as fault:
            raise NotAvroError("its header is cut off") from fault
        sync = data[at : at + _SYNC_BYTES]
        if len(sync) != _SYNC_BYTES:
            raise NotAvroError("its header is cut off")
        return at + _SYNC_BYTES, sync, meta

    def records(self) -> AvroType:
        """The schema of the rows. Raises NotAvroError: it is none or no record, or the codec is unknown."""
        if self._codec not in _CODECS:
            raise NotAvroError(f"its codec is not one of {', '.join(_CODECS)}")
        try:
            schema = parse_schema(self._text.decode())
        except (BadSchemaError, UnicodeDecodeError) as error:
            raise NotAvroError("its schema cannot be read") from error
        if schema.kind != "record":
            raise NotAvroError("its schema is no record")
        return schema

    def _find_blocks(self) -> Iterator[Block]:
        at = self._begin
        while at < self._size:
            self._file.seek(at)
            head = self._file.read(20)
            try:
                rows, used = read_long(head, 0, len(head))
                stored, used = read_long(head, used, len(head))
            except FaultError:
                stored = rows = -1
                used = 0
            data, end = at + used, at + used + stored + _SYNC_BYTES
            if rows < 0 or stored < 0 or end > self._size:
                yield Block(at, self._size - at, 1, 0, broken=True)
                return
            self._file.seek(data + stored)
            if self._file.read(_SYNC_BYTES) != self._sync:
                yield Block(at, self._size - at, 1, 0, broken=True)
                return
            if rows > ROWS_PER_BYTE_MAX * (stored + 1):
                yield Block(data, stored, 1, 0, broken=True)
            elif rows:
                yield Block(data, stored, rows, stored if self._codec == "null" else stored * 4)
            at = end


def _read_metadata(data: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """The header's map, and where it ends. Raises FaultError, NotAvroError."""
    meta: dict[str, bytes] = {}
    while True:
        count, at = read_long(data, at, len(data))
        if not count:
            return meta, at
        if count < 0:
            count = -count
            _, at = read_long(data, at, len(data))
        if count > _ENTRIES_MAX:
            raise NotAvroError("its header has too many entries")
        for _ in range(count):
            key, at = _read_bytes(data, at)
            meta[key.decode("latin-1")], at = _read_bytes(data, at)


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at, len(data))
    if not 0 <= size <= len(data) - at:
        raise NotAvroError("its header is cut off")
    return data[at : at + size], at + size


def _deflate(data: bytes, most: int) -> bytes:
    return _all_of(zlib.decompressobj(-15), data, most)


def _bzip2(data: bytes, most: int) -> bytes:
    return _all_of(bz2.BZ2Decompressor(), data, most)


def _xz(data: bytes, most: int) -> bytes:
    return _all_of(lzma.LZMADecompressor(memlimit=256 << 20), data, most)


def _all_of(reader: Any, data: bytes, most: int) -> bytes:
    """Everything, which must end where the data ends and be no more than `most` bytes."""
    made: bytes = reader.decompress(data, most + 1)
    if len(made) > most or not reader.eof:
        raise ValueError("too large, or cut off")
    return made


def _snappy(data: bytes, most: int) -> bytes:
    """Snappy, and behind it the checksum of what it holds."""
    size = shift = 0
    for byte in data[:5]:
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if size > most or len(data) < 5:
        raise ValueError("too large, or cut off")
    made: bytes = pa.Codec("snappy").decompress(data[:-4], size, asbytes=True)
    if zlib.crc32(made) != int.from_bytes(data[-4:], "big"):
        raise ValueError("wrong checksum")
    return made


def _zstandard(data: bytes, most: int) -> bytes:
    with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
        made: bytes = stream.read(most + 1)
    if len(made) > most:
        raise ValueError("too large")
    return made


def _plain(data: bytes, most: int) -> bytes:
    return data


_CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": _plain, "deflate": _deflate, "snappy": _snappy, "zstandard": _zstandard, "bzip2": _bzip2, "xz": _xz,
}  # fmt: skip
