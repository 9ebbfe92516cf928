"""The bridge from Kafka to Event Hubs: the same bytes, keys and headers, at least once; repeats can be told."""

from __future__ import annotations

import signal

import pytest

from lodestream.testing.kafka import CONNECTION_STRING
from tests.engines.lakes import Lab
from tests.sinks.crashing import Children
from tests.sinks.reading import messages
from tests.sources.kafka_topics import Topic

BRIDGE = """
source: {{kafka: {{servers: '{plain}', topic: {source}, include: [key, headers]}}}}
format: json
columns: {{id: bigint, other: string}}
keep_raw: true
sink:
  kafka:
    servers: '{sasl}'
    profile: event_hubs
    connection_string: '{secret}'
    tls: {{ca: '{ca}'}}
    topic: {target}
    value: raw
    key: kafka_key
    headers: [kafka_headers]
"""


@pytest.fixture
def bridge(kafka, tmp_path):
    source, target = Topic(kafka, partitions=2), Topic(kafka, partitions=3)
    lab = Lab(tmp_path)
    lab.table("bronze.bridge", BRIDGE.format(
        plain=kafka.plain, sasl=kafka.sasl, secret=CONNECTION_STRING, ca=kafka.authority.certificate,
        source=source.name, target=target.name,
    ))  # fmt: skip
    return lab, source, target


def send(topic, start, stop):
    for i in range(start, stop):
        key = b"\x00key-%d" % (i % 5)
        topic.send([b'{"id":  %d, "other": "kept as it is"}' % i], key=key, headers=[("trace", b"t%d" % i)])


def test_values_keys_and_headers_arrive_as_they_were(kafka, bridge):
    lab, source, target = bridge
    send(source, 0, 12)
    lab.run()
    found = messages(kafka.plain, target.name)
    wanted = messages(kafka.plain, source.name)
    assert sorted((m.key, m.value, m.headers) for m in wanted) == sorted(
        (m.key, m.value, tuple(h for h in m.headers if not h[0].startswith("lodestream-"))) for m in found
    )
    marks = {tuple(v for k, v in m.headers if k.startswith("lodestream-")) for m in found}
    assert len(marks) == 12


def test_a_repeat_after_a_kill_bears_the_same_marks(kafka, bridge):
    lab, source, target = bridge
    children = Children()
    lab.run()
    try:
        for point in ("flushed", "published"):
            send(source, 0, 10)
            assert children.run(lab.root, point=f"sink.{point}") == signal.SIGKILL
        assert children.run(lab.root) == 0
    finally:
        children.close()
    found = messages(kafka.plain, target.name)
    assert len(found) > 20  # some came twice
    told = {}
    for one in found:
        marks = tuple(v for k, v in one.headers if k.startswith("lodestream-"))
        assert told.setdefault(marks, (one.key, one.value, one.headers)) == (one.key, one.value, one.headers)
    values = sorted(value for _, value, _ in told.values())
    assert values == sorted(one.value for one in messages(kafka.plain, source.name))


def test_the_plan_says_that_it_is_at_least_once(bridge):
    lab, _, _ = bridge
    (note,) = lab.app().plans.notes
    assert note.code == "N102"
    assert "lodestream-version" in note.message
    assert (note.file, note.line) == ("tables/bronze/bridge.yaml", 7)
