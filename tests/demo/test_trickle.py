"""Flights that go on arriving, and what the demo declares for those who look at them."""

import json

import pytest

from lodestream.app import open_project
from lodestream.demo.run import write_project
from lodestream.demo.trickle import BAD_ONE_IN, FLIGHT_FROM, Trickle
from lodestream.project.dashboards import read_dashboards
from lodestream.project.queries import read_queries
from lodestream.query.guard import parse
from tests.docs.demo import make_small_demo
from tests.engines.lakes import wait_for

NOW_US = 1_795_000_000_000_000


@pytest.fixture
def demo(tmp_path):
    folder = tmp_path / "demo-lake"
    make_small_demo(folder)
    return folder


def test_flights_leave_now(demo):
    trickle = Trickle(demo / "data", lambda: NOW_US, rows=BAD_ONE_IN)
    flights = trickle.flights()
    for _ in range(2):
        trickle.write(flights)
    written = sorted((demo / "data/flights").glob("live-*"))
    rows = [json.loads(line) for file in written for line in file.read_text().splitlines()]
    assert [row["flight"] for row in rows] == [FLIGHT_FROM + i for i in range(2 * BAD_ONE_IN)]
    assert {row["time_hour"] for row in rows} == {"2026-11-18T11:06:40Z"}
    assert sum(row["distance"] < 0 for row in rows) == 2
    app = open_project(str(demo))
    app.run()
    found = app.query.table("select count(*) as n from silver.flights where flight >= 10000")
    assert found["n"].to_pylist() == [2 * BAD_ONE_IN - 2]
    gold = app.query.table("select scheduled from gold.departures_per_hour where window_start > '2026-01-01'")
    assert sum(gold["scheduled"].to_pylist()) == 2 * BAD_ONE_IN - 2
    app.query.close()


def test_it_goes_on_where_it_was_and_ends(demo):
    for begun in (0, 3):
        with Trickle(demo / "data", lambda: NOW_US, rows=1, every_s=0.01, files_max=3) as trickle:
            wait_for(lambda made=trickle: made.written == 3)
        assert len(list((demo / "data/flights").glob("live-*"))) == begun + 3


def test_dashboard_and_queries_are_declared_without_a_mistake(tmp_path):
    write_project(tmp_path)
    queries, mistakes = read_queries(str(tmp_path))
    assert (sorted(queries), list(mistakes)) == (["late_airlines", "latest_at_airport"], [])
    found, mistakes = read_dashboards(str(tmp_path))
    assert (list(found), list(mistakes)) == (["flights"], [])
    read = {
        f"{one.layer}.{one.name}" for panel in found["flights"].panels if panel.sql for one in parse(panel.sql).tables
    }
    assert read == {"gold.delay_by_carrier", "gold.departures_per_hour", "gold.cancellations_by_weather"}
