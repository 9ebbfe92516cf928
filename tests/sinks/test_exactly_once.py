"""Exactly once on a real broker: whoever dies and whenever, topics hold what tables hold, once and in order."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from lodestream.app import open_project
from lodestream.engines.embedded.sink_memory import SinkMemory
from lodestream.errors import ConflictError
from lodestream.lake import crash
from lodestream.model.table import TableName
from tests.sinks.crashing import Children
from tests.sinks.shop import Shop

POINTS = ("open", "remembered", "begun", "produced", "marked", "flushed", "committed", "published")
ORDERS = TableName("bronze", "orders")


@pytest.fixture(scope="module")
def children():
    made = Children()
    yield made
    made.close()


@pytest.fixture(scope="module")
def others():
    made = Children()
    yield made
    made.close()


def kill_at_points(shop, children, rounds):
    """Kill at each named point so many times; how often it took place."""
    killed = 0
    for name in POINTS * rounds:
        shop.sell(40)
        killed += children.run(shop.root, point=f"sink.{name}", nth=1 + killed % 2) == signal.SIGKILL
    return killed


def kill_at_random(shop, children, kills, rng):
    """Kill after a random time that often; a child that came to rest before does not count."""
    killed = 0
    while killed < kills:
        shop.sell(40)
        killed += children.run(shop.root, seconds=rng.uniform(0.15, 0.9)) == signal.SIGKILL
    return killed


def test_kills_at_every_step_lose_and_double_nothing(kafka, tmp_path, children):
    shop = Shop(tmp_path, kafka)
    killed = kill_at_points(shop, children, 1)
    killed += kill_at_random(shop, children, 2, random.Random(1))
    assert killed >= 6
    assert children.run(tmp_path) == 0
    shop.check()


@pytest.mark.long
def test_many_kills_lose_and_double_nothing(kafka, tmp_path, children):
    shop = Shop(tmp_path, kafka)
    killed = kill_at_points(shop, children, 3)
    killed += kill_at_random(shop, children, 20, random.Random(2))
    assert killed >= 40
    assert children.run(tmp_path) == 0
    shop.check()


def test_what_the_first_run_did_not_publish_the_next_one_does(kafka, tmp_path):
    shop = Shop(tmp_path, kafka)
    shop.sell(100)
    shop.run(tables=["bronze.orders"])
    shop.sell(100)
    shop.run()
    assert shop.check()[0] == 200


def test_of_two_processes_one_publishes_and_the_other_takes_over(kafka, tmp_path, children, others):
    shop = Shop(tmp_path, kafka)
    for _ in range(2):
        shop.sell(60)
        children.begin(tmp_path, seconds=0.5)
        others.begin(tmp_path, seconds=1.0)
        children.ended()
        others.ended()
    assert children.run(tmp_path) == 0
    shop.check()


def run_out(flow):
    while flow.step():
        pass


def test_a_process_that_was_taken_over_publishes_nothing_more(kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(SinkMemory, "lock", lambda _self: True)  # as on two machines: only the broker can tell
    shop = Shop(tmp_path, kafka)
    shop.sell(50)
    shop.app().apply()
    pipeline = shop.app().pipeline()
    pipeline.run_once([ORDERS])
    for name in ("begun", "flushed"):
        shop.sell(50)
        (slow,), (quick,) = shop.app().pipeline().sinks([ORDERS]), shop.app().pipeline().sinks([ORDERS])
        flow = shop.app().pipeline().flow(ORDERS)
        flow.open()
        run_out(flow)
        flow.close()
        slow.open()
        stepped = []

        def rival(at, name=name, quick=quick, stepped=stepped):
            if at == f"sink.{name}" and not stepped:
                stepped.append(at)
                quick.open()
                run_out(quick)

        crash.install(rival)
        try:
            with pytest.raises(ConflictError, match="another process"):
                run_out(slow)
        finally:
            crash.install(None)
            quick.close()
        slow.open()  # and comes back in peace
        assert slow.step() is None
        assert slow.caught_up
        slow.close()
    shop.run()
    shop.check()


@pytest.mark.parametrize("kills", [[True], pytest.param([True, False] * 5, marks=pytest.mark.long)], ids=len)
def test_a_broker_that_restarts_in_the_middle_loses_and_doubles_nothing(own_kafka, tmp_path, kills):
    shop = Shop(tmp_path, own_kafka)
    shop.sell(50)
    app = open_project(str(tmp_path))
    app.apply()
    pipeline = app.pipeline()
    failed = []
    thread = threading.Thread(target=lambda: failed.append(_failure(pipeline)))
    thread.start()
    try:
        for kill in kills:
            for _ in range(5):
                shop.sell(50)
                time.sleep(0.1)
            own_kafka.restart(kill=kill)
        shop.sell(50)
    finally:
        pipeline.stop()
        thread.join(60)
    assert failed == [None]
    shop.run()
    shop.check()


def _failure(pipeline):
    try:
        pipeline.run()
    except Exception as error:
        return error
    return None
