import io
import json
from collections import Counter

import fastavro
import numpy as np
import pyarrow.parquet as pq

from bench import clicks, events

SPEC = events.Spec(events=10_000, files=1, seed=7, rate=50)
ID = 77


def decoded(message):
    """The event, read by somebody else's decoder; None when it does not decode."""
    assert message[:5] == b"\0" + ID.to_bytes(4, "big")
    try:
        return fastavro.schemaless_reader(
            io.BytesIO(message[5:]), fastavro.parse_schema(json.loads(clicks.SCHEMA)), None
        )
    except (EOFError, IndexError):
        return None


def all_messages():
    rows = events.order(SPEC)
    return clicks.messages(SPEC, rows, events.event_times(SPEC, rows), events.invalid_rows(SPEC), ID)


def test_messages_say_what_the_truth_says(tmp_path):
    clicks.truth(tmp_path, SPEC)
    valid = {e["event_id"]: e for m in all_messages() if (e := decoded(m)) and e["amount"] > 0}
    assert set(pq.read_table(tmp_path / "ids.parquet")["event_id"].to_pylist()) == set(valid)
    counted, summed = Counter(), Counter()
    for event in valid.values():
        minute = int(event["event_time"].timestamp()) // 60 * 60_000_000
        group = minute, event["type"], event["country"]
        counted[group] += 1
        summed[group] += event["amount"]
    gold = pq.read_table(tmp_path / "gold.parquet").to_pylist()
    assert {(r["minute_us"], r["type"], r["country"]): (r["events"], r["cents"] / clicks.UNITS) for r in gold} == {
        group: (counted[group], summed[group]) for group in counted
    }


def test_there_are_duplicates_and_two_kinds_of_invalid_messages():
    messages = all_messages()
    assert len(messages) == SPEC.events
    assert len(messages) - len(set(messages)) == SPEC.duplicates == 100
    found = [decoded(message) for message in set(messages)]
    torn, negative = sum(e is None for e in found), sum(e is not None and e["amount"] < 0 for e in found)
    assert torn + negative == SPEC.invalid == 20
    assert torn > 0 < negative
    assert 125 < np.mean([len(message) for message in messages]) < 140


def test_the_closing_message_is_the_closing_event():
    event = decoded(clicks.closing(SPEC, ID))
    assert (event["event_id"], event["type"]) == (events.CLOSING_ID, "closing")
    assert event["event_time"].timestamp() * 1e6 == events.START_US + SPEC.span_us + events.CLOSING_US


def test_a_duplicate_goes_to_the_partition_of_its_original():
    rows = events.order(SPEC)
    first = {}
    assert all(first.setdefault(row, part) == part for row, part in zip(rows, clicks.partitions(rows), strict=True))
    assert set(clicks.partitions(rows)) == set(range(clicks.PARTITIONS))


def test_stamped_messages_have_the_new_time_and_all_else_as_it_was():
    rows = np.arange(50)
    at_us = events.event_times(SPEC, rows)
    plain = clicks.messages(SPEC, rows, np.full(50, events.START_US), np.array([7]), ID)
    assert clicks.stamped(plain, at_us) == clicks.messages(SPEC, rows, at_us, np.array([7]), ID)
