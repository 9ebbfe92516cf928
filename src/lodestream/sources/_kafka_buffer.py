"""Messages that have come and are not committed yet, by partition."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lodestream.drivers.kafka_reader import Messages, Partition


class _Held:
    """One partition: everything the broker has from `begun` on, up to `next`."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.next = begun
        self.pieces: list[Messages] = []


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

    def begun(self, partition: Partition) -> int | None:
        """From which offset on the buffer has everything; None when the partition is not read."""
        held = self._held.get(partition)
        return held.begun if held else None

    def add(self, piece: Messages) -> None:
        """Take in messages; those before what was read already (stale, or delivered twice) are passed over."""
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

    def waiting(self) -> list[Partition]:
        """Partitions that hold messages, the ones with the oldest messages first."""
        some = [
            (int(held.pieces[0].timestamps_ms[0]), partition) for partition, held in self._held.items() if held.pieces
        ]
        return [partition for _, partition in sorted(some)]

    def end(self, partition: Partition, rows_max: int, bytes_max: int) -> tuple[int, int, int]:
        """Where a range from the buffer's beginning would end: (offset after it, rows, bytes); at least one row."""
        held = self._held[partition]
        rows = size = 0
        after = held.begun
        for piece in held.pieces:
            room = rows_max - rows
            per_row = max(1, piece.nbytes // len(piece))
            fit = min(len(piece), room, max((bytes_max - size) // per_row, 0 if rows else 1))
            if fit <= 0:
                break
            rows, size, after = rows + fit, size + fit * per_row, int(piece.offsets[fit - 1]) + 1
            if fit < len(piece):
                break
        return after, rows, size

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

    def pieces(self, partition: Partition) -> list[Messages]:
        """All messages of a partition."""
        return self._held[partition].pieces

    def _count(self, piece: Messages, sign: int) -> None:
        self.rows += sign * len(piece)
        self.nbytes += sign * piece.nbytes
