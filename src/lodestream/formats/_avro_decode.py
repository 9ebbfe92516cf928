"""Runs an Avro program on many records at once, with NumPy: one cursor per record, each op read for all of them.

A record that goes wrong gets its code, and its cursor goes to a run of zeros behind the block: there every read gives
nothing (no length, no items), so that the other records go on in full vectors and nothing has to be taken apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._avro_one import FaultError, OneByOne
from lodestream.formats._avro_pieces import Pieces
from lodestream.formats._avro_program import (
    BLOCK,
    BOOLEAN,
    BRANCH,
    DEPTH,
    ENUM,
    FREE_ITEMS,
    ITEMS,
    LENGTH,
    TRAILING,
    TRUNCATED,
    VARINT,
    Limits,
    Op,
    Program,
)
from lodestream.formats._lines import Ints, Mask

FEW = 8
"""So many records or less are faster one by one."""
_MARGIN = 16  # the longest read beyond a cursor that is not checked before it is made
_ZEROS = 64
_HIGH = np.uint64(0x8080808080808080)
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE = np.uint64(1)
_FOLDS = [
    (np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00), np.uint64(1)),
    (np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000), np.uint64(2)),
    (np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000), np.uint64(4)),
]
"""How eight groups of 7 bits become one number of 56: what stays, what moves, how far."""


@dataclass(slots=True)
class _Cursors:
    """Where each of some values is read: `at` up to `end`, for which record, into which slot."""

    at: Ints
    end: Ints
    record: Ints
    slot: Ints

    def __len__(self) -> int:
        return len(self.at)

    def some(self, rows: Ints) -> _Cursors:
        return _Cursors(self.at[rows], self.end[rows], self.record[rows], self.slot[rows])

    def put(self, rows: Ints, moved: _Cursors) -> None:
        self.at[rows] = moved.at
        self.end[rows] = moved.end


def run_program(
    program: Program, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints, limits: Limits
) -> tuple[npt.NDArray[np.uint8], pa.StructArray]:
    """Codes and the array of op 0, as `_avro_program` says, for the records at `starts` to `ends` of the block.

    The block must be shorter than 2 GiB; nothing in the result refers to it.
    """
    run = _Run(program, block, starts, ends, limits)
    run.all()
    return run.codes, run.pieces.array(0, len(starts))


class _Run:
    def __init__(
        self, program: Program, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints, limits: Limits
    ) -> None:
        self._program = program
        self._size = len(block)
        self._block = np.zeros(len(block) + 2 * _MARGIN + _ZEROS, np.uint8)
        self._block[: len(block)] = block
        self._words: npt.NDArray[np.uint64] = np.ndarray(
            (len(self._block) - 7,), "<u8", buffer=self._block, strides=(1,)
        )
        self._halves: npt.NDArray[np.uint32] = np.ndarray(
            (len(self._block) - 3,), "<u4", buffer=self._block, strides=(1,)
        )
        self._zeros = len(block) + _MARGIN
        self._limits = limits
        self._budget = np.minimum(ends - starts + FREE_ITEMS, limits.items_max)
        self._is_faulty = False
        self._unsure = np.zeros(len(starts), np.bool_)
        self._single: OneByOne | None = None
        self._stops: Ints | None = None
        records = np.arange(len(starts), dtype=np.int64)
        self._starts, self._ends = starts, ends
        self._root = _Cursors(starts.copy(), ends.copy(), records, records)
        self.codes = np.zeros(len(starts), np.uint8)
        self.pieces = Pieces(program, self._block, self._size)

    def all(self) -> None:
        """Read every record."""
        self._run(0, self._root, 1)
        self._fault(self._root, self._root.at < self._root.end, TRAILING)
        unsure = np.flatnonzero(self._unsure).tolist()  # these codes say that they are bad, not yet why
        if not unsure:
            return
        one = OneByOne(self._program, self._block.tobytes(), self._limits, Pieces(self._program, self._block, 0))
        for i in unsure:
            one.at, one.end = int(self._starts[i]), int(self._ends[i])
            one.budget = min(one.end - one.at + FREE_ITEMS, self._limits.items_max)
            try:
                one.run(0, 0, 1)
            except FaultError as fault:
                self.codes[i] = fault.code
            one.forget()

    def _run(self, index: int, c: _Cursors, depth: int) -> None:
        """Read one value of an op at every cursor."""
        op = self._program[index]
        if not len(c):
            return
        if not op.wanted and op.exact >= 0:
            self._step(c, op.exact)
        elif op.code in ("record", "array", "map", "union"):
            if len(c) <= FEW:
                self._one_by_one(c, lambda one, i: one.run(index, int(c.slot[i]), depth))
            elif op.code == "union":
                self._union(index, op, c, depth)
            else:
                self._nested(index, op, c, depth)
        elif op.code == "bytes":
            self._bytes(index, op, c)
        elif op.code == "fixed":
            begins = c.at
            self._step(c, op.size)
            if op.wanted:
                self._give_bytes(index, c, begins, begins + op.size)
        elif op.code != "null":
            values = self._scalar(op, c)
            if op.wanted:
                self.pieces.add(index, c.slot, values)

    def _nested(self, index: int, op: Op, c: _Cursors, depth: int) -> None:
        if depth > self._limits.depth_max:
            self._fault(c, np.ones(len(c), np.bool_), DEPTH)
            return
        if op.wanted:
            self.pieces.add(index, c.slot)
        if op.code != "record":
            self._blocks(index, op, c, depth)
            return
        self._fault(c, c.end - c.at < op.least, TRUNCATED)
        if self._is_faulty and (c.end > self._size).all():
            return
        for child in op.children:
            self._run(child, c, depth + 1)

    def _fault(self, c: _Cursors, bad: Mask, code: int) -> None:
        """Give the code to records that have none yet, and send their cursors to the zeros."""
        if not bad.any():
            return
        self._is_faulty = True
        rows = np.flatnonzero(bad)
        records = c.record[rows]
        self.codes[records[self.codes[records] == 0]] = code
        c.at = c.at.copy()
        c.at[rows] = self._zeros
        c.end[rows] = self._zeros + _ZEROS

    def _good(self, c: _Cursors) -> Mask:
        """Cursors that are not at the zeros."""
        return c.end <= self._size

    def _one_by_one(self, c: _Cursors, read: Callable[[OneByOne, int], None]) -> None:
        """Call `read` for every cursor that is still good, with a reader that stands there."""
        if self._single is None:
            self._single = OneByOne(self._program, self._block.tobytes(), self._limits, self.pieces)
        one = self._single
        c.at = c.at.copy()
        for i in np.flatnonzero(self._good(c)).tolist():
            record = int(c.record[i])
            one.at, one.end, one.budget = int(c.at[i]), int(c.end[i]), int(self._budget[record])
            try:
                read(one, i)
            except FaultError as fault:
                self._fault(c, np.arange(len(c)) == i, fault.code)
            else:
                c.at[i] = one.at
            self._budget[record] = one.budget
        one.flush()

    def _step(self, c: _Cursors, size: int) -> None:
        self._fault(c, c.end - c.at < size, TRUNCATED)
        c.at = c.at + size
        if self._is_faulty:
            self._fault(c, c.at > c.end, TRUNCATED)

    def _scalar(self, op: Op, c: _Cursors) -> npt.NDArray[Any]:
        if op.code in ("int", "long", "enum"):
            values = self._long(c)
            if op.code == "int":
                self._fault(c, (values >> 31) != (values >> 63), VARINT)
            elif op.code == "enum":
                self._fault(c, (values < 0) | (values >= op.size), ENUM)
            return values
        at = c.at
        self._step(c, op.exact)
        at = np.where(self._good(c), at, self._zeros) if self._is_faulty else at
        if op.code == "double":
            return self._words[at].view(np.float64)
        if op.code == "float":
            return self._halves[at].view(np.float32)
        bytes_ = self._block[at]
        self._fault(c, bytes_ > 1, BOOLEAN)
        return bytes_.view(np.bool_) if not self._is_faulty else bytes_ == 1

    def _long(self, c: _Cursors) -> Ints:
        """Zigzag varints, one at each cursor."""
        first = self._block[c.at]
        if first.max() < 128:
            raw = first.astype(np.uint64)
            c.at = c.at + 1
            self._fault(c, c.at > c.end, TRUNCATED)
        else:
            raw = self._long_raw(c)
        return (raw >> _ONE).view(np.int64) ^ -(raw & _ONE).view(np.int64)

    def _long_raw(self, c: _Cursors) -> npt.NDArray[np.uint64]:
        words = self._words[c.at]
        stop = ~words & _HIGH
        below = (stop & (~stop + _ONE)) - _ONE  # all bits below the first stop bit; all bits when there is none
        sizes = (np.bitwise_count(below) >> 3).astype(np.int64) + 1
        words &= below & _LOW
        for stay, move, by in _FOLDS:
            words = (words & stay) | ((words & move) >> by)
        at = c.at
        c.at = at + sizes
        if int(sizes.max()) <= 8:
            self._fault(c, c.at > c.end, TRUNCATED)
            return words
        rows = np.flatnonzero(sizes > 8)
        eighth, ninth = self._block[at[rows] + 8], self._block[at[rows] + 9]
        longest = eighth >= 128
        words[rows] |= (eighth & 127).astype(np.uint64) << np.uint64(56)
        words[rows] |= np.where(longest, ninth, 0).astype(np.uint64) << np.uint64(63)
        c.at[rows] += longest
        self._fault(c, c.at > c.end, TRUNCATED)
        too_long = np.zeros(len(c), np.bool_)
        too_long[rows] = longest & (ninth > 1)
        self._fault(c, too_long, VARINT)
        return words

    def _bytes(self, index: int, op: Op, c: _Cursors) -> None:
        sizes = self._long(c)
        self._fault(c, sizes < 0, LENGTH)
        ends = c.at + sizes
        bad = sizes > c.end - c.at
        if self._is_faulty:
            ends = np.where(self._good(c), ends, c.at)
            bad &= self._good(c)
        self._fault(c, bad, TRUNCATED)
        begins = c.at
        c.at = np.where(bad, c.at, ends) if self._is_faulty else ends
        if op.wanted:
            self._give_bytes(index, c, begins, c.at)

    def _give_bytes(self, index: int, c: _Cursors, begins: Ints, ends: Ints) -> None:
        if self._is_faulty:
            lost = ~self._good(c)
            begins, ends = np.where(lost, self._zeros, begins), np.where(lost, self._zeros, ends)
        self.pieces.add(index, c.slot, begins, ends)

    def _union(self, index: int, op: Op, c: _Cursors, depth: int) -> None:
        branch = self._long(c)
        self._fault(c, (branch < 0) | (branch >= len(op.children)), BRANCH)
        if self._is_faulty:
            branch = np.where(self._good(c), branch, -1)
        if op.size >= 0:
            self._branch(op.children[op.size], c, branch == op.size, depth)
            return
        if op.wanted:
            self.pieces.add(index, c.slot, branch)
        for i in np.unique(branch).tolist():
            if i >= 0:
                self._branch(op.children[i], c, branch == i, depth)

    def _branch(self, child: int, c: _Cursors, mask: Mask, depth: int) -> None:
        if mask.all():
            self._run(child, c, depth)
            return
        rows = np.flatnonzero(mask)
        if len(rows):
            some = c.some(rows)
            self._run(child, some, depth)
            c.at = c.at.copy()
            c.put(rows, some)

    def _blocks(self, index: int, op: Op, c: _Cursors, depth: int) -> None:
        """Read the blocks of arrays or maps, up to and with the empty one."""
        c.at = c.at.copy()
        todo = np.flatnonzero(self._good(c)) if self._is_faulty else np.arange(len(c))
        while len(todo):
            some = c.some(todo)
            if len(todo) <= FEW:
                slots = some.slot
                self._one_by_one(some, lambda one, i: one.blocks(index, int(slots[i]), depth))  # noqa: B023
                c.put(todo, some)
                return
            counts, ends = self._block_heads(index, some)
            is_next = (counts != 0) & self._good(some)
            if not op.wanted:
                jump = is_next & (ends >= 0)
                some.at = np.where(jump, ends, some.at)
                counts = np.where(jump, 0, counts)
            rows = np.flatnonzero((counts > 0) & self._good(some))
            if len(rows):
                full = some.some(rows)
                self._items(index, op, full, counts[rows], depth)
                self._fault(full, self._good(full) & (ends[rows] >= 0) & (full.at != ends[rows]), BLOCK)
                some.at = some.at.copy()
                some.put(rows, full)
            c.put(todo, some)
            todo = todo[is_next & self._good(some)]

    def _block_heads(self, index: int, c: _Cursors) -> tuple[Ints, Ints]:
        """How many items each block has, and where it ends if it says so, else -1."""
        least = self._program[self._program[index].children[0]].least
        counts = self._long(c)
        ends = np.full(len(c), -1, np.int64)
        rows = np.flatnonzero(counts < 0)
        if len(rows):
            sized = c.some(rows)
            sizes = self._long(sized)
            self._fault(sized, sizes < 0, LENGTH)
            self._fault(sized, self._good(sized) & (sizes > sized.end - sized.at), TRUNCATED)
            ends[rows] = np.where(self._good(sized), sized.at + sizes, -1)
            counts[rows] = -counts[rows]
            self._fault(sized, counts[rows] < 0, LENGTH)
            c.at = c.at.copy()
            c.put(rows, sized)
        good = self._good(c)
        if least:
            self._fault(c, good & (counts > (c.end - c.at) // least), TRUNCATED)
        self._fault(c, self._good(c) & (counts > self._budget[c.record]), ITEMS)
        counts = np.where(self._good(c), counts, 0)
        self._budget[c.record] -= counts
        return counts, ends

    def _items(self, index: int, op: Op, c: _Cursors, counts: Ints, depth: int) -> None:
        """Read that many items at each cursor, all at once where it is plain where each begins."""
        child = op.children[0]
        item = self._program[child]
        if item.exact >= 0:
            if op.wanted:
                self._flat(index, c, counts, np.repeat(c.at, counts) + item.exact * _ordinals(counts), depth)
            c.at = c.at + counts * item.exact
            self._sink(c)
        elif item.code in ("int", "long", "enum"):
            self._varints(index, c, counts, depth)
            self._sink(c)
        else:
            self._rounds(index, op, c, counts, depth)

    def _sink(self, c: _Cursors) -> None:
        """Send cursors to the zeros whose record went wrong in items read all at once, perhaps not in the first one."""
        if self._is_faulty:
            bad = self.codes[c.record] != 0
            self._unsure[c.record[bad]] = True
            self._fault(c, bad & self._good(c), TRUNCATED)

    def _flat(self, index: int, c: _Cursors, counts: Ints, at: Ints, depth: int) -> None:
        """Read items whose begins are known."""
        op = self._program[index]
        slots = np.repeat(c.slot, counts)
        if op.wanted:
            slots = self.pieces.items(index, slots)
        self._run(op.children[0], _Cursors(at, np.repeat(c.end, counts), np.repeat(c.record, counts), slots), depth + 1)

    def _varints(self, index: int, c: _Cursors, counts: Ints, depth: int) -> None:
        """Read numbers: each begins where the one before has its last byte, the one below 128."""
        if self._stops is None:
            self._stops = np.flatnonzero(self._block < 128)
        stops = self._stops
        first = np.searchsorted(stops, c.at)
        last = np.minimum(first + counts - 1, len(stops) - 1)
        self._fault(c, stops[last] >= c.end, TRUNCATED)
        good = self._good(c)
        counts = np.where(good, counts, 0)
        ordinals = _ordinals(counts)
        at = np.where(ordinals == 0, np.repeat(c.at, counts), stops[np.repeat(first, counts) + ordinals - 1] + 1)
        if len(at):
            self._flat(index, c, counts, at, depth)
        c.at = np.where(good, stops[last] + 1, c.at)

    def _rounds(self, index: int, op: Op, c: _Cursors, counts: Ints, depth: int) -> None:
        """Read the first item of each, then the second of each that has one, and so on."""
        child = op.children[0]
        left = counts.copy()
        c.at = c.at.copy()
        todo = np.arange(len(c))
        while len(todo):
            some = c.some(todo)
            if len(todo) <= FEW:
                slots, rest = some.slot, left[todo]
                self._one_by_one(some, lambda one, i: one.items(index, int(slots[i]), int(rest[i]), -1, depth))  # noqa: B023
                c.put(todo, some)
                return
            if op.wanted:
                some.slot = self.pieces.items(index, some.slot)
            self._run(child, some, depth + 1)
            c.put(todo, some)
            left[todo] -= 1
            todo = todo[(left[todo] > 0) & self._good(some)]


def _ordinals(counts: Ints) -> Ints:
    """0, 1, … up to each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
