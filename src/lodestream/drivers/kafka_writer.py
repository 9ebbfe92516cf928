"""Writes messages to one Kafka topic, each call all or nothing, together with a position that can be read back."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from lodestream.drivers.kafka_connection import made
from lodestream.errors import AccessError, ConfigError, ConflictError, LodestreamError, TransientError

_CONNECT_S = 15.0
_LOOK_S = 1.0
_ANSWER_S = 30.0
_OVERRUN_S = 5.0
_FULL_WAIT_S = 0.1
_NO_OFFSET = -1001
_ERROR = ck.KafkaError
_FENCED = {_ERROR._FENCED, _ERROR.INVALID_PRODUCER_EPOCH, 90}  # 90 is PRODUCER_FENCED, which has no name here
_LOGIN = {_ERROR._AUTHENTICATION, _ERROR._SSL, _ERROR.SASL_AUTHENTICATION_FAILED}
_REFUSED = {
    _ERROR.TOPIC_AUTHORIZATION_FAILED: "WRITE and DESCRIBE on the topic",
    _ERROR.GROUP_AUTHORIZATION_FAILED: "READ on the consumer group",
    _ERROR.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "WRITE and DESCRIBE on the transactional id",
    _ERROR.CLUSTER_AUTHORIZATION_FAILED: "IDEMPOTENT_WRITE on the cluster, or CREATE to make topics",
}
_TOO_LARGE = {_ERROR.MSG_SIZE_TOO_LARGE, _ERROR.RECORD_LIST_TOO_LARGE}
_SOON = {_ERROR.COORDINATOR_LOAD_IN_PROGRESS, _ERROR.COORDINATOR_NOT_AVAILABLE, _ERROR.NOT_COORDINATOR}
_GONE = {_ERROR.UNKNOWN_TOPIC_OR_PART, _ERROR._UNKNOWN_TOPIC, _ERROR._UNKNOWN_PARTITION}

Result = TypeVar("Result")
Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message; a value of None is a tombstone."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A position as the consumer group's offset of partition 0 keeps it: a number that grows, and a note."""

    offset: int
    note: str


@dataclass
class _Seen:
    """What librdkafka told us out of turn."""

    failed: list[tuple[ck.KafkaError, ck.Message]] = field(default_factory=list)
    reason: ck.KafkaError | None = None


