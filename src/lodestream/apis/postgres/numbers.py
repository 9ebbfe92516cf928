"""Decimal numbers in PostgreSQL's binary form, many at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BASE = 10_000


def numeric_binary(column: pa.Array) -> pa.Array:
    """Each value of a decimal128 column as PostgreSQL sends `numeric`, as binary; null stays null.

    The form is: count of digits, weight of the first one, sign, digits after the point, then the digits to the base
    10,000 without zeros at either end (PostgreSQL's `numeric_send`).
    """
    scale, precision = column.type.scale, column.type.precision
    behind = -(-scale // 4) if scale > 0 else 0
    before = max(1, -(-(precision - scale) // 4))
    negative, limbs = _limbs(column)
    _times(limbs, 10 ** (4 * behind - scale))
    count = before + behind + 1  # one more than the precision needs, for values scaled up
    digits = np.empty((len(column), count), dtype=">i2")
    for place in range(count - 1, -1, -1):
        digits[:, place] = _remainder(limbs)
    return _packed(digits, count - behind - 1, negative, max(scale, 0), column)


def _packed(digits: np.ndarray, weight: int, negative: np.ndarray, scale: int, column: pa.Array) -> pa.Array:
    """The messages' bytes: rows of different length, cut out of one matrix."""
    rows, count = digits.shape
    there = digits != 0
    some = there.any(axis=1)
    first = np.where(some, there.argmax(axis=1), 0)
    last = np.where(some, count - there[:, ::-1].argmax(axis=1), 0)
    head = np.empty((rows, 4), dtype=">i2")
    head[:, 0] = last - first
    head[:, 1] = np.where(some, weight - first, 0)
    head[:, 2] = np.where(negative & some, 0x4000, 0)
    head[:, 3] = scale
    places = np.arange(count)
    kept = (places >= first[:, None]) & (places < last[:, None])
    whole = np.concatenate([head, digits], axis=1)
    mask = np.concatenate([np.ones((rows, 4), dtype=bool), kept], axis=1)
    offsets = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(8 + 2 * (last - first), out=offsets[1:])
    data = whole[mask].astype(">i2").tobytes()  # concatenating has made them the machine's own
    made = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return pc.if_else(column.is_valid(), made, pa.scalar(None, pa.binary())) if column.null_count else made


def _limbs(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Signs, and absolute values as four numbers to the base 2^32 in a row, the lowest first."""
    words = np.frombuffer(column.buffers()[1], dtype="<u8")[2 * column.offset : 2 * (column.offset + len(column))]
    low, high = words[0::2].copy(), words[1::2].copy()
    negative = (high >> np.uint64(63)).astype(bool)
    low[negative] = ~low[negative] + np.uint64(1)
    high[negative] = ~high[negative] + (low[negative] == 0).astype(np.uint64)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    spare = np.zeros_like(low)  # room for values that are multiplied
    return negative, np.stack([low & mask, low >> half, high & mask, high >> half, spare])


def _times(limbs: np.ndarray, factor: int) -> None:
    if factor == 1:
        return
    carry = np.zeros(limbs.shape[1], dtype=np.uint64)
    for limb in limbs:
        value = limb * np.uint64(factor) + carry
        limb[:] = value & np.uint64(0xFFFFFFFF)
        carry = value >> np.uint64(32)


def _remainder(limbs: np.ndarray) -> np.ndarray:
    """The values modulo 10,000; they are divided by it in place."""
    rest = np.zeros(limbs.shape[1], dtype=np.uint64)
    for limb in limbs[::-1]:
        value = (rest << np.uint64(32)) | limb
        limb[:] = value // np.uint64(_BASE)
        rest = value - limb * np.uint64(_BASE)
    return rest
