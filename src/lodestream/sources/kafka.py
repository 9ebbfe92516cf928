"""Topics of a Kafka cluster: every message is taken once, and what the broker no longer has is never passed over."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lodestream.drivers.kafka_reader import KafkaReader, Messages, Partition, Polled
from lodestream.drivers.kafka_topics import TopicIds
from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.formats._records import rejected
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Schema
from lodestream.ports.format import Format
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading, SourceTraits
from lodestream.sources._kafka_buffer import Buffer
from lodestream.sources._kafka_columns import COLUMNS, decode, decode_one, gap
from lodestream.sources._kafka_fetch import fetch, holds_messages
from lodestream.sources._kafka_settings import KafkaSettings
from lodestream.sources._kafka_survey import cut_evenly, shares
from lodestream.sources._kafka_units import (
    Units,
    all_partitions,
    cut_back,
    first_offsets,
    overtaken,
    parse,
    wanted_topics,
)

_WAIT_S = 0.05
_LOOK_AROUND_S = 5.0
_SILENT_S = 30.0
_PUBLISH_S = 1.0
_OTHERS_S = 0.5
_SAMPLE_ROWS = 200
_HELD_ROWS = 500_000


@dataclass
class _Open:
    """What is there while connected."""

    reader: KafkaReader
    ids: TopicIds
    stamps: dict[str, float]
    looked: float = 0.0
    moved: float = 0.0
    published: float = 0.0
    others_looked: float = 0.0


class KafkaSource:
    """Reads topics by partition; a unit is `topic/partition`, a position is an offset.

    Positions are kept in the table alone. The group's offsets on the broker are published for lag tools and never read.
    A range may have fewer messages than offsets: compaction and transactions leave gaps that the broker vouches for.
    """

    settings: ClassVar[type[Settings]] = KafkaSettings
    traits: ClassVar[SourceTraits] = SourceTraits(replayable=True, ordered=True, bounded=False)

    def __init__(self, settings: KafkaSettings, format: Format, reading: Reading) -> None:  # noqa: A002 - port's word
        if getattr(format, "head_lines", 0):
            raise ConfigError("messages have no header line; set header: false in the table's format")
        self._settings, self._format, self._reading = settings, format, reading
        self._librdkafka = settings.librdkafka(reading.root)
        self._buffer = Buffer()
        self._ends: dict[Partition, int] = {}
        self._lost: set[Partition] = set()
        self._learn({})
        self._starts: dict[Partition, int] = {}
        self._ids: dict[str, str | None] = {}
        self._planned = 0.0
        self._held_since: float | None = None
        self._waived: set[Partition] = set()
        self._renewed = False
        self._known: list[Partition] = []
        self._opened: _Open | None = None

    @classmethod
    def adds(cls, settings: Mapping[str, object]) -> Schema:
        """The columns of `include`."""
        wanted = settings.get("include")
        names = [name for name in COLUMNS if isinstance(wanted, list | tuple) and name in wanted]
        return Schema(tuple(COLUMNS[name] for name in names))

    def sample(self) -> Schema:
        """Columns of a topic's first messages, or what a registry says of it."""
        reader = self._reader(read_all=False)
        topic, count = next(iter(self._wanted(reader.connect()).items()))
        reader.read(all_partitions({topic: count}))
        self._gather(BatchLimit(rows_max=_SAMPLE_ROWS), wait_s=2.0)
        values = [value for piece in self._buffer.messages() for value in piece.values.to_pylist() if value is not None]
        return self._format.infer_messages(values[:_SAMPLE_ROWS], topic)

    # --- planning ----------------------------------------------------------------------------------------------------

    def _learn(self, consumed: Mapping[str, SourceRange]) -> None:
        """These are the positions to go on from."""
        self._consumed, self._units = consumed, Units(consumed)

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """Ranges over what has come since `consumed`."""
        self._learn(consumed)
        reader = self._reader()
        self._look_around(reader)
        self._line_up(reader)
        self._gather(limit, wait_s=_WAIT_S)
        ranges = self._losses(reader) or self._beginnings(self._buffer.partitions) or self._cut(limit, now_us)
        if ranges:
            self._planned = time.monotonic()
            # Only now: an id that still stands vouches for all that came before it was asked.
            self._check_ids(sorted({parse(planned.unit)[0] for planned in ranges}))
        return ranges

    def plan_unread(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """Ranges over what the cluster has beyond `consumed`, by offsets and times alone, without `bytes_max`."""
        self._learn(consumed)
        reader = self._reader(read_all=False)
        if self._is_time_to_look() or not self._known:
            self._known = all_partitions(self._wanted(reader.connect()))
        bounds = self._bounds(reader, self._known)
        self._lost = {p for p, (low, high) in bounds.items() if not low <= self._position(p) <= high}
        ranges = self._losses(reader) or self._beginnings(self._known)
        if not ranges:
            positions = {partition: self._position(partition) for partition in bounds}
            ends = {partition: high for partition, (_, high) in bounds.items()}
            found = shares(positions, ends, limit.rows_max, now_us // 1000, reader.since)
            ranges = [self._range(partition, positions[partition], end) for partition, end in found.items()]
        if ranges:
            self._check_ids(sorted({parse(planned.unit)[0] for planned in ranges}))
        return ranges

    def parts(self, planned: SourceRange, rows_max: int) -> Sequence[SourceRange]:
        """The range cut by offsets."""
        return [planned] if planned.facts.get("gap") else cut_evenly(planned, rows_max)

    def wait(self, timeout_s: float) -> None:
        """Until a message comes, at most so long."""
        if self._opened is not None and not self._buffer.rows:
            self._take(self._opened.reader.poll(_HELD_ROWS, timeout_s))

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether the end of every partition was reached and nothing waits to be planned."""
        reader = self._reader()
        if not reader.has_assignment or self._buffer.rows or not reader.assigned.keys() <= self._ends.keys():
            return False
        return not reader.is_shared or self._others_are_done(reader, consumed)

    def _others_are_done(self, reader: KafkaReader, consumed: Mapping[str, SourceRange]) -> bool:
        """Whether the partitions that other members have, or that nobody has yet, are read to their ends too."""
        opened = self._opened
        assert opened is not None
        if time.monotonic() - opened.others_looked < _OTHERS_S:
            return False
        self._learn(consumed)
        others = [one for one in all_partitions(self._wanted(reader.connect())) if one not in reader.assigned]
        bounds = reader.beginnings(others)
        ends = {one: consumed[unit].end for one in others if (unit := self._unit(one)) in consumed}
        starts = self._first([one for one in others if one not in ends], bounds) | ends
        unread = {one: max(starts[one], low) for one, (low, high) in bounds.items() if starts[one] < high}
        opened.others_looked = time.monotonic()
        return not any(holds_messages(self._librdkafka, one, start, **self._how) for one, start in unread.items())

    def _cut(self, limit: BatchLimit, now_us: int) -> list[SourceRange]:
        """What is in the buffer, as much of it as fits and as the partitions go together."""
        self._waived &= self._buffer.empty()
        ends = self._share(limit, now_us)
        if ends or not self._buffer.rows:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = time.monotonic()
        elif time.monotonic() - self._held_since >= self._settings.align:
            self._waived = self._buffer.empty()
            ends = self._share(limit, now_us)
        return [self._range(partition, self._position(partition), end) for partition, end in ends.items()]

    def _share(self, limit: BatchLimit, now_us: int) -> dict[Partition, int]:
        waived = self._waived | self._ends.keys() if self._settings.align else self._buffer.partitions
        return self._buffer.share(limit.rows_max, limit.bytes_max, waived, now_us // 1000)

    def _beginnings(self, partitions: Container[Partition]) -> list[SourceRange]:
        """Empty ranges that remember where partitions begin whose first message may come much later."""
        if self._settings.start == "earliest":
            return []
        fresh = [p for p in self._starts if p in partitions and self._unit(p) not in self._consumed]
        return [self._range(partition, self._starts[partition], self._starts[partition]) for partition in fresh]

    def _range(self, partition: Partition, start: int, end: int, **facts: object) -> SourceRange:
        topic_id = self._ids.get(partition[0])
        if topic_id is not None:
            facts["topic_id"] = topic_id
        return SourceRange(self._unit(partition), start, end, facts)

    def _unit(self, partition: Partition) -> str:
        return self._units.unit(partition, self._ids.get(partition[0]))

    def _position(self, partition: Partition) -> int:
        """Where reading goes on."""
        last = self._consumed.get(self._unit(partition))
        return last.end if last is not None else self._starts[partition]

    def _line_up(self, reader: KafkaReader) -> None:
        """Make buffer and consumer agree with the positions in the table, whatever came before they were known.

        What is held of partitions that others read now is let go: it may be in the table already, and would be behind
        the positions of here on.
        """
        self._buffer.forget(self._buffer.partitions - reader.assigned.keys())
        for partition in list(reader.assigned):
            position = self._position(partition)
            begun = self._buffer.begun(partition)
            if begun is None or begun > position:
                self._begin(reader, partition, position)
            else:
                self._buffer.drop_before(partition, position)

    def _begin(self, reader: KafkaReader, partition: Partition, position: int) -> None:
        self._ends.pop(partition, None)
        self._waived.discard(partition)
        if partition in reader.assigned:
            reader.seek(partition, position)
        self._buffer.begin(partition, position)

    def _gather(self, limit: BatchLimit, wait_s: float) -> None:
        """Take messages in: at once when there are few, else what comes until the last batch is `linger` old."""
        opened = self._opened
        assert opened is not None
        wait_s = wait_s if self._held_since is not None or not self._buffer.rows else 0.0
        self._take(opened.reader.poll(self._room(limit), wait_s))
        left_s = self._planned + self._settings.linger - time.monotonic()
        if self._buffer.rows and left_s > 0 and self._room(limit):
            time.sleep(left_s)
        if self._buffer.rows and self._room(limit):
            self._take(opened.reader.poll(self._room(limit), 0.0))
        if opened.reader.assigned.keys() <= self._ends.keys() or self._buffer.rows:
            opened.moved = time.monotonic()
        elif time.monotonic() - opened.moved > _SILENT_S:
            self.close()
            raise TransientError("the broker says nothing for a partition whose end was not reached; connecting anew")

    def _room(self, limit: BatchLimit) -> int:
        """Messages that the buffer still takes: two batches, or more while it waits for a partition that is behind."""
        is_held = self._held_since is not None
        batches = 8 if is_held else 2
        rows_max = max(batches * limit.rows_max, _HELD_ROWS if is_held else 0)
        return max(0, rows_max - self._buffer.rows) if self._buffer.nbytes < batches * limit.bytes_max else 0

    def _take(self, polled: Polled) -> None:
        self._ends.update(polled.ends)
        for piece in polled.messages:
            self._buffer.add(piece)
            where = piece.topic, piece.partition
            if self._ends.get(where, 0) <= piece.offsets[-1]:
                self._ends.pop(where, None)
        self._lost |= polled.lost

    # --- what a cluster can do to us ---------------------------------------------------------------------------------

    def _losses(self, reader: KafkaReader) -> list[SourceRange]:
        """Look after partitions whose position the broker does not have; gaps to record, if that is wanted.

        Raises:
            DataLossRefused: records are gone that were never read.
        """
        ranges = []
        lost, self._lost = [p for p in self._lost if p in reader.assigned or p in self._known], set()
        for partition, (low, high) in (reader.beginnings(lost) if lost else {}).items():
            self._check_ids([partition[0]])
            position = self._position(partition)
            if position > high:
                raise cut_back(partition, position, high)
            if position < low:
                if self._settings.on_data_loss == "stop":
                    raise overtaken(partition, position, low)
                ranges.append(self._range(partition, position, low, gap=True))
                self._begin(reader, partition, low)
            else:
                self._begin(reader, partition, position)
        return ranges

    def _check_ids(self, topics: Sequence[str]) -> None:
        """See whether topics are still the same ones.

        Raises:
            DataLossRefused: one was deleted, or deleted and made again.
        """
        opened = self._opened
        assert opened is not None
        now = opened.ids.of(topics)
        for topic in topics:
            if topic not in now:
                raise DataLossRefused("a topic that was read is gone; bring it back, or take it out", topic=topic)
            before = self._ids.get(topic)
            if self._units.is_new(topic, now[topic]) and self._settings.on_recreated == "stop":
                raise DataLossRefused(
                    "the topic was deleted and made again since it was read; read the new one too with "
                    "on_recreated: follow", topic=topic,
                )  # fmt: skip
            if before is not None and now[topic] != before:
                self.close()
                raise TransientError("the topic was made anew while it was read; reading it again", topic=topic)

    def _look_around(self, reader: KafkaReader) -> None:
        """Now and then: new partitions and new topics."""
        if self._is_time_to_look() and not reader.is_shared:
            fresh = [p for p in all_partitions(self._wanted(reader.connect())) if p not in reader.assigned]
            if fresh:
                reader.read(fresh)

    def _is_time_to_look(self) -> bool:
        """Whether it is time to see what has changed on the cluster; renewed certificates are seen here."""
        opened = self._opened
        assert opened is not None
        now = time.monotonic()
        if now - opened.looked < _LOOK_AROUND_S:
            return False
        opened.looked = now
        if self._settings.stamps(self._reading.root) != opened.stamps:
            self.close()
            self._renewed = True
            raise TransientError("certificates were renewed; connecting with the new ones", retry_after_s=0.0)
        return True

    def _reader(self, *, read_all: bool = True) -> KafkaReader:
        """The consumer, connected and told what to read."""
        if self._opened is not None:
            return self._opened.reader
        reader = self._consumer()
        now = time.monotonic()
        self._opened = _Open(reader, TopicIds(self._librdkafka), self._settings.stamps(self._reading.root), now, now)
        try:
            wanted = self._wanted(reader.connect())
            self._renewed = False
            self._ids = self._opened.ids.of(list(wanted))
            self._check_ids(list(wanted))
            if reader.is_shared:
                pattern = self._settings.pattern
                reader.subscribe([f"^{pattern}$"] if pattern else self._settings.topics)
            elif read_all:
                reader.read(all_partitions(wanted))
        except BaseException:
            self.close()
            raise
        return reader

    def _consumer(self) -> KafkaReader:
        """A consumer that is not connected yet; files that were renewed while we run may still be half written."""
        try:
            return KafkaReader(
                self._librdkafka,
                group=self._settings.group or self._reading.group,
                member=self._reading.member if self._settings.share else "",
                start=self._begin_at,
                keys=True,
                headers="headers" in self._settings.include,
                committed=self._settings.isolation == "read_committed",
            )
        except ConfigError as error:
            if self._renewed:
                cause = str(error.facts["cause"])
                raise TransientError("the renewed certificates cannot be used yet", cause=cause) from error
            raise

    def _wanted(self, there: Mapping[str, int]) -> dict[str, int]:
        """The topics that are to be read, with their numbers of partitions."""
        return wanted_topics(self._settings.topics, self._settings.pattern, there, self._units)

    def _begin_at(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Where reading of newly assigned partitions begins; what retention took before that is noted as lost."""
        assert self._opened is not None
        bounds = self._bounds(self._opened.reader, partitions)
        found = {}
        for partition in partitions:
            position = self._position(partition)
            low, high = bounds[partition]
            if not low <= position <= high:
                self._lost.add(partition)
                position = min(max(position, low), high)
            self._buffer.begin(partition, position)
            self._ends.pop(partition, None)
            self._waived.discard(partition)
            found[partition] = position
        return found

    def _bounds(self, reader: KafkaReader, partitions: Sequence[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end of each; of those never read, where they begin is known after this."""
        assert self._opened is not None
        unknown = sorted({topic for topic, _ in partitions} - self._ids.keys())
        if unknown:
            self._ids.update(self._opened.ids.of(unknown))
        bounds = reader.beginnings(partitions)
        fresh = [p for p in partitions if self._unit(p) not in self._consumed]
        for partition, offset in self._first(fresh, bounds).items():
            self._starts.setdefault(partition, offset)
        return bounds

    def _first(self, fresh: Sequence[Partition], bounds: Mapping[Partition, tuple[int, int]]) -> dict[Partition, int]:
        """Where partitions begin that were never read."""
        assert self._opened is not None
        return first_offsets(self._settings.start, fresh, bounds, self._opened.reader.since)

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """Rows of a planned range: one piece when they are still in memory, else as they come from the broker."""
        topic, _, number = parse(planned.unit)
        if planned.facts.get("gap") or self._buffer.take((topic, number), planned.start, planned.end) is not None:
            yield from self.read_together([planned])
        elif planned.end > planned.start:
            yield from (self._decode([(planned.unit, piece)]) for piece in self._fetch(planned))

    def read_together(self, planned: Sequence[SourceRange]) -> Iterator[Decoded]:
        """Rows of all planned ranges in one piece."""
        parts = []
        for one in planned:
            if one.facts.get("gap"):
                yield gap(one.unit, one.start, one.end, self._reading)
            elif one.end > one.start:
                topic, _, number = parse(one.unit)
                found = self._buffer.take((topic, number), one.start, one.end)
                parts += [(one.unit, piece) for piece in (self._fetch(one) if found is None else found)]
        if parts:
            yield self._decode(parts)
        elif not any(one.facts.get("gap") for one in planned):
            yield rejected(self._reading, "", [])

    def _decode(self, parts: Sequence[tuple[str, Messages]]) -> Decoded:
        keep = self._settings.tombstones == "rows"
        return decode(parts, self._format, self._reading, self._included, tombstones=keep)

    @property
    def _included(self) -> list[str]:
        return [name for name in COLUMNS if name in self._settings.include]

    def _fetch(self, planned: SourceRange) -> Iterator[Messages]:
        """The messages of a range, from the broker."""
        ids = self._opened.ids if self._opened else TopicIds(self._librdkafka)
        return fetch(planned, self._librdkafka, ids=ids, headers="headers" in self._settings.include, **self._how)

    @property
    def _how(self) -> Mapping[str, Any]:
        committed = self._settings.isolation == "read_committed"
        return {"group": f"{self._reading.group}.again", "committed": committed}

    def decode_raw(self, raw: bytes, unit: str, position: int, detail: str | None) -> Decoded:
        """A message that did not decode, tried again; what came with it is kept in its detail."""
        topic, _, number = parse(unit)
        return decode_one(raw, unit, position, detail, (topic, number), self._format, self._reading, self._included)

    def marks(self, planned: Sequence[SourceRange]) -> Mapping[str, int]:
        """Last offset by topic id (or name, where the cluster tells none) and partition."""
        found = {}
        for one in planned:
            if one.end > one.start:
                topic, _, number = parse(one.unit)
                found[f"{one.facts.get('topic_id', topic)}/{number}"] = one.end - 1
        return found

    def acknowledge(self, consumed: Mapping[str, SourceRange]) -> None:
        """Publish the positions for lag tools, about once a second."""
        now = time.monotonic()
        if self._opened is None or now - self._opened.published < _PUBLISH_S:
            return
        self._opened.published = now
        self._publish(self._opened.reader, consumed)

    def _publish(self, reader: KafkaReader, consumed: Mapping[str, SourceRange]) -> None:
        mine = reader.assigned or self._known
        reader.publish({p: consumed[unit].end for p in mine if (unit := self._unit(p)) in consumed})

    def close(self) -> None:
        """Leave the cluster; twice is harmless."""
        opened, self._opened = self._opened, None
        if opened is not None:
            if self._consumed:
                self._publish(opened.reader, self._consumed)
            opened.reader.close()
            opened.ids.close()
        self._buffer, self._ends, self._lost, self._known = Buffer(), {}, set(), []
        self._waived, self._held_since = set(), None  # a new connection gets its own time to show what is there


__all__ = ["KafkaSettings", "KafkaSource", "component"]

component = KafkaSource
