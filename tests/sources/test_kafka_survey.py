"""Batches planned from offsets and times alone take what batches planned from messages would."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions
from hypothesis import given
from hypothesis import strategies as st

from lodestream.errors import DataLossRefused
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.ports.source import PlansUnread
from lodestream.sources._kafka_survey import cut_evenly, shares
from tests.sources.kafka_topics import Topic, rows
from tests.sources.test_kafka import ALL, NOW_US, ids, source

TIMES = st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=4)


def cluster(partitions):
    """What a cluster tells of partitions whose messages have these times."""

    def since(wanted, time_ms):
        found = {one: [i for i, time in enumerate(partitions[one[1]]) if time >= time_ms] for one in wanted}
        return {one: first[0] if first else -1 for one, first in found.items()}

    return {("t", number): len(times) for number, times in enumerate(partitions)}, since


@given(TIMES, st.integers(1, 40), st.integers(0, 30))
def test_a_batch_is_full_and_goes_by_time(partitions, rows_max, now_ms):
    ends, since = cluster(partitions)
    position, taken = dict.fromkeys(ends, 0), []
    while found := shares(position, ends, rows_max, now_ms, since):
        count = sum(end - position[one] for one, end in found.items())
        left = sum(ends[one] - position[one] for one in ends)
        assert all(position[one] < end <= ends[one] for one, end in found.items())
        assert count <= rows_max
        assert count in (left, rows_max) or count >= 0.9 * rows_max
        times = [np.minimum(np.maximum.accumulate(partitions[n] or [0]), now_ms) for n in range(len(partitions))]
        newest = max(times[n][end - 1] for (_, n), end in found.items())
        position |= found
        waiting = [times[n][position["t", n]] for _, n in ends if position["t", n] < ends["t", n]]
        assert all(time >= newest for time in waiting)  # nobody runs ahead of a message that waits
        taken.append(count)
    assert sum(taken) == sum(ends.values())


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 300))
def test_parts_make_up_the_range(start, size, rows_max):
    whole = SourceRange("t/0", start, start + size, {"topic_id": "x"})
    parts = cut_evenly(whole, rows_max)
    assert (parts[0].start, parts[-1].end) == (start, start + size)
    assert all(one.end == other.start for one, other in pairwise(parts))
    assert all(part.end - part.start <= rows_max and part.facts == whole.facts for part in parts)


def planned_all(made, consumed=None, limit=ALL):
    consumed, found = dict(consumed or {}), []
    while ranges := made.plan_unread(consumed, limit, NOW_US):
        found.append(ranges)
        consumed |= {one.unit: one for one in ranges}
    return found, consumed


def test_parts_are_read_to_what_is_committed(kafka):
    topic = Topic(kafka)
    topic.send([*rows(0, 40), b"{torn", None])
    made = source(topic)
    assert isinstance(made, PlansUnread)
    aborted, opened = (topic.producer(**{"transactional.id": f"{topic.name}-{i}"}) for i in range(2))
    for producer in (aborted, opened):
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic.name, json.dumps({"id": 99}), partition=0)
        assert producer.flush(20) == 0
        if producer is aborted:
            producer.abort_transaction(20)
    topic.send(rows(40, 44), partition=0)
    batches, consumed = planned_all(made, limit=BatchLimit(rows_max=15))
    assert len(batches) >= 3
    # 21 messages and one that was taken back; the note of that comes before the open one, or after it.
    assert consumed[f"{topic.name}/0"].end in (22, 23)
    parts = [part for ranges in batches for one in ranges for part in made.parts(one, 4)]
    found = [piece for part in parts for piece in source(topic).read(part)]
    assert ids(found) == list(range(40))
    assert sum(len(piece.rejects) for piece in found) == 2
    opened.commit_transaction(20)
    found, deadline = [], time.monotonic() + 20  # the broker shows what was committed a little later
    while len(ids(found)) < 5 and time.monotonic() < deadline:
        more, consumed = planned_all(made, consumed)
        found += [piece for ranges in more for one in ranges for piece in made.read(one)]
    assert ids(found) == [40, 41, 42, 43, 99]
    more, _ = planned_all(made, consumed)  # at most the note that it was committed
    assert ids([piece for ranges in more for one in ranges for piece in made.read(one)]) == []
    made.close()


def test_partitions_are_found_and_latest_is_remembered(kafka, monkeypatch):
    monkeypatch.setattr("lodestream.sources.kafka._LOOK_AROUND_S", 0.0)
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 5))
    made = source(topic, start="latest")
    batches, consumed = planned_all(made)
    assert [(one.start, one.end) for ranges in batches for one in ranges] == [(5, 5)]
    assert [list(made.read(one)) for ranges in batches for one in ranges] == [[]]
    topic.admin.create_partitions([NewPartitions(topic.name, 2)])[topic.name].result(10)
    topic.send(rows(5, 9), partition=0)
    while len(consumed) < 2:
        _, consumed = planned_all(made, consumed)
    topic.send(rows(9, 12), partition=1)
    batches, _ = planned_all(made, {f"{topic.name}/0": SourceRange(f"{topic.name}/0", 0, 5, {})} | {
        unit: one for unit, one in consumed.items() if unit.endswith("/1")})  # fmt: skip
    assert ids([piece for ranges in batches for one in ranges for piece in made.read(one)]) == list(range(5, 12))
    made.close()


def test_what_retention_took_stops_or_is_a_gap(kafka):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 10))
    unit = f"{topic.name}/0"
    _, consumed = planned_all(source(topic), limit=BatchLimit(rows_max=4))
    consumed[unit] = SourceRange(unit, 0, 4, consumed[unit].facts)
    where = TopicPartition(topic.name, 0, 7)
    topic.admin.delete_records([where])[where].result(10)
    with pytest.raises(DataLossRefused, match="record_gap"):
        planned_all(source(topic), consumed)
    made = source(topic, on_data_loss="record_gap")
    batches, _ = planned_all(made, consumed)
    found = [piece for ranges in batches for one in ranges for piece in made.read(one)]
    assert ids(found) == [7, 8, 9]
    gaps = [reject for piece in found for reject in piece.rejects.to_pylist()]
    assert [(gap["_source"], gap["_position"], gap["_reasons"]) for gap in gaps] == [(unit, 4, ["gap:4-7"])]
    with pytest.raises(DataLossRefused, match="ends before"):
        planned_all(made, {unit: SourceRange(unit, 0, 50, consumed[unit].facts)})
    made.close()
