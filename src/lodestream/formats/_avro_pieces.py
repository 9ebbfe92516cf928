"""Collects what an interpreter of Avro programs reads, in any order, and puts it together as Arrow arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._avro_program import Op, Program
from lodestream.formats._lines import Ints, Mask, slices

Numbers = npt.NDArray[Any]
_NUMBERS: dict[str, tuple[type[np.generic], pa.DataType]] = {
    "boolean": (np.bool_, pa.bool_()), "int": (np.int32, pa.int32()), "enum": (np.int32, pa.int32()),
    "long": (np.int64, pa.int64()), "float": (np.float32, pa.float32()), "double": (np.float64, pa.float64()),
}  # fmt: skip


class Pieces:
    """Values by op and slot.

    A slot is a place in the array that an op becomes: a record's number, or inside arrays and maps the number that
    `items` gave. Items of one array come in order, those of different arrays in any.
    """

    def __init__(self, program: Program, block: npt.NDArray[np.uint8], size: int) -> None:
        self._program = program
        self._block = block
        self._size = size
        self._slots: list[list[Ints]] = [[] for _ in program]
        self._values: list[list[tuple[Numbers, ...]]] = [[] for _ in program]
        self._parents: list[list[Ints]] = [[] for _ in program]
        self._items = [0] * len(program)

    def add(self, op: int, slots: Ints, *values: Numbers) -> None:
        """Values of an op: numbers, or begins and ends of bytes, or none where being there is all there is to say."""
        self._slots[op].append(slots)
        self._values[op].append(values)

    def items(self, op: int, parents: Ints) -> Ints:
        """New slots for one more item of each of these arrays."""
        first = self._items[op]
        self._items[op] += len(parents)
        self._parents[op].append(parents)
        return np.arange(first, self._items[op], dtype=np.int64)

    def first_item(self, op: int) -> int:
        """The slot that the next item gets."""
        return self._items[op]

    def array(self, at: int, count: int, places: Ints | None = None) -> pa.Array:
        """The array of an op; `places` says where each slot stands in it (-1 nowhere), None each in its own place."""
        op = self._program[at]
        if op.code == "null" or not op.wanted:
            return pa.nulls(count)
        if op.code == "union" and op.size >= 0:
            return self.array(op.children[op.size], count, places)
        slots, columns = self._placed(at, count, places)
        valid = None
        if slots is not None:
            valid = np.zeros(count, np.bool_)
            valid[slots] = True
        if op.code in _NUMBERS:
            dtype, kind = _NUMBERS[op.code]
            return _numbers(columns, slots, count, dtype, kind, valid)
        if op.code in ("bytes", "fixed"):
            return self._bytes(columns, slots, count, valid)
        if op.code == "record":
            inner = [self.array(child, count, places) for child in self._wanted(op)]
            return _struct(inner, self._names(op), count, valid)
        if op.code == "union":
            branch = _numbers(columns, slots, count, np.int32, pa.int32(), valid)
            inner = [branch, *(self.array(child, count, places) for child in self._wanted(op))]
            return _struct(inner, ["branch", *self._names(op)], count, None)
        return self._list(at, op, count, places, valid)

    def _wanted(self, op: Op) -> list[int]:
        return [child for child in op.children if self._program[child].wanted]

    def _names(self, op: Op) -> list[str]:
        return [str(i) for i, child in enumerate(op.children) if self._program[child].wanted]

    def _placed(self, at: int, count: int, places: Ints | None) -> tuple[Ints | None, list[Numbers]]:
        """Where the values stand (None: each in its place, all there) and the values."""
        width = max((len(values) for values in self._values[at]), default=0)
        slots = _joined(self._slots[at])
        columns: list[Numbers] = [_joined([values[i] for values in self._values[at]]) for i in range(width)]
        if places is not None:
            slots = places[slots]
            if len(slots) and slots.min() < 0:
                kept = slots >= 0
                slots, columns = slots[kept], [column[kept] for column in columns]
        if len(slots) == count and np.array_equal(slots, np.arange(count)):
            return None, columns
        return slots, columns

    def _bytes(self, columns: list[Numbers], slots: Ints | None, count: int, valid: Mask | None) -> pa.Array:
        if not columns:
            return pa.nulls(count, pa.binary())
        begins, ends = (_spread(column, slots, count, np.int64) for column in columns)
        lost = begins > self._size  # read behind the block, by a record that is bad
        if lost.any():
            valid = ~lost if valid is None else valid & ~lost
        if valid is not None:
            ends = np.maximum.accumulate(np.where(valid, ends, 0))
            begins = np.where(valid, begins, ends)
        return slices(self._block, begins, ends, pa.binary(), valid)

    def _list(self, at: int, op: Op, count: int, places: Ints | None, valid: Mask | None) -> pa.Array:
        valid = None if op.size < 0 else valid
        parents = _joined(self._parents[at])
        if places is not None:
            parents = places[parents]
        order = None if len(parents) < 2 or (parents[1:] >= parents[:-1]).all() else np.argsort(parents, kind="stable")
        nowhere = int(np.count_nonzero(parents < 0))
        if order is None and not nowhere:
            inner_places = None
        else:
            inner_places = np.empty(len(parents), np.int64)
            inner_places[np.arange(len(parents)) if order is None else order] = np.arange(len(parents)) - nowhere
            np.maximum(inner_places, -1, out=inner_places)
        offsets = np.zeros(count + 1, np.int32)
        np.cumsum(np.bincount(parents[parents >= 0], minlength=count), out=offsets[1:])
        items = self.array(op.children[0], len(parents) - nowhere, inner_places)
        kind = pa.list_(pa.field("item", items.type))
        return pa.Array.from_buffers(kind, count, [_bits(valid), pa.py_buffer(offsets)], children=[items])


def _joined(parts: Sequence[Numbers]) -> Numbers:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _bits(valid: Mask | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _spread(values: Numbers, slots: Ints | None, count: int, dtype: type[np.generic]) -> Numbers:
    if slots is None:
        return values
    spread = np.zeros(count, dtype)
    spread[slots] = values
    return spread


def _numbers(
    columns: list[Numbers], slots: Ints | None, count: int, dtype: type[np.generic], kind: pa.DataType,
    valid: Mask | None,
) -> pa.Array:  # fmt: skip
    if not columns:
        return pa.nulls(count, kind)
    values = _spread(columns[0].astype(dtype, copy=False), slots, count, dtype)
    data = _bits(values) if dtype is np.bool_ else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, count, [_bits(valid), data])


def _struct(inner: list[pa.Array], names: list[str], count: int, valid: Mask | None) -> pa.Array:
    kind = pa.struct([pa.field(name, array.type) for name, array in zip(names, inner, strict=True)])
    return pa.Array.from_buffers(kind, count, [_bits(valid)], children=inner)
