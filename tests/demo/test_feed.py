import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from lodestream.demo import feed, flights
from tests.demo import independent


@pytest.fixture(scope="module")
def judged(flights_data: Path) -> independent.Feed:
    return independent.judge_feed(feed_files(flights_data))


def feed_files(data: Path) -> list[tuple[str, bytes]]:
    files = [(path.name, path.read_bytes()) for path in sorted((data / "feed").iterdir())]
    return [*files, (Path(feed.STRAGGLERS).name, (data / flights.HELD_BACK).read_bytes())]


def test_every_line_ends_where_its_mark_says(flights_data: Path, judged: independent.Feed) -> None:
    marked = defaultdict(set)
    for mark in csv.DictReader((flights_data / "feed_marks.csv").read_text().splitlines()):
        marked[mark["kind"]].add((Path(mark["file"]).name, int(mark["position"])))
    assert judged.undecodable == set().union(*(marked[kind] for kind in feed.UNDECODABLE))
    for kind, reason in feed.REASONS.items():
        assert {where for where, why in judged.reasons.items() if why == reason} == marked[kind]
    assert judged.late == marked["late"]
    assert judged.duplicate == marked["duplicate"]
    assert judged.dropped == marked["test_flight"]
    assert set(judged.output) == marked["on_time"]


def test_the_manifest_expects_what_is_judged(flights_data: Path, judged: independent.Feed) -> None:
    expected = flights.read_manifest(flights_data)["feed"]
    computed = independent.accounting(judged)
    assert expected["bronze.flights_feed"] == computed["bronze.flights_feed"]
    assert {k: v for k, v in expected["silver.flights_feed"].items() if k != "reasons"} == computed[
        "silver.flights_feed"
    ]
    assert expected["silver.flights_feed"]["reasons"] == independent.reasons(judged)
    assert expected["kinds"] == {
        **feed.UNDECODABLE, **feed.UNTRUE, "test_flight": feed.TEST_FLIGHTS, "late": feed.LATE,
        "duplicate": feed.DUPLICATES, "on_time": Counter(row["mark"] for row in judged.output.values())["on_time"],
    }  # fmt: skip


def test_a_changed_line_is_judged_differently(flights_data: Path, judged: independent.Feed) -> None:
    """The judge can fail: a good line torn by hand is no longer output."""
    name, content = feed_files(flights_data)[0]
    name_of_first, position = next(iter(judged.output))
    assert name_of_first == name
    torn = content[:position] + b"X" + content[position + 1 :]
    assert (name, position) in independent.judge_feed([(name, torn), ("", b"")]).undecodable


def test_a_feed_too_small_for_its_faults_is_refused() -> None:
    with pytest.raises(ValueError, match="too few flights"):
        feed.make_feed([{"time_hour": "2013-01-01T10:00:00Z"}] * 10)
