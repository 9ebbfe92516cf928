"""JSON lines by the native kernel: any shape of record, with no Python object per record."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._lines import Ints, Lines, slices
from lodestream.formats._records import rows_table
from lodestream.formats._values import TIMESTAMP_UNITS
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import Column, DataType
from lodestream.ports.source import Reading

Described = tuple[str, int, int, bool, list[str], list[Any]]
"""A column as the kernels read it: name of the type, two numbers, nullable, names of fields, inner columns."""


def native_decoder(
    kernels: Any | None, reading: Reading, timestamps: str, depth_max: int, row_bytes_max: int
) -> NativeDecoder | None:
    """The native decoder; None without the kernels, or when they have no form of one of the types."""
    try:
        return NativeDecoder(kernels, reading, timestamps, depth_max, row_bytes_max) if kernels is not None else None
    except ValueError:
        return None


class NativeDecoder:
    """Decodes what is plainly right; every other line is left to the exact decoder.

    Args:
        kernels: the native ones.
        reading: what to decode to.
        timestamps: how timestamps are written.
        depth_max: how deep arrays and objects may nest.
        row_bytes_max: longer lines are left.
    """

    def __init__(self, kernels: Any, reading: Reading, timestamps: str, depth_max: int, row_bytes_max: int) -> None:
        self._kernels, self._reading = kernels, reading
        root = DataType("struct", fields=reading.schema.columns)
        self._decoder = kernels.JsonDecoder(describe(root, timestamps), depth_max, row_bytes_max)
        self._types = [to_arrow_type(column.type) for column in reading.schema]

    def split(self, block: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
        """What `split_lines` gives."""
        starts, ends = self._kernels.split_lines(block)
        return np.frombuffer(starts, np.int64).copy(), np.frombuffer(ends, np.int64).copy()

    def decode(self, lines: Lines, unit: str) -> tuple[pa.Table | None, Ints]:
        """Rows of the lines that were decoded, in order (None for none), and the indices of all other lines."""
        block, starts, ends = (np.ascontiguousarray(a) for a in (lines.block, lines.starts, lines.ends))
        pieces, rest = self._decoder.decode(block, starts, ends)
        left = np.frombuffer(rest, np.int64)
        if len(left) == len(lines):
            return None, left
        columns = [to_array(kind, piece) for kind, piece in zip(self._types, pieces, strict=True)]
        taken = lines
        if len(left):
            keep = np.ones(len(lines), np.bool_)
            keep[left] = False
            taken = lines.some(np.flatnonzero(keep))
        raw = slices(taken.block, taken.starts, taken.ends, pa.binary()) if self._reading.keep_raw else None
        return rows_table(self._reading, columns, unit, taken.positions, raw), left


def describe(kind: DataType, timestamps: str = "iso", nullable: bool = True) -> Described:
    """A type for the kernels.

    Args:
        timestamps: `iso` text, or the unit of the numbers that stand for them.
        nullable: whether NULL is a value of it.
    """
    fields = kind.fields
    if kind.name in ("array", "map"):
        assert kind.element
        fields = (Column("", kind.element),)
    first, second = kind.precision, kind.scale
    if kind.name == "timestamp" and timestamps != "iso":
        first = TIMESTAMP_UNITS[timestamps]
    inner = [describe(field.type, timestamps, field.nullable) for field in fields]
    if kind.name == "map" and (kind.key is None or kind.key.name != "string"):
        return ("map", 0, 0, nullable, [], [])
    return (kind.name, first, second, nullable, [field.name for field in fields], inner)


def to_array(kind: pa.DataType, piece: Any) -> pa.Array:
    """A column that the kernels made: (length, NULLs, buffers, children)."""
    length, nulls, buffers, children = piece
    if pa.types.is_null(kind):
        return pa.nulls(length)
    inner = [to_array(kind.field(i).type, child) for i, child in enumerate(children)]
    memory = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(kind, length, memory, nulls, 0, inner or None)
