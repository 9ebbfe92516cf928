"""Reads partitions of Kafka topics into Arrow columns; where reading begins is always told, never remembered here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import confluent_kafka as ck
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.drivers.kafka_connection import made
from lodestream.errors import ConfigError, LodestreamError, TransientError

HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
_QUEUED_MIN = 200_000
_LOGIN_CODES = {ck.KafkaError._AUTHENTICATION, ck.KafkaError._SSL, ck.KafkaError.SASL_AUTHENTICATION_FAILED}
_REFUSED = {
    ck.KafkaError.TOPIC_AUTHORIZATION_FAILED,
    ck.KafkaError.GROUP_AUTHORIZATION_FAILED,
    ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_GONE = {ck.KafkaError.UNKNOWN_TOPIC_OR_PART, ck.KafkaError._UNKNOWN_TOPIC, ck.KafkaError._UNKNOWN_PARTITION,
         ck.KafkaError.UNKNOWN_TOPIC_ID}  # fmt: skip
_CONNECT_S = 5.0

Partition = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one partition in order of offset, as columns.

    Attributes:
        offsets: n offsets that grow; gaps are what compaction and transactions leave.
        values: n payloads, NULL for a tombstone.
        keys: n keys, NULL where there is none; None when they were not asked for.
        timestamps_ms: n times since 1970, -1 where there is none.
        headers: n lists of key and value; None when they were not asked for.
    """

    topic: str
    partition: int
    offsets: npt.NDArray[np.int64]
    values: pa.BinaryArray
    keys: pa.BinaryArray | None
    timestamps_ms: npt.NDArray[np.int64]
    headers: pa.ListArray | None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of the payloads."""
        return int(self.values.nbytes)

    def cut(self, start: int, stop: int) -> Messages:
        """The messages number `start` to `stop`."""
        return Messages(
            self.topic, self.partition, self.offsets[start:stop], self.values[start:stop],
            self.keys[start:stop] if self.keys is not None else None, self.timestamps_ms[start:stop],
            self.headers[start:stop] if self.headers is not None else None,
        )  # fmt: skip


@dataclass
class Polled:
    """What one look brought.

    Attributes:
        messages: pieces in order of arrival.
        ends: partitions whose end was reached, with the offset that comes next there.
        lost: partitions whose position the broker does not have.
    """

    messages: list[Messages] = field(default_factory=list)
    ends: dict[Partition, int] = field(default_factory=dict)
    lost: set[Partition] = field(default_factory=set)


class Drain(Protocol):
    """Takes messages out of a consumer: in Python, or natively."""

    def drain(self, rows_max: int, timeout_s: float) -> Polled:
        """What is there, at most about `rows_max` messages; waits for the first one."""

    def adopt(self, partitions: Iterable[Partition]) -> None:
        """These partitions are about to be assigned."""

    def leave(self, partitions: Iterable[Partition]) -> None:
        """These partitions are about to be revoked."""

    def close(self) -> None:
        """Let go, before the consumer closes."""


class KafkaReader:
    """A consumer that is told where to begin, by hand or as member of a group that shares the partitions.

    Args:
        settings: librdkafka properties of the connection.
        group: consumer group, also when nothing is shared: lag tools look there.
        member: this process's name in a group that shares partitions; empty to read every partition.
        start: tells where reading a partition begins; called when partitions are assigned.
        keys: whether messages bring their keys.
        headers: whether messages bring their headers.
        committed: hide what no transaction has committed.

    Raises:
        ConfigError: librdkafka does not take the settings.
    """

    def __init__(
        self, settings: Mapping[str, Any], *, group: str, member: str = "",
        start: Callable[[Sequence[Partition]], Mapping[Partition, int]],
        keys: bool = False, headers: bool = False, committed: bool = True,
    ) -> None:  # fmt: skip
        self._start = start
        self._problem: ck.KafkaError | None = None
        self._reason: ck.KafkaError | None = None
        self._failure: LodestreamError | None = None
        self._leaving = False
        self._connected = False
        self.assigned: dict[Partition, int] = {}
        self.is_shared = bool(member)
        self.has_assignment = not member
        self._consumer = made(
            ck.Consumer,
            {
                "queued.min.messages": _QUEUED_MIN,
                "queued.max.messages.kbytes": 65_536,
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "fetch.queue.backoff.ms": 5,  # a second by default, and all that time nothing is fetched
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 1_000,
                "max.poll.interval.ms": 600_000,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1_000,
                "partition.assignment.strategy": "cooperative-sticky",
                **settings,
                **({"group.instance.id": member} if member else {}),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "allow.auto.create.topics": False,
                "error_cb": self._on_error,
                "log_level": 4,
            },
        )
        self._drain: Drain = _make_drain(self._consumer, keys=keys, headers=headers)

    def connect(self) -> dict[str, int]:
        """Topics with their numbers of partitions, once the cluster answers.

        Raises:
            ConfigError: the cluster does not let us in.
            TransientError: nobody answers.
        """
        deadline = time.monotonic() + _CONNECT_S
        while True:
            try:
                found = self._consumer.list_topics(timeout=2.0).topics
                self._connected, self._problem, self._reason = True, None, None
                return {name: len(topic.partitions) for name, topic in found.items() if topic.error is None}
            except ck.KafkaException as error:
                self._consumer.poll(0)
                reason = self._reason or error.args[0]
                if _is_refusal(reason) and not self._connected:
                    raise ConfigError(
                        "the Kafka cluster does not let us in; check tls, user and password", cause=reason.str()
                    ) from error
                if time.monotonic() > deadline or self._connected:
                    raise TransientError(
                        "no Kafka broker answers; see that it runs, and that servers names it", cause=reason.str()
                    ) from error

    def read(self, partitions: Sequence[Partition]) -> None:
        """Read these partitions too, each from where `start` says."""
        self._begin(partitions)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Share the partitions of topics (names, or patterns that begin with `^`) with the group's other members."""
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def seek(self, partition: Partition, offset: int) -> None:
        """Go on reading an assigned partition elsewhere."""
        where = ck.TopicPartition(*partition, offset)
        self._drain.leave([partition])
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([where])
        self._drain.adopt([partition])
        self.assigned[partition] = offset

    def poll(self, rows_max: int, timeout_s: float) -> Polled:
        """What has come, waiting at most `timeout_s` for the first message.

        Raises:
            ConfigError: the cluster refuses us.
            TransientError: no broker answers.
        """
        polled = self._drain.drain(rows_max, timeout_s)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if polled.messages or polled.ends:
            self._problem = None
        elif self._problem is not None:
            problem, self._problem = self._problem, None
            if problem.code() in _REFUSED:
                raise ConfigError("the Kafka cluster refuses us; check its access lists", cause=problem.str())
            raise TransientError("no Kafka broker answers", cause=(self._reason or problem).str())
        self._connected |= bool(polled.messages)
        return polled

    def beginnings(self, partitions: Sequence[Partition]) -> dict[Partition, tuple[int, int]]:
        """Of each partition the first offset that is there, and the one that the next message gets.

        Raises:
            TransientError: no answer.
        """
        found = {}
        for topic, number in partitions:
            try:
                found[topic, number] = self._consumer.get_watermark_offsets(
                    ck.TopicPartition(topic, number), timeout=10.0
                )
            except ck.KafkaException as error:
                raise TransientError("no answer about a partition", topic=topic, partition=number) from error
        return found

    def since(self, partitions: Sequence[Partition], time_ms: int) -> dict[Partition, int]:
        """Of each partition the first offset with a timestamp at or after `time_ms`, -1 when there is none.

        Raises:
            TransientError: no answer.
        """
        wanted = [ck.TopicPartition(topic, number, time_ms) for topic, number in partitions]
        try:
            answers = self._consumer.offsets_for_times(wanted, timeout=10.0)
        except ck.KafkaException as error:
            raise TransientError("no answer about times", cause=error.args[0].str()) from error
        return {(one.topic, one.partition): one.offset for one in answers}

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Tell the group how far we are, for lag tools; nothing hangs on it, so errors are no errors."""
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in positions.items()]
        with contextlib.suppress(ck.KafkaException):
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Leave; twice is harmless."""
        self._leaving = True
        self._drain.close()
        with contextlib.suppress(RuntimeError):
            self._consumer.close()

    def _begin(self, partitions: Sequence[Partition]) -> None:
        starts = self._start(partitions)
        self._drain.adopt(starts)  # before they are assigned, so that no message goes another way
        self._consumer.incremental_assign([ck.TopicPartition(*one, offset) for one, offset in starts.items()])
        self.assigned.update(starts)

    def _on_assign(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if self._leaving:  # what comes while we leave is for others
            self._consumer.incremental_assign([])
            return
        self.has_assignment = True
        try:
            self._begin([(one.topic, one.partition) for one in partitions])
        except LodestreamError as error:  # raised by `poll`, for this is called from C
            self._consumer.incremental_assign([])
            self._failure = error

    def _on_revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        gone = [(one.topic, one.partition) for one in partitions]
        self._drain.leave(gone)
        for one in gone:
            self.assigned.pop(one, None)
        consumer.incremental_unassign(partitions)

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.code() in _LOGIN_CODES or error.code() in (error._TRANSPORT, error._RESOLVE):
            self._reason = error
        if error.code() in (error._ALL_BROKERS_DOWN, *_LOGIN_CODES, *_REFUSED) or error.fatal():
            self._problem = error


def _is_refusal(reason: ck.KafkaError) -> bool:
    """Whether the cluster refuses us, rather than does not answer; TLS tells by an alert what it does not like."""
    return reason.code() in _LOGIN_CODES | _REFUSED or "alert" in reason.str()


class PythonDrain:
    """Drains a consumer message by message: works everywhere."""

    def __init__(self, consumer: ck.Consumer, *, keys: bool, headers: bool) -> None:
        self._consumer, self._keys, self._headers = consumer, keys, headers

    def drain(self, rows_max: int, timeout_s: float) -> Polled:
        """What is there; waits for the first message only."""
        found: list[Any] = self._consumer.consume(1, timeout_s)
        if found and rows_max > 1:
            found += self._consumer.consume(min(rows_max - 1, 1_000_000), 0)
        polled = Polled()
        grouped: dict[Partition, list[Any]] = {}
        for message in found:
            error = message.error()
            if error is None:
                grouped.setdefault((message.topic(), message.partition()), []).append(message)
            else:
                note_error(polled, message.topic(), message.partition(), message.offset(), error)
        for (topic, partition), some in grouped.items():
            polled.messages.append(self._columns(topic, partition, some))
        return polled

    def adopt(self, partitions: Iterable[Partition]) -> None:
        """Nothing to do: the consumer has one queue for all."""

    def leave(self, partitions: Iterable[Partition]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _columns(self, topic: str, partition: int, messages: list[Any]) -> Messages:
        times = [message.timestamp()[1] for message in messages]
        headers = None
        if self._headers:
            headers = pa.array(
                [[{"key": key, "value": value} for key, value in message.headers() or ()] for message in messages],
                HEADERS,
            )
        return Messages(
            topic,
            partition,
            np.array([message.offset() for message in messages], np.int64),
            pa.array([message.value() for message in messages], pa.binary()),
            pa.array([message.key() for message in messages], pa.binary()) if self._keys else None,
            np.array(times, np.int64),
            headers,
        )


def note_error(polled: Polled, topic: str, partition: int, offset: int, error: ck.KafkaError) -> None:
    """Take in what a partition says in the place of a message.

    Raises:
        ConfigError: we may not read it.
    """
    code = error.code()
    if code == error._PARTITION_EOF:
        polled.ends[topic, partition] = offset
    elif code in (error._AUTO_OFFSET_RESET, error.OFFSET_OUT_OF_RANGE) or code in _GONE:
        polled.lost.add((topic, partition))
    elif code in _REFUSED:
        raise ConfigError("the Kafka cluster refuses us; check its access lists", topic=topic, cause=error.str())
    # Whatever else a partition says passes by itself; librdkafka tries again.


def _make_drain(consumer: ck.Consumer, *, keys: bool, headers: bool) -> Drain:
    from lodestream.drivers.kafka_native import native_drain

    return native_drain(consumer, keys=keys, headers=headers) or PythonDrain(consumer, keys=keys, headers=headers)
