"""Learns the shape of one JSON record and finds the values of all records of that shape, whole columns at a time.

Records of one producer mostly differ in their values only. A template is what stays: the bytes between the values
(keys, quotes, commas). A record is of that shape when those bytes are where they should be and it has no other quote,
no backslash and no control byte; then nothing between is anything but a plain value, which is as strict as parsing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lodestream.formats._scan import Ints, Scan
from lodestream.model.types import Column, DataType, Schema

Path = tuple[str, ...]
_NONE: Ints = np.zeros(0, np.int64)
_TOKEN = re.compile(rb'"[^"]*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_SLOTS_MAX = 2000
_WORD = 16


@dataclass(slots=True)
class Slot:
    """Where a value stands: quoted (`text`) or bare. `length` is the usual one of a quoted value, -1 when it varies."""

    path: Path
    text: bool
    length: int


@dataclass(slots=True)
class Template:
    """A record's shape: `glue[0] value glue[1] value … glue[n]`.

    Attributes:
        glue: the bytes between the values.
        slots: the values, one fewer than the glue.
        quotes: quotes of the whole record.
        structs: nested objects that are there.
    """

    glue: list[bytes]
    slots: list[Slot]
    quotes: int
    structs: list[Path]
    words: list[list[Word]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.words = [_words(glue, last=i == len(self.slots)) for i, glue in enumerate(self.glue)]


def learn(line: bytes, schema: Schema, bare_times: bool) -> Template | None:
    """The template of a record that is known to be valid JSON without backslashes; None when it has none.

    None means that the record has keys that no column has, values that are not plainly of their column's type, or
    arrays: such records are decoded one by one.

    Args:
        line: the record.
        schema: the declared columns.
        bare_times: whether timestamps are numbers.
    """
    return _Learner(line, bare_times).learn(schema)


class _UnfitError(Exception):
    """This record has no template."""


class _Learner:
    def __init__(self, line: bytes, bare_times: bool) -> None:
        self._line = line
        self._bare_times = bare_times
        self._tokens = list(_TOKEN.finditer(line))
        self._at = 0
        self._glue: list[bytes] = []
        self._slots: list[Slot] = []
        self._structs: list[Path] = []
        self._done = 0

    def learn(self, schema: Schema) -> Template | None:
        if len(self._tokens) > 4 * _SLOTS_MAX:
            return None
        try:
            self._object((), {column.name: column for column in schema})
        except _UnfitError:
            return None
        self._glue.append(self._line[self._done :])
        return Template(self._glue, self._slots, self._line.count(b'"'), self._structs)

    def _next(self) -> re.Match[bytes]:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _object(self, path: Path, columns: Mapping[str, Column]) -> None:
        self._next()
        seen: set[str] = set()
        while True:
            token = self._next()
            if token[0] == b"}":
                break
            if token[0] == b",":
                continue
            name = token[0][1:-1].decode()
            self._next()
            if name not in columns:
                raise _UnfitError
            seen.add(name)
            self._value((*path, name), columns[name])
        if any(not column.nullable for name, column in columns.items() if name not in seen):
            raise _UnfitError

    def _value(self, path: Path, column: Column) -> None:
        kind = column.type
        token = self._tokens[self._at]
        first = token[0][:1]
        if first == b"{" and kind.name == "struct":
            self._structs.append(path)
            self._object(path, {f.name: f for f in kind.fields})
            return
        self._at += 1
        if first == b'"':
            if not self._takes_text(kind):
                raise _UnfitError
            self._slot(path, text=True, start=token.start() + 1, end=token.end() - 1)
        elif first in b"{[":
            raise _UnfitError
        elif self._takes_bare(kind):
            self._slot(path, text=False, start=token.start(), end=token.end())
        elif token[0] != b"null" or not column.nullable:
            raise _UnfitError

    def _takes_text(self, kind: DataType) -> bool:
        return kind.name in ("string", "date") or (kind.name == "timestamp" and not self._bare_times)

    def _takes_bare(self, kind: DataType) -> bool:
        return kind.is_numeric or kind.name == "boolean" or (kind.name == "timestamp" and self._bare_times)

    def _slot(self, path: Path, *, text: bool, start: int, end: int) -> None:
        self._glue.append(self._line[self._done : start])
        self._slots.append(Slot(path, text, end - start if text else -1))
        self._done = end


def _words(glue: bytes, *, last: bool) -> list[Word]:
    """How to compare glue 16 bytes at a time, where a short rest is read together with its neighbours.

    The last glue of a record is read from its end backwards, all others forwards, to stay inside the block.
    """
    if last and len(glue) < _WORD:
        return [Word(len(glue) - _WORD, glue.rjust(_WORD, b"\0"), b"\xff" * len(glue))]
    words = [Word(place, glue[place : place + _WORD]) for place in range(0, len(glue) - _WORD + 1, _WORD)]
    rest = len(glue) % _WORD
    if rest and len(glue) > _WORD:
        words.append(Word(len(glue) - _WORD, glue[-_WORD:]))
    elif rest:
        words.append(Word(0, glue.ljust(_WORD, b"\0"), (b"\xff" * len(glue)).ljust(_WORD, b"\0")))
    return words


class Word:
    """Sixteen bytes at an offset, as two numbers and, where not all bytes count, two masks."""

    __slots__ = ("high", "low", "masks", "offset")

    def __init__(self, offset: int, value: bytes, mask: bytes = b"\xff" * _WORD) -> None:
        self.offset = offset
        self.low, self.high = np.frombuffer(value, np.uint64)
        low, high = np.frombuffer(mask.rjust(_WORD, b"\0"), np.uint64)
        self.masks = None if mask == b"\xff" * _WORD else (low, high)


class Walk:
    """The values of all records of a template.

    Attributes:
        rows: which of the given records are of the template's shape (indices into them).
        begins: for each slot, where the value of each such record begins.
        ends: likewise, where it ends.
    """

    def __init__(self, template: Template, block: npt.NDArray[np.uint8], scan: Scan, starts: Ints, ends: Ints) -> None:
        self._template = template
        self._block = block
        self._scan = scan
        self._last = len(block) - _WORD
        # Overlapping: sixteen bytes from every position on; a complex number is only a box of that size here.
        self._view = np.ndarray((max(0, self._last + 1),), np.complex128, block, strides=(1,))
        self.rows: Ints = np.arange(len(starts))
        self.begins: list[Ints] = []
        self.ends: list[Ints] = []
        if self._last < 0:
            self.rows = self.rows[:0]
            return
        good = self._has(0, starts)
        at = starts + len(template.glue[0])
        for i in range(len(template.slots)):
            end, fits = self._end(i, at, ends)
            good &= fits
            good &= end >= at
            self.begins.append(at)
            self.ends.append(end)
            at = end + len(template.glue[i + 1])
        good &= at == ends
        if not good.all():
            self.rows = np.flatnonzero(good)
            self.begins = [begin[self.rows] for begin in self.begins]
            self.ends = [end[self.rows] for end in self.ends]

    def _has(self, i: int, at: Ints) -> npt.NDArray[np.bool_]:
        """Which records have glue `i` at `at`."""
        good: npt.NDArray[np.bool_] | None = None
        for word in self._template.words[i]:
            place = at + word.offset if word.offset else at
            low, high = int(place.min(initial=0)), int(place.max(initial=0))
            outside = np.flatnonzero((place < 0) | (place > self._last)) if low < 0 or high > self._last else _NONE
            if len(outside):  # near the block's ends, or not of this shape: too few bytes for a word
                place = np.clip(place, 0, self._last)
            found = self._view[place].view(np.uint64).reshape(-1, 2)
            if word.masks:
                same = (found[:, 0] & word.masks[0]) == word.low
                same &= (found[:, 1] & word.masks[1]) == word.high
            else:
                same = found[:, 0] == word.low
                same &= found[:, 1] == word.high
            if len(outside):
                same[outside] = [self._is_at(i, place) for place in at[outside].tolist()]
            good = same if good is None else good & same
        return np.ones(len(at), np.bool_) if good is None else good

    def _is_at(self, i: int, place: int) -> bool:
        glue = self._template.glue[i]
        return place >= 0 and self._block[place : place + len(glue)].tobytes() == glue

    def _end(self, i: int, at: Ints, ends: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Where value `i` ends, and whether the next glue follows it."""
        slot, glue = self._template.slots[i], self._template.glue[i + 1]
        if i + 1 == len(self._template.slots):
            end = ends - len(glue)
            return end, self._has(i + 1, end)
        quote = glue.find(b'"')
        if slot.length < 0:
            end = self._scan.next_quote(np.minimum(at, self._scan.size - 1)) - quote
            return end, self._has(i + 1, end)
        end = at + slot.length
        fits = self._has(i + 1, end)
        misses = np.flatnonzero(~fits)
        if len(misses):
            other = self._scan.next_quote(np.minimum(at[misses], self._scan.size - 1)) - quote
            end[misses] = other
            fits[misses] = self._has(i + 1, other)
            if len(misses) * 4 > len(at):
                slot.length = -1
        return end, fits
