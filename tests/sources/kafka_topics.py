"""Topics for tests: made, filled and taken down on the session's broker."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from lodestream.testing.kafka import KafkaBroker

QUIET = logging.getLogger("test.kafka")
QUIET.setLevel(logging.CRITICAL)
_names = itertools.count()


class Topic:
    """One topic of a name that no other test has."""

    def __init__(self, broker: KafkaBroker, partitions: int = 2, config: dict[str, str] | None = None) -> None:
        self.broker, self.partitions = broker, partitions
        self.name = f"topic-{id(self):x}-{next(_names)}"
        self.admin = AdminClient({"bootstrap.servers": broker.plain}, logger=QUIET)
        self.make(config)

    def make(self, config: dict[str, str] | None = None) -> None:
        kept = {"retention.ms": "-1", **(config or {})}  # times of the year 1970 are no reason to delete a message
        self.admin.create_topics([NewTopic(self.name, self.partitions, config=kept)])[self.name].result(10)

    def delete(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result(10)

    def producer(self, **settings: Any) -> Producer:
        return Producer({"bootstrap.servers": self.broker.plain, "linger.ms": 2, **settings}, logger=QUIET)

    def send(self, values: Iterable[bytes | dict[str, Any] | None], partition: int | None = None, **more: Any) -> None:
        """Messages, dicts as JSON; without a partition they go round."""
        producer = self.producer()
        for i, value in enumerate(values):
            payload = json.dumps(value).encode() if isinstance(value, dict) else value
            producer.produce(
                self.name, payload, partition=i % self.partitions if partition is None else partition, **more
            )
        assert producer.flush(20) == 0


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": i, "name": f"n{i}"} for i in range(start, stop)]
