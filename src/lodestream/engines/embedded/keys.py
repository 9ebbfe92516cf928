"""Key columns to 128-bit hashes, vectorised: what dedup and its state work with.

Two 64-bit multiply-xorshift chains over the key's 8-byte words; the second chain rotates each word, so that a
difference which cancels in one does not in the other. The hash is part of the stored state: it never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.model.digest import splitmix64
from lodestream.native import KERNELS

U64 = npt.NDArray[np.uint64]
_P1, _P2 = np.uint64(0x9FB21C651E98DF25), np.uint64(0xD6E8FEB86659FD93)
_SEED1, _SEED2 = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
_NULL = np.uint64(0xA4093822299F31D0)
_CHUNK = 1 << 15  # rows hashed at a time, so that the working set stays in the second-level cache


def hash_keys(columns: Sequence[pa.ChunkedArray | pa.Array], kernels: Any | None = KERNELS) -> tuple[U64, U64]:
    """Hash n rows of key columns.

    Args:
        columns: key columns of equal length n, of any primitive type; NULL is a value like any other.
        kernels: the native ones, or None for the portable form.

    Returns:
        (high, low): two arrays of n unsigned 64-bit integers, never both zero.
    """
    arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
    arrays = [a.cast(a.type.value_type) if pa.types.is_dictionary(a.type) else a for a in arrays]
    rows = len(arrays[0])
    if kernels is not None:
        return _hash_native(arrays, rows, kernels)
    high, low = np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        h1 = np.full(part.stop - start, _SEED1)
        h2 = np.full(part.stop - start, _SEED2)
        for array in arrays:
            h1, h2 = _absorb(h1, h2, array.slice(start, part.stop - start))
        high[part], low[part] = splitmix64(h1), splitmix64(h2)
    low[(high == 0) & (low == 0)] = 1  # (0, 0) marks an empty slot
    return high, low


def _hash_native(arrays: Sequence[pa.Array], rows: int, kernels: Any) -> tuple[U64, U64]:
    hasher = kernels.KeyHasher(rows)
    for array in arrays:
        kind = array.type
        valid = pc.is_valid(array).cast(pa.uint8()).to_numpy() if array.null_count else None
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            _, offsets, data = array.buffers()
            hasher.bytes(np.frombuffer(offsets, np.int32)[array.offset : array.offset + rows + 1], data or b"", valid)
        elif pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
            width = kind.byte_width
            values = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + rows) * width]
            hasher.fixed(values, width, valid)
        else:
            hasher.words(np.ascontiguousarray(_word(array)), valid)
    high, low = hasher.finish()
    return np.frombuffer(high, np.uint64), np.frombuffer(low, np.uint64)


def _absorb(h1: U64, h2: U64, array: pa.Array) -> tuple[U64, U64]:
    kind = array.type
    if array.null_count:
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        n1, n2 = _mix(h1, h2, np.full(len(array), _NULL))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        m1, m2 = _absorb_bytes(h1, h2, array)
    elif pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        m1, m2 = _absorb_fixed(h1, h2, array)
    else:
        m1, m2 = _mix(h1, h2, _word(array))
    if array.null_count:
        return np.where(valid, m1, n1), np.where(valid, m2, n2)
    return m1, m2


def _mix(h1: U64, h2: U64, word: U64) -> tuple[U64, U64]:
    with np.errstate(over="ignore"):
        a = (h1 ^ word) * _P1
        a ^= a >> np.uint64(32)
        b = (h2 ^ ((word << np.uint64(23)) | (word >> np.uint64(41)))) * _P2
        b ^= b >> np.uint64(29)
    return a, b


def _word(array: pa.Array) -> U64:
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif pa.types.is_timestamp(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_date(kind):
        array = array.cast(pa.int32())
    if array.null_count:
        array = array.fill_null(0)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        floats = values.astype(np.float64) + 0.0  # -0.0 and 0.0 are one key
        floats[np.isnan(floats)] = np.nan  # and so are all NaNs
        values = floats
    words: U64 = (
        values.astype(np.int64, copy=False).view(np.uint64) if values.dtype.kind != "f" else values.view(np.uint64)
    )
    return words


def _absorb_fixed(h1: U64, h2: U64, array: pa.Array) -> tuple[U64, U64]:
    width = array.type.byte_width
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    padded = np.zeros((len(array), -(-width // 8) * 8), np.uint8)
    padded[:, :width] = raw.reshape(len(array), width)
    words = padded.view("<u8")
    for j in range(words.shape[1]):
        h1, h2 = _mix(h1, h2, np.ascontiguousarray(words[:, j]))
    return h1, h2


def _absorb_bytes(h1: U64, h2: U64, array: pa.Array) -> tuple[U64, U64]:
    rows = len(array)
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + rows + 1].astype(np.int64)
    lengths = np.diff(offsets)
    if array.null_count:  # a NULL's slot may cover bytes; they are not part of the key
        lengths = np.where(pc.is_valid(array).to_numpy(zero_copy_only=False), lengths, 0)
    h1, h2 = _mix(h1, h2, lengths.view(np.uint64))
    longest = int(lengths.max(initial=0))
    if not longest:
        return h1, h2
    first, last = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(last - first + 8, np.uint8)
    padded[:-8] = np.frombuffer(data, np.uint8)[first:last]
    starts = offsets[:-1] - first
    equal = longest == int(lengths.min())
    words = np.ndarray((last - first + 1,), "<u8", buffer=padded, strides=(1,))
    for j in range(0, longest, 8):
        if equal:  # rows lie at even distances: a strided view, no gather
            word = np.ascontiguousarray(np.ndarray((rows,), "<u8", buffer=padded, offset=j, strides=(longest,)))
            keep = min(longest - j, 8)
            if keep < 8:
                word &= np.uint64((1 << (8 * keep)) - 1)
            h1, h2 = _mix(h1, h2, word)
            continue
        live = np.flatnonzero(lengths > j)
        word = words[starts[live] + j]
        short = np.minimum(lengths[live] - j, 8).astype(np.uint64)
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> ((np.uint64(8) - short) * np.uint64(8))
        h1[live], h2[live] = _mix(h1[live], h2[live], word)
    return h1, h2
