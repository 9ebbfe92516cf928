"""Positions in the log of an HTTP stream, read from its files with code that the source does not use."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import numpy.typing as npt

from lodestream.errors import CorruptionError

_FIXED = struct.Struct("<4sIIQI")
"""magic, bytes after the header, checksum, first sequence number, records; the rest of the header is passed over."""
_HEADER_BYTES = 77


def positions_between(folder: str, start: int, end: int) -> tuple[npt.NDArray[np.int64], int]:
    """The sequence numbers `start <= number < end` that have a record, and the first one that the log still has.

    Raises:
        CorruptionError: a frame's checksum is wrong.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".log")) if os.path.isdir(folder) else []
    firsts = [int(name.split(".")[0]) for name in names]
    found: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    for i, name in enumerate(names):
        until = firsts[i + 1] if i + 1 < len(firsts) else end
        if until <= start or firsts[i] >= end:
            continue
        found += [np.arange(max(a, start), min(b, end, until)) for a, b in _spans(os.path.join(folder, name), until)]
    return np.concatenate(found), firsts[0] if firsts else end


def _spans(path: str, until: int) -> list[tuple[int, int]]:
    """First and last-plus-one sequence number of each frame of a file that begins below `until`."""
    with open(path, "rb") as file:
        data = file.read()
    at, found = 0, []
    while at + _HEADER_BYTES <= len(data):
        magic, size, checksum, first, count = _FIXED.unpack_from(data, at)
        if magic != b"LSR1" or first >= until:
            break
        frame = data[at : at + _HEADER_BYTES + size]
        if zlib.crc32(frame[:8] + frame[12:]) != checksum:
            raise CorruptionError("a segment of the stream's log is damaged; put it back", file=path, offset=at)
        found.append((first, first + count))
        at += _HEADER_BYTES + size
    return found
