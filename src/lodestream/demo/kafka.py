"""The demo through Kafka: registers schemas, sends the flights as Avro and the feed as it comes, once each."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from lodestream.demo.flights import HELD_BACK
from lodestream.drivers.kafka_connection import LOG
from lodestream.drivers.registry import DEFAULT_URL, registries
from lodestream.errors import ConfigError, LodestreamError, MissingDriverError, TransientError
from lodestream.formats._times import parse_timestamp
from lodestream.ports.registry import SchemaRegistry

FLIGHTS, FEED = "flights", "flights_feed"
PARTITIONS = {FLIGHTS: 10, FEED: 1}
_SENT = "lodestream-demo"
_WAIT_S = 60.0


class KafkaFeed:
    """The demo's two topics on a cluster.

    What is sent is sent in one transaction each, so that a demo which is stopped half-way sends all of it again, and
    one that went through sends nothing twice.

    Args:
        servers: `HOST:PORT` of the cluster.
        registry: URL of a schema registry.
        data: folder that `prepare` filled.
    """

    def __init__(self, servers: str, registry: str, data: Path) -> None:
        self._settings = {"bootstrap.servers": servers}
        self._registry_url, self._data = registry, data

    def check(self) -> None:
        """Raise TransientError when no broker answers at the address, before anything is prepared for it."""
        import confluent_kafka as ck
        from confluent_kafka.admin import AdminClient

        try:
            AdminClient({**self._settings, "socket.timeout.ms": 10_000}, logger=LOG).list_topics(timeout=10.0)
        except ck.KafkaException as error:
            fix = "start one with `make kafka`, or correct the address"
            where = self._settings["bootstrap.servers"]
            raise TransientError("no Kafka broker answers there", servers=where, fix=fix) from error

    def send(self, progress: Callable[[str, float], None]) -> None:
        """Make the topics, register the schema, send the flights and the feed, but for its stragglers.

        Raises:
            TransientError: cluster or registry do not answer.
            ConfigError: a topic of that name holds something else.
        """
        progress("making topics and registering schemas", 0.0)
        self._make_topics()
        schema = (files("lodestream.demo") / "project_kafka/schemas/flight.avsc").read_text()
        registry: SchemaRegistry = registries({}, None)(self._registry_url)
        schema_id = registry.register(f"{FLIGHTS}-value", "AVRO", schema)
        if not self._holds(FLIGHTS):
            flights = sorted((self._data / "flights").glob("*.jsonl"))
            progress("sending a year of flights as Avro", 0.1)
            self._in_one_go(FLIGHTS, _flights(flights, schema, schema_id, progress))
        if not self._holds(FEED):
            progress("sending the bad feed", 0.95)
            self._in_one_go(FEED, _lines(sorted((self._data / "feed").glob("*.jsonl"))))

    def release(self) -> bool:
        """Send the feed's late rows; False when they were sent already."""
        marker = self._data / "stragglers_sent"
        if marker.exists():
            return False
        self._in_one_go(FEED, _lines([self._data / HELD_BACK]))
        marker.touch()
        return True

    def _make_topics(self) -> None:
        import confluent_kafka as ck
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        admin = AdminClient({**self._settings, "socket.timeout.ms": 10_000}, logger=LOG)
        wanted = [NewTopic(name, count, config={"retention.ms": "-1"}) for name, count in PARTITIONS.items()]
        for name, made in admin.create_topics(wanted, request_timeout=10.0).items():
            try:
                made.result(15.0)
            except ck.KafkaException as error:
                reason = error.args[0]
                if reason.code() != reason.TOPIC_ALREADY_EXISTS:
                    raise TransientError("cannot make the demo's topics", topic=name, cause=reason.str()) from error
        there = admin.list_topics(timeout=10.0).topics
        for name, count in PARTITIONS.items():
            if name in there and len(there[name].partitions) != count:
                raise ConfigError(
                    "a topic of the demo's name is there and not the demo's; use another cluster", topic=name,
                    partitions=len(there[name].partitions), wanted=count,
                )  # fmt: skip

    def _holds(self, topic: str) -> bool:
        """Whether something that was committed is in the topic."""
        import confluent_kafka as ck

        consumer = ck.Consumer(
            {**self._settings, "group.id": _SENT, "enable.auto.commit": False, "enable.partition.eof": True,
             "isolation.level": "read_committed"},
            logger=LOG,
        )  # fmt: skip
        try:
            left = PARTITIONS[topic]
            consumer.assign([ck.TopicPartition(topic, n, ck.OFFSET_BEGINNING) for n in range(left)])
            while left:
                message = consumer.poll(_WAIT_S)
                if message is None:
                    raise TransientError("the cluster does not say what is in the demo's topics", topic=topic)
                error = message.error()
                if error is None:
                    return True
                left -= error.code() == ck.KafkaError._PARTITION_EOF
            return False
        finally:
            consumer.close()

    def _in_one_go(self, topic: str, messages: Iterator[tuple[bytes, bytes, int]]) -> None:
        """Send (key, value, time in ms) as one transaction; keys choose the partition."""
        import confluent_kafka as ck

        producer = ck.Producer(
            {**self._settings, "transactional.id": f"{_SENT}-{topic}", "linger.ms": 50, "compression.type": "lz4",
             "queue.buffering.max.messages": 1_000_000},
            logger=LOG,
        )  # fmt: skip
        try:
            producer.init_transactions(_WAIT_S)
            producer.begin_transaction()
            for number, (key, value, time_ms) in enumerate(messages):
                producer.produce(topic, value, key=key, timestamp=time_ms)
                if number % 10_000 == 0:
                    producer.poll(0)
            producer.commit_transaction(_WAIT_S)
        except ck.KafkaException as error:
            raise TransientError("the cluster did not take the demo's data", cause=error.args[0].str()) from error


