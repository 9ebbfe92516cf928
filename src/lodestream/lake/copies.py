"""Copies on this machine of data files that lie in an object store: bounded, shared by processes, never stale.

Data files never change once they are written, so a copy is as good as the file for as long as it is kept.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeAlias

from lodestream.lake.disk import random_id, translated

Fetch: TypeAlias = Callable[[str, IO[bytes]], None]
_AT_ONCE = 8
_STAY_S = 600.0
"""Whoever asked for a copy may be about to open it."""
_SWEEP_SHARE = 16


class Copies:
    """Keeps copies below a folder, and deletes those that were not used for longest.

    Args:
        folder: of this machine.
        bytes_max: what copies take at most, but for those that were asked for within ten minutes.
        fetch: writes the content of a file, by its path in the store, into an open one. Raises FileNotFoundError.
    """

    def __init__(self, folder: str, bytes_max: int, fetch: Fetch) -> None:
        self._folder, self._bytes_max, self._fetch = folder, bytes_max, fetch
        self._lock = threading.Lock()
        self._unswept: int | None = None

    def has(self, copy: str) -> bool:
        """Whether there is a copy; it then counts as used now."""
        return _used(copy)

    def have(self, pairs: Sequence[tuple[str, str]], fetch: Fetch | None = None) -> None:
        """Make the copies that are missing, several at once.

        Args:
            pairs: path in the store, and that of the copy.
            fetch: instead of the one for whole files.

        Raises:
            FileNotFoundError: a file is not in the store.
            TransientError: the disk is full, or the store does not answer.
        """
        missing = [pair for pair in pairs if not _used(pair[1])]
        if len(missing) <= 1:
            for pair in missing:
                self._copy(*pair, fetch or self._fetch)
            return
        with ThreadPoolExecutor(min(_AT_ONCE, len(missing)), thread_name_prefix="copies") as pool:
            for done in [pool.submit(self._copy, *pair, fetch or self._fetch) for pair in missing]:
                done.result()

    def _copy(self, source: str, target: str, fetch: Fetch) -> None:
        unfinished = f"{target}.{random_id()}"
        with translated(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                with open(unfinished, "xb") as file:
                    fetch(source, file)
                os.replace(unfinished, target)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(unfinished)
                raise
            made = os.stat(target)
        with self._lock:
            self._unswept = None if self._unswept is None else self._unswept + _taken(made)
            if self._unswept is None or self._unswept > self._bytes_max // _SWEEP_SHARE:
                self._unswept = 0
                self._sweep(made.st_mtime)

    def _sweep(self, now_s: float) -> None:
        found = sorted(_files(self._folder))
        total = sum(size for _, size, _ in found)
        for used_s, size, path in found:
            if total <= self._bytes_max or used_s > now_s - _STAY_S:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size


def _used(path: str) -> bool:
    """Whether there is a copy; it then counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _taken(stat: os.stat_result) -> int:
    """Bytes that a file takes on the disk; one may have holes."""
    return stat.st_blocks * 512


def _files(folder: str) -> Iterator[tuple[float, int, str]]:
    """When each copy was used last, its size and its path; unfinished ones too."""
    for where, _, names in os.walk(folder):
        for name in names:
            if ".parquet" in name:
                path = os.path.join(where, name)
                with contextlib.suppress(FileNotFoundError):
                    stat = os.stat(path)
                    yield stat.st_mtime, _taken(stat), path
