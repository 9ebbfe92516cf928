"""Runs an Avro program on many records at once, with NumPy: one cursor per record, each op read for all of them."""

from __future__ import annotations

from collections.abc import Callable
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
from lodestream.formats._vectors import Cursors, Vectors

FEW = 8
"""So many records or less are faster one by one."""
_ONE = np.uint64(1)


def run_program(
    program: Program, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints, limits: Limits
) -> tuple[npt.NDArray[np.uint8], pa.StructArray]:
    """Codes and the array of op 0, as `_avro_program` says, for the records at `starts` to `ends` of the block.

    The block must be shorter than 2 GiB; nothing in the result refers to it.
    """
    run = _Run(program, block, starts, ends, limits)
    run.all()
    return run.codes, run.pieces.array(0, len(starts))


class _Run(Vectors):
    def __init__(
        self, program: Program, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints, limits: Limits
    ) -> None:
        super().__init__(block, starts, ends)
        self._program = program
        self._unsure = np.zeros(len(starts), np.bool_)
        self._limits = limits
        self._starts, self._ends = starts, ends
        self._budget = np.minimum(ends - starts + FREE_ITEMS, limits.items_max)
        self._single: OneByOne | None = None
        self._stops: Ints | None = None
        self.pieces = Pieces(program, self.block, self.size)

    def all(self) -> None:
        """Read every record."""
        self._run(0, self.root, 1)
        self.fault(self.root, self.root.at < self.root.end, TRAILING)
        unsure = np.flatnonzero(self._unsure).tolist()  # these codes say that they are bad, not yet why
        if not unsure:
            return
        one = OneByOne(self._program, self.block.tobytes(), self._limits, Pieces(self._program, self.block, 0))
        for i in unsure:
            one.at, one.end = int(self._starts[i]), int(self._ends[i])
            one.budget = min(one.end - one.at + FREE_ITEMS, self._limits.items_max)
            try:
                one.run(0, 0, 1)
            except FaultError as fault:
                self.codes[i] = fault.code
            one.forget()

    def _run(self, index: int, c: Cursors, depth: int) -> None:
        """Read one value of an op at every cursor."""
        op = self._program[index]
        if not len(c):
            return
        if not op.wanted and op.exact >= 0:
            self.step(c, op.exact)
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
            self.step(c, op.size)
            if op.wanted:
                self._give_bytes(index, c, begins, begins + op.size)
        elif op.code != "null":
            values = self._scalar(op, c)
            if op.wanted:
                self.pieces.add(index, c.slot, values)

    def _nested(self, index: int, op: Op, c: Cursors, depth: int) -> None:
        if depth > self._limits.depth_max:
            self.fault(c, np.ones(len(c), np.bool_), DEPTH)
            return
        if op.wanted:
            self.pieces.add(index, c.slot)
        if op.code != "record":
            self._blocks(index, op, c, depth)
            return
        self.fault(c, c.end - c.at < op.least, TRUNCATED)
        if self.is_faulty and (c.end > self.size).all():
            return
        for child in op.children:
            self._run(child, c, depth + 1)

    def _one_by_one(self, c: Cursors, read: Callable[[OneByOne, int], None]) -> None:
        """Call `read` for every cursor that is still good, with a reader that stands there."""
        if self._single is None:
            self._single = OneByOne(self._program, self.block.tobytes(), self._limits, self.pieces)
        one = self._single
        c.at = c.at.copy()
        for i in np.flatnonzero(self.good(c)).tolist():
            record = int(c.record[i])
            one.at, one.end, one.budget = int(c.at[i]), int(c.end[i]), int(self._budget[record])
            try:
                read(one, i)
            except FaultError as fault:
                self.fault(c, np.arange(len(c)) == i, fault.code)
            else:
                c.at[i] = one.at
            self._budget[record] = one.budget
        one.flush()

    def _scalar(self, op: Op, c: Cursors) -> npt.NDArray[Any]:
        if op.code in ("int", "long", "enum"):
            values = self._long(c)
            if op.code == "int":
                self.fault(c, (values >> 31) != (values >> 63), VARINT)
            elif op.code == "enum":
                self.fault(c, (values < 0) | (values >= op.size), ENUM)
            return values
        at = c.at
        self.step(c, op.exact)
        at = np.where(self.good(c), at, self.zeros) if self.is_faulty else at
        if op.code == "double":
            return self.words[at].view(np.float64)
        if op.code == "float":
            return self.halves[at].view(np.float32)
        bytes_ = self.block[at]
        self.fault(c, bytes_ > 1, BOOLEAN)
        return bytes_.view(np.bool_) if not self.is_faulty else bytes_ == 1

    def _long(self, c: Cursors) -> Ints:
        """Zigzag varints, one at each cursor."""
        raw = self.varints(c)
        return (raw >> _ONE).view(np.int64) ^ -(raw & _ONE).view(np.int64)

    def _bytes(self, index: int, op: Op, c: Cursors) -> None:
        sizes = self._long(c)
        self.fault(c, sizes < 0, LENGTH)
        ends = c.at + sizes
        bad = sizes > c.end - c.at
        if self.is_faulty:
            ends = np.where(self.good(c), ends, c.at)
            bad &= self.good(c)
        self.fault(c, bad, TRUNCATED)
        begins = c.at
        c.at = np.where(bad, c.at, ends) if self.is_faulty else ends
        if op.wanted:
            self._give_bytes(index, c, begins, c.at)

    def _give_bytes(self, index: int, c: Cursors, begins: Ints, ends: Ints) -> None:
        if self.is_faulty:
            lost = ~self.good(c)
            begins, ends = np.where(lost, self.zeros, begins), np.where(lost, self.zeros, ends)
        self.pieces.add(index, c.slot, begins, ends)

    def _union(self, index: int, op: Op, c: Cursors, depth: int) -> None:
        branch = self._long(c)
        self.fault(c, (branch < 0) | (branch >= len(op.children)), BRANCH)
        if self.is_faulty:
            branch = np.where(self.good(c), branch, -1)
        if op.size >= 0:
            self._branch(op.children[op.size], c, branch == op.size, depth)
            return
        if op.wanted:
            self.pieces.add(index, c.slot, branch)
        for i in np.unique(branch).tolist():
            if i >= 0:
                self._branch(op.children[i], c, branch == i, depth)

    def _branch(self, child: int, c: Cursors, mask: Mask, depth: int) -> None:
        if mask.all():
            self._run(child, c, depth)
            return
        rows = np.flatnonzero(mask)
        if len(rows):
            some = c.some(rows)
            self._run(child, some, depth)
            c.at = c.at.copy()
            c.put(rows, some)

    def _blocks(self, index: int, op: Op, c: Cursors, depth: int) -> None:
        """Read the blocks of arrays or maps, up to and with the empty one."""
        c.at = c.at.copy()
        todo = np.flatnonzero(self.good(c)) if self.is_faulty else np.arange(len(c))
        while len(todo):
            some = c.some(todo)
            if len(todo) <= FEW:
                slots = some.slot
                self._one_by_one(some, lambda one, i: one.blocks(index, int(slots[i]), depth))  # noqa: B023
                c.put(todo, some)
                return
            counts, ends = self._block_heads(index, some)
            is_next = (counts != 0) & self.good(some)
            if not op.wanted:
                jump = is_next & (ends >= 0)
                some.at = np.where(jump, ends, some.at)
                counts = np.where(jump, 0, counts)
            rows = np.flatnonzero((counts > 0) & self.good(some))
            if len(rows):
                full = some.some(rows)
                self._items(index, op, full, counts[rows], depth)
                self.fault(full, self.good(full) & (ends[rows] >= 0) & (full.at != ends[rows]), BLOCK)
                some.at = some.at.copy()
                some.put(rows, full)
            c.put(todo, some)
            todo = todo[is_next & self.good(some)]

    def _block_heads(self, index: int, c: Cursors) -> tuple[Ints, Ints]:
        """How many items each block has, and where it ends if it says so, else -1."""
        least = self._program[self._program[index].children[0]].least
        counts = self._long(c)
        ends = np.full(len(c), -1, np.int64)
        rows = np.flatnonzero(counts < 0)
        if len(rows):
            sized = c.some(rows)
            sizes = self._long(sized)
            self.fault(sized, sizes < 0, LENGTH)
            self.fault(sized, self.good(sized) & (sizes > sized.end - sized.at), TRUNCATED)
            ends[rows] = np.where(self.good(sized), sized.at + sizes, -1)
            counts[rows] = -counts[rows]
            self.fault(sized, counts[rows] < 0, LENGTH)
            c.at = c.at.copy()
            c.put(rows, sized)
        good = self.good(c)
        if least:
            self.fault(c, good & (counts > (c.end - c.at) // least), TRUNCATED)
        self.fault(c, self.good(c) & (counts > self._budget[c.record]), ITEMS)
        counts = np.where(self.good(c), counts, 0)
        self._budget[c.record] -= counts
        return counts, ends

    def _items(self, index: int, op: Op, c: Cursors, counts: Ints, depth: int) -> None:
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

    def _sink(self, c: Cursors) -> None:
        """Send cursors to the zeros whose record went wrong in items read all at once, perhaps not in the first one."""
        if self.is_faulty:
            bad = self.codes[c.record] != 0
            self._unsure[c.record[bad]] = True
            self.fault(c, bad & self.good(c), TRUNCATED)

    def _flat(self, index: int, c: Cursors, counts: Ints, at: Ints, depth: int) -> None:
        """Read items whose begins are known."""
        op = self._program[index]
        slots = np.repeat(c.slot, counts)
        if op.wanted:
            slots = self.pieces.items(index, slots)
        self._run(op.children[0], Cursors(at, np.repeat(c.end, counts), np.repeat(c.record, counts), slots), depth + 1)

    def _varints(self, index: int, c: Cursors, counts: Ints, depth: int) -> None:
        """Read numbers: each begins where the one before has its last byte, the one below 128."""
        if self._stops is None:
            self._stops = np.flatnonzero(self.block < 128)
        stops = self._stops
        first = np.searchsorted(stops, c.at)
        last = np.minimum(first + counts - 1, len(stops) - 1)
        self.fault(c, stops[last] >= c.end, TRUNCATED)
        good = self.good(c)
        counts = np.where(good, counts, 0)
        ordinals = _ordinals(counts)
        at = np.where(ordinals == 0, np.repeat(c.at, counts), stops[np.repeat(first, counts) + ordinals - 1] + 1)
        if len(at):
            self._flat(index, c, counts, at, depth)
        c.at = np.where(good, stops[last] + 1, c.at)

    def _rounds(self, index: int, op: Op, c: Cursors, counts: Ints, depth: int) -> None:
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
            todo = todo[(left[todo] > 0) & self.good(some)]


def _ordinals(counts: Ints) -> Ints:
    """0, 1, … up to each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
