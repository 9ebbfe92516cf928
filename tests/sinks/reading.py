"""Reads topics as strangers do: with aiokafka, which shares no code with librdkafka, and only what was committed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

_SILENT_S = 20.0


@dataclass(frozen=True)
class Message:
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


def messages(servers: str, topic: str) -> list[Message]:
    """Every committed message of a topic, in order of partition and offset."""
    return asyncio.run(_read(servers, topic))


async def _read(servers: str, topic: str) -> list[Message]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, isolation_level="read_committed", auto_offset_reset="earliest",
        enable_auto_commit=False, max_partition_fetch_bytes=8 << 20,
    )  # fmt: skip
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        partitions = [TopicPartition(topic, number) for number in sorted(await _numbers(consumer, topic))]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: list[Message] = []
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            got = await asyncio.wait_for(consumer.getmany(timeout_ms=500), _SILENT_S)
            for where, records in got.items():
                found += [
                    Message(where.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp) for r in records
                ]
        return sorted(found, key=lambda one: (one.partition, one.offset))
    finally:
        await consumer.stop()


async def _numbers(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer.topics()
    found = consumer.partitions_for_topic(topic)
    assert found, f"no such topic: {topic}"
    return found


def compacted(found: list[Message]) -> dict[bytes | None, bytes]:
    """What a compacted topic comes to in the end: the last value of each key, without tombstones."""
    last = {one.key: one.value for one in found}
    return {key: value for key, value in last.items() if value is not None}
