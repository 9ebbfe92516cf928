"""Dedup keys that memory has no room for: immutable files of keys in order, each with a filter that says where to look.

A segment is divided into buckets by the upper bits of the keys' lower half, about six keys each. A bucket has a word of
64 bits, in which each of its keys has set four, and the place of its first key. A key that is not there is ruled out by
the word alone 29 times out of 30, at the price of one cache miss; what is left is one look at a bucket in the file.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.engines.embedded.spill import Spill

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
_BUCKET_KEYS = 6
_CHUNK = 1 << 18  # keys handled at a time
_MERGED = 8  # segments of about one size that become one
ENTRY = pa.binary(24)
"""A key in a file and in stored state: lower half, upper half, expiry (microseconds)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """n keys, none of them twice, in ascending order of their lower halves.

    Attributes:
        entries: n × 3: lower half, upper half, expiry.
        words, places: the filter of each bucket, and its first entry; `places` has one more at the end.
        newest_us: the last expiry; from then on the segment is of no use.
        nbytes: bytes in files.
    """

    entries: U64
    words: U64
    places: npt.NDArray[np.uint32]
    newest_us: int
    nbytes: int

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def stored(self) -> pa.Table:
        """All keys as stored state has them; copies nothing."""
        data = pa.FixedSizeBinaryArray.from_buffers(ENTRY, len(self), [None, pa.py_buffer(self.entries)])
        return pa.table({"entry": data})

    def find(self, high: U64, low: U64, late_us: int, there: npt.NDArray[np.bool_], kernels: Any | None) -> None:
        """Set the flags in `there` of those of n keys that are here and have not expired by `late_us`."""
        if kernels is not None:
            flags = there.view(np.uint8)
            kernels.find(self.entries.reshape(-1), self.words, self.places, high, low, late_us, flags)
            return
        bucket = _buckets(low, len(self.words))
        bits = _bits(high)
        wanted = np.flatnonzero((self.words[bucket] & bits == bits) & ~there)
        at = self.places[bucket[wanted]].astype(np.int64)
        end = self.places[bucket[wanted] + 1].astype(np.int64)
        while True:
            inside = at < end
            wanted, at, end = wanted[inside], at[inside], end[inside]
            if not len(wanted):
                return
            entry = self.entries[at]
            same = (entry[:, 0] == low[wanted]) & (entry[:, 1] == high[wanted])
            there[wanted[same & (entry[:, 2].view(np.int64) > late_us)]] = True
            at += 1


def segment_of(spill: Spill, high: U64, low: U64, expiry_us: I64) -> Segment:
    """A segment of n keys, n > 0, in any order."""
    order = np.argsort(low)

    def pieces() -> Iterator[U64]:
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            yield np.stack([low[part], high[part], expiry_us[part].view(np.uint64)], axis=1)

    return _written(spill, pieces())


def adopted(spill: Spill, stored: pa.Table) -> Segment:
    """The segment that `Segment.stored` gave, n > 0; its keys stay where `stored` has them."""
    data = stored.column("entry").combine_chunks()
    data = data.chunk(0) if isinstance(data, pa.ChunkedArray) else data
    entries = np.frombuffer(data.buffers()[1], np.uint64).reshape(-1, 3)[data.offset : data.offset + len(data)]
    return _indexed(spill, entries)


def add(spill: Spill, segments: Sequence[Segment], segment: Segment, late_us: int) -> list[Segment]:
    """The segments with one more behind them; the last ones are merged when there are many of about its size.

    So their number grows with the logarithm of that of the keys, and a key is written again as seldom.
    """
    found = [*segments, segment]
    same = 1
    while same < len(found) and len(found[-same - 1]) <= 2 * len(segment):
        same += 1
    return [*found[:-same], _merged(spill, found[-same:], late_us)] if same >= _MERGED else found


def _merged(spill: Spill, segments: Sequence[Segment], late_us: int) -> Segment:
    """One segment of all keys that have not expired by `late_us`; they are merged a range of lower halves at a time."""
    parts = max(1, sum(map(len, segments)) // _CHUNK)

    def pieces() -> Iterator[U64]:
        cuts = [0] * len(segments)
        for part in range(1, parts + 1):
            edge = (part << 64) // parts
            before, cuts = cuts, [_place(segment.entries, edge) for segment in segments]
            ranges = zip(segments, before, cuts, strict=True)
            rows = np.concatenate([segment.entries[start:end] for segment, start, end in ranges])
            rows = rows[rows[:, 2].view(np.int64) > late_us]
            yield rows[np.argsort(rows[:, 0])]

    return _written(spill, pieces())


def _place(entries: U64, edge: int) -> int:
    """The first entry whose lower half is at least `edge`."""
    return bisect.bisect_left(range(len(entries)), edge, key=lambda i: int(entries[i, 0]))


def _written(spill: Spill, pieces: Iterable[U64]) -> Segment:
    def write(file: IO[bytes]) -> None:
        for piece in pieces:
            file.write(piece.data)

    return _indexed(spill, np.frombuffer(spill.file(write), np.uint64).reshape(-1, 3), stored_here=True)


def _indexed(spill: Spill, entries: U64, *, stored_here: bool = False) -> Segment:
    count = max(1, len(entries) // _BUCKET_KEYS)
    words, sizes = np.zeros(count, np.uint64), np.zeros(count + 1, np.uint32)
    newest_us = np.iinfo(np.int64).min
    for start in range(0, len(entries), _CHUNK):
        part = entries[start : start + _CHUNK]
        bucket = _buckets(part[:, 0], count)
        firsts = np.flatnonzero(np.diff(bucket, prepend=-1))
        words[bucket[firsts]] |= np.bitwise_or.reduceat(_bits(part[:, 1]), firsts)
        sizes[bucket[firsts] + 1] += np.diff(firsts, append=len(bucket)).astype(np.uint32)
        newest_us = max(newest_us, int(part[:, 2].view(np.int64).max()))
    np.cumsum(sizes, out=sizes)

    def write(file: IO[bytes]) -> None:
        file.write(words.data)
        file.write(sizes.data)

    index = spill.file(write)
    places = np.frombuffer(index, np.uint32, offset=words.nbytes)
    nbytes = index.size + (entries.nbytes if stored_here else 0)
    return Segment(entries, np.frombuffer(index, np.uint64, count), places, newest_us, nbytes)


def _buckets(low: U64, count: int) -> I64:
    """The bucket of each key; ascending with the lower half."""
    return ((low >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).view(np.int64)


def _bits(high: U64) -> U64:
    """The four bits of each key in the word of its bucket."""
    one, six = np.uint64(1), np.uint64(63)
    found = one << (high & six)
    for shift in (6, 12, 18):
        found |= one << (high >> np.uint64(shift) & six)
    return found
