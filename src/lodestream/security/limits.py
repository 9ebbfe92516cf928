"""How much each caller may ask: tokens that fill with time, and counts per day."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field

_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000


@dataclass
class Bucket:
    """Tokens that fill at a rate up to what one second gives; a large request may leave it in debt.

    Attributes:
        rate: tokens per second.
        left: tokens now.
        at_us: when that was, microseconds.
    """

    rate: float
    left: float = 0.0
    at_us: int = 0

    def wait_s(self, now_us: int) -> float:
        """Seconds until something may be taken; 0 when it may now."""
        if now_us > self.at_us:
            self.left = min(max(self.rate, 1.0), self.left + (now_us - self.at_us) / _SECOND_US * self.rate)
            self.at_us = now_us
        need = min(1.0, self.rate)
        return 0.0 if self.left >= need else (need - self.left) / self.rate

    def take(self, amount: float) -> None:
        """Take tokens, also more than there are."""
        self.left -= amount


@dataclass
class Caller:
    """What one caller has used."""

    requests: Bucket | None
    traffic: Bucket | None
    records_per_day: int | None
    name: str = ""
    day: int = 0
    records: int = 0


@dataclass
class Limits:
    """Bounds of all callers by name; `None` is no bound.

    Attributes:
        path: a file that remembers the counts of the day over restarts; empty for none.
    """

    path: str = ""
    callers: dict[str, Caller] = field(default_factory=dict)
    _saved: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path:
            with contextlib.suppress(FileNotFoundError, ValueError), open(self.path, encoding="utf-8") as file:
                self._saved = json.load(file)

    def caller(
        self, name: str, requests_per_s: float | None, bytes_per_s: float | None, records_per_day: int | None
    ) -> Caller:
        """The caller of a name; bounds that changed hold from now on."""
        known = self.callers.get(name)
        if known is None:
            known = self.callers[name] = Caller(None, None, None, name)
            known.day, known.records = self._saved.get(name, [0, 0])
        known.requests = _bucket(known.requests, requests_per_s)
        known.traffic = _bucket(known.traffic, bytes_per_s)
        known.records_per_day = records_per_day
        return known

    def save(self) -> None:
        """Write down the counts of the day; what is not written is forgotten with a crash."""
        if self.path:
            found = {name: [caller.day, caller.records] for name, caller in self.callers.items() if caller.records}
            if found != self._saved:
                made = f"{self.path}.new"
                with contextlib.suppress(OSError), open(made, "w", encoding="utf-8") as file:
                    json.dump(found, file)
                    os.replace(made, self.path)
                    self._saved = found


def admit(caller: Caller, now_us: int) -> float:
    """Take one request. Returns 0, or the seconds after which it may come again; nothing is taken then."""
    day = now_us // _DAY_US
    if day != caller.day:
        caller.day, caller.records = day, 0
    if caller.records_per_day is not None and caller.records >= caller.records_per_day:
        return _until_tomorrow_s(now_us)
    waits = [bucket.wait_s(now_us) for bucket in (caller.requests, caller.traffic) if bucket is not None]
    wait = max(waits, default=0.0)
    if wait == 0 and caller.requests is not None:
        caller.requests.take(1)
    return wait


def spend(caller: Caller, records: int, now_us: int) -> float:
    """Count records of the day. Returns 0, or the seconds after which so many may come; nothing is counted then."""
    if caller.records_per_day is not None and caller.records + records > caller.records_per_day:
        return _until_tomorrow_s(now_us)
    caller.records += records
    return 0.0


def charge(caller: Caller, size: int) -> None:
    """Count the bytes of a body that came."""
    if caller.traffic is not None:
        caller.traffic.take(size)


def _bucket(known: Bucket | None, rate: float | None) -> Bucket | None:
    if rate is None:
        return None
    if known is None:
        return Bucket(rate, left=max(rate, 1.0))
    known.rate = rate
    return known


def _until_tomorrow_s(now_us: int) -> float:
    return (_DAY_US - now_us % _DAY_US) / _SECOND_US
