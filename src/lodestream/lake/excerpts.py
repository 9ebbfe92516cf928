"""A Parquet file of which some columns are left out: holes where their pages were, all else in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

_TAIL_BYTES = 1 << 16
_GAP_BYTES = 1 << 18
"""Ranges that are nearer than this are one request."""
_PIECE_BYTES = 1 << 24
_MAGIC = b"PAR1"
Span = tuple[int, int]
"""From a byte on, up to another."""


def write_excerpt(
    file: IO[bytes], size: int, columns: Collection[str], read: Callable[[int, int], bytes]
) -> None:  # fmt: skip
    """Write what is needed of a Parquet file into an empty one of the same size.

    Whatever is not surely a page of another column is kept: footer, indexes, filters. Two requests or more.

    Args:
        file: to write to.
        size: of the whole file, bytes.
        columns: names that are needed, in any case.
        read: gives the bytes from a position up to another.
    """
    tail_start, tail = _tail(size, read)
    file.truncate(size)
    _put(file, 0, _MAGIC)
    _put(file, tail_start, tail)
    for start, end in _near(_needed(tail, size, columns, tail_start)):
        for piece in range(start, end, _PIECE_BYTES):
            _put(file, piece, read(piece, min(end, piece + _PIECE_BYTES)))
    file.flush()


def _put(file: IO[bytes], at: int, data: bytes) -> None:
    file.seek(at)
    file.write(data)


def _tail(size: int, read: Callable[[int, int], bytes]) -> tuple[int, bytes]:
    """The end of the file, with the whole footer, and where it begins."""
    start = max(0, size - _TAIL_BYTES)
    tail = read(start, size)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail) and tail[-4:] == _MAGIC and length <= size:
        start = size - length
        tail = read(start, size - len(tail)) + tail
    return start, tail


def _needed(tail: bytes, size: int, columns: Collection[str], tail_start: int) -> Iterator[Span]:
    """What to fetch besides the tail, in order; all when the footer cannot be made sense of."""
    at = len(_MAGIC)
    try:
        unneeded = sorted(_unneeded(pq.read_metadata(pa.BufferReader(tail)), size, columns))
    except (pa.ArrowException, OSError, ValueError):  # whoever reads the file will say what is wrong with it
        unneeded = []
    for start, end in unneeded:
        if start > at:
            yield at, min(start, tail_start)
        at = max(at, end)
        if at >= tail_start:
            return
    if at < tail_start:
        yield at, tail_start


def _unneeded(metadata: pq.FileMetaData, size: int, columns: Collection[str]) -> Iterator[Span]:
    """Where the pages of other columns are. Raises ValueError when the footer says what cannot be."""
    wanted = tuple(name.lower() for name in columns)
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            path = chunk.path_in_schema.lower()
            if any(path == name or path.startswith(name + ".") for name in wanted):
                continue
            start, first = chunk.data_page_offset, chunk.dictionary_page_offset
            if chunk.has_dictionary_page and first is not None and 0 < first < start:
                start = first
            end = start + chunk.total_compressed_size
            if not len(_MAGIC) <= start <= end <= size:
                raise ValueError("column lies outside the file")
            yield start, end


def _near(spans: Iterator[Span]) -> Iterator[Span]:
    """The spans, those that are near together as one."""
    last: Span | None = None
    for start, end in spans:
        if last is not None and start - last[1] < _GAP_BYTES:
            last = last[0], end
            continue
        if last is not None:
            yield last
        last = start, end
    if last is not None:
        yield last
