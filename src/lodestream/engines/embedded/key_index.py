"""Which rows of a table's files have one of the given keys: an index per file, made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.engines.embedded.keys import hash_keys
from lodestream.lake.actions import AddFile
from lodestream.lake.table import DeltaTable

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

_BYTES_MAX = 256 << 20


class KeyIndex:
    """Hashes of the keys of each data file, sorted; 12 bytes a row.

    A data file never changes, so its index is never wrong and nothing of it is stored. Files for which there is no room
    are read again every time.

    Args:
        table: the table.
        keys: its key columns.
        bytes_max: upper bound of what is kept.
    """

    def __init__(self, table: DeltaTable, keys: Sequence[str], bytes_max: int = _BYTES_MAX) -> None:
        self._table, self._keys, self._bytes_max = table, list(keys), bytes_max
        self._kept: dict[str, tuple[Hashes, npt.NDArray[np.int32]]] = {}
        self._bytes = 0

    def find(self, wanted: Hashes) -> Iterator[tuple[AddFile, Numbers]]:
        """The live files that may hold one of these keys, each with the numbers of the rows that may.

        Args:
            wanted: hashes of keys (`key_hashes`), sorted, each once. Two keys may share one.
        """
        live = self._table.files()
        self._forget({add.path for add in live})
        for add in live if len(wanted) else ():
            hashes, order = self._index(add)
            first = np.searchsorted(hashes, wanted, "left")
            counts = np.searchsorted(hashes, wanted, "right") - first
            if not counts.any():
                continue
            # The ranges [first, first + count) one after the other.
            starts = np.repeat(first - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
            yield add, np.sort(order[starts + np.arange(counts.sum())].astype(np.int64))

    def _index(self, add: AddFile) -> tuple[Hashes, npt.NDArray[np.int32]]:
        kept = self._kept.get(add.path)
        if kept is None:
            hashes = key_hashes(self._table.read([add], columns=self._keys).columns)
            order = np.argsort(hashes, kind="stable").astype(np.int32)
            kept = hashes[order], order
            size = kept[0].nbytes + order.nbytes
            if self._bytes + size <= self._bytes_max:
                self._kept[add.path] = kept
                self._bytes += size
        return kept

    def _forget(self, live: set[str]) -> None:
        for path in [path for path in self._kept if path not in live]:
            hashes, order = self._kept.pop(path)
            self._bytes -= hashes.nbytes + order.nbytes


def key_hashes(columns: Sequence[pa.ChunkedArray]) -> Hashes:
    """64-bit hashes of n rows of key columns."""
    return hash_keys(columns)[1]
