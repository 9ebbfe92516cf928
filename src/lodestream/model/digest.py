"""A 64-bit hash of a row's position, whose XOR over a set of rows is the set's digest."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def splitmix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The SplitMix64 finaliser (Steele, Lea, Flood 2014), elementwise."""
    with np.errstate(over="ignore"):
        x = values + _MIX[0]
        x = (x ^ (x >> np.uint64(30))) * _MIX[1]
        x = (x ^ (x >> np.uint64(27))) * _MIX[2]
        return x ^ (x >> np.uint64(31))


def position_digest(source: pa.Array | pa.ChunkedArray, position: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Hash each (source, position) to 64 bits.

    Args:
        source: n source names, no NULL.
        position: n positions (bigint), no NULL.

    Returns:
        n unsigned 64-bit hashes; equal inputs give equal hashes on every machine and in every version.
    """
    if isinstance(source, pa.ChunkedArray):
        source = source.combine_chunks()
    coded = source if pa.types.is_dictionary(source.type) else pc.dictionary_encode(source)
    names = coded.dictionary.to_pylist()
    seeds = np.array([_name_hash(name) for name in names], dtype=np.uint64)
    codes = coded.indices.to_numpy(zero_copy_only=False)
    offsets = position.to_numpy().astype(np.int64, copy=False).view(np.uint64)
    return splitmix64(splitmix64(offsets) ^ seeds[codes]) if len(offsets) else offsets


def _name_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def fold(hashes: npt.NDArray[np.uint64]) -> int:
    """The XOR of all hashes as a signed 64-bit integer: the digest as tables store it."""
    return int(np.bitwise_xor.reduce(hashes, initial=np.uint64(0)).astype(np.int64))
