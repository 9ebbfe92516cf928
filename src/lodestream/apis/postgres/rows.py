"""Rows of an answer as protocol messages, built a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.apis.postgres import encode, few

_CHUNK_BYTES = 64 << 20
_NULL = b"\xff\xff\xff\xff"


def data_rows(batch: pa.RecordBatch, formats: Sequence[int]) -> bytes:
    """One DataRow message per row.

    Args:
        batch: the rows.
        formats: of each column, 0 for text and 1 for binary.
    """
    if batch.num_rows <= few.ROWS_MAX and (made := few.data_rows(batch, formats)) is not None:
        return made
    count = np.frombuffer(batch.num_columns.to_bytes(2, "big"), dtype=np.uint8)
    return _messages(b"D", _Pieces(batch.num_rows).constant(count).columns(batch, formats))


def copy_binary(batch: pa.RecordBatch, head: bytes) -> bytes:
    """One CopyData message per row in COPY's binary form; the first one begins with `head`."""
    count = np.frombuffer(batch.num_columns.to_bytes(2, "big"), dtype=np.uint8)
    pieces = _Pieces(batch.num_rows).constant(count).columns(batch, [1] * batch.num_columns)
    if head and batch.num_rows:
        first = pa.array([head] + [b""] * (batch.num_rows - 1), pa.binary())
        pieces.front(first)
    return _messages(b"d", pieces)


def copy_lines(lines: pa.Array) -> bytes:
    """One CopyData message per line."""
    return _messages(b"d", _Pieces(len(lines)).variable(lines))


def pieces_of(batch: pa.RecordBatch, rows_max: int) -> Iterator[pa.RecordBatch]:
    """A batch in parts of so many rows, none of which is too large to be built in one piece."""
    size = max(1, batch.nbytes)
    step = min(rows_max, max(1, batch.num_rows * _CHUNK_BYTES // size))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


class _Pieces:
    """Parts of each row, left to right; neighbours of equal width in all rows are one part."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._done: list[pa.Array] = []
        self._open: list[np.ndarray] = []
        self.lengths = np.zeros(rows, dtype=np.int64)

    def constant(self, octets: np.ndarray) -> _Pieces:
        return self.equal(np.broadcast_to(octets, (self.rows, len(octets))))

    def equal(self, rows: np.ndarray) -> _Pieces:
        """A part that is as wide in every row."""
        self._open.append(rows)
        self.lengths += rows.shape[1]
        return self

    def variable(self, values: pa.Array) -> _Pieces:
        """A part without nulls whose length differs."""
        self._close()
        self._done.append(values)
        self.lengths += np.asarray(pc.binary_length(values))
        return self

    def front(self, values: pa.Array) -> None:
        """A part before all others."""
        self._close()
        self._done.insert(0, values)
        self.lengths += np.asarray(pc.binary_length(values))

    def columns(self, batch: pa.RecordBatch, formats: Sequence[int]) -> _Pieces:
        """Each column's values with their lengths before them."""
        for column, form in zip(batch.columns, formats, strict=True):
            bare = encode.plain(column) if form else column
            if form and (rows := encode.fixed(bare)) is not None:
                self._fixed(rows, bare)
            else:
                self._sized(encode.binary(column) if form else encode.text(column))
        return self

    def _fixed(self, rows: np.ndarray, column: pa.Array) -> None:
        width = np.frombuffer(rows.shape[1].to_bytes(4, "big"), dtype=np.uint8)
        whole = np.concatenate([np.broadcast_to(width, (len(rows), 4)), rows], axis=1)
        if not column.null_count:
            self.equal(whole)
            return
        self.variable(pc.if_else(column.is_valid(), _binary(whole), pa.scalar(_NULL, pa.binary())))

    def _sized(self, values: pa.Array) -> None:
        sizes = np.asarray(pc.fill_null(pc.binary_length(values), -1), dtype=np.int64)
        self.equal(sizes.astype(">i4").view(np.uint8).reshape(-1, 4))
        bare = values if values.type == pa.binary() else values.view(pa.binary())
        self.variable(pc.fill_null(bare, b"") if bare.null_count else bare)

    def arrays(self) -> list[pa.Array]:
        """The parts as binary arrays."""
        self._close()
        return self._done

    def _close(self) -> None:
        if self._open:
            joined = self._open[0] if len(self._open) == 1 else np.concatenate(self._open, axis=1)
            self._done.append(_binary(joined))
            self._open = []


def _messages(tag: bytes, pieces: _Pieces) -> bytes:
    if not pieces.rows:
        return b""
    arrays = pieces.arrays()
    head = np.empty((pieces.rows, 5), dtype=np.uint8)
    head[:, 0] = tag[0]
    head[:, 1:] = (pieces.lengths + 4).astype(">u4").view(np.uint8).reshape(-1, 4)
    bare = [one if one.type == pa.binary() else one.view(pa.binary()) for one in arrays]
    joined = pc.binary_join_element_wise(_binary(head), *bare, b"")
    start, end = np.frombuffer(joined.buffers()[1], dtype=np.int32)[[joined.offset, joined.offset + len(joined)]]
    data: bytes = joined.buffers()[2].slice(int(start), int(end - start)).to_pybytes()
    return data


def _binary(rows: np.ndarray) -> pa.Array:
    count, width = rows.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    data = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), data])
