"""The Kafka source against a real broker: every message once, whatever happens to topic, broker or consumer."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import NewPartitions
from pydantic import ValidationError

from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.table import Component
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.plugins import make_source
from lodestream.ports.source import Reading
from lodestream.sources.kafka import KafkaSettings
from lodestream.testing.kafka import CONNECTION_STRING, PASSWORD, USER
from lodestream.testing.source_contract import check_source
from tests.sources.kafka_topics import Topic, rows

COLUMNS = Schema((Column("id", parse_type("bigint")), Column("name", parse_type("string"))))
NOTHING, ALL = Schema(), BatchLimit()
NOW_US = 1_700_000_000_000_000


def source(where: Topic, *, extra: Schema = NOTHING, **settings):
    given = {"servers": where.broker.plain, "topic": where.name, "linger": 0, **settings}
    given = {key: value for key, value in given.items() if value is not None}
    reading = Reading(COLUMNS.with_columns(*extra), True, "quarantine", "/", group=f"group-{where.name}")
    return make_source(Component("kafka", given), Component("json"), reading)


def take_all(made, consumed=None, limit: BatchLimit = ALL, seconds: float = 20.0):
    """Plan and read until finished: (pieces, where it stands)."""
    consumed = dict(consumed or {})
    pieces = []
    deadline = time.monotonic() + seconds
    while True:
        planned = made.plan(consumed, limit, NOW_US)
        if planned:
            pieces += made.read_together(planned)
            consumed.update({one.unit: one for one in planned})
        elif made.finished(consumed, NOW_US):
            return pieces, consumed
        assert time.monotonic() < deadline, "not finished in time"


def ids(pieces) -> list[int]:
    return sorted(i for piece in pieces for i in piece.rows["id"].to_pylist())


def test_it_keeps_the_contract_of_sources(kafka):
    topic = Topic(kafka)
    topic.send([*rows(0, 40), b"{torn", None, b""])
    found = check_source(lambda: source(topic), source(topic)._reading, now_us=NOW_US)
    assert sorted(found["id"].to_pylist()) == list(range(40))
    assert set(found["_source"].to_pylist()) == {f"{topic.name}/0", f"{topic.name}/1"}


def test_a_new_instance_goes_on_where_another_one_stopped(kafka):
    topic = Topic(kafka)
    topic.send(rows(0, 30))
    consumed, got = {}, []
    while len(got) < 30:
        made = source(topic)
        planned = made.plan(consumed, BatchLimit(rows_max=8), NOW_US)
        got += ids(made.read_together(planned)) if planned else []
        consumed.update({one.unit: one for one in planned})
        made.close()
    assert sorted(got) == list(range(30))


def test_what_comes_with_a_message_becomes_columns(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 1), key=b"k", headers=[("a", b"1"), ("a", None), ("b", b"\xff")], timestamp=1_700_000_000_123)
    topic.send([b"{bad"], key=b"\x00key", headers=[("h", b"v")], timestamp=5)
    include = ["key", "timestamp", "headers", "topic", "partition", "offset"]
    extra = type(source(topic)).adds({"include": include})
    made = source(topic, extra=extra, include=include)
    (piece,), _ = take_all(made)
    (row,) = piece.rows.to_pylist()
    assert row["kafka_key"] == b"k"
    assert row["kafka_timestamp"].timestamp() == 1_700_000_000.123
    assert row["kafka_headers"] == [
        {"key": "a", "value": b"1"}, {"key": "a", "value": None}, {"key": "b", "value": b"\xff"},
    ]  # fmt: skip
    assert (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]) == (topic.name, 0, 0)
    (reject,) = piece.rejects.to_pylist()
    again = made.decode_raw(b'{"id": 9}', reject["_source"], reject["_position"], reject["_detail"])
    (mended,) = again.rows.to_pylist()
    assert mended["kafka_key"] == b"\x00key"
    assert mended["kafka_headers"] == [{"key": "h", "value": b"v"}]
    assert mended["kafka_timestamp"].timestamp() == 0.005
    assert mended["kafka_offset"] == 1
    made.close()


def test_a_tombstone_is_a_reject_or_a_row_of_nulls(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send([*rows(0, 1), None, *rows(1, 2)], key=b"k")
    (piece,), _ = take_all(source(topic))
    assert piece.rejects["_reasons"].to_pylist() == [["parse:tombstone"]]
    assert piece.rejects["_position"].to_pylist() == [1]
    (piece,), _ = take_all(source(topic, tombstones="rows"))
    assert piece.rows["id"].to_pylist() == [0, None, 1]
    assert piece.rows["_position"].to_pylist() == [0, 1, 2]
    assert not len(piece.rejects)


def test_reading_starts_where_it_is_told(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5), timestamp=1_000)
    topic.send(rows(5, 9), timestamp=2_000_000)
    assert ids(take_all(source(topic))[0]) == list(range(9))
    assert ids(take_all(source(topic, start={topic.name: {0: 3}}))[0]) == list(range(3, 9))
    assert ids(take_all(source(topic, start="1970-01-01T00:10:00Z"))[0]) == list(range(5, 9))


def test_latest_is_remembered_before_anything_comes(kafka):
    topic = Topic(kafka, partitions=2)
    topic.send(rows(0, 5))
    first = source(topic, start="latest")
    pieces, consumed = take_all(first)
    assert ids(pieces) == []
    assert sorted(consumed) == [f"{topic.name}/0", f"{topic.name}/1"]
    first.close()
    topic.send(rows(5, 9))  # while nobody reads
    assert ids(take_all(source(topic, start="latest"), consumed)[0]) == list(range(5, 9))


def test_a_topic_that_was_never_there_is_named_with_those_that_are_most_like_it(kafka):
    topic = Topic(kafka)
    with pytest.raises(ConfigError, match="no such topic") as told:
        take_all(source(topic, topic=f"{topic.name}s"))
    assert told.value.facts["there"].split(", ")[0] == topic.name


def test_partitions_that_come_while_it_leaves_are_for_others(kafka, monkeypatch):
    topic = Topic(kafka)
    topic.send(rows(0, 3))
    made = source(topic)
    take_all(made)
    reader = made._opened.reader
    monkeypatch.setattr(reader, "_start", lambda _partitions: pytest.fail("nobody reads them any more"))
    monkeypatch.setattr(reader, "_leaving", True)  # the consumer's close calls back while it waits for the group
    before = dict(reader.assigned)
    reader._on_assign(reader._consumer, [TopicPartition(topic.name, 1)])
    assert reader.assigned == before
    made.close()


def test_partitions_and_topics_that_are_added_are_found(kafka, monkeypatch):
    monkeypatch.setattr("lodestream.sources.kafka._LOOK_AROUND_S", 0.2)
    topic = Topic(kafka, partitions=1)
    made = source(topic, topic=None, pattern=rf"{topic.name}(-more)?")
    topic.send(rows(0, 3))
    pieces, consumed = take_all(made)
    topic.admin.create_partitions([NewPartitions(topic.name, 2)])[topic.name].result(10)
    more = Topic.__new__(Topic)
    more.__dict__ |= {**topic.__dict__, "name": f"{topic.name}-more"}
    more.make()
    topic.send(rows(3, 6), partition=1)
    more.send(rows(6, 8), partition=0)
    deadline = time.monotonic() + 20
    while len(ids(pieces)) < 8:
        more_pieces, consumed = take_all(made, consumed)
        pieces += more_pieces
        assert time.monotonic() < deadline
    assert ids(pieces) == list(range(8))
    made.close()


def test_retention_that_overtook_us_stops_or_is_recorded_as_a_gap(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 10))
    first = source(topic)
    _, consumed = take_all(first, limit=BatchLimit(rows_max=4))
    first.close()
    unit = f"{topic.name}/0"
    consumed[unit] = SourceRange(unit, 0, 4, consumed[unit].facts)
    topic.admin.delete_records([TopicPartition(topic.name, 0, 7)])[TopicPartition(topic.name, 0, 7)].result(10)
    with pytest.raises(DataLossRefused, match="record_gap"):
        take_all(source(topic), consumed)
    pieces, _ = take_all(source(topic, on_data_loss="record_gap"), consumed)
    assert ids(pieces) == [7, 8, 9]
    gaps = [reject for piece in pieces for reject in piece.rejects.to_pylist()]
    assert [(gap["_source"], gap["_position"], gap["_reasons"]) for gap in gaps] == [(unit, 4, ["gap:4-7"])]


def test_retention_that_overtakes_a_running_reader_is_seen_too(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    made = source(topic)
    _, consumed = take_all(made)
    made.close()
    topic.send(rows(3, 6))
    behind = {f"{topic.name}/0": SourceRange(f"{topic.name}/0", 0, 1, consumed[f"{topic.name}/0"].facts)}
    topic.admin.delete_records([TopicPartition(topic.name, 0, 5)])[TopicPartition(topic.name, 0, 5)].result(10)
    with pytest.raises(DataLossRefused):
        take_all(source(topic), behind)


def test_a_topic_that_was_made_again_is_another_one(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5))
    made = source(topic)
    _, consumed = take_all(made)
    made.close()
    topic.delete()
    with pytest.raises(DataLossRefused, match="gone"):
        take_all(source(topic), consumed)
    topic.make()
    topic.send(rows(100, 107))
    with pytest.raises(DataLossRefused, match="made again"):
        take_all(source(topic), consumed)
    pieces, consumed = take_all(source(topic, on_recreated="follow"), consumed)
    assert ids(pieces) == list(range(100, 107))
    assert {row for piece in pieces for row in piece.rows["_source"].to_pylist()} == {f"{topic.name}~2/0"}
    assert ids(take_all(source(topic, on_recreated="follow"), consumed)[0]) == []


def test_a_topic_made_again_while_it_is_read_never_passes_for_the_old_one(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5))
    made = source(topic)
    _, consumed = take_all(made)
    topic.delete()
    topic.make()
    topic.send(rows(100, 110))  # more than the old one had, so that the old position is in range
    deadline = time.monotonic() + 20
    refused = None
    while refused is None and time.monotonic() < deadline:
        try:
            assert not made.plan(consumed, ALL, NOW_US)
        except (DataLossRefused, TransientError) as error:
            refused = error
    assert refused is not None
    made.close()


def test_a_topic_that_ends_before_our_position_is_refused(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5))
    unit = f"{topic.name}/0"
    with pytest.raises(DataLossRefused, match="cut back"):
        take_all(source(topic), {unit: SourceRange(unit, 0, 99)})


def test_aborted_transactions_leave_gaps_that_are_no_loss(kafka):
    topic = Topic(kafka, partitions=1)
    producer = topic.producer(**{"transactional.id": topic.name})
    producer.init_transactions(10)
    for number in range(4):
        producer.begin_transaction()
        producer.produce(topic.name, b'{"id": %d}' % number)
        producer.flush(10)
        producer.commit_transaction(10) if number % 2 == 0 else producer.abort_transaction(10)
    assert ids(take_all(source(topic))[0]) == [0, 2]
    assert ids(take_all(source(topic, isolation="read_uncommitted"))[0]) == [0, 1, 2, 3]


def test_compaction_leaves_gaps_that_are_no_loss(kafka):
    quickly = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "max.compaction.lag.ms": "100"}
    topic = Topic(kafka, partitions=1, config={"cleanup.policy": "compact", **quickly})
    topic.send([{"id": 0}, {"id": 5}], partition=0, key=b"same")
    topic.send([{"id": 2}], partition=0, key=b"2")
    deadline = time.monotonic() + 60
    found = [0]
    while 0 in found:
        assert time.monotonic() < deadline, "the broker did not compact"
        time.sleep(0.3)
        topic.send([{"id": 6}], partition=0, key=b"6")  # a segment in use is not compacted
        found = ids(take_all(source(topic))[0])
    assert {2, 5, 6} <= set(found)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_is_huge_when_unpacked_does_not_stall_the_partition(kafka, codec):
    topic = Topic(kafka, partitions=1, config={"max.message.bytes": str(32 << 20)})
    settings = {"compression.type": codec, "message.max.bytes": 30 << 20, "linger.ms": 50, "batch.size": 30 << 20}
    producer = topic.producer(**settings)
    big = b'{"id": 1, "name": "' + b"x" * (3 << 20) + b'"}'
    for _ in range(4):
        producer.produce(topic.name, big)
    producer.produce(topic.name, b'{"id": 2}')
    assert producer.flush(30) == 0
    assert ids(take_all(source(topic))[0]) == [1, 1, 1, 1, 2]


def test_a_key_of_a_megabyte_is_a_key(kafka):
    topic = Topic(kafka, partitions=1, config={"max.message.bytes": str(8 << 20)})
    producer = topic.producer(**{"message.max.bytes": 4 << 20})
    producer.produce(topic.name, b'{"id": 1}', key=b"k" * (1 << 20))
    assert producer.flush(10) == 0
    extra = type(source(topic)).adds({"include": ["key"]})
    (piece,), _ = take_all(source(topic, extra=extra, include=["key"]))
    assert len(piece.rows["kafka_key"][0].as_py()) == 1 << 20


def test_positions_are_published_for_lag_tools_and_never_trusted(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5))
    made = source(topic)
    _, consumed = take_all(made)
    made.acknowledge(consumed)
    made.plan(consumed, ALL, NOW_US)
    group = ConsumerGroupTopicPartitions(f"group-{topic.name}", [TopicPartition(topic.name, 0)])
    wait = time.monotonic() + 10
    while True:
        told = topic.admin.list_consumer_group_offsets([group])[group.group_id].result(10)
        if told.topic_partitions[0].offset == 5:
            break
        assert time.monotonic() < wait
    made.close()
    assert ids(take_all(source(topic))[0]) == list(range(5))  # what the broker remembers is not what decides


def test_a_range_is_read_again_from_the_broker_when_memory_has_it_no_more(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 20))
    first = source(topic)
    planned = list(first.plan({}, BatchLimit(rows_max=8), NOW_US))
    while not planned:
        planned = first.plan({}, BatchLimit(rows_max=8), NOW_US)
    got = pa.concat_tables([piece.rows for piece in first.read_together(planned)])
    first.close()
    fresh = source(topic)
    again = pa.concat_tables([piece.rows for piece in fresh.read_together(planned)])
    assert again.equals(got)
    topic.admin.delete_records([TopicPartition(topic.name, 0, 5)])[TopicPartition(topic.name, 0, 5)].result(10)
    with pytest.raises(DataLossRefused, match="read again"):
        list(fresh.read_together(planned))


def test_a_broker_that_is_away_is_waited_for_and_loses_nothing(own_kafka):
    topic = Topic(own_kafka, partitions=2)
    topic.send(rows(0, 10))
    made = source(topic)
    pieces, consumed = take_all(made)
    for kill in (True, False):
        own_kafka.restart(kill=kill)
        topic.send(rows(10, 20) if kill else rows(20, 30))
        deadline = time.monotonic() + 30
        while len(ids(pieces)) < (20 if kill else 30):
            assert time.monotonic() < deadline
            try:
                planned = made.plan(consumed, ALL, NOW_US)
                pieces += made.read_together(planned) if planned else []
                consumed.update({one.unit: one for one in planned})
            except TransientError:
                made.close()
    assert ids(pieces) == list(range(30))
    own_kafka.stop()
    with pytest.raises(TransientError, match="no Kafka broker answers"):
        _until_it_raises(made, consumed)
    made.close()


def _until_it_raises(made, consumed) -> None:
    for _ in range(200):
        made.plan(consumed, ALL, NOW_US)


# --- who may come in ------------------------------------------------------------------------------------------------


def by_certificate(kafka, authority, identity, **tls):
    files = {
        "ca": str(authority.certificate),
        "certificate": str(identity.certificate),
        "key": str(identity.key),
        **tls,
    }
    return {"servers": kafka.tls, "tls": {key: value for key, value in files.items() if value is not None}}


def test_a_client_certificate_opens_and_is_taken_up_anew_when_it_is_renewed(kafka, authority, tmp_path, monkeypatch):
    monkeypatch.setattr("lodestream.sources.kafka._LOOK_AROUND_S", 0.0)
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    mine = kafka.client(f"mine-{topic.name}")
    made = source(topic, **by_certificate(kafka, authority, mine))
    pieces, consumed = take_all(made)
    assert ids(pieces) == [0, 1, 2]
    renewed = kafka.client(f"mine-{topic.name}")
    os.utime(renewed.certificate, (1, 1))
    with pytest.raises(TransientError, match="renewed"):
        made.plan(consumed, ALL, NOW_US)
    topic.send(rows(3, 5))
    assert ids(take_all(made, consumed)[0]) == [3, 4]
    made.close()


@pytest.mark.parametrize("wrong", ["other authority", "expired", "none", "broker of another authority"])
def test_a_wrong_certificate_is_refused_and_said_so(kafka, authority, wrong, tmp_path_factory):
    from lodestream.testing.pki import Authority

    topic = Topic(kafka, partitions=1)
    other = Authority(tmp_path_factory.mktemp("other"), authority._now, "somebody else")
    identity = {
        "other authority": other.issue("client"), "expired": kafka.client("late", expired=True),
        "none": None, "broker of another authority": kafka.client("fine"),
    }[wrong]  # fmt: skip
    settings = {"servers": kafka.tls, "tls": {"ca": str(authority.certificate)}}
    if identity is not None:
        settings = by_certificate(kafka, authority, identity)
    if wrong == "broker of another authority":
        settings["tls"]["ca"] = str(other.certificate)
    with pytest.raises((ConfigError, TransientError)) as told:
        take_all(source(topic, **settings))
    assert isinstance(told.value, ConfigError), told.value
    assert "let us in" in str(told.value)


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"tls": {"ca": "there-is-none.pem"}}, "ssl.ca.location"),
        ({"tls": {"certificate": "there-is-none.pem", "key": "there-is-none.pem"}}, "ssl.certificate.location"),
        ({"client": {"fetch.max.bytes": "lots"}}, "fetch.max.bytes"),
        ({"client": {"partition.assignment.strategy": "nope"}}, "partition.assignment.strategy"),
    ],
)
def test_what_the_client_does_not_take_is_a_mistake_in_a_setting(settings, cause):
    given = Component("kafka", {"topic": "a", "servers": "127.0.0.1:1", **settings})
    made = make_source(given, Component("json"), Reading(COLUMNS, True, "quarantine", "/", group="g"))
    with pytest.raises(ConfigError, match=cause):
        made.plan({}, ALL, NOW_US)


def test_certificates_that_are_half_written_when_they_are_renewed_are_waited_for(
    kafka, authority, tmp_path, monkeypatch
):
    monkeypatch.setattr("lodestream.sources.kafka._LOOK_AROUND_S", 0.0)
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    mine = kafka.client(f"torn-{topic.name}")
    made = source(topic, **by_certificate(kafka, authority, mine))
    _, consumed = take_all(made)
    whole = mine.certificate.read_bytes()
    mine.certificate.write_bytes(whole[:100])
    os.utime(mine.certificate, (1, 1))
    for says in ("renewed", "cannot be used yet", "cannot be used yet"):
        with pytest.raises(TransientError, match=says):
            made.plan(consumed, ALL, NOW_US)
    mine.certificate.write_bytes(whole)
    topic.send(rows(3, 5))
    assert ids(take_all(made, consumed)[0]) == [3, 4]
    made.close()


def test_a_password_opens_and_a_wrong_one_does_not(kafka, authority):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    login = {"servers": kafka.sasl, "tls": {"ca": str(authority.certificate)}, "user": USER}
    assert ids(take_all(source(topic, **login, password=PASSWORD))[0]) == [0, 1, 2]
    with pytest.raises(ConfigError, match="let us in"):
        take_all(source(topic, **login, password="wrong"))


def test_the_event_hubs_profile_logs_in_by_connection_string(kafka, authority):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    tls = {"servers": kafka.sasl, "tls": {"ca": str(authority.certificate)}}
    made = source(topic, **tls, profile="event_hubs", connection_string=CONNECTION_STRING)
    assert ids(take_all(made)[0]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"client": {"sasl.jaas.config": "x"}}, "client may not set sasl.jaas.config"),
        ({"client": {"plugin.library.paths": "x"}}, "client may not set plugin.library.paths"),
        ({"client": {"ssl.ca.location": "x"}}, "client may not set"),
        ({"topic": "a", "pattern": "b"}, "name a topic"),
        ({"topic": None, "pattern": "("}, "not a regular expression"),
        ({"topic": []}, "name a topic"),
        ({"start": "yesterday"}, "start is earliest"),
        ({"start": {"a": {0: -5}}}, "are 0 or more"),
        ({"start": {"a": {0: 5}, "b": {0: 5}}}, "start names topics that are not read: b"),
        ({"servers": "http://broker:9092"}, "servers are HOST:PORT"),
        ({"servers": "a:1 b:2"}, "servers are HOST:PORT"),
        ({"servers": ""}, "servers are HOST:PORT"),
        ({"user": "a"}, "go together"),
        ({"user": "a", "password": "b", "connection_string": "c"}, "choose one"),
        ({"tls": {"certificate": "a"}}, "go together"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        KafkaSettings(**{"topic": "a", **settings})


def test_history_is_read_with_the_partitions_side_by_side(kafka):
    """Ten thousand hours in four partitions of very different size: no batch lets one run far ahead of another."""
    topic = Topic(kafka, partitions=4)
    # A broker that is still busy making the topic refuses batches; sent again, they would come after later ones.
    producer = topic.producer(**{"enable.idempotence": True})
    for hour in range(10_000):
        weight = 0 if hour % 10 else 1
        producer.produce(
            topic.name, b'{"id": %d}' % hour, partition=hour % 3 + 1 if weight else 0, timestamp=(hour + 1) * 3_600_000
        )
    assert producer.flush(20) == 0
    made = source(topic, align=60, client={"max.partition.fetch.bytes": 20_000})
    consumed, newest, worst = {}, -1, 0
    while not made.finished(consumed, NOW_US):
        planned = made.plan(consumed, BatchLimit(rows_max=500), NOW_US)
        got = ids(made.read_together(planned)) if planned else []
        consumed.update({one.unit: one for one in planned})
        worst = max([worst, *(newest - hour for hour in got[:1])])
        newest = max([newest, *got])
    assert newest == 9_999
    assert worst <= 1_000, "a message came long after newer ones of other partitions"
    made.close()


def test_an_end_that_was_told_before_later_messages_is_no_end():
    from lodestream.drivers.kafka_reader import Polled
    from tests.sources.test_kafka_buffer import piece

    made = make_source(
        Component("kafka", {"topic": "t"}), Component("json"), Reading(COLUMNS, False, "quarantine", "/")
    )
    made._buffer.begin(("t", 0), 0)
    made._take(Polled(messages=[piece(0, [0, 1, 2])], ends={("t", 0): 1}))
    assert made._ends == {}  # the end at 1 was told before 1 and 2 came
    made._take(Polled(ends={("t", 0): 3}))
    assert made._ends == {("t", 0): 3}
    made._take(Polled(messages=[piece(0, [3])], ends={("t", 0): 4}))
    assert made._ends == {("t", 0): 4}


def test_a_new_connection_waits_anew_for_a_partition_that_was_given_up():
    from lodestream.drivers.kafka_reader import Polled
    from tests.sources.test_kafka_buffer import piece

    given = Component("kafka", {"topic": "t", "align": 60})
    made = make_source(given, Component("json"), Reading(COLUMNS, False, "quarantine", "/"))

    def connected():
        for number in range(2):
            made._starts["t", number] = 0
            made._buffer.begin(("t", number), 0)
        made._take(Polled(messages=[piece(1, [0, 1, 2], [3_600_000] * 3)]))

    connected()
    assert made._cut(ALL, NOW_US) == []
    made._held_since -= 61
    assert [one.unit for one in made._cut(ALL, NOW_US)] == ["t/1"]
    made.close()
    connected()
    assert made._cut(ALL, NOW_US) == []


def test_a_member_that_was_busy_for_too_long_comes_back_and_reads_on(kafka):
    """Longer than `max.poll.interval.ms` between two looks: the group gives our partitions away, and then back."""
    topic = Topic(kafka, partitions=2)
    topic.send(rows(0, 10))
    given = {
        "servers": kafka.plain, "topic": topic.name, "linger": 0, "share": True,
        "client": {"max.poll.interval.ms": 3000, "session.timeout.ms": 3000, "heartbeat.interval.ms": 300},
    }  # fmt: skip
    reading = Reading(COLUMNS, True, "quarantine", "/", group=f"group-{topic.name}", member="busy-0")
    made = make_source(Component("kafka", given), Component("json"), reading)
    pieces, consumed = take_all(made)
    time.sleep(4.5)
    topic.send(rows(10, 20))
    deadline = time.monotonic() + 30
    while len(ids(pieces)) < 20:
        assert time.monotonic() < deadline
        try:
            more, consumed = take_all(made, consumed)
            pieces += more
        except TransientError:
            made.close()
    assert ids(pieces) == list(range(20))
    made.close()


def test_what_was_held_of_partitions_that_others_read_now_is_let_go(kafka):
    """A member that held messages of a partition, and lost it, plans nothing behind what the other has taken since."""
    topic = Topic(kafka, partitions=2)
    for partition in (0, 1):
        topic.send(rows(0, 10), partition)

    def member(name):
        reading = Reading(COLUMNS, True, "quarantine", "/", group=f"group-{topic.name}", member=name)
        given = {"servers": kafka.plain, "topic": topic.name, "linger": 0, "share": True}
        return make_source(Component("kafka", given), Component("json"), reading)

    first, second = member("m-0"), member("m-1")
    _, consumed = take_all(first)
    deadline = time.monotonic() + 30
    while len(first._reader().assigned) != 1 or len(second._reader().assigned) != 1:
        assert time.monotonic() < deadline
        for one in (second, first):  # what they plan is not taken: messages stay with who held them
            one.plan({}, ALL, NOW_US)
    ((_, lost),) = second._reader().assigned
    topic.send(rows(10, 20), lost)
    unit = next(unit for unit in consumed if unit.startswith(f"{topic.name}/{lost}"))
    taken = dict(consumed)
    while taken[unit].end < 20:
        assert time.monotonic() < deadline
        taken.update({one.unit: one for one in second.plan(taken, ALL, NOW_US)})
    for _ in range(5):
        assert [one for one in first.plan(taken, ALL, NOW_US) if one.unit == unit] == []
    first.close()
    second.close()
