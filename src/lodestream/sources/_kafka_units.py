"""Names of partitions as units of a flow, also when a topic was deleted and made again under its old name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

from lodestream.drivers.kafka_reader import Partition
from lodestream.errors import ConfigError, DataLossRefused
from lodestream.formats._times import parse_timestamp
from lodestream.model.batch import SourceRange

Bounds = Mapping[Partition, tuple[int, int]]
"""Of each partition, the first offset that is there and the one after the last."""

_UNIT = re.compile(r"([^~/]+)(?:~(\d+))?/(\d+)")


def parse(unit: str) -> tuple[str, int, int]:
    """Topic, generation and partition of a unit. Raises ValueError when it is none."""
    match = _UNIT.fullmatch(unit)
    if not match:
        raise ValueError(f"not a unit of a kafka source: {unit!r}")
    return match[1], int(match[2] or 1), int(match[3])


class Units:
    """The generation of each topic that a flow reads.

    The first topic of a name is generation 1 and its units are called `topic/partition`; one that took its place later
    is `topic~2/partition`, so that no position comes twice.

    Args:
        consumed: where the flow has read to.
    """

    def __init__(self, consumed: Mapping[str, SourceRange]) -> None:
        self._generations: dict[str, dict[str | None, int]] = {}
        for unit, last in consumed.items():
            topic, generation, _ = parse(unit)
            self._generations.setdefault(topic, {})[last.facts.get("topic_id")] = generation

    def known(self, topic: str) -> bool:
        """Whether the flow has read from a topic of this name."""
        return topic in self._generations

    def is_new(self, topic: str, topic_id: str | None) -> bool:
        """Whether this is another topic than those of its name that were read."""
        seen = self._generations.get(topic, {})
        return topic_id is not None and bool(seen) and topic_id not in seen and None not in seen

    def unit(self, partition: Partition, topic_id: str | None) -> str:
        """Name of a partition of the topic with this id."""
        topic, number = partition
        seen = self._generations.get(topic, {})
        generation = seen.get(topic_id, seen.get(None)) or (
            max(seen.values()) + 1 if self.is_new(topic, topic_id) else 1
        )
        return f"{topic}/{number}" if generation == 1 else f"{topic}~{generation}/{number}"


def wanted_topics(named: Sequence[str], pattern: str | None, there: Mapping[str, int], units: Units) -> dict[str, int]:
    """The topics that are to be read, with their numbers of partitions.

    Raises:
        ConfigError: a named topic was never there.
        DataLossRefused: it was read before and is gone.
    """
    if pattern is not None:
        wanted = re.compile(pattern)
        return {name: count for name, count in there.items() if wanted.fullmatch(name) and not name.startswith("__")}
    for topic in named:
        if topic in there:
            continue
        if units.known(topic):
            raise DataLossRefused("a topic that was read is gone; bring it back, or take it out", topic=topic)
        near = difflib.get_close_matches(topic, (name for name in there if not name.startswith("__")), 20, 0.0)
        raise ConfigError("no such topic; make it, or correct its name", topic=topic, there=", ".join(near))
    return {topic: there[topic] for topic in named}


def first_offsets(
    start: str | Mapping[str, Mapping[int, int]],
    fresh: Sequence[Partition],
    bounds: Bounds,
    since: Callable[[Sequence[Partition], int], Mapping[Partition, int]],
) -> dict[Partition, int]:
    """Where partitions begin that were never read.

    Args:
        start: the setting of that name.
        fresh: the partitions.
        bounds: first offset of each, and the one after its last.
        since: tells the first offsets of a time in milliseconds, -1 for none.
    """
    if start == "latest":
        return {partition: bounds[partition][1] for partition in fresh}
    if not isinstance(start, str):
        return {(topic, n): start.get(topic, {}).get(n, bounds[topic, n][0]) for topic, n in fresh}
    if start == "earliest" or not fresh:
        return {partition: bounds[partition][0] for partition in fresh}
    found = since(fresh, parse_timestamp(start) // 1000)
    return {partition: offset if offset >= 0 else bounds[partition][1] for partition, offset in found.items()}


def cut_back(partition: Partition, read_to: int, end: int) -> DataLossRefused:
    """The refusal to go on behind the end of a topic."""
    return DataLossRefused(
        "the topic ends before the position that was read to: it was cut back or restored; rebuild the table, or "
        "restore the topic", topic=partition[0], partition=partition[1], read_to=read_to, end=end,
    )  # fmt: skip


def overtaken(partition: Partition, read_to: int, first: int) -> DataLossRefused:
    """The refusal to pass over what retention took."""
    return DataLossRefused(
        "the topic no longer has records that were not read yet (retention); accept it with on_data_loss: record_gap",
        topic=partition[0], partition=partition[1], read_to=read_to, first=first,
    )  # fmt: skip


def all_partitions(topics: Mapping[str, int]) -> list[Partition]:
    """All partitions of topics, given their numbers of partitions."""
    return [(topic, number) for topic, count in topics.items() for number in range(count)]
