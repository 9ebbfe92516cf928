"""Reads a planned range of a partition again when memory has it no more: after a restart, or for a dead process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from lodestream.drivers.kafka_reader import KafkaReader, Messages, Partition
from lodestream.drivers.kafka_topics import TopicIds
from lodestream.errors import DataLossRefused, TransientError
from lodestream.model.batch import SourceRange
from lodestream.sources._kafka_units import parse

_PATIENCE_S = 60.0
_ROWS = 500_000


def fetch(
    planned: SourceRange, librdkafka: Mapping[str, Any], *, group: str, ids: TopicIds, headers: bool, committed: bool
) -> Iterator[Messages]:
    """The messages of a range as they come, with a consumer for this alone.

    Args:
        planned: the range.
        librdkafka: properties of the connection.
        group: a name for the consumer, which joins nothing.
        ids: tells whether the topic is still the one that was planned.
        headers: whether messages bring their headers.
        committed: leave out what no transaction committed.

    Raises:
        DataLossRefused: they are no longer there.
        TransientError: the broker does not give them.
    """
    topic, _, number = parse(planned.unit)
    where = (topic, number)
    now, wanted = ids.of([topic]), planned.facts.get("topic_id")
    if topic not in now or (wanted is not None and now[topic] is not None and now[topic] != wanted):
        raise DataLossRefused("a planned batch cannot be read again: its topic is gone", topic=topic)
    reader = KafkaReader(
        librdkafka, group=group, start=lambda _: {where: planned.start}, keys=True, headers=headers, committed=committed
    )
    try:
        low, high = reader.beginnings([where])[where]
        if low > planned.start or high < planned.end:
            raise DataLossRefused(
                "a planned batch cannot be read again: the topic no longer has its records", topic=topic,
                partition=number, planned=f"{planned.start}-{planned.end}", there=f"{low}-{high}",
            )  # fmt: skip
        reader.read([where])
        deadline, reached, done = time.monotonic() + _PATIENCE_S, planned.start, False
        while not done:
            polled = reader.poll(_ROWS, 0.2)
            for piece in polled.messages:
                first, stop = piece.offsets.searchsorted([reached, planned.end]).tolist()
                reached = max(reached, int(piece.offsets[-1]) + 1)
                done |= reached >= planned.end
                if first < stop:
                    yield piece.cut(first, stop)
                deadline = time.monotonic() + _PATIENCE_S
            done |= where in polled.ends
            if not done and time.monotonic() > deadline:
                raise TransientError("the broker does not give the records of a planned batch", topic=topic)
    finally:
        reader.close()


def holds_messages(librdkafka: Mapping[str, Any], where: Partition, start: int, *, group: str, committed: bool) -> bool:
    """Whether a partition has a message at or after `start`; offsets alone do not tell, for transactions use some.

    Raises:
        TransientError: the broker does not say.
    """
    reader = KafkaReader(librdkafka, group=group, start=lambda _: {where: start}, committed=committed)
    try:
        reader.read([where])
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            polled = reader.poll(1, 0.2)
            if polled.messages or polled.lost:
                return True
            if where in polled.ends:
                return False
        raise TransientError("the broker does not say whether a partition has more", topic=where[0])
    finally:
        reader.close()
