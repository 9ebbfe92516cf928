"""Made-up events, the same for the same seed, with a chosen share of late, duplicate and malformed ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lodestream.errors import ConfigError
from lodestream.formats._records import rejects_table, rows_table
from lodestream.formats._times import parse_timestamp
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Schema
from lodestream.ports.format import Format
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading, SourceTraits
from lodestream.sources._random import Ints, uniform, words
from lodestream.sources._streams import STREAMS

_ROW_BYTES = 200
_PIECE_ROWS = 65_536
_KIND, _BACK, _LATENESS, _TEAR = 101, 102, 103, 104
_NORMAL, _LATE, _DUPLICATE, _MALFORMED = 0, 1, 2, 3
_DUPLICATE_TRIES = 16
_START = "2024-01-01T00:00:00Z"


class Chaos(Settings):
    """Shares (0 to 1) of events that are not as they should be."""

    late: float = Field(default=0.0, ge=0, le=1)
    """Events whose event time lies back by up to `late_by`."""
    duplicate: float = Field(default=0.0, ge=0, le=1)
    """Events that came before, within the last hundred."""
    malformed: float = Field(default=0.0, ge=0, le=1)
    """Torn JSON lines that do not decode."""
    late_by: float = Field(default=600.0, gt=0)
    """The furthest (seconds) a late event lies back."""

    @model_validator(mode="after")
    def _fit(self) -> Chaos:
        if self.late + self.duplicate + self.malformed > 1:
            raise ValueError("the shares of late, duplicate and malformed add up to more than 1")
        return self


class GeneratorSettings(Settings):
    """Which events are made up, how many and how fast."""

    stream: Literal["orders", "sensors", "clicks"] = "orders"
    """What kind of events."""
    seed: int = 1
    """The same seed makes the same events."""
    rows: int | None = Field(default=None, ge=0)
    """How many events in all; without it they never end."""
    rate: float | None = Field(default=None, gt=0)
    """Events per second in all, released by the clock from the first run on; without it, as fast as they are taken."""
    partitions: int = Field(default=1, ge=1, le=1024)
    """How many units the events are spread over."""
    start: str | None = None
    """Event time of the first event (ISO 8601). Default: the first run's clock with `rate`, else 2024-01-01."""
    event_rate: float = Field(default=1000.0, gt=0)
    """Events per second of event time when there is no `rate`."""
    chaos: Chaos = Chaos()
    """Shares of late, duplicate and malformed events."""

    @model_validator(mode="after")
    def _readable_start(self) -> GeneratorSettings:
        if self.start is not None:
            parse_timestamp(self.start)
        return self


