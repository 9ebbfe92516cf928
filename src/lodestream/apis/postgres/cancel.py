"""Ends a query that somebody else is waiting for, also while it has not begun."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancel:
    """Hand it to whoever asks, and call it from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self.asked = False

    def __call__(self) -> None:
        """End what is watched, now or as soon as there is something."""
        with self._lock:
            self.asked, end = True, self._end
        if end is not None:
            end()

    def watch(self, end: Callable[[], None]) -> None:
        """Call this to end it: at once when that has been asked for."""
        with self._lock:
            self._end = end
            asked = self.asked
        if asked:
            end()
