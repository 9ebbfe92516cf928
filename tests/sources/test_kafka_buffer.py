"""The buffer of the Kafka source: nothing twice, nothing skipped, partitions side by side."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lodestream.drivers.kafka_reader import Messages
from lodestream.sources._kafka_buffer import Buffer

BIG = 1 << 30


def piece(partition: int, offsets: list[int], times: list[int] | None = None) -> Messages:
    count = len(offsets)
    values = pa.array([b"%d" % offset for offset in offsets], pa.binary())
    stamps = np.array(times if times is not None else [0] * count, np.int64)
    return Messages("t", partition, np.array(offsets, np.int64), values, None, stamps, None)


def offsets(pieces: list[Messages] | None) -> list[int] | None:
    return None if pieces is None else [int(at) for one in pieces for at in one.offsets]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=12), st.integers(0, 20))
def test_stale_and_doubled_messages_are_passed_over(deliveries, begun):
    buffer = Buffer()
    buffer.begin(("t", 0), begun)
    want: list[int] = []
    reach = begun
    for start, count in deliveries:
        come = list(range(start, start + count))
        buffer.add(piece(0, come))
        want += [at for at in come if at >= reach]
        reach = max(reach, start + count)
    assert offsets(buffer.take(("t", 0), begun, reach)) == want
    assert buffer.rows == len(want)


def test_what_is_committed_goes_and_the_rest_stays():
    buffer = Buffer()
    buffer.begin(("t", 0), 5)
    buffer.add(piece(0, [5, 6, 9, 10]))
    buffer.drop_before(("t", 0), 9)
    assert offsets(buffer.take(("t", 0), 9, 11)) == [9, 10]
    assert buffer.take(("t", 0), 5, 11) is None  # no longer whole
    assert buffer.take(("t", 0), 9, 12) is None  # not yet whole
    assert buffer.begun(("t", 0)) == 9
    assert buffer.rows == 2
    buffer.forget([("t", 0)])
    assert (buffer.rows, buffer.nbytes) == (0, 0)


NOW_MS = 1_000_000_000


def test_a_partition_waits_for_one_that_is_behind_unless_nobody_waits_for_that():
    zero, one = ("t", 0), ("t", 1)
    buffer = Buffer()
    for partition in (0, 1):
        buffer.begin(("t", partition), 0)
    buffer.add(piece(0, [0, 1, 2], [0, 50_000, 100_000]))
    buffer.add(piece(1, [0, 1], [0, 60_000]))
    assert buffer.share(100, BIG, set(), NOW_MS) == {zero: 2, one: 2}
    assert buffer.share(100, BIG, {one}, NOW_MS) == {zero: 3, one: 2}  # nothing more comes there
    buffer.drop_before(one, 2)
    assert buffer.empty() == {one}
    assert buffer.share(100, BIG, set(), NOW_MS) == {}
    assert buffer.share(100, BIG, {one}, NOW_MS) == {zero: 3}


def test_a_message_from_the_future_is_of_now():
    buffer = Buffer()
    for partition in (0, 1):
        buffer.begin(("t", partition), 0)
    buffer.add(piece(0, [0], [10 * NOW_MS]))
    buffer.add(piece(1, [0], [NOW_MS - 200]))
    assert buffer.share(100, BIG, set(), NOW_MS) == {("t", 0): 1, ("t", 1): 1}
    assert buffer.share(100, BIG, set(), 5 * NOW_MS) == {("t", 1): 1}


@given(st.integers(1, 12), st.lists(st.lists(st.integers(0, 99_999), max_size=9), min_size=1, max_size=4))
def test_a_share_is_never_more_than_fits_and_never_nothing_for_ever(rows_max, columns):
    buffer = Buffer()
    total = sum(map(len, columns))
    for partition, times in enumerate(columns):
        buffer.begin(("t", partition), 0)
        if times:
            buffer.add(piece(partition, list(range(len(times))), times))
    taken = 0
    for _ in range(total + 1):
        ends = buffer.share(rows_max, BIG, buffer.empty(), NOW_MS)
        begun = {where: buffer.begun(where) for where in ends}
        count = sum(end - begun[where] for where, end in ends.items())
        assert count <= rows_max
        assert count > 0 or not buffer.rows
        taken += count
        for where, end in ends.items():
            buffer.drop_before(where, end)
    assert taken == total
