"""A file played again in event time, at a chosen speed: yesterday's hour in a minute."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from lodestream.errors import ConfigError, DataLossRefused
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Schema
from lodestream.ports.format import Format
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading, SourceTraits
from lodestream.sources._cut import LineFile, edges
from lodestream.sources._digest import digest_file
from lodestream.sources._random import Ints

_SAMPLE_BYTES = 1 << 20
_NEVER = -(1 << 62)


class ReplaySettings(Settings):
    """Which file is played, and how fast."""

    path: str
    """The file, relative to the project's folder."""
    event_time: str
    """The timestamp column that says when a row happened."""
    speed: float = Field(default=1.0, gt=0)
    """Seconds of event time per second: 3600 plays an hour every second."""


@dataclass(slots=True)
class _Ahead:
    """What was read of the file but is not due yet: positions with the newest event time up to each."""

    start: int
    end: int
    positions: Ints
    newest_us: Ints


class ReplaySource:
    """Plays a file by its event-time column.

    Rows come in the file's own order: one is due when the newest event time up to and with it is, so a row that is out
    of order in the file comes out of order, right after its predecessor; nothing is sorted. Records that do not
    decode come with the next row that does. The first row is due at once. Positions are those of the format.
    """

    settings: ClassVar[type[Settings]] = ReplaySettings
    traits: ClassVar[SourceTraits] = SourceTraits(replayable=True, ordered=True, bounded=True)

    def __init__(self, settings: ReplaySettings, format: Format, reading: Reading) -> None:  # noqa: A002 - the port's word
        column = reading.schema.get(settings.event_time)
        if len(reading.schema) and (column is None or column.type.name != "timestamp"):
            raise ConfigError("event_time names no timestamp column", event_time=settings.event_time)
        self._settings = settings
        self._format = format
        self._path = os.path.join(reading.root, settings.path)
        self._unit = os.path.basename(settings.path)
        self._ahead: _Ahead | None = None

    @classmethod
    def declares(cls, settings: Settings) -> Schema | None:
        """A file has no columns of its own."""
        return None

    def sample(self) -> Schema:
        """Columns of the start of the file."""
        self._stat()
        if self._format.framing == "file":
            return self._format.infer_file(self._path)
        with LineFile(self._path, self._format) as lines:
            return self._format.infer(lines.first_lines(_SAMPLE_BYTES), lines.head)

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """The rows that are due by now, within the limit."""
        last = consumed.get(self._unit)
        size, mtime_ns = self._stat()
        if last is not None:
            self._verify(last, size)
            if last.end >= last.facts["end"]:
                return []
        ahead = self._read_ahead(last, size, limit)
        if ahead is None:
            return []
        facts: dict[str, Any] = dict(last.facts) if last else {"size": size, "mtime_ns": mtime_ns, "end": self._end()}
        newest = np.maximum(ahead.newest_us, facts.get("newest_us", _NEVER))
        timed = newest[newest > _NEVER]
        if "started_us" not in facts and len(timed):
            facts |= {"started_us": now_us, "first_us": int(timed[0])}
        due = len(newest)
        if "started_us" in facts:
            clock = facts["first_us"] + (now_us - facts["started_us"]) * self._settings.speed
            due = int(np.searchsorted(newest, clock, "right"))
        if due == 0 and len(newest):
            return []
        end = ahead.end if due == len(newest) else int(ahead.positions[due])
        if due:
            facts["newest_us"] = int(newest[due - 1])
        if self._format.framing == "lines":
            facts |= self._digests(last, ahead.start, end)
        self._ahead = None
        return [SourceRange(self._unit, ahead.start, end, facts)]

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """Rows of a planned range."""
        size, mtime_ns = self._stat()
        same = (size, mtime_ns) == (planned.facts["size"], planned.facts["mtime_ns"])
        if not same:
            self._verify(planned, size)
        yield from self._decode(planned, verify=not same)

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether the file is played to its end."""
        last = consumed.get(self._unit)
        if last is None:
            return self._end() <= self._first()
        return last.end >= int(last.facts["end"])

    def close(self) -> None:
        """Nothing stays open between calls."""
        self._ahead = None

    def _stat(self) -> tuple[int, int]:
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            raise ConfigError("no such file: correct the source's path", path=self._path) from None
        return stat.st_size, stat.st_mtime_ns

    def _verify(self, last: SourceRange, size: int) -> None:
        changed = size != last.facts["size"]
        if not changed and "edges" in last.facts:
            changed = edges(self._path, last.end) != last.facts["edges"]
        if changed:
            raise DataLossRefused("the replayed file changed; put the old content back", file=self._unit)

    def _first(self) -> int:
        if self._format.framing == "file":
            return 0
        with LineFile(self._path, self._format) as lines:
            return lines.first_record

    def _end(self) -> int:
        if self._format.framing == "file":
            return sum(part.rows for part in self._format.parts(self._path))
        return os.path.getsize(self._path)

    def _digests(self, last: SourceRange | None, start: int, end: int) -> dict[str, str]:
        before = int(last.facts["digest"], 16) if last else digest_file(self._path, start) or 0
        after = digest_file(self._path, end, start, before) or 0
        return {"from": f"{before:016x}", "digest": f"{after:016x}", "edges": edges(self._path, end)}

    def _read_ahead(self, last: SourceRange | None, size: int, limit: BatchLimit) -> _Ahead | None:
        """Event times of the next stretch of the file, which is kept until it is played."""
        start = last.end if last else self._first()
        if self._ahead is not None and self._ahead.start == start:
            return self._ahead
        end = self._stretch(start, last, size, limit)
        if end is None:
            return None
        positions, times = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        facts = {"from": "0", "digest": "0"}
        for piece in self._decode(SourceRange(self._unit, start, end, facts), verify=False):
            column = piece.rows[self._settings.event_time].combine_chunks()
            positions.append(piece.rows["_position"].to_numpy())
            times.append(column.view(pa.int64()).fill_null(_NEVER).to_numpy(zero_copy_only=False))
        newest = np.maximum.accumulate(np.concatenate(times))
        self._ahead = _Ahead(start, end, np.concatenate(positions), newest)
        return self._ahead

    def _stretch(self, start: int, last: SourceRange | None, size: int, limit: BatchLimit) -> int | None:
        if self._format.framing == "file":
            total = self._end()
            return min(total, start + limit.rows_max) if start < total else None
        with LineFile(self._path, self._format) as lines:
            cut = lines.cut(start, size, limit.rows_max, limit.bytes_max, 0, complete=False)
        return cut.end if cut else None

    def _decode(self, planned: SourceRange, *, verify: bool) -> Iterator[Decoded]:
        if self._format.framing == "file":
            yield from self._format.read(self._path, planned.unit, planned.start, planned.end)
            return
        with LineFile(self._path, self._format) as lines:
            yield from lines.decode(
                planned,
                verify=verify,
                changed=lambda: DataLossRefused("the replayed file changed", file=self._unit),
            )


component = ReplaySource
