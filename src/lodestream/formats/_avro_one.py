"""Runs an Avro program on one record at a time, in plain Python, where they are too few or too odd for vectors."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from lodestream.formats._avro_pieces import Pieces
from lodestream.formats._avro_program import (
    BLOCK,
    BOOLEAN,
    BRANCH,
    DEPTH,
    ENUM,
    ITEMS,
    LENGTH,
    TRUNCATED,
    VARINT,
    Limits,
    Program,
)

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_TYPES = {"int": np.int32, "enum": np.int32, "long": np.int64, "union": np.int32, "boolean": np.bool_,
          "float": np.float32, "double": np.float64}  # fmt: skip


class FaultError(Exception):
    """The record is bad; `code` says why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class OneByOne:
    """Reads values at `at`, never beyond `end`, and takes items off `budget`; `flush` hands over what was read."""

    def __init__(self, program: Program, data: bytes, limits: Limits, pieces: Pieces) -> None:
        self._program = program
        self._data = data
        self._depth_max = limits.depth_max
        self._pieces = pieces
        self._slots: dict[int, list[int]] = {}
        self._values: dict[int, list[Any]] = {}
        self._parents: dict[int, list[int]] = {}
        self.at = self.end = self.budget = 0

    def flush(self) -> None:
        """Hand over."""
        for op, slots in self._slots.items():
            where = np.array(slots, np.int64)
            code = self._program[op].code
            if code in ("bytes", "fixed"):
                spans = np.array(self._values[op], np.int64).reshape(-1, 2)
                self._pieces.add(op, where, spans[:, 0], spans[:, 1])
            elif code in _TYPES:
                self._pieces.add(op, where, np.array(self._values[op], _TYPES[code]))
            else:
                self._pieces.add(op, where)
        for op, parents in self._parents.items():
            self._pieces.items(op, np.array(parents, np.int64))
        self.forget()

    def forget(self) -> None:
        """Drop what was read and not handed over."""
        self._slots, self._values, self._parents = {}, {}, {}

    def run(self, index: int, slot: int, depth: int) -> None:
        """Read one value of an op. Raises FaultError."""
        op = self._program[index]
        code = op.code
        if not op.wanted and op.exact >= 0:
            self._step(op.exact)
        elif code in ("record", "array", "map"):
            if depth > self._depth_max:
                raise FaultError(DEPTH)
            if op.wanted:
                self._give(index, slot)
            if code == "record":
                if op.least > self.end - self.at:
                    raise FaultError(TRUNCATED)
                for child in op.children:
                    self.run(child, slot, depth + 1)
            else:
                self.blocks(index, slot, depth)
        elif code == "union":
            branch = self._long()
            if not 0 <= branch < len(op.children):
                raise FaultError(BRANCH)
            if op.wanted and op.size < 0:
                self._give(index, slot, branch)
            self.run(op.children[branch], slot, depth)
        elif code in ("bytes", "fixed"):
            size = self._length() if code == "bytes" else op.size
            begin = self._step(size)
            if op.wanted:
                self._give(index, slot, (begin, begin + size))
        else:
            value = self._scalar(code, op.size)
            if op.wanted and code != "null":
                self._give(index, slot, value)

    def blocks(self, index: int, slot: int, depth: int) -> None:
        """Read the blocks of an array or map, up to and with the empty one."""
        op = self._program[index]
        least = self._program[op.children[0]].least
        while count := self._long():
            end = -1
            if count < 0:
                count = -count
                size = self._length()
                if size > self.end - self.at:
                    raise FaultError(TRUNCATED)
                end = self.at + size
                if count >= 1 << 63:
                    raise FaultError(LENGTH)
            if count * least > self.end - self.at:
                raise FaultError(TRUNCATED)
            if count > self.budget:
                raise FaultError(ITEMS)
            self.budget -= count
            if end >= 0 and not op.wanted:
                self.at = end
            else:
                self.items(index, slot, count, end, depth)

    def items(self, index: int, slot: int, count: int, end: int, depth: int) -> None:
        """Read the items of a block which ends at `end`, if that is not negative."""
        op = self._program[index]
        child = op.children[0]
        item = self._program[child]
        if not op.wanted and item.exact >= 0:
            self._step(count * item.exact)
        elif not op.wanted:
            for _ in range(count):
                self.run(child, 0, depth + 1)
        else:
            parents = self._parents.setdefault(index, [])
            first = self._pieces.first_item(index)
            for _ in range(count):
                parents.append(slot)
                self.run(child, first + len(parents) - 1, depth + 1)
        if end >= 0 and self.at != end:
            raise FaultError(BLOCK)

    def _give(self, index: int, slot: int, value: Any = None) -> None:
        self._slots.setdefault(index, []).append(slot)
        self._values.setdefault(index, []).append(value)

    def _step(self, size: int) -> int:
        """Move on; gives where it was."""
        at = self.at
        if size > self.end - at:
            raise FaultError(TRUNCATED)
        self.at = at + size
        return at

    def _scalar(self, code: str, size: int) -> Any:
        if code in ("int", "long", "enum"):
            number = self._long()
            if code == "int" and not -(1 << 31) <= number < 1 << 31:
                raise FaultError(VARINT)
            if code == "enum" and not 0 <= number < size:
                raise FaultError(ENUM)
            return number
        if code == "double":
            return _DOUBLE.unpack_from(self._data, self._step(8))[0]
        if code == "float":
            return _FLOAT.unpack_from(self._data, self._step(4))[0]
        if code == "boolean":
            byte = self._data[self._step(1)]
            if byte > 1:
                raise FaultError(BOOLEAN)
            return byte
        return None

    def _length(self) -> int:
        size = self._long()
        if size < 0:
            raise FaultError(LENGTH)
        return size

    def _long(self) -> int:
        number, self.at = read_long(self._data, self.at, self.end)
        return number


def read_long(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A zigzag varint of at most 64 bits, and where it ends. Raises FaultError."""
    value = shift = 0
    while True:
        if at >= end:
            raise FaultError(TRUNCATED)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise FaultError(VARINT)
    if value >> 64:
        raise FaultError(VARINT)
    return (value >> 1) ^ -(value & 1), at
