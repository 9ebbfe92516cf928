"""Cursors into a block of bytes, one per value, and the reads that they have in common whatever is read.

A record that goes wrong gets its code, and its cursors go to a run of zeros behind the block: there every read gives
nothing (no length, no items), so that the other records go on in full vectors and nothing has to be taken apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lodestream.formats._lines import Ints, Mask

TRUNCATED, VARINT = 1, 3
"""Codes that mean the same for every wire format: a read beyond the end, a number of more than 64 bits."""
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
class Cursors:
    """Where each of some values is read: `at` up to `end`, for which record, into which slot."""

    at: Ints
    end: Ints
    record: Ints
    slot: Ints

    def __len__(self) -> int:
        return len(self.at)

    def some(self, rows: Ints) -> Cursors:
        """Those of these rows."""
        return Cursors(self.at[rows], self.end[rows], self.record[rows], self.slot[rows])

    def put(self, rows: Ints, moved: Cursors) -> None:
        """Move those of these rows to where the others are."""
        self.at[rows] = moved.at
        self.end[rows] = moved.end


class Vectors:
    """A block, its records, and what became of them.

    Attributes:
        codes: of each record, 0 while it is good.
        is_faulty: whether any is not.
        block: the bytes, with zeros behind.
        size: how many bytes there are before the zeros.
        zeros: where cursors of bad records stand.
    """

    def __init__(self, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> None:
        self.size = len(block)
        self.block = np.zeros(len(block) + 2 * _MARGIN + _ZEROS, np.uint8)
        self.block[: len(block)] = block
        # Every eight and every four bytes of the block as one number: one of them begins at each byte.
        self.words: npt.NDArray[np.uint64] = np.ndarray((len(self.block) - 7,), "<u8", buffer=self.block, strides=(1,))
        self.halves: npt.NDArray[np.uint32] = np.ndarray((len(self.block) - 3,), "<u4", buffer=self.block, strides=(1,))
        self.zeros = len(block) + _MARGIN
        self.is_faulty = False
        self.codes = np.zeros(len(starts), np.uint8)
        records = np.arange(len(starts), dtype=np.int64)
        self.root = Cursors(starts.copy(), ends.copy(), records, records)

    def fault(self, c: Cursors, bad: Mask, code: int) -> None:
        """Give the code to records that have none yet, and send their cursors to the zeros."""
        if not bad.any():
            return
        self.is_faulty = True
        rows = np.flatnonzero(bad)
        records = c.record[rows]
        self.codes[records[self.codes[records] == 0]] = code
        c.at = c.at.copy()
        c.at[rows] = self.zeros
        c.end[rows] = self.zeros + _ZEROS

    def good(self, c: Cursors) -> Mask:
        """Cursors that are not at the zeros."""
        return c.end <= self.size

    def step(self, c: Cursors, size: int) -> None:
        """Move on by so many bytes."""
        self.fault(c, c.end - c.at < size, TRUNCATED)
        c.at = c.at + size
        if self.is_faulty:
            self.fault(c, c.at > c.end, TRUNCATED)

    def varints(self, c: Cursors) -> npt.NDArray[np.uint64]:
        """Numbers of seven bits per byte, one at each cursor."""
        first = self.block[c.at]
        if first.max() >= 128:
            return self._long_varints(c)
        c.at = c.at + 1
        self.fault(c, c.at > c.end, TRUNCATED)
        return first.astype(np.uint64)

    def _long_varints(self, c: Cursors) -> npt.NDArray[np.uint64]:
        words = self.words[c.at]
        stop = ~words & _HIGH
        below = (stop & (~stop + _ONE)) - _ONE  # all bits below the first stop bit; all bits when there is none
        sizes = (np.bitwise_count(below) >> 3).astype(np.int64) + 1
        words &= below & _LOW
        for stay, move, by in _FOLDS:
            words = (words & stay) | ((words & move) >> by)
        at = c.at
        c.at = at + sizes
        if int(sizes.max()) <= 8:
            self.fault(c, c.at > c.end, TRUNCATED)
            return words
        rows = np.flatnonzero(sizes > 8)
        eighth, ninth = self.block[at[rows] + 8], self.block[at[rows] + 9]
        longest = eighth >= 128
        words[rows] |= (eighth & 127).astype(np.uint64) << np.uint64(56)
        words[rows] |= np.where(longest, ninth, 0).astype(np.uint64) << np.uint64(63)
        c.at[rows] += longest
        self.fault(c, c.at > c.end, TRUNCATED)
        too_long = np.zeros(len(c), np.bool_)
        too_long[rows] = longest & (ninth > 1)
        self.fault(c, too_long, VARINT)
        return words
