"""Reads Protobuf messages, many at once: one cursor per message, each tag read for all of them.

Fields are told apart by tag, and messages of one type mostly have theirs in the same order, so that each round reads
one field of all. A message inside a message is a range of bytes: those of all messages are read together, as more
cursors. What nobody wants is stepped over by its wire type, and messages that nobody wants are not looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._avro_one import FaultError, OneByOne
from lodestream.formats._avro_pieces import Pieces
from lodestream.formats._avro_program import Limits, Program
from lodestream.formats._lines import Ints
from lodestream.formats._vectors import TRUNCATED, VARINT, Cursors, Vectors

FAULTS = ("", "truncated", "trailing", "varint", "tag", "wire", "group")
"""What a code means.

`truncated`: a read beyond the end. `varint`: a number of more than 64 bits. `tag`: a field number that none can have.
`wire`: a field in another wire type than its type has. `group`: a field in the wire type of groups, which are not read.
"""
TAG, WIRE, GROUP = 4, 5, 6
FEW = 8
"""So many messages or less are faster one by one."""
_WIRES = {"double": 1, "fixed64": 1, "sfixed64": 1, "float": 5, "fixed32": 5, "sfixed32": 5, "string": 2, "bytes": 2,
          "message": 2}  # fmt: skip
_ONE = np.uint64(1)


@dataclass(eq=False, slots=True)
class Slot:
    """A field that is wanted: which op its values go to, and for a repeated one which op is the list of them.

    Attributes:
        kind: the type's name in the language.
        op: of the value.
        many: of the list; -1 when it is not repeated.
        inner: the message that a value is.
        oneof: the op that says which of several was the last; -1 for none.
    """

    kind: str
    op: int
    many: int = -1
    inner: Layout | None = None
    oneof: int = -1

    @property
    def wire(self) -> int:
        """The wire type of one value."""
        return _WIRES.get(self.kind, 0)


@dataclass(eq=False, slots=True)
class Layout:
    """What is wanted of a message: its op, slots by field number, and the ops of oneofs by the number of any member.

    `known` are all field numbers of the schema.
    """

    op: int
    slots: Mapping[int, Slot]
    oneofs: Mapping[int, int]
    known: frozenset[int]


@dataclass(frozen=True, slots=True)
class Read:
    """What came of messages: a code and a struct for each, and per unknown field number which messages have it."""

    codes: npt.NDArray[np.uint8]
    array: pa.StructArray
    strange: Mapping[int, Ints]


def read_messages(program: Program, top: Layout, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> Read:
    """Read the messages at `starts` to `ends` of the block; rows whose code is not 0 hold anything."""
    run = _Run(program, top, block, starts, ends)
    run.message(top, run.root)
    run.settle(starts, ends)
    strange = {number: np.unique(np.concatenate(rows)) for number, rows in run.strange.items()}
    return Read(run.codes, run.pieces.array(0, len(starts)), strange)


class _Run(Vectors):
    def __init__(self, program: Program, top: Layout, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> None:
        super().__init__(block, starts, ends)
        self.pieces = Pieces(program, self.block, self.size)
        self.strange: dict[int, list[Ints]] = {}
        self._program = program
        self._top = top
        self._single: _One | None = None
        self._unsure = np.zeros(len(starts), np.bool_)

    def settle(self, starts: Ints, ends: Ints) -> None:
        """Find the first fault of messages that went wrong in values read all at once."""
        unsure = np.flatnonzero(self._unsure).tolist()
        if not unsure:
            return
        one = _One(self._program, self.block.tobytes(), self.pieces, self._top)
        for i in unsure:
            one.at, one.end = int(starts[i]), int(ends[i])
            try:
                one.message(self._top, 0, is_new=True)
            except FaultError as fault:
                self.codes[i] = fault.code
            one.forget()

    def message(self, layout: Layout, c: Cursors) -> None:
        """Read a message at every cursor, up to its end."""
        self.pieces.add(layout.op, c.slot)
        c.at = c.at.copy()
        todo = np.flatnonzero(c.at < c.end)
        while len(todo):
            some = c.some(todo)
            if len(todo) <= FEW:
                self._one_by_one(layout, some)
                c.put(todo, some)
                return
            tags = self.varints(some)
            self.fault(some, (tags >> np.uint64(32) != 0) | (tags < 8), TAG)
            tags = np.where(self.good(some), tags, 0)
            kinds = tags[:1] if (tags == tags[0]).all() else np.unique(tags)
            for tag in kinds.tolist():
                if tag:
                    rows = np.flatnonzero(tags == tag)
                    same = some.some(rows)
                    self._field(layout, tag >> 3, tag & 7, same)
                    some.at = some.at.copy()
                    some.put(rows, same)
            c.put(todo, some)
            todo = todo[(some.at < some.end) & self.good(some)]

    def _field(self, layout: Layout, number: int, wire: int, c: Cursors) -> None:
        slot = layout.slots.get(number)
        if slot is None or wire not in (slot.wire, 2 if slot.many >= 0 else slot.wire):
            self._step_over(layout, number, wire, c, is_wanted=slot is not None)
            return
        if wire == 2 and slot.wire != 2:
            self._packed(slot, c)
            if self.is_faulty:
                self._unsure[c.record[self.codes[c.record] != 0]] = True
            return
        slots = c.slot if slot.many < 0 else self.pieces.items(slot.many, c.slot)
        if wire == 2:
            begins, ends = self._span(c)
            if slot.inner:
                inner = Cursors(begins, np.where(self.good(c), ends, c.end), c.record, slots)
                self.message(slot.inner, inner)
                if self.is_faulty:
                    self.fault(c, self.good(c) & (self.codes[c.record] != 0), TRUNCATED)
            else:
                self.pieces.add(slot.op, slots, begins, ends)
        else:
            self.pieces.add(slot.op, slots, self._value(slot.kind, c))
        self._chosen(layout, number, c)

    def _chosen(self, layout: Layout, number: int, c: Cursors) -> None:
        if number in layout.oneofs:
            self.pieces.add(layout.oneofs[number], c.slot, np.full(len(c), number, np.int32))

    def _step_over(self, layout: Layout, number: int, wire: int, c: Cursors, *, is_wanted: bool) -> None:
        if wire in (3, 4):
            self.fault(c, np.ones(len(c), np.bool_), GROUP)
        elif wire > 5 or is_wanted:
            self.fault(c, np.ones(len(c), np.bool_), WIRE)
        elif wire == 0:
            self.varints(c)
        elif wire == 2:
            self._span(c)
        else:
            self.step(c, 8 if wire == 1 else 4)
        if layout is self._top and number not in layout.known:
            self.strange.setdefault(number, []).append(c.record)
        self._chosen(layout, number, c)

    def _span(self, c: Cursors) -> tuple[Ints, Ints]:
        """Begins and ends of bytes with their length before them; moves behind them."""
        sizes = self.varints(c)
        self.fault(c, sizes > (c.end - c.at).astype(np.uint64), TRUNCATED)
        begins = c.at
        ends = (
            np.where(self.good(c), begins + sizes.astype(np.int64), begins)
            if self.is_faulty
            else (begins + sizes.astype(np.int64))
        )
        c.at = ends
        return begins, ends

    def _value(self, kind: str, c: Cursors) -> npt.NDArray[Any]:
        wire = _WIRES.get(kind, 0)
        if wire == 0:
            return _from_varint(kind, self.varints(c))
        at = c.at
        self.step(c, 8 if wire == 1 else 4)
        at = np.where(self.good(c), at, self.zeros) if self.is_faulty else at
        return _from_fixed(kind, self.words[at] if wire == 1 else self.halves[at])

    def _packed(self, slot: Slot, c: Cursors) -> None:
        """Read the values of repeated fields that stand close together, all at once."""
        begins, ends = self._span(c)
        sizes = ends - begins
        if slot.wire:
            width = 8 if slot.wire == 1 else 4
            self.fault(c, sizes % width != 0, TRUNCATED)
            counts = np.where(self.good(c), sizes // width, 0)
            at = np.repeat(begins, counts) + width * _ordinals(counts)
            found = self.words[at] if slot.wire == 1 else self.halves[at]
            if len(at):
                items = self.pieces.items(slot.many, np.repeat(c.slot, counts))
                self.pieces.add(slot.op, items, _from_fixed(slot.kind, found))
            return
        at = np.repeat(begins, sizes) + _ordinals(sizes)
        lasts = np.flatnonzero(self.block[at] < 128)  # in `at`, the last byte of each number
        rows = np.repeat(np.arange(len(c)), sizes)
        torn = np.zeros(len(c), np.bool_)
        filled = sizes > 0
        torn[filled] = self.block[ends[filled] - 1] > 127
        self.fault(c, torn, TRUNCATED)
        firsts = np.zeros(len(lasts), np.int64)
        firsts[1:] = lasts[:-1] + 1
        firsts = np.maximum(firsts, (np.cumsum(sizes) - sizes)[rows[lasts]])  # not what another message left over
        keep = self.good(c)[rows[lasts]] if len(lasts) else np.zeros(0, np.bool_)
        firsts, lasts = firsts[keep], lasts[keep]
        if not len(firsts):
            return
        rows = rows[lasts]
        flat = Cursors(at[firsts], ends[rows], c.record[rows], c.slot[rows])
        values = _from_varint(slot.kind, self.varints(flat))
        self.pieces.add(slot.op, self.pieces.items(slot.many, flat.slot), values)
        if self.is_faulty:
            self.fault(c, self.good(c) & (self.codes[c.record] != 0), VARINT)

    def _one_by_one(self, layout: Layout, c: Cursors) -> None:
        if self._single is None:
            self._single = _One(self._program, self.block.tobytes(), self.pieces, self._top)
        one = self._single
        for i in np.flatnonzero(self.good(c)).tolist():
            one.at, one.end, one.record = int(c.at[i]), int(c.end[i]), int(c.record[i])
            try:
                one.message(layout, int(c.slot[i]), is_new=False)
            except FaultError as fault:
                self.fault(c, np.arange(len(c)) == i, fault.code)
            else:
                c.at[i] = one.at
        one.flush()
        for number, records in one.strange.items():
            self.strange.setdefault(number, []).append(np.array(records, np.int64))
        one.strange = {}


class _One(OneByOne):
    """The same for one message after the other."""

    def __init__(self, program: Program, data: bytes, pieces: Pieces, top: Layout) -> None:
        super().__init__(program, data, Limits(), pieces)
        self._top = top
        self.record = 0
        self.strange: dict[int, list[int]] = {}

    def message(self, layout: Layout, slot: int, *, is_new: bool) -> None:
        """Read fields up to `end`. Raises FaultError."""
        if is_new:
            self._give(layout.op, slot)
        while self.at < self.end:
            tag = self._varint()
            if tag >> 32 or tag < 8:
                raise FaultError(TAG)
            self._field(layout, tag >> 3, tag & 7, slot)

    def _field(self, layout: Layout, number: int, wire: int, place: int) -> None:
        slot = layout.slots.get(number)
        if wire in (3, 4):
            raise FaultError(GROUP)
        if wire > 5 or (slot is not None and wire not in (slot.wire, 2 if slot.many >= 0 else slot.wire)):
            raise FaultError(WIRE)
        if slot is None:
            self._raw(wire)
            if layout is self._top and number not in layout.known:
                self.strange.setdefault(number, []).append(self.record)
        elif wire == 2:
            begin = self._raw(2)
            end, self.at = self.at, begin
            if slot.wire == 2:
                self._spanned(slot, place, begin, end)
            else:
                outer, self.end = self.end, end
                while self.at < end:
                    self._give(slot.op, self._item(slot, place), self._converted(slot, slot.wire))
                self.end = outer
        else:
            value = self._converted(slot, wire)
            self._give(slot.op, self._item(slot, place), value)
        if number in layout.oneofs:
            self._give(layout.oneofs[number], place, number)

    def _spanned(self, slot: Slot, place: int, begin: int, end: int) -> None:
        item = self._item(slot, place)
        if slot.inner is None:
            self._give(slot.op, item, (begin, end))
            self.at = end
            return
        outer, self.end = self.end, end
        self.message(slot.inner, item, is_new=True)
        self.end = outer

    def _item(self, slot: Slot, place: int) -> int:
        if slot.many < 0:
            return place
        parents = self._parents.setdefault(slot.many, [])
        parents.append(place)
        return self._pieces.first_item(slot.many) + len(parents) - 1

    def _converted(self, slot: Slot, wire: int) -> int | float | bool:
        if wire == 0:
            found = _from_varint(slot.kind, np.array([self._varint()], np.uint64))
        else:
            at = self._step(8 if wire == 1 else 4)
            found = _from_fixed(slot.kind, np.frombuffer(self._data, "<u8" if wire == 1 else "<u4", 1, at))
        value: int | float | bool = found[0].item()
        return value

    def _raw(self, wire: int) -> int:
        """Step over a value; gives where its bytes begin."""
        if wire == 0:
            self._varint()
            return self.at
        size = self._varint() if wire == 2 else 8 if wire == 1 else 4
        return self._step(size)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            if self.at >= self.end:
                raise FaultError(TRUNCATED)
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise FaultError(VARINT)
        if value >> 64:
            raise FaultError(VARINT)
        return value


def _from_varint(kind: str, raw: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    """Numbers as their type has them: those of 32 bits drop the higher ones, as every reader of the language does."""
    if kind == "bool":
        return np.not_equal(raw, 0)
    if kind == "uint32":
        return raw.astype(np.uint32).astype(np.int64)
    if kind in ("int32", "enum"):
        return raw.astype(np.uint32).view(np.int32)
    if kind == "sint32":
        raw = raw.astype(np.uint32).astype(np.uint64)
    if kind in ("sint32", "sint64"):
        return (raw >> _ONE).view(np.int64) ^ -(raw & _ONE).view(np.int64)
    return raw.view(np.int64)


def _from_fixed(kind: str, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if kind == "fixed32":
        return raw.astype(np.int64)
    values: npt.NDArray[Any] = raw.view(_FIXED[kind])
    return values


_FIXED: dict[str, Any] = {
    "double": np.float64,
    "float": np.float32,
    "sfixed32": np.int32,
    "fixed64": np.int64,
    "sfixed64": np.int64,
}


def _ordinals(counts: Ints) -> Ints:
    """0, 1, … up to each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
