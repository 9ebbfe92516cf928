"""When each key was used last, roughly: remembered in memory, written down every half minute."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable

_EVERY_US = 30_000_000


def use_path(keys_path: str) -> str:
    """The file of last uses, beside that of the keys."""
    return os.path.join(os.path.dirname(keys_path), "used.json")


class KeyUse:
    """Last uses by key id, in a file that the processes of a lake share.

    Args:
        path: the file; there is none before the first use.
        clock: microseconds since 1970 UTC.
    """

    def __init__(self, path: str, clock: Callable[[], int]) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._fresh: dict[str, int] = {}
        self._saved_us = 0

    def note(self, identity: str) -> None:
        """Remember that a key was used now."""
        now = self._clock()
        with self._lock:
            self._fresh[identity] = now
            due = now - self._saved_us >= _EVERY_US
            if due:
                self._saved_us = now
        if due:
            self.save()

    def save(self) -> None:
        """Write down what is not yet; a disk that is full loses it, which harms nothing."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
        if not fresh or not os.path.isdir(os.path.dirname(self._path)):
            return
        with contextlib.suppress(OSError):
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = self.last()
                for identity, at_us in fresh.items():
                    found[identity] = max(at_us, found.get(identity, 0))
                made = f"{self._path}.new"
                with open(made, "w", encoding="utf-8") as file:
                    json.dump(found, file)
                os.replace(made, self._path)
            finally:
                os.close(lock)

    def last(self) -> dict[str, int]:
        """Microseconds since 1970 UTC by key id, as they were written down."""
        try:
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
        except (FileNotFoundError, ValueError):
            return {}
        return {str(key): int(value) for key, value in found.items()} if isinstance(found, dict) else {}
