"""Random numbers that are a function of (seed, field, index): any range of events gives the same values again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def _mix(z: Words) -> Words:
    """The finalizer of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(seed: int, field: int, index: Ints) -> Words:
    """64 random bits for each index; `field` tells independent uses apart."""
    key = _mix(np.array([(seed + field * 0xD1342543DE82EF95) & (1 << 64) - 1], np.uint64))
    return _mix(_mix(index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key))


def uniform(seed: int, field: int, index: Ints) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1)."""
    bits = words(seed, field, index) >> np.uint64(11)
    return bits.astype(np.float64) / float(1 << 53)


def below(seed: int, field: int, index: Ints, bound: int) -> Ints:
    """Whole numbers from 0 to `bound` - 1, `bound` at most 2^31."""
    return ((words(seed, field, index) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def choice(seed: int, field: int, index: Ints, texts: list[str]) -> pa.Array:
    """One of the texts for each index."""
    return pa.array(texts, pa.string()).take(pa.array(below(seed, field, index, len(texts))))


def hexadecimal(numbers: Words, digits: int) -> pa.Array:
    """The lowest `digits` (at most 16) hexadecimal digits of each number as text."""
    shifts = np.arange(4 * (digits - 1), -1, -4, dtype=np.uint64)
    block = _HEX[((numbers[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]
    offsets = np.arange(0, digits * (len(numbers) + 1), digits, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(numbers), [None, pa.py_buffer(offsets), pa.py_buffer(block)])


def cents(amounts: Ints, precision: int) -> pa.Array:
    """Whole cents as decimal(precision, 2)."""
    pairs = np.empty((len(amounts), 2), np.int64)
    pairs[:, 0], pairs[:, 1] = amounts, amounts >> 63
    return pa.Array.from_buffers(pa.decimal128(precision, 2), len(amounts), [None, pa.py_buffer(pairs)])
