"""Rows per second of many tables: one row of counters a table, one column a second, kept for some minutes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from lodestream.model.live import RateHistory

SECOND_US = 1_000_000
_FIRST_ROWS = 16


class Rates:
    """Counts rows by table and second. Safe from any thread.

    Args:
        seconds: how long counts are kept.
        window_s: seconds that a rate is taken over.
    """

    def __init__(self, seconds: int = 600, window_s: int = 10) -> None:
        self._seconds = seconds + window_s
        self._window_s = window_s
        self._counts = np.zeros((_FIRST_ROWS, self._seconds))
        self._used = 0
        self._head = 0
        self._lock = threading.Lock()

    def row(self) -> int:
        """Room for one more table; its number."""
        with self._lock:
            if self._used == len(self._counts):
                self._counts = np.vstack([self._counts, np.zeros_like(self._counts)])
            self._used += 1
            return self._used - 1

    def add(self, row: int, at_us: int, rows: int, now_us: int) -> None:
        """Count rows of a moment; what is older than is kept is left out, and the future is the present."""
        with self._lock:
            self._advance(now_us // SECOND_US)
            second = min(at_us // SECOND_US, self._head)
            if second > self._head - self._seconds:
                self._counts[row, second % self._seconds] += rows

    def clear(self, row: int) -> None:
        """Forget what a table has counted."""
        with self._lock:
            self._counts[row] = 0

    def now(self, now_us: int) -> list[float]:
        """The rate of every row over the last whole seconds and what there is of the present one."""
        with self._lock:
            self._advance(now_us // SECOND_US)
            columns = (self._head - np.arange(self._window_s)) % self._seconds
            rates: list[float] = (self._counts[: self._used, columns].sum(axis=1) / self._window_s).tolist()
            return rates

    def history(self, rows: Iterable[int], seconds: int, now_us: int) -> RateHistory:
        """The rates of some rows together, up to the last whole second."""
        chosen = list(rows)
        seconds = max(0, min(seconds, self._seconds - self._window_s))
        with self._lock:
            self._advance(now_us // SECOND_US)
            last = self._head - 1
            span = last - np.arange(seconds + self._window_s - 1, -1, -1)
            counts = self._counts[chosen][:, span % self._seconds].sum(axis=0)
        counts[span <= self._head - self._seconds] = 0
        total = np.concatenate(([0.0], np.cumsum(counts)))
        rates = (total[self._window_s :] - total[: -self._window_s])[1:] / self._window_s
        times = (last - np.arange(len(rates) - 1, -1, -1)) * SECOND_US
        return RateHistory(times.tolist(), np.round(rates, 3).tolist())

    def _advance(self, second: int) -> None:
        """Make room for a new second; the oldest are forgotten. A clock that goes back stands still here."""
        passed = min(second - self._head, self._seconds)
        if passed <= 0:
            return
        self._counts[:, (self._head + 1 + np.arange(passed)) % self._seconds] = 0
        if second - self._head >= self._seconds:
            self._counts[:] = 0
        self._head = second