class KafkaWriter:
    """A producer for one topic.

    With a transactional id every `send` is one transaction that carries the bookmark too, and opening a second writer
    under the same id shuts this one out. Without one, `send` returns when every message has arrived, and there is no
    bookmark.

    Args:
        settings: librdkafka properties of the connection and of producing.
        topic: where to.
        transactional_id: of the producer, None for no transactions.
        group: consumer group that keeps the bookmark.
        passing: told of each step.
    """

    def __init__(
        self, settings: Mapping[str, Any], *, topic: str, transactional_id: str | None, group: str,
        passing: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._topic, self._transactional_id, self._group, self._passing = topic, transactional_id, group, passing
        self._seen = _Seen()
        self._settings: dict[str, Any] = {
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "retry.backoff.ms": 20,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            **settings,
            "error_cb": self._on_error,
            "log_level": 4,
        }
        self._reader: ck.Consumer | None = None
        self._producer: ck.Producer | None = None
        self._admin: AdminClient | None = None

    def connect(self) -> int:
        """The topic's number of partitions, 0 when there is no such topic.

        Raises:
            ConfigError: the cluster does not let us in.
            AccessError: it does not let us see the topic.
            TransientError: nobody answers.
        """
        self._reader = made(
            ck.Consumer,
            {**self._settings, "group.id": self._group, "enable.auto.commit": False,
             "isolation.level": "read_committed", "allow.auto.create.topics": False},
        )  # fmt: skip
        deadline = time.monotonic() + _CONNECT_S
        while True:
            try:
                found = self._reader.list_topics(timeout=_LOOK_S).topics.get(self._topic)
                break
            except ck.KafkaException as error:
                self._reader.poll(0)
                reason = self._seen.reason or error.args[0]
                if reason.code() in _LOGIN or time.monotonic() > deadline:
                    raise self._translated(reason) from error
        if found is None or (found.error is not None and found.error.code() in _GONE):
            return 0
        if found.error is not None:
            raise self._translated(found.error)
        return len(found.partitions)

    def create(self, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        """Make the topic, unless somebody else was first.

        Args:
            partitions: how many.
            replication: copies of each, -1 for what the cluster does by itself.
            config: topic settings.
        """
        admin = self._asking()
        topic = NewTopic(self._topic, partitions, replication, config=dict(config))
        try:
            admin.create_topics([topic], operation_timeout=_CONNECT_S)[self._topic].result(_ANSWER_S)
        except ck.KafkaException as error:
            if error.args[0].code() != _ERROR.TOPIC_ALREADY_EXISTS:
                raise self._translated(error.args[0], otherwise=ConfigError) from error
        except TimeoutError as error:
            raise TransientError("no Kafka broker makes the topic", topic=self._topic) from error

    def take_over(self) -> Bookmark | None:
        """Shut out earlier writers of the same transactional id, end their open transaction, and read the bookmark.

        Raises:
            TransientError: nobody answers, or an earlier transaction is still being ended.
            AccessError: the cluster does not let us write.
        """
        settings = {**self._settings, "delivery.report.only.error": True, "on_delivery": self._on_delivery}
        if self._transactional_id is None:
            self._producer = made(ck.Producer, {**settings, "enable.idempotence": True})
            return None
        self._producer = made(ck.Producer, {**settings, "transactional.id": self._transactional_id})
        try:
            within(_ANSWER_S, self._producer.init_transactions, _ANSWER_S)
            kept = self._kept()
        except ck.KafkaException as error:
            raise self._translated(error.args[0]) from error
        except TimeoutError as error:
            raise TransientError("no Kafka broker answers about the position", topic=self._topic) from error
        if kept.error is not None:
            raise self._translated(kept.error)
        return None if kept.offset == _NO_OFFSET else Bookmark(kept.offset, kept.metadata or "")

    def _kept(self) -> ck.TopicPartition:
        """The group's offset; asked as an administrator does, for a consumer is not told that it may not see it."""
        admin = self._asking()
        wanted = ck.ConsumerGroupTopicPartitions(self._group, [ck.TopicPartition(self._topic, 0)])
        deadline = time.monotonic() + _ANSWER_S
        while True:
            answers = admin.list_consumer_group_offsets([wanted], require_stable=True, request_timeout=_ANSWER_S)
            try:
                kept: list[ck.TopicPartition] = answers[self._group].result(_ANSWER_S + 1).topic_partitions
                return kept[0]
            except ck.KafkaException as error:
                if error.args[0].code() not in _SOON or time.monotonic() > deadline:
                    raise
                time.sleep(_FULL_WAIT_S)

    def _asking(self) -> AdminClient:
        if self._admin is None:
            self._admin = made(AdminClient, self._settings)
        return self._admin

    def send(self, messages: Iterable[Outgoing], bookmark: Bookmark) -> int:
        """Write the messages and the bookmark; returns how many messages.

        Raises:
            ConflictError: another writer has taken over.
            ConfigError: the broker refuses a message; none of this call is visible.
            AccessError: we may not write.
            TransientError: what became of them is not known; take over anew and read the bookmark.
        """
        assert self._producer is not None
        self._seen.failed.clear()
        try:
            if self._transactional_id is None:
                return self._send_plainly(self._producer, messages)
            return self._send_together(self._producer, messages, bookmark)
        except ck.KafkaException as error:
            told, failed = error.args[0], self._seen.failed
            if not failed and not _is_fenced(told):  # a report on its way says which message it was
                self._producer.flush(_FULL_WAIT_S * 20)
            reason, message = failed[0] if failed else (self._cause(told), None)
            translated = self._translated(told if _is_fenced(told) else reason, message)
            self._abort()
            raise translated from error
        except OverrunError:
            raise  # what hangs there would make the next call on this producer hang too
        except LodestreamError:
            self._abort()
            raise

    def _send_together(self, producer: ck.Producer, messages: Iterable[Outgoing], bookmark: Bookmark) -> int:
        producer.begin_transaction()
        self._passing("begun")
        count = self._produce(producer, messages)
        self._passing("produced")
        assert self._reader is not None
        where = ck.TopicPartition(self._topic, 0, bookmark.offset, bookmark.note)
        group = within(_ANSWER_S, self._reader.consumer_group_metadata)
        within(_ANSWER_S, producer.send_offsets_to_transaction, [where], group, _ANSWER_S)
        self._passing("marked")
        if left := producer.flush(_ANSWER_S):
            raise TransientError("the broker did not take all messages in time", topic=self._topic, waiting=left)
        self._passing("flushed")
        within(_ANSWER_S, producer.commit_transaction, _ANSWER_S)
        self._passing("committed")
        return count

    def _send_plainly(self, producer: ck.Producer, messages: Iterable[Outgoing]) -> int:
        count = self._produce(producer, messages)
        self._passing("produced")
        left = producer.flush(_ANSWER_S)
        if self._seen.failed:
            raise self._translated(*self._seen.failed[0])
        if left:
            raise TransientError("the broker did not take all messages in time", topic=self._topic, waiting=left)
        self._passing("flushed")
        return count

    def _produce(self, producer: ck.Producer, messages: Iterable[Outgoing]) -> int:
        count = 0
        for message in messages:
            while True:
                try:
                    producer.produce(
                        self._topic, message.value, message.key, headers=message.headers,
                        timestamp=message.timestamp_ms,
                    )  # fmt: skip
                    break
                except BufferError:
                    producer.poll(_FULL_WAIT_S)
                except ck.KafkaException as error:
                    raise self._translated(error.args[0], message) from error
            count += 1
        return count

    def _cause(self, told: ck.KafkaError) -> ck.KafkaError:
        """What broke the transaction, where `told` says only that it is broken."""
        if told.code() == _ERROR._STATE and self._producer is not None and self._transactional_id is not None:
            try:
                within(_ANSWER_S, self._producer.begin_transaction)  # refused, with the reason why one is broken
            except ck.KafkaException as error:
                reason: ck.KafkaError = error.args[0]
                return reason
        return told

    def _abort(self) -> None:
        """Hide what was sent at once, so that readers need not wait until the transaction times out."""
        if self._transactional_id is not None and self._producer is not None:
            with contextlib.suppress(ck.KafkaException, OverrunError):
                self._producer.purge()
                within(_FULL_WAIT_S * 20, self._producer.abort_transaction, _FULL_WAIT_S * 20)

    def _translated(
        self, reason: ck.KafkaError, message: Any = None, otherwise: type[LodestreamError] = TransientError
    ) -> LodestreamError:
        code, topic = reason.code(), self._topic
        if _is_fenced(reason):
            return ConflictError("another process publishes under the same transactional id", topic=topic)
        if code in _LOGIN:
            fix = "check tls, user and password"
            return ConfigError("the Kafka cluster does not let us in", cause=reason.str(), fix=fix)
        if code in _REFUSED:
            fix = f"grant {_REFUSED[code]}"
            return AccessError("the Kafka cluster does not allow this", topic=topic, cause=reason.str(), fix=fix)
        if code in _TOO_LARGE:
            size, key = _size_and_key(message)
            fix = "raise max.message.bytes of the topic and client: {message.max.bytes: …}, or publish fewer columns"
            return ConfigError("message is larger than the topic takes", topic=topic, bytes=size, key=key, fix=fix)
        if code == _ERROR.INVALID_RECORD:
            fix = "a compacted topic wants a key in every message: set key:"
            return ConfigError("the topic refuses a message", topic=topic, cause=reason.str(), fix=fix)
        if code in _GONE:
            return ConfigError("no such topic", topic=topic, fix="make it, or set create: {partitions: …}")
        if code in (_ERROR._UNSUPPORTED_FEATURE, _ERROR.UNSUPPORTED_VERSION):
            fix = "use profile: event_hubs for a service without them"
            return ConfigError("the cluster has no transactions", cause=reason.str(), fix=fix)
        if otherwise is ConfigError and not reason.retriable():
            return ConfigError("the Kafka cluster refuses", topic=topic, cause=reason.str())
        return TransientError("the Kafka cluster did not take it", topic=topic, cause=reason.str())

    def _on_delivery(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None and not self._seen.failed and error.code() != _ERROR._PURGE_QUEUE:
            self._seen.failed.append((error, message))

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.code() in _LOGIN or self._seen.reason is None:
            self._seen.reason = error

    def close(self) -> None:
        """Let go; what is not sent is dropped. Twice is harmless."""
        producer, self._producer = self._producer, None
        if producer is not None:
            # It goes with its last reference; `close` would wait, and breaks after a failure of the broker.
            with contextlib.suppress(ck.KafkaException):
                producer.purge()
        self._admin = None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class OverrunError(TransientError):
    """A call of the client did not come back in the time it was given."""


def within(seconds: float, call: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call of the client that should come back by itself in `seconds`, and is left behind when not.

    After an outage such a call was seen to wait for ever, whatever time it was given. It goes on waiting on a thread of
    its own, which ends with the process; the client must not be used any more.

    Raises:
        OverrunError: it did not come back.
    """
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(*arguments), None))
        except ck.KafkaException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds + _OVERRUN_S)
    except queue.Empty:
        raise OverrunError("the Kafka client does not come back; making a new one", call=call.__name__) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _is_fenced(reason: ck.KafkaError) -> bool:
    return reason.code() in _FENCED


def _size_and_key(message: Any) -> tuple[int | None, str | None]:
    if message is None:
        return None, None
    value, key = (
        (message.value, message.key) if isinstance(message, Outgoing) else (message.value(), message.key())
    )  # fmt: skip
    return None if value is None else len(value), None if key is None else key[:200].decode(errors="replace")
