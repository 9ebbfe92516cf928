"""One entry of the log on disk: the records of one request under a checksum, so that all of them count or none."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["json", "csv", "rows", "message"]
"""How an entry's records are written: JSON as it came, CSV lines as they came, JSON made from rows of a binary body,
or one message of the table's own format."""
KINDS: tuple[Kind, ...] = ("json", "csv", "rows", "message")

MAGIC = b"LSR1"
HEADER = struct.Struct("<4sIIQIQQB16s16sI")
"""magic, payload bytes, checksum, first sequence number, records, bytes of the segment that were durable before,
microseconds since 1970, kind, idempotency key (digest), body (digest), bytes of the CSV header."""
NO_KEY = bytes(16)
_CRC_AT = 8
_AFTER_CRC = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """The records of one request.

    Attributes:
        kind: how they are written.
        data: all records, one after the other.
        ends: where each record ends in `data`; n numbers that do not fall.
        time_us: when they came, microseconds since 1970 UTC.
        key: digest of the idempotency key, 16 bytes; `NO_KEY` for none.
        body: digest of the body, 16 bytes, to tell another body under the same key.
        head: the header line of a CSV body.
    """

    kind: Kind
    data: bytes
    ends: npt.NDArray[np.uint32]
    time_us: int
    key: bytes = NO_KEY
    body: bytes = NO_KEY
    head: bytes = b""

    @property
    def size(self) -> int:
        """About how many bytes it takes on disk."""
        return HEADER.size + len(self.head) + 4 * len(self.ends) + len(self.data)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the header of an entry on disk says.

    Attributes:
        offset: where the frame begins in its segment.
        size: bytes with its header.
        first: sequence number of the first record.
        count: how many records.
        durable: bytes of the segment that had been synced before this frame was written.
    """

    offset: int
    size: int
    first: int
    count: int
    durable: int
    time_us: int
    kind: Kind
    key: bytes
    body: bytes
    head_size: int
    checksum: int

    @property
    def end(self) -> int:
        """The sequence number after its last record."""
        return self.first + self.count


def encode(entry: Entry, first: int, durable: int) -> bytes:
    """The frame of an entry whose first record has the sequence number `first`."""
    count = len(entry.ends)
    payload = b"".join((entry.head, entry.ends.astype("<u4").tobytes(), entry.data))
    header = bytearray(
        HEADER.pack(
            MAGIC, len(payload), 0, first, count, durable, entry.time_us, KINDS.index(entry.kind), entry.key,
            entry.body, len(entry.head),
        )
    )  # fmt: skip
    header[_CRC_AT:_AFTER_CRC] = struct.pack("<I", _checksum(header, payload))
    return bytes(header) + payload


def header_at(block: bytes | memoryview, at: int, offset: int) -> Frame | None:
    """The frame header at `at` in a block; None when there is none (or not all of it).

    Args:
        block: bytes of a segment.
        at: where in the block.
        offset: where that is in the segment.
    """
    if at + HEADER.size > len(block):
        return None
    magic, payload, checksum, first, count, durable, time_us, kind, key, body, head = HEADER.unpack_from(block, at)
    if magic != MAGIC or kind >= len(KINDS) or head + 4 * count > payload:
        return None
    size = HEADER.size + payload
    return Frame(offset, size, first, count, durable, time_us, KINDS[kind], key, body, head, checksum)


def is_whole(block: bytes | memoryview, at: int, frame: Frame) -> bool:
    """Whether the frame's bytes at `at` are all there and as they were written."""
    view = memoryview(block)[at : at + frame.size]
    return len(view) == frame.size and _checksum(view[: HEADER.size], view[HEADER.size :]) == frame.checksum


def payload_at(block: bytes | memoryview, at: int, frame: Frame) -> tuple[bytes, npt.NDArray[np.uint32], memoryview]:
    """The CSV header, the ends of the records, and the records of a whole frame."""
    start = at + HEADER.size
    view = memoryview(block)
    ends_at = start + frame.head_size
    data_at = ends_at + 4 * frame.count
    ends = np.frombuffer(view[ends_at:data_at], "<u4")
    return bytes(view[start:ends_at]), ends, view[data_at : at + frame.size]


def whole_frames(block: bytes | memoryview) -> Iterator[Frame]:
    """The frames from the start of a segment up to the first that is not whole."""
    at = 0
    while (frame := header_at(block, at, at)) is not None and is_whole(block, at, frame):
        yield frame
        at += frame.size


def acknowledged_after(block: bytes, torn_at: int) -> int | None:
    """Where a whole frame lies that was written when the bytes at `torn_at` were durable already; None for nowhere.

    Such a frame proves that the bytes were acknowledged, so that what is there now is damage, not a torn tail.
    """
    at = block.find(MAGIC, torn_at)
    while at >= 0:
        frame = header_at(block, at, at)
        if frame is not None and frame.durable > torn_at and is_whole(block, at, frame):
            return at
        at = block.find(MAGIC, at + 1)
    return None


def _checksum(header: bytes | bytearray | memoryview, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(header[_AFTER_CRC:], zlib.crc32(header[:_CRC_AT])))
