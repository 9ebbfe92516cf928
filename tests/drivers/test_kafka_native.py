"""The native drain of a Kafka consumer gives what the portable one gives, and survives whatever is done to it."""

import gc
import random
import time
import weakref

import confluent_kafka as ck
import pytest

from lodestream.drivers import kafka_native
from lodestream.drivers.kafka_native import native_drain
from lodestream.drivers.kafka_reader import PythonDrain
from lodestream.native import KERNELS
from tests.native import needs_native

pytestmark = needs_native
PARTITIONS = 4
TOPIC = "events"
ALL = [(TOPIC, number) for number in range(PARTITIONS)]
WAIT_S = 30.0


@pytest.fixture(scope="module")
def producer():
    """A producer that brings a mock cluster along."""
    made = ck.Producer({"test.mock.num.brokers": 1, "linger.ms": 5, "log_level": 0})
    yield made
    made.flush(5)


@pytest.fixture(scope="module")
def servers(producer):
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    return f"{broker.host}:{broker.port}"


@pytest.fixture
def drains():
    """The drains of a test; they must be closed before their consumers, which wait for all messages to be let go."""
    return []


@pytest.fixture
def native(drains):
    """Makes native drains."""

    def make(consumer, **options):
        drains.append(native_drain(consumer, **{"keys": True, "headers": True, **options}))
        return drains[-1]

    return make


