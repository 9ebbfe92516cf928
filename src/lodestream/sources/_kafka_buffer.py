"""Messages that have come and are not committed yet, by partition."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from lodestream.drivers.kafka_reader import Messages, Partition

_SPREAD_MS = 1000
"""Partitions that are this close to each other are together."""

_NEVER_MS, _ALWAYS_MS = -1, 1 << 62


class _Held:
    """One partition: everything the broker has from `begun` on, up to `next`."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.next = begun
        self.pieces: list[Messages] = []

    def times(self, rows_max: int) -> npt.NDArray[np.int64]:
        """Times of the first messages, each no earlier than the one before it."""
        found, rows = [], 0
        for piece in self.pieces:
            found.append(piece.timestamps_ms)
            rows += len(piece)
            if rows >= rows_max:
                break
        times: npt.NDArray[np.int64] = np.maximum.accumulate(np.concatenate(found)[:rows_max])
        return times

    def offset_after(self, count: int) -> int:
        """The offset after the first `count` messages."""
        for piece in self.pieces:
            if count <= len(piece):
                return int(piece.offsets[count - 1]) + 1
            count -= len(piece)
        return self.next


class Buffer:
    """Holds messages until they are committed; a message that comes twice is kept once."""

    def __init__(self) -> None:
        self._held: dict[Partition, _Held] = {}
        self.rows = 0
        self.nbytes = 0

    def begin(self, partition: Partition, offset: int) -> None:
        """Reading of a partition begins at an offset; what was held of it is forgotten."""
        self.forget([partition])
        self._held[partition] = _Held(offset)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Let go of partitions."""
        for partition in partitions:
            held = self._held.pop(partition, None)
            for piece in held.pieces if held else ():
                self._count(piece, -1)

    @property
    def partitions(self) -> set[Partition]:
        """The partitions that are read."""
        return set(self._held)

    def begun(self, partition: Partition) -> int | None:
        """From which offset on the buffer has everything; None when the partition is not read."""
        held = self._held.get(partition)
        return held.begun if held else None

    def add(self, piece: Messages) -> None:
        """Take in messages; stale ones, and those delivered twice, are passed over."""
        held = self._held.get((piece.topic, piece.partition))
        if held is None or not len(piece):
            return
        if piece.offsets[0] < held.next:
            piece = piece.cut(int(np.searchsorted(piece.offsets, held.next)), len(piece))
            if not len(piece):
                return
        held.pieces.append(piece)
        held.next = int(piece.offsets[-1]) + 1
        self._count(piece, 1)

    def drop_before(self, partition: Partition, offset: int) -> None:
        """Let go of the messages before an offset: they are committed."""
        held = self._held.get(partition)
        if held is None or offset <= held.begun:
            return
        kept: list[Messages] = []
        for piece in held.pieces:
            first = int(np.searchsorted(piece.offsets, offset))
            self._count(piece, -1)
            if first < len(piece):
                rest = piece.cut(first, len(piece)) if first else piece
                kept.append(rest)
                self._count(rest, 1)
        held.pieces, held.begun, held.next = kept, offset, max(held.next, offset)

    def share(self, rows_max: int, bytes_max: int, waived: Container[Partition], now_ms: int) -> dict[Partition, int]:
        """How far the next batch goes in each partition: the offset after its last message there.

        Partitions move on together by the time of their messages: while history is read, no partition runs ahead of
        one that has more to come. Nothing can be taken while one of those has not shown what comes next.

        Args:
            rows_max: messages in all.
            bytes_max: payload bytes in all, by the average message.
            waived: partitions that nobody waits for: nothing more comes there for now, or not soon enough.
            now_ms: the time of day; messages from the future are of now, or they would wait for it.
        """
        waiting = {where: held for where, held in self._held.items() if held.pieces}
        if not waiting:
            return {}
        room = max(1, min(rows_max, bytes_max * self.rows // max(1, self.nbytes)))
        times = {where: np.minimum(held.times(room), now_ms) for where, held in waiting.items()}
        bounds = [where for where in self._held if where not in waived]
        upto_ms = min((int(times[one][-1]) if one in times else _NEVER_MS for one in bounds), default=_ALWAYS_MS)
        if max(int(column[-1]) for column in times.values()) - upto_ms < _SPREAD_MS:
            upto_ms = _ALWAYS_MS
        if sum(map(len, times.values())) > room:
            together = np.concatenate(list(times.values()))
            upto_ms = min(upto_ms, int(np.partition(together, room - 1)[room - 1]))
        counts = {where: int(np.searchsorted(column, upto_ms, "right")) for where, column in times.items()}
        return self._bounded(counts, room)

    def empty(self) -> set[Partition]:
        """Partitions that hold no message."""
        return {where for where, held in self._held.items() if not held.pieces}

    def _bounded(self, counts: Mapping[Partition, int], room: int) -> dict[Partition, int]:
        """Offsets for these numbers of messages; cut in proportion when many have the same time and not all fit."""
        found, total, left = {}, sum(counts.values()), room
        for where, count in counts.items():
            fit = min(left, count if total <= room else -(-count * room // total))
            if fit:
                found[where] = self._held[where].offset_after(fit)
                left -= fit
        return found

    def messages(self) -> list[Messages]:
        """Everything that is held."""
        return [piece for held in self._held.values() for piece in held.pieces]

    def take(self, partition: Partition, start: int, end: int) -> list[Messages] | None:
        """The messages `start <= offset < end`, which stay; None when the buffer does not have them all."""
        held = self._held.get(partition)
        if held is None or held.begun > start or held.next < end:
            return None
        found = []
        for piece in held.pieces:
            first, stop = np.searchsorted(piece.offsets, [start, end]).tolist()
            if first < stop:
                found.append(piece.cut(first, stop) if (first, stop) != (0, len(piece)) else piece)
        return found

    def _count(self, piece: Messages, sign: int) -> None:
        self.rows += sign * len(piece)
        self.nbytes += sign * piece.nbytes