class GeneratorSource:
    """Makes events up; position i of unit `generator/<partition>` is always the same event."""

    settings: ClassVar[type[Settings]] = GeneratorSettings
    traits: ClassVar[SourceTraits] = SourceTraits(replayable=True, ordered=True, bounded=False)

    def __init__(self, settings: GeneratorSettings, format: Format | None, reading: Reading) -> None:  # noqa: A002
        self._settings = settings
        self._reading = reading
        schema, self._event_column, self._make = STREAMS[settings.stream]
        for column in reading.schema:
            known = schema.get(column.name)
            if known is None or known.type != column.type:
                raise ConfigError(
                    "the generator's stream has no such column",
                    stream=settings.stream, column=column.name, type=str(column.type),
                    has=", ".join(f"{c.name} {c.type}" for c in schema),
                )  # fmt: skip
        # Each partition has its own seed, so that no two make the same event.
        self._seeds = [settings.seed * 1024 + i for i in range(settings.partitions)]

    @classmethod
    def declares(cls, settings: Settings) -> Schema | None:
        """The columns of the chosen stream."""
        assert isinstance(settings, GeneratorSettings)
        return STREAMS[settings.stream][0]

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """The next events of every partition, as many as the limit and, with `rate`, the clock allow."""
        started_us = min((int(r.facts["started_us"]) for r in consumed.values()), default=now_us)
        left = max(1, min(limit.rows_max, limit.bytes_max // _ROW_BYTES))
        ranges: list[SourceRange] = []
        for partition in self._least_consumed_first(consumed):
            unit = f"generator/{partition}"
            start = consumed[unit].end if unit in consumed else 0
            share = -(-left // (self._settings.partitions - len(ranges)))
            end = min(start + share, self._available(partition, started_us, now_us))
            if end > start and left > 0:
                end = min(end, start + left)
                ranges.append(SourceRange(unit, start, end, {"started_us": started_us}))
                left -= end - start
        return sorted(ranges, key=lambda r: int(r.unit.split("/")[1]))

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """The events of a range."""
        partition = int(planned.unit.split("/")[1])
        for start in range(planned.start, planned.end, _PIECE_ROWS):
            index = np.arange(start, min(planned.end, start + _PIECE_ROWS), dtype=np.int64)
            yield self._events(planned, partition, index)

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether all `rows` were made; without `rows` never."""
        if self._settings.rows is None:
            return False
        ends = [consumed[f"generator/{p}"].end if f"generator/{p}" in consumed else 0 for p in range(len(self._seeds))]
        return sum(ends) >= self._settings.rows

    def close(self) -> None:
        """Nothing to let go of."""

    def _least_consumed_first(self, consumed: Mapping[str, SourceRange]) -> list[int]:
        def end(partition: int) -> int:
            last = consumed.get(f"generator/{partition}")
            return last.end if last else 0

        return sorted(range(self._settings.partitions), key=end)

    def _available(self, partition: int, started_us: int, now_us: int) -> int:
        """How many events of a partition there are by now. Event i of partition p is number i * partitions + p."""
        count = self._settings.partitions
        bounds = [1 << 62]
        if self._settings.rows is not None:
            bounds.append(self._settings.rows)
        if self._settings.rate is not None:
            bounds.append(int((now_us - started_us) * self._settings.rate / 1_000_000) + 1)
        return max(0, -(-(min(bounds) - partition) // count))

    def _event_us(self, planned: SourceRange, partition: int, index: Ints) -> Ints:
        settings = self._settings
        if settings.start is not None or settings.rate is None:
            first = parse_timestamp(settings.start or _START)
        else:
            first = int(planned.facts["started_us"])
        number = index * settings.partitions + partition
        return first + (number * (1_000_000 / (settings.rate or settings.event_rate))).astype(np.int64)

    def _events(self, planned: SourceRange, partition: int, index: Ints) -> Decoded:
        seed = self._seeds[partition]
        kinds = self._kinds(seed, index)
        origin = self._origins(seed, index, kinds)
        event_us = self._event_us(planned, partition, origin)
        late = self._kinds(seed, origin) == _LATE
        behind = uniform(seed, _LATENESS, origin) * self._settings.chaos.late_by * 1_000_000
        event_us -= np.where(late, behind, 0).astype(np.int64)
        made = self._make(seed, origin, event_us)
        everything = pa.table(made)
        torn = kinds == _MALFORMED
        good = everything.filter(pa.array(~torn)) if torn.any() else everything
        columns = [good[c.name].combine_chunks() for c in self._reading.schema]
        raw = pa.array([_line(row) for row in good.to_pylist()], pa.binary()) if self._reading.keep_raw else None
        rejects = []
        if torn.any():
            lines = [_line(row) for row in everything.filter(pa.array(torn)).to_pylist()]
            cuts = uniform(seed, _TEAR, index[torn])
            rejects = [
                (at, ["parse:json"], line[: 1 + int(cut * (len(line) - 2))])
                for at, line, cut in zip(index[torn].tolist(), lines, cuts.tolist(), strict=True)
            ]
        rows = rows_table(self._reading, columns, planned.unit, index[~torn], raw)
        return Decoded(rows, rejects_table(planned.unit, rejects))

    def _kinds(self, seed: int, index: Ints) -> Ints:
        chaos = self._settings.chaos
        draw = uniform(seed, _KIND, index)
        edges = np.cumsum([chaos.late, chaos.duplicate, chaos.malformed])
        kinds = np.select([draw < edge for edge in edges], [_LATE, _DUPLICATE, _MALFORMED], _NORMAL)
        return np.where(index > 0, kinds, _NORMAL).astype(np.int64)

    def _origins(self, seed: int, index: Ints, kinds: Ints) -> Ints:
        """Which event each index shows: its own, or for a duplicate an earlier one that was well formed and shown."""
        origin = index.copy()
        todo = np.flatnonzero(kinds == _DUPLICATE)
        for attempt in range(_DUPLICATE_TRIES):
            if not len(todo):
                break
            back = words(seed, _BACK + 1000 * attempt, index[todo]) % np.uint64(100)
            target = np.maximum(index[todo] - 1 - back.astype(np.int64), 0)
            fits = np.isin(self._kinds(seed, target), (_NORMAL, _LATE))
            origin[todo[fits]] = target[fits]
            todo = todo[~fits]
        origin[todo] = 0  # the first event is always well formed
        return origin


def _line(row: dict[str, Any]) -> bytes:
    """An event as the JSON line that it would have been."""
    return json.dumps(row, default=lambda v: v.isoformat() if hasattr(v, "isoformat") else str(v)).encode()


component = GeneratorSource
