"""Reads the records of a log that are durable, from any process, while another one writes."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lodestream.drivers.record_log.frame import Frame, Kind, header_at, is_whole, payload_at
from lodestream.drivers.record_log.layout import durable_path, identity, segment_path, segments
from lodestream.drivers.record_log.marks import Mark
from lodestream.errors import CorruptionError, DataLossRefused

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame begins: the first sequence number of its segment, and the byte."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring records that are written alike.

    Attributes:
        first: sequence number of the first record; the others follow without a gap.
        kind: how they are written.
        head: the CSV header they came with.
        data: all records, one after the other.
        ends: where each ends in `data`.
    """

    first: int
    kind: Kind
    head: bytes
    data: bytes
    ends: npt.NDArray[np.int64]


class LogReader:
    """The readable side of a log.

    Args:
        folder: the log's folder; it may come into being later.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._durable = Mark(durable_path(folder), writable=False)

    @property
    def identity(self) -> str | None:
        """Which log this is; None while there is none."""
        return identity(self.folder)

    def end(self) -> int:
        """The sequence number after the last durable record."""
        return self._durable.get()

    def begin(self) -> int:
        """The sequence number of the first record that is still kept."""
        return next(iter(segments(self.folder)), 0)

    def frames(self, first: int, end: int, hint: Place | None = None) -> Iterator[tuple[Frame, Place]]:
        """Headers of the frames that hold records `first <= sequence < end`; their content is not looked at.

        Args:
            first: first sequence number.
            end: the one after the last; at most `end()`.
            hint: a frame that holds `first` or lies before it in its segment; saves walking from the segment's start.

        Raises:
            DataLossRefused: the first record is not kept any more.
            CorruptionError: what should be a frame is none.
        """
        for frame, place, _block, _at in self._walk(first, end, hint, whole=False):
            yield frame, place

    def runs(self, first: int, end: int, hint: Place | None = None) -> Iterator[Run]:
        """Records `first <= sequence < end`; see `frames`."""
        gathered = _Gathered()
        for frame, place, block, at in self._walk(first, end, hint, whole=True):
            if not is_whole(block, at, frame):
                raise self._damaged(place)
            head, ends, data = payload_at(block, at, frame)
            low, high = max(first - frame.first, 0), min(end - frame.first, frame.count)
            if not gathered.fits(frame.kind, head):
                yield gathered.run()
                gathered = _Gathered()
            gathered.add(frame.first + low, frame.kind, head, data, ends, low, high)
        if gathered.count:
            yield gathered.run()

    def close(self) -> None:
        """Let go of the mark; twice is harmless."""
        self._durable.close()

    def _walk(
        self, first: int, end: int, hint: Place | None, *, whole: bool
    ) -> Iterator[tuple[Frame, Place, bytes, int]]:
        """The frames; with `whole`, the block given holds all of each."""
        starts = segments(self.folder)
        at = bisect.bisect_right(starts, first) - 1
        while first < end:
            if not 0 <= at < len(starts):
                raise DataLossRefused(
                    "records of the stream are not kept any more",
                    wanted=first, first=starts[0] if starts else None, folder=self.folder,
                )  # fmt: skip
            # What a failed write left behind the next segment's first record does not count.
            stop = min(end, starts[at + 1]) if at + 1 < len(starts) else end
            offset = hint.offset if hint is not None and hint.segment == starts[at] else 0
            yield from self._segment(Place(starts[at], offset), first, stop, whole=whole)
            first, at = stop, at + 1

    def _segment(
        self, start: Place, first: int, stop: int, *, whole: bool
    ) -> Iterator[tuple[Frame, Place, bytes, int]]:
        try:
            descriptor = os.open(segment_path(self.folder, start.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DataLossRefused(
                "a segment of the stream is gone", segment=start.segment, folder=self.folder
            ) from None
        try:
            block, base, offset = b"", start.offset, start.offset
            expected = start.segment if offset == 0 else None
            while expected is None or expected < stop:
                at, place = offset - base, Place(start.segment, offset)
                frame = header_at(block, at, offset)
                if frame is None or (whole and at + frame.size > len(block)):
                    block, base, at = os.pread(descriptor, max(_CHUNK, frame.size if frame else 0), offset), offset, 0
                    frame = header_at(block, 0, offset)
                    if frame is not None and whole and frame.size > len(block):
                        block = os.pread(descriptor, frame.size, offset)
                if frame is None or frame.first != (frame.first if expected is None else expected):
                    raise self._damaged(place)
                if expected is None and frame.first > first:
                    raise self._damaged(place)
                if frame.end > first:
                    yield frame, place, block, at
                expected, offset = frame.end, offset + frame.size
        finally:
            os.close(descriptor)

    def _damaged(self, place: Place) -> CorruptionError:
        return CorruptionError(
            "a segment of the stream's log is damaged; put it back from a backup",
            file=segment_path(self.folder, place.segment), offset=place.offset,
        )  # fmt: skip


class _Gathered:
    """Frames that become one run."""

    def __init__(self) -> None:
        self.count = 0
        self._first = 0
        self._kind: Kind = "json"
        self._head = b""
        self._pieces: list[bytes | memoryview] = []
        self._ends: list[npt.NDArray[np.int64]] = []
        self._size = 0

    def fits(self, kind: Kind, head: bytes) -> bool:
        return not self.count or (kind, head) == (self._kind, self._head)

    def add(
        self, first: int, kind: Kind, head: bytes, data: memoryview, ends: npt.NDArray[np.uint32], low: int, high: int
    ) -> None:
        if not self.count:
            self._first, self._kind, self._head = first, kind, head
        start = int(ends[low - 1]) if low else 0
        stop = int(ends[high - 1])
        self._pieces.append(data[start:stop])
        self._ends.append(ends[low:high].astype(np.int64) + (self._size - start))
        self._size += stop - start
        self.count += high - low

    def run(self) -> Run:
        return Run(self._first, self._kind, self._head, b"".join(self._pieces), np.concatenate(self._ends))