@pytest.fixture
def consume(servers, drains):
    """Makes consumers, and closes them after their drains."""
    made = []

    def make(group="g", **settings):
        made.append(
            ck.Consumer(
                {
                    "bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False, "log_level": 0,
                    "enable.auto.offset.store": False, "enable.partition.eof": True, "auto.offset.reset": "earliest",
                    "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000,
                    "heartbeat.interval.ms": 200, "fetch.wait.max.ms": 20, **settings,
                }
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for drain in drains:
        drain.close()
    for consumer in made:
        consumer.close()


def produce(producer, topic, count, seed=0):
    """Messages of all shapes; gives what was sent, by partition."""
    draw = random.Random(seed)
    sent = {(topic, number): [] for number in range(PARTITIONS)}
    for i in range(count):
        partition = draw.randrange(PARTITIONS)
        value = draw.choice([None, b"", b"%d" % i, draw.randbytes(draw.randrange(300))])
        key = draw.choice([None, b"", b"key %d" % i])
        headers = draw.choice([None, [("a", b"1"), ("a", None), ("ä", b"")], [("z", draw.randbytes(20))]])
        time_ms = 1_700_000_000_000 + i
        producer.produce(topic, value, key=key, partition=partition, headers=headers, timestamp=time_ms)
        sent[topic, partition].append((value, key, headers or [], time_ms))
        producer.poll(0)
    assert producer.flush(10) == 0
    return sent


def rows(piece):
    headers = [[(one["key"], one["value"]) for one in row] for row in piece.headers.to_pylist()]
    return list(
        zip(piece.values.to_pylist(), piece.keys.to_pylist(), headers, piece.timestamps_ms.tolist(), strict=True)
    )


def drained(drain, wanted, rows_max=1000):
    """What comes until every partition has said that it has ended at or after `wanted`."""
    found, offsets, ends = {}, {}, {}
    deadline = time.monotonic() + WAIT_S
    while any(ends.get(one, -1) < end for one, end in wanted.items()):
        assert time.monotonic() < deadline
        polled = drain.drain(rows_max, 0.2)
        for piece in polled.messages:
            for column in (piece.values, piece.keys, piece.headers):
                column.validate(full=True)
            assert len(piece) == len(piece.values) == len(piece.timestamps_ms) <= rows_max
            found.setdefault((piece.topic, piece.partition), []).extend(rows(piece))
            offsets.setdefault((piece.topic, piece.partition), []).extend(piece.offsets.tolist())
        ends.update(polled.ends)
    for one in offsets.values():
        assert one == list(range(one[0], one[0] + len(one)))
    return found


def assign(consumer, drain, offsets):
    drain.adopt(offsets)
    consumer.incremental_assign([ck.TopicPartition(*one, offset) for one, offset in offsets.items()])


def revoke(consumer, drain, partitions):
    drain.leave(partitions)
    consumer.incremental_unassign([ck.TopicPartition(*one) for one in partitions])


@pytest.mark.parametrize("rows_max", [1, 7, 1000])
def test_both_forms_give_the_same_messages(producer, consume, native, rows_max):
    topic = f"same-{rows_max}"
    sent = produce(producer, topic, 300, seed=rows_max)
    wanted = {one: len(messages) for one, messages in sent.items()}
    for make in (native, lambda consumer: PythonDrain(consumer, keys=True, headers=True)):
        consumer = consume()
        drain = make(consumer)
        assign(consumer, drain, dict.fromkeys(sent, 0))
        assert drained(drain, wanted, rows_max) == sent


def test_keys_and_headers_come_only_when_asked_for(producer, consume, native):
    sent = produce(producer, "bare", 20)
    consumer = consume()
    drain = native(consumer, keys=False, headers=False)
    assign(consumer, drain, dict.fromkeys(sent, 0))
    piece = next(p for _ in range(100) if (found := drain.drain(10, 0.5).messages) for p in found)
    assert piece.keys is None
    assert piece.headers is None


def test_messages_that_came_before_adoption_are_not_lost(producer, consume, native):
    sent = produce(producer, "early", 200)
    consumer = consume()
    drain = native(consumer)
    consumer.incremental_assign([ck.TopicPartition(*one, 0) for one in sent])
    first = consumer.consume(5, 10.0)
    early = {}
    for message in first:
        if message.error() is None:
            early.setdefault((message.topic(), message.partition()), []).append(message.value())
    drain.adopt(sent)
    later = drained(drain, {one: len(messages) for one, messages in sent.items()})
    for one, messages in sent.items():
        values = early.get(one, []) + [value for value, *_ in later.get(one, [])]
        assert values == [value for value, *_ in messages]


def test_a_storm_of_assignments_loses_and_doubles_nothing(producer, consume, native):
    sent = produce(producer, "storm", 2000)
    consumer, draw = consume(), random.Random(5)
    drain = native(consumer)
    next_offset, got, assigned = dict.fromkeys(sent, 0), {one: [] for one in sent}, set()
    deadline = time.monotonic() + WAIT_S
    for turn in range(10_000):
        if all(next_offset[one] == len(sent[one]) for one in sent):
            break
        assert time.monotonic() < deadline
        if assigned and draw.random() < 0.3:
            gone = draw.sample(sorted(assigned), draw.randint(1, len(assigned)))
            revoke(consumer, drain, gone)
            assigned -= set(gone)
        if (more := [one for one in sent if one not in assigned]) and draw.random() < 0.7:
            assign(consumer, drain, {one: next_offset[one] for one in more})
            assigned |= set(more)
        for piece in drain.drain(draw.choice([1, 10, 200]), draw.choice([0, 0.02])).messages:
            one = (piece.topic, piece.partition)
            assert one in assigned, turn
            assert piece.offsets[0] == next_offset[one]
            got[one] += rows(piece)
            next_offset[one] += len(piece)
    assert got == sent


@pytest.mark.long
def test_members_of_a_group_share_partitions_without_loss(producer, consume, native):
    sent = produce(producer, "shared", 400)
    got, ends = {}, {}
    members = []

    def join():
        consumer = consume("group")
        drain = native(consumer)

        def on_assign(consumer, partitions):
            starts = {(p.topic, p.partition): len(got.get((p.topic, p.partition), ())) for p in partitions}
            assign(consumer, drain, starts)

        def on_revoke(consumer, partitions):
            revoke(consumer, drain, [(p.topic, p.partition) for p in partitions])

        consumer.subscribe(["shared"], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)
        members.append((consumer, drain))

    def turn():
        for _, drain in members:
            polled = drain.drain(20, 0.05)
            for piece in polled.messages:
                known = got.setdefault((piece.topic, piece.partition), {})
                known.update(zip(piece.offsets.tolist(), rows(piece), strict=True))
            ends.update(polled.ends)

    deadline = time.monotonic() + WAIT_S
    join()
    while not got:
        assert time.monotonic() < deadline
        turn()
    join()
    while not members[1][0].assignment():
        assert time.monotonic() < deadline
        turn()
    consumer, drain = members.pop(0)
    drain.close()
    consumer.close()
    while any(len(got.get(one, ())) < len(messages) for one, messages in sent.items()):
        assert time.monotonic() < deadline
        turn()
    assert {one: [known[i] for i in sorted(known)] for one, known in got.items()} == sent
    members[0][1].close()


def test_closing_twice_is_harmless_and_final(producer, consume, native):
    sent = produce(producer, "closing", 50)
    for assigned in (True, False):
        consumer = consume()
        drain = native(consumer)
        if assigned:
            assign(consumer, drain, dict.fromkeys(sent, 0))
        while assigned and not drain.drain(5, 1.0).messages:
            pass
        drain.close()
        drain.close()
        drain.leave(sent)
        with pytest.raises(RuntimeError, match="closed"):
            drain.adopt(sent)
        consumer.close()
    gone = consume()
    drain = native(gone)
    gone.close()
    with pytest.raises(RuntimeError, match="before its drain"):
        drain.adopt(ALL)


def test_a_drain_in_a_cycle_with_its_consumer_is_collected(producer, servers):
    sent = produce(producer, "cycle", 50)

    class Holder:
        def failed(self, error):
            pass

    holder = Holder()
    settings = {"bootstrap.servers": servers, "group.id": "g", "error_cb": holder.failed, "log_level": 0}
    holder.consumer = ck.Consumer(settings)
    holder.drain = native_drain(holder.consumer, keys=True, headers=True)
    assign(holder.consumer, holder.drain, dict.fromkeys(sent, 0))
    while not holder.drain.drain(5, 1.0).messages:
        pass
    gone = weakref.ref(holder)
    del holder, settings
    gc.collect()
    assert gone() is None


def test_memory_does_not_grow(producer, consume, native):
    topic = "memory"
    for _ in range(4):
        for i in range(500):
            producer.produce(topic, b"v" * 1000, key=b"k" * 100, partition=i % PARTITIONS, headers=[("h", b"x" * 100)])
        producer.flush(10)
    consumer = consume()
    drain = native(consumer)
    partitions = [(topic, number) for number in range(PARTITIONS)]

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    sizes = []
    for _ in range(40):
        assign(consumer, drain, dict.fromkeys(partitions, 0))
        drained(drain, dict.fromkeys(partitions, 500), rows_max=300)
        revoke(consumer, drain, partitions)
        sizes.append(resident())
    assert sizes[-1] - sizes[9] < 20e6  # 30 rounds of 2.4 MB each


def test_what_is_not_known_is_left_to_the_portable_form(producer, consume, monkeypatch):
    consumer = consume()
    assert native_drain(producer, keys=True, headers=True) is None
    assert native_drain(consumer, keys=True, headers=True, kernels=None) is None
    with pytest.raises(RuntimeError, match="another consumer"):
        KERNELS.KafkaDrain(consumer, kafka_native._library(), "somebody else")
    with pytest.raises(RuntimeError):
        KERNELS.KafkaDrain(consumer, "/nowhere/librdkafka.so", "")
    monkeypatch.setattr(kafka_native, "_VERSIONS", ("0.0.1",))
    assert native_drain(consumer, keys=True, headers=True) is None
