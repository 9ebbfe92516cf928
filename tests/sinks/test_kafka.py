"""The Kafka sink against a real broker, read back by clients that others wrote."""

from __future__ import annotations

import io
import itertools
import json

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from pydantic import ValidationError

from lodestream.drivers.registry import open_registry
from lodestream.errors import ConfigError, ConflictError, DataLossRefused
from lodestream.model.table import Component, TableName
from lodestream.ports.plugins import make_sink, sink_wants
from lodestream.ports.registry import SchemaRefusedError
from lodestream.ports.sink import Changes, Publishing, SinkPosition
from lodestream.sinks.kafka import KafkaSinkSettings
from lodestream.testing.registry import running_registry
from tests.sinks.reading import messages
from tests.sources.kafka_topics import Topic

_numbers = itertools.count()
TABLE = TableName("gold", "revenue")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The schema registry that `lodestream registry` serves."""
    with running_registry(store=str(tmp_path_factory.mktemp("registry") / "r.db")) as found:
        yield found


def sink(
    topic, *, key=(), chosen=None, changing=False, identity=None, registry=None, passing=lambda _step: None, **more
):
    settings = {"servers": topic.broker.plain, "topic": topic.name, **more}
    publishing = Publishing(
        TABLE, chosen, key, changing, identity or f"sink-{topic.name}", "/", registry=lambda _name: registry,
        passing=passing,
    )  # fmt: skip
    return make_sink(Component("kafka", settings), publishing)


def at(version, changes=0, upto=None):
    return SinkPosition("table-1", 1, version, version if upto is None else upto, changes)


def change(rows, version=1, first=0, gone=None):
    return [Changes(version, first, pa.Table.from_pylist(rows) if isinstance(rows, list) else rows, gone)]


def test_messages_and_position_are_one(kafka):
    topic = Topic(kafka, partitions=1)
    made = sink(topic)
    assert made.open() is None
    assert made.publish(change([{"a": 1, "_hidden": 2}, {"a": 2, "_hidden": 3}]), at(3)) == 2
    assert made.publish(change([{"a": 3}]), at(3, changes=1, upto=9)) == 1
    made.close()
    made.close()
    assert [one.value for one in messages(kafka.plain, topic.name)] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    again = sink(topic)
    assert again.open() == at(3, changes=1, upto=9)
    again.close()


def test_what_is_not_committed_is_never_seen_and_keeps_no_reader_waiting(kafka):
    topic = Topic(kafka, partitions=1)

    def passing(step):
        if step == "marked":
            raise KeyboardInterrupt

    made = sink(topic, passing=passing)
    made.open()
    with pytest.raises(KeyboardInterrupt):
        made.publish(change([{"a": 1}]), at(1))
    second = sink(topic)
    assert second.open() is None
    second.publish(change([{"a": 2}]), at(1))
    assert [one.value for one in messages(kafka.plain, topic.name)] == [b'{"a":2}']
    made.close()
    second.close()


def test_who_opened_before_is_shut_out(kafka):
    topic = Topic(kafka, partitions=1)
    first, second = sink(topic), sink(topic)
    first.open()
    first.publish(change([{"a": 1}]), at(1))
    assert second.open() == at(1)
    with pytest.raises(ConflictError, match="another process publishes"):
        first.publish(change([{"a": 2}]), at(2))
    second.publish(change([{"a": 3}]), at(2))
    first.close()
    second.close()
    assert [one.value for one in messages(kafka.plain, topic.name)] == [b'{"a":1}', b'{"a":3}']


def test_keys_headers_and_times_are_columns(kafka):
    topic = Topic(kafka, partitions=1)
    headers = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
    rows = pa.table({
        "id": [7, None], "name": ["x", None], "at": pa.array([1_500_000, None], pa.timestamp("us", tz="UTC")),
        "kafka_headers": pa.array([[{"key": "h", "value": b"\xff"}, {"key": "h", "value": None}], None], headers),
    })  # fmt: skip
    made = sink(
        topic, key=("id", "name"), chosen=("id",), headers=["kafka_headers", "name"], timestamp="at", mark=True
    )  # fmt: skip
    made.open()
    made.publish(change(rows, version=5, first=10), at(5))
    made.close()
    first, second = messages(kafka.plain, topic.name)
    assert (first.key, first.value, first.timestamp_ms) == (b'{"id":7,"name":"x"}', b'{"id":7}', 1500)
    assert first.headers == (
        ("h", b"\xff"), ("h", None), ("name", b"x"), ("lodestream-version", b"5"), ("lodestream-index", b"10"),
    )  # fmt: skip
    assert (second.key, second.value) == (b'{"id":null,"name":null}', b'{"id":null}')
    assert second.headers == (("lodestream-version", b"5"), ("lodestream-index", b"11"))


@pytest.mark.parametrize(("column", "wanted"), [
    (pa.array(["text", 'with "quotes"', None]), [b"text", b'with "quotes"', None]),
    (pa.array([b"\x00\xff", b"", None]), [b"\x00\xff", b"", None]),
    (pa.array([1, -2, None]), [b"1", b"-2", None]),
    (pa.array([0, None], pa.timestamp("us", tz="UTC")), [b"1970-01-01T00:00:00Z", None]),
])  # fmt: skip
def test_a_key_of_one_column_is_its_text_or_its_bytes(kafka, column, wanted):
    topic = Topic(kafka, partitions=1)
    made = sink(topic, key=("k",))
    made.open()
    made.publish(change(pa.table({"k": column})), at(1))
    made.close()
    assert [one.key for one in messages(kafka.plain, topic.name)] == wanted


def test_a_key_that_left_the_table_is_a_tombstone(kafka):
    topic = Topic(kafka, partitions=1)
    made = sink(topic, key=("k",), changing=True)
    made.open()
    made.publish(change([{"k": "a", "v": 1}, {"k": "b", "v": 2}], gone=np.array([False, True])), at(1))
    with pytest.raises(ConfigError, match="has no key"):
        made.publish(change([{"k": None, "v": 1}]), at(2))
    made.close()
    assert [(m.key, m.value) for m in messages(kafka.plain, topic.name)] == [(b"a", b'{"k":"a","v":1}'), (b"b", None)]


def test_equal_keys_go_where_java_clients_send_them(kafka):
    topic = Topic(kafka, partitions=7)
    made = sink(topic, key=("k",))
    made.open()
    made.publish(change([{"k": "21"}, {"k": "foobar"}, {"k": "abc"}]), at(1))
    made.close()
    found = {one.key: one.partition for one in messages(kafka.plain, topic.name)}
    assert found == {b"21": murmur2(b"21") % 7, b"foobar": murmur2(b"foobar") % 7, b"abc": murmur2(b"abc") % 7}


def murmur2(data):
    """Kafka's hash, from its known values in the Java client's own tests."""
    return {b"21": -973932308 & 0x7FFFFFFF, b"foobar": -790332482 & 0x7FFFFFFF, b"abc": 479470107}[data]


def test_avro_values_are_read_by_the_official_deserializer(kafka, registry):
    topic = Topic(kafka, partitions=1)
    ours, theirs = open_registry({"url": registry.url}, None), SchemaRegistryClient({"url": registry.url})
    made = sink(topic, registry=ours, value="avro")
    rows = [{"id": 1, "name": "é", "price": None}, {"id": None, "name": None, "price": 2.5}]
    made.open()
    made.publish(change(rows), at(1))
    made.publish(change([{"id": 3, "name": "n", "price": 1.0, "more": True}]), at(2))  # a column joined
    with pytest.raises(SchemaRefusedError):  # a column that changed its type breaks the subject's rule
        made.publish(change([{"id": "x", "name": "n", "price": 1.0, "more": True}]), at(3))
    made.close()
    read, context = AvroDeserializer(theirs), SerializationContext(topic.name, MessageField.VALUE)
    found = [read(one.value, context) for one in messages(kafka.plain, topic.name)]
    assert found == [*rows, {"id": 3, "name": "n", "price": 1.0, "more": True}]
    assert theirs.get_versions(f"{topic.name}-value") == [1, 2]
    schema = fastavro.parse_schema(json.loads(theirs.get_version(f"{topic.name}-value", 1).schema.schema_str))
    first = io.BytesIO(messages(kafka.plain, topic.name)[0].value[5:])
    assert fastavro.schemaless_reader(first, schema) == rows[0]
    assert schema["name"] == "lodestream.gold.revenue"
    ours.close()
    theirs.close()


def test_a_message_that_is_too_large_is_named_and_nothing_is_published(kafka):
    topic = Topic(kafka, partitions=1, config={"max.message.bytes": "2000"})
    made = sink(topic, key=("k",))
    made.open()
    with pytest.raises(ConfigError, match="larger than the topic takes") as refused:
        made.publish(change([{"k": "small", "v": "x"}, {"k": "big", "v": "x" * 5000}]), at(1))
    assert refused.value.facts["key"] == "big" or refused.value.facts["bytes"]
    made.close()
    for one in ("raised", "lowered"):
        made = sink(topic, key=("k",), client={} if one == "raised" else {"message.max.bytes": 1000})
        assert made.open() is None
        with pytest.raises(ConfigError, match="larger than the topic takes"):
            made.publish(change([{"k": "big", "v": "x" * 5000}]), at(1))
        made.close()
    made = sink(topic)
    assert made.open() is None
    made.publish(change([{"k": "small", "v": "x"}]), at(1))
    made.close()
    assert len(messages(kafka.plain, topic.name)) == 1


def test_a_compacted_topic_wants_keys(kafka):
    topic = Topic(kafka, partitions=1, config={"cleanup.policy": "compact"})
    made = sink(topic)
    made.open()
    with pytest.raises(ConfigError, match="refuses a message") as refused:
        made.publish(change([{"v": 1}]), at(1))
    assert "set key:" in refused.value.facts["fix"]
    made.close()


def test_a_topic_that_is_not_there_is_made_or_refused(kafka):
    topic = Topic(kafka)
    topic.name = f"nowhere-{next(_numbers)}"
    made = sink(topic)
    with pytest.raises(ConfigError, match="no such topic"):
        made.open()
    made.close()
    made = sink(topic, changing=True, create={"partitions": 3, "config": {"retention.ms": "1000"}})
    assert made.open() is None
    assert made.place
    made.close()
    reader = Consumer({"bootstrap.servers": kafka.plain, "group.id": "x"})
    assert len(reader.list_topics(topic.name).topics[topic.name].partitions) == 3
    reader.close()
    topic.name = f"nowhere-{next(_numbers)}"
    made = sink(topic, create={"config": {"no.such.setting": "1"}})
    with pytest.raises(ConfigError, match="refuses"):
        made.open()
    made.close()


def test_an_offset_that_no_sink_wrote_is_not_taken_for_a_position(kafka):
    topic = Topic(kafka, partitions=1)
    reader = Consumer({"bootstrap.servers": kafka.plain, "group.id": f"sink-{topic.name}"})
    reader.commit(offsets=[TopicPartition(topic.name, 0, 5)], asynchronous=False)
    reader.close()
    made = sink(topic)
    with pytest.raises(DataLossRefused, match="no sink wrote"):
        made.open()
    made.close()


def test_settings_say_what_the_sink_wants_of_the_table():
    wants = sink_wants(Component("kafka", {"topic": "t", "key": "id", "headers": ["a", "b"], "columns": ["c"]}))
    assert wants.target == "t"
    assert wants.columns == ((("columns", 0), "c"), (("key",), "id"), (("headers", 0), "a"), (("headers", 1), "b"))
    assert (wants.key, wants.value, wants.exactly_once) == (("id",), ("c",), True)
    raw = sink_wants(
        Component("kafka", {"topic": "t", "value": "raw", "profile": "event_hubs", "connection_string": "x"})
    )
    assert (raw.value, raw.key, raw.exactly_once) == (("_raw",), None, False)
    assert "at least once" in raw.note
    for wrong in ({"topic": "a b"}, {}, {"topic": "t", "create": {"partitions": 0}}, {"topic": "t", "value": "xml"}):
        with pytest.raises(ValidationError):
            KafkaSinkSettings(**wrong)
