"""The dedup map: 128-bit key to expiry, open addressing in one NumPy array, claimed a batch at a time.

Keys that have no room in memory go to segments on the disk, where a claim looks for a batch's keys first. A key is live
in one place only: it is taken in when it is found nowhere, and what is left of it elsewhere has expired for good.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.engines.embedded.segments import Segment, add, adopted, segment_of
from lodestream.engines.embedded.spill import Spill
from lodestream.native import KERNELS

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
_SMALLEST = 1 << 12
_SLOT_BYTES = 24
_CHUNK = 1 << 15  # keys claimed at a time, so that what is computed about them stays in the cache


def _zeros(count: int, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Zeros on huge pages where there are any: a random walk over small ones costs a page fault every few keys."""
    size = count * np.dtype(kind).itemsize
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, size, **private)  # shared memory, the default, has no huge pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, kind)


class DedupMap:
    """Keys seen, each with the event time (microseconds) at which it may be forgotten.

    A key whose expiry is at or before the late watermark W(n-1) counts as absent, as in Spark's
    dropDuplicatesWithinWatermark. Forgotten keys are swept out when the map would otherwise have to grow, so memory is
    at most about eight times the live keys and each claim costs the same whatever the size. With `spill` the table has
    at most half of its room, the rest is for making a new one; a batch has what it needs in any case.

    Attributes:
        used: keys in memory, expired ones until they are swept out.
        segments: those on the disk.
    """

    def __init__(self, kernels: Any | None = KERNELS, spill: Spill | None = None) -> None:
        """A map that is empty. `kernels`: the native ones, or None for the portable form."""
        self.used = 0
        self.segments: list[Segment] = []
        self._kernels, self._spill = kernels, spill
        self._allocate(_SMALLEST)

    def __len__(self) -> int:
        return self.used + sum(map(len, self.segments))

    @property
    def spilled(self) -> int:
        """Bytes on the disk."""
        return sum(segment.nbytes for segment in self.segments)

    def _allocate(self, capacity: int) -> None:
        self._mask = np.int64(capacity - 1)
        self._slots = _zeros(capacity * 3, np.uint64).reshape(capacity, 3)  # side by side: one walk, one cache miss
        self._low, self._high = self._slots[:, 0], self._slots[:, 1]
        self._expiry = self._slots.view(np.int64)[:, 2]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return int(self._slots.nbytes)

    def claim(self, high: U64, low: U64, expiry_us: I64, late_us: int) -> npt.NDArray[np.bool_]:
        """Take in n keys in arrival order.

        Args:
            high: upper halves of the keys, n.
            low: lower halves of the keys, n; (0, 0) is not a key.
            expiry_us: when each key may be forgotten if it is the first of its kind, n.
            late_us: W(n-1); keys that expired by then count as absent.

        Returns:
            n flags: True for the first row of a key that was absent, False for its duplicates.
        """
        self._make_room(len(low), late_us)
        self.segments = [segment for segment in self.segments if segment.newest_us > late_us]
        if not self.segments:
            return self._claim(high, low, expiry_us, late_us)
        there = np.zeros(len(low), np.bool_)
        high, low = np.ascontiguousarray(high), np.ascontiguousarray(low)
        for segment in self.segments:
            segment.find(high, low, late_us, there, self._kernels)
        absent = ~there
        first = np.zeros(len(low), np.bool_)
        first[absent] = self._claim(high[absent], low[absent], expiry_us[absent], late_us)
        return first

    def _claim(self, high: U64, low: U64, expiry_us: I64, late_us: int) -> npt.NDArray[np.bool_]:
        if self._kernels is not None:
            return self._claim_native(high, low, expiry_us, late_us, replace=False)
        # A key that has expired already holds its slot to the end of the call, which only one chunk can see.
        chunk = len(low) if len(low) and int(expiry_us.min()) <= late_us else _CHUNK
        found = [self._claim_chunk(high[p], low[p], expiry_us[p], late_us) for p in _parts(len(low), chunk)]
        return np.concatenate(found) if found else np.zeros(0, np.bool_)

    def _claim_native(
        self, high: U64, low: U64, expiry_us: I64, late_us: int, *, replace: bool
    ) -> npt.NDArray[np.bool_]:
        assert self._kernels is not None
        keys = [np.ascontiguousarray(column) for column in (high, low, expiry_us)]
        first, taken = self._kernels.claim(self._slots, *keys, late_us, replace)
        self.used += taken
        return np.frombuffer(first, np.bool_).copy()

    def _claim_chunk(self, high: U64, low: U64, expiry_us: I64, late_us: int) -> npt.NDArray[np.bool_]:
        first = np.zeros(len(low), np.bool_)
        pending = np.arange(len(low))
        slot = (low & self._mask.view(np.uint64)).astype(np.int64)
        while len(pending):
            here = self._low[slot]
            same = here == low[pending]
            same[same] = self._high[slot[same]] == high[pending[same]]
            free = here == 0
            free[free] = self._high[slot[free]] == 0
            claimable = free.copy()
            claimable[same] = self._expiry[slot[same]] <= late_us
            wanted, rows = slot[claimable], pending[claimable]
            # The expiry column holds the claiming row for a moment. The last write wins, so backwards: the first row.
            self._expiry[wanted[::-1]] = rows[::-1]
            owner = self._expiry[wanted]
            won = owner == rows
            winners, places = rows[won], wanted[won]
            self.used += int(np.count_nonzero(free[claimable][won]))
            self._low[places], self._high[places] = low[winners], high[winners]
            self._expiry[places] = expiry_us[winners]
            first[winners] = True
            # Rows of one key walk the same slots in step, so only rows whose slot holds another key go on.
            onward = ~same & ~free
            onward[claimable] = (low[owner] != low[rows]) | (high[owner] != high[rows])
            pending = pending[onward]
            slot = (slot[onward] + 1) & self._mask
        return first

    def load(self, high: U64, low: U64, expiry_us: I64, late_us: int) -> None:
        """Take in keys of stored state; of equal keys, the last one's expiry stands.

        Args:
            late_us: the watermark that held when the keys were stored; keys expired by then are let go.
        """
        self._make_room(len(low), late_us)
        if self._kernels is not None:
            self._claim_native(high, low, expiry_us, late_us, replace=True)
            return
        for part in _parts(len(low), _CHUNK):  # in a chunk the first stands, so backwards
            self._claim_chunk(high[part][::-1], low[part][::-1], expiry_us[part][::-1], np.iinfo(np.int64).max)

    @property
    def spill(self) -> Spill | None:
        """Where keys may spill to."""
        return self._spill

    def live(self, late_us: int) -> tuple[U64, U64, I64]:
        """All keys that have not expired by `late_us`, as (high, low, expiry_us)."""
        if self._kernels is not None:
            high, low, expiry_us = self._kernels.live(self._slots, late_us)
            return np.frombuffer(high, np.uint64), np.frombuffer(low, np.uint64), np.frombuffer(expiry_us, np.int64)
        keep = np.flatnonzero(((self._low != 0) | (self._high != 0)) & (self._expiry > late_us))
        return self._high[keep], self._low[keep], self._expiry[keep]

    def stored(self, late_us: int) -> tuple[tuple[U64, U64, I64], list[pa.Table]]:
        """All keys that have not expired by `late_us`: those in memory, and segments, which may hold others too."""
        return self.live(late_us), [one.stored for one in self.segments if one.newest_us > late_us]

    def everything(self, late_us: int) -> tuple[U64, U64, I64]:
        """What `live` gives, those on the disk included, all in memory."""
        parts = [self.live(late_us)]
        for entries in (segment.entries for segment in self.segments):
            entries = entries[entries[:, 2].view(np.int64) > late_us]
            parts.append((entries[:, 1], entries[:, 0], entries[:, 2].view(np.int64)))
        high, low, expiry_us = (np.concatenate(column) for column in zip(*parts, strict=True))
        return high, low, expiry_us

    def load_segment(self, stored: pa.Table, late_us: int) -> None:
        """Take in a stored segment; its keys stay where `stored` has them when there is a disk to spill to."""
        if self._spill is not None:
            self.segments.append(adopted(self._spill, stored))
            return
        entries = np.frombuffer(b"".join(stored.column("entry").to_pylist()), np.uint64).reshape(-1, 3)
        self.load(entries[:, 1], entries[:, 0], entries[:, 2].view(np.int64), late_us)

    def _make_room(self, more: int, late_us: int) -> None:
        limit = None if self._spill is None else max(self._spill.room() // 2 // _SLOT_BYTES, _capacity(more))
        too_large = limit is not None and len(self._slots) > limit
        if (self.used + more) * 2 <= len(self._slots) and not too_large:
            return
        if self._kernels is not None and not too_large:
            self.used = self._kernels.sweep(self._slots, late_us)
            if _capacity(self.used + more) == len(self._slots):
                return
        high, low, expiry = self.live(late_us)
        capacity = _capacity(len(low) + more)
        if limit is not None and len(low) and capacity > limit:
            self._put_aside(high, low, expiry, late_us)
            high, low, expiry = high[:0], low[:0], expiry[:0]
            capacity = max(_capacity(more), min(len(self._slots), _floor(limit)))
        self.used = 0
        if capacity == len(self._slots):
            self._slots.fill(0)  # memory that is there is cheaper than new
        else:
            self._allocate(1)  # let go of the old before there is a new one
            self._allocate(capacity)
        self._claim(high, low, expiry, late_us)

    def _put_aside(self, high: U64, low: U64, expiry_us: I64, late_us: int) -> None:
        assert self._spill is not None
        self.segments = add(self._spill, self.segments, segment_of(self._spill, high, low, expiry_us), late_us)


def _capacity(keys: int) -> int:
    return max(_SMALLEST, 1 << (keys * 3 - 1).bit_length())


def _floor(capacity: int) -> int:
    """The largest power of two that is not larger."""
    return 1 << (capacity.bit_length() - 1)


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