def _flights(
    days: list[Path], schema: str, schema_id: int, progress: Callable[[str, float], None]
) -> Iterator[tuple[bytes, bytes, int]]:
    """Confluent-framed Avro, keyed by aircraft, oldest first; the message's time is the event's."""
    try:
        from fastavro import parse_schema, schemaless_writer
    except ModuleNotFoundError as error:
        raise MissingDriverError("the demo writes Avro: pip install 'lodestream[demo]'", missing=error.name) from error
    parsed = parse_schema(json.loads(schema))
    head = b"\x00" + schema_id.to_bytes(4, "big")
    for number, day in enumerate(days):
        progress("sending a year of flights as Avro", 0.1 + 0.8 * number / len(days))
        for line in day.read_bytes().splitlines():
            row: dict[str, Any] = json.loads(line)
            row["time_hour"] = event_us = parse_timestamp(row["time_hour"])
            out = io.BytesIO()
            schemaless_writer(out, parsed, row)
            yield (row["tailnum"] or row["carrier"]).encode(), head + out.getvalue(), event_us // 1000


def _lines(paths: list[Path]) -> Iterator[tuple[bytes, bytes, int]]:
    """Lines as they are; what time they tell, if they do, is nobody's business on the way."""
    for path in paths:
        for line in path.read_bytes().splitlines():
            yield b"", line, 0


@contextlib.contextmanager
def schema_registry(url: str | None, store: Path) -> Iterator[str]:
    """A schema registry: the one at `url`, or the one at the default address, which is started when nobody is there.

    Args:
        url: of a registry that is there; None for the default one.
        store: file in which a registry that is started keeps its schemas.
    """
    if url is not None or _answers(DEFAULT_URL):
        yield url or DEFAULT_URL
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lodestream.cli", "--json", "registry", "--store", str(store)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                said.seek(0)
                fix = "name one with --registry URL"
                raise ConfigError("the schema registry did not start", cause=said.read().strip(), fix=fix)
            yield str(json.loads(line)["url"])
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


def _answers(url: str) -> bool:
    try:
        registries({}, None)(url).latest("lodestream-demo-asks-who-is-there")
    except LodestreamError:
        return False
    return True
