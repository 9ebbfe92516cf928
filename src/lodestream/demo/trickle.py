"""Lets flights go on arriving after the year is in, so that whoever looks sees the numbers move.

Each file holds real flights of 2013 as if they left now, with flight numbers of their own. One in fifty has a negative
distance, so that something is set aside now and then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FLIGHT_FROM = 10_000
"""Flight numbers of the year are all below."""
BAD_ONE_IN = 50
_FIRST_DAY = "2013-07-01"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Trickle:
    """Writes a small file of flights every so often, on a thread of its own.

    Args:
        data: the folder that the demo's sources read.
        clock: microseconds since 1970 UTC.
        rows: flights of one file.
        every_s: pause between two files.
        files_max: it ends after so many: half an hour, as it is.
    """

    def __init__(
        self, data: Path, clock: Callable[[], int], *, rows: int = 10, every_s: float = 2.0, files_max: int = 900
    ) -> None:
        self._data, self._clock, self._rows, self._every_s, self._files_max = data, clock, rows, every_s, files_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self.written = 0

    def __enter__(self) -> Trickle:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def write(self, flights: Iterator[dict[str, Any]]) -> Path:
        """Write the next file; it appears whole."""
        folder = self._data / "flights"
        sent = sum(1 for _ in folder.glob("live-*.jsonl"))
        number = FLIGHT_FROM + sent * self._rows
        lines = [json.dumps(self._now(next(flights), number + i)) + "\n" for i in range(self._rows)]
        target = folder / f"live-{sent:06}.jsonl"
        hidden = target.with_name(f".{target.name}.tmp")
        hidden.write_text("".join(lines))
        hidden.rename(target)
        self.written += 1
        return target

    def flights(self) -> Iterator[dict[str, Any]]:
        """Flights of summer days, over and over."""
        files = sorted(path for path in (self._data / "flights").glob("2013-*.jsonl") if path.stem >= _FIRST_DAY)
        files = files or sorted((self._data / "flights").glob("2013-*.jsonl"))
        while True:
            for file in files:
                yield from map(json.loads, file.read_text().splitlines())

    def _now(self, flight: dict[str, Any], number: int) -> dict[str, Any]:
        """A flight as if it left now."""
        at = _EPOCH + timedelta(microseconds=self._clock())
        flight |= {
            "year": at.year, "month": at.month, "day": at.day, "hour": at.hour, "minute": at.minute, "flight": number,
            "time_hour": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }  # fmt: skip
        if number % BAD_ONE_IN == BAD_ONE_IN - 1:
            flight["distance"] = -flight["distance"]
        return flight

    def _run(self) -> None:
        flights = self.flights()
        while self.written < self._files_max and not self._stop.wait(self._every_s):
            self.write(flights)
