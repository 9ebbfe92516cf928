"""Finds quotes, line ends and odd bytes in a block, as bitmaps that are cheap to count and to search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_CHUNK = 1 << 18
_QUOTE, _BACKSLASH, _LF, _CR = 34, 92, 10, 13


class Scan:
    """What there is to know of a block of bytes before its lines are read.

    Attributes:
        breaks: positions of line feeds.
        odd: positions of backslashes and of control bytes that are not part of a line end.
        high: positions of bytes that are not ASCII.
    """

    def __init__(self, block: npt.NDArray[np.uint8], quote: int = _QUOTE) -> None:
        size = len(block)
        self.size = size
        self._quotes = np.zeros((size + 7) // 64 * 8 + 24, np.uint8)
        special = np.zeros((size + 7) // 64 * 8 + 24, np.uint8)
        one, other = np.empty(_CHUNK, np.bool_), np.empty(_CHUNK, np.bool_)
        signed = block.view(np.int8)
        for at in range(0, size, _CHUNK):  # pieces, so that scratch memory stays in the processor's cache
            mask, also = one[: size - at], other[: size - at]
            np.equal(block[at : at + _CHUNK], quote, out=mask)
            packed = np.packbits(mask, bitorder="little")
            self._quotes[at // 8 : at // 8 + len(packed)] = packed
            np.less(signed[at : at + _CHUNK], 32, out=mask)  # control bytes, and 128 and above, which are negative
            np.equal(block[at : at + _CHUNK], _BACKSLASH, out=also)
            if also.any():
                np.logical_or(mask, also, out=mask)
            packed = np.packbits(mask, bitorder="little")
            special[at // 8 : at // 8 + len(packed)] = packed
        places = _set_bits(special)
        found = block[places]
        is_break = found == _LF
        if is_break.all():
            self.breaks, self.odd, self.high = places, places[:0], places[:0]
        else:
            self.breaks = places[is_break]
            self.high = places[found > 127]
            self.odd = places[~is_break & (found < 128)]
            # A file with CRLF has one in every line; dropped here they need no search for their line.
            after = np.minimum(self.odd + 1, size - 1)
            self.odd = self.odd[(block[self.odd] != _CR) | (block[after] != _LF)]
        self._words = self._quotes.view(np.uint64)
        self._rank = np.zeros(len(self._words) + 1, np.int64)
        np.cumsum(np.bitwise_count(self._words), out=self._rank[1:])
        # One 64-bit window at every byte of the bitmap: the quotes of the next 57 to 64 positions.
        self._windows = np.ndarray((len(self._quotes) - 7,), "<u8", self._quotes, strides=(1,))

    def quotes_before(self, positions: Ints) -> Ints:
        """How many quotes the block has before each position."""
        word = positions >> 6
        below = (np.uint64(1) << (positions & 63).astype(np.uint64)) - np.uint64(1)
        before: Ints = self._rank[word] + np.bitwise_count(self._words[word] & below)
        return before

    def next_quote(self, positions: Ints) -> Ints:
        """The first quote at or after each position, or `size` when there is none."""
        place = positions >> 3
        window = self._windows[place] >> (positions & 7).astype(np.uint64)
        found = positions + _lowest_bit(window)
        missing = np.flatnonzero(window == 0)
        at = (place[missing] << 3) + 64
        while len(missing):
            inside = at < self.size
            found[missing[~inside]] = self.size
            missing, at = missing[inside], at[inside]
            window = self._windows[at >> 3]
            hit = window != 0
            found[missing[hit]] = at[hit] + _lowest_bit(window[hit])
            missing, at = missing[~hit], at[~hit] + 64
        return found


def _lowest_bit(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Index of the lowest set bit of each word; 64 for a word that is zero."""
    return np.bitwise_count((words & (~words + np.uint64(1))) - np.uint64(1))


def _set_bits(bitmap: npt.NDArray[np.uint8]) -> Ints:
    """Positions of the set bits of a bitmap, in order."""
    words = bitmap.view(np.uint64)
    full = np.flatnonzero(words)
    values = words[full]
    found = [(full << 6) + _lowest_bit(values)]
    while True:
        values = values & (values - np.uint64(1))
        more = np.flatnonzero(values)
        if not len(more):
            break
        if len(more) * 4 > len(full):  # dense: one pass over all bits is cheaper
            return np.flatnonzero(np.unpackbits(bitmap, bitorder="little"))
        full, values = full[more], values[more]
        found.append((full << 6) + _lowest_bit(values))
    return found[0] if len(found) == 1 else np.sort(np.concatenate(found), kind="stable")
