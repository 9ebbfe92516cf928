"""A bounded cache of what commits added, so that flows in one process need not read it back."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pyarrow as pa


class Handover:
    """Rows that a commit added, by (table path, version); the oldest entries fall out when the bound is met.

    An entry is exactly what a read of that version returns, so a reader may use either.

    Args:
        bytes_max: upper bound of all entries together.
    """

    def __init__(self, bytes_max: int = 192 << 20) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, path: str, version: int, rows: pa.Table) -> None:
        """Keep the rows that commit `version` of the table at `path` added; call it after the commit is durable."""
        if rows.nbytes > self._bytes_max:
            return
        with self._lock:
            self._entries[path, version] = rows
            self._bytes += rows.nbytes
            while self._bytes > self._bytes_max:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes

    def take(self, path: str, version: int) -> pa.Table | None:
        """The rows of that commit if they are still here."""
        with self._lock:
            return self._entries.get((path, version))

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._bytes
