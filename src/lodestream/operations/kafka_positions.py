"""Offsets that a Kafka partition holds, counted with a plain consumer that shares no code with the source's reader."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lodestream.errors import TransientError

_SILENT_S = 30.0


def offsets_between(
    librdkafka: Mapping[str, Any], topic: str, partition: int, start: int, end: int, *, committed: bool
) -> tuple[npt.NDArray[np.int64], int]:
    """The offsets `start <= offset < end` that have a message, and the first offset that the partition still has.

    Args:
        librdkafka: properties of the connection.
        topic: the topic.
        partition: number of the partition.
        start: first offset wanted.
        end: offset after the last one wanted.
        committed: leave out what no transaction committed.

    Raises:
        TransientError: the broker does not answer.
    """
    import confluent_kafka as ck

    from lodestream.drivers.kafka_connection import made

    consumer = made(
        ck.Consumer,
        {
            **librdkafka, "group.id": "lodestream.reconcile", "enable.auto.commit": False, "enable.partition.eof": True,
            "auto.offset.reset": "error", "isolation.level": "read_committed" if committed else "read_uncommitted",
        },
    )  # fmt: skip
    try:
        low, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10.0)
        found: list[int] = []
        first, last = max(start, low), min(end, high)
        if first < last:
            consumer.assign([ck.TopicPartition(topic, partition, first)])
            _collect(consumer, found, last, ck.KafkaError._PARTITION_EOF)
        taken = np.array(found, np.int64)
        return taken[taken < end], low
    except ck.KafkaException as error:
        raise TransientError("the broker does not answer; try again", topic=topic, cause=error.args[0].str()) from error
    finally:
        consumer.close()


def _collect(consumer: Any, found: list[int], last: int, eof: int) -> None:
    heard = time.monotonic()
    while True:
        messages = consumer.consume(100_000, 0.2)
        for message in messages:
            if message.error() is None:
                found.append(message.offset())
            elif message.error().code() == eof:
                return
        if found and found[-1] >= last - 1:
            return
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENT_S:
            raise TransientError(
                "the broker does not give the records; try again", read_to=found[-1] if found else None
            )
