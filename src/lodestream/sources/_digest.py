"""A digest of file content that adds up: that of a prefix is the sum of those of its ranges."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 16
_WORDS = _BLOCK // 8
_WEIGHTS: npt.NDArray[np.uint64] = np.random.Generator(np.random.Philox(0x10DE)).integers(
    0, 1 << 64, _WORDS, np.uint64
) | np.uint64(1)
_MASK = (1 << 64) - 1


class ContentDigest:
    """Sums weighted 64-bit words of a file; a word's weight depends on its place only.

    Changed, moved or swapped bytes change the sum but for one case in about 2^64; it is no defence against somebody
    who wants a collision. Because sums add up, a tailed file's digest goes on from the last one, and the digest of a
    range is a difference.

    Args:
        offset: place in the file of the first byte given to `update`.
        value: digest of everything before it.
    """

    def __init__(self, offset: int = 0, value: int = 0) -> None:
        self.offset = offset
        self.value = value

    def update(self, data: memoryview | bytes) -> None:
        """Take the next bytes."""
        size = len(data)
        head = min(-self.offset % 8, size)
        body = (size - head) // 8 * 8
        if head:
            self._add_bytes(bytes(data[:head]))
        if body:
            self._add_words(np.frombuffer(data[head : head + body], np.uint64))
        if head + body < size:
            self._add_bytes(bytes(data[head + body :]))

    def _add_bytes(self, data: bytes) -> None:
        place = self.offset // 8
        word = int.from_bytes(b"\0" * (self.offset % 8) + data, "little")
        self._add(word * int(_WEIGHTS[place % _WORDS]), place // _WORDS)
        self.offset += len(data)

    def _add_words(self, words: npt.NDArray[np.uint64]) -> None:
        done = 0
        while done < len(words):
            block, place = divmod(self.offset // 8, _WORDS)
            count = min(_WORDS - place, len(words) - done)
            self._add(int(np.dot(words[done : done + count], _WEIGHTS[place : place + count])), block)
            done += count
            self.offset += count * 8

    def _add(self, part: int, block: int) -> None:
        self.value = (self.value + part * _factor(block)) & _MASK


def _factor(block: int) -> int:
    """An odd number for each 64 KiB block (the mixing steps of SplitMix64)."""
    z = (block + 1) * 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return (z ^ (z >> 31)) | 1


def digest_file(path: str | os.PathLike[str], end: int, start: int = 0, value: int = 0) -> int | None:
    """Digest of the file's bytes up to `end`, going on from `value` at `start`; None when the file is shorter."""
    digest = ContentDigest(start, value)
    view = memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while digest.offset < end:
            got = file.readinto(view[: min(len(view), end - digest.offset)]) or 0
            if not got:
                return None
            digest.update(view[:got])
    return digest.value
