"""Processes that share a Kafka table are killed again and again, and the broker too: nothing is lost or doubled."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.operations.kafka_chaos import KafkaChaos


def _run(folder, share, seed, kills, restarts, results) -> None:
    results.put(KafkaChaos(folder, share=share, seed=seed).run(kills, restarts))


def chaos(folder, *, share: bool, seed: int, kills: int, restarts: int) -> dict:
    """In a process of its own, which forks and so must have no threads."""
    clean = multiprocessing.get_context("spawn")
    results = clean.Queue()
    process = clean.Process(target=_run, args=(folder, share, seed, kills, restarts, results))
    process.start()
    found = results.get(timeout=900)
    process.join(30)
    return found


def check(found: dict, kills: int, restarts: int) -> None:
    assert found["kills"] >= kills
    assert found["broker_restarts"] == restarts
    assert found["produced"] > 0
    assert (found["lost"], found["duplicated"], found["unknown"], found["gold_off"]) == (0, 0, 0, 0), found
    assert not found["problems"], found["problems"]


@pytest.mark.parametrize("share", [True, False], ids=["shared", "competing"])
def test_a_few_kills_and_a_restarted_broker(needs_java, tmp_path, share):
    check(chaos(tmp_path, share=share, seed=1, kills=6, restarts=1), 6, 1)


@pytest.mark.long
@pytest.mark.parametrize("share", [True, False], ids=["shared", "competing"])
def test_a_hundred_kills_and_ten_restarts_of_the_broker(needs_java, tmp_path, share):
    check(chaos(tmp_path, share=share, seed=2, kills=100, restarts=10), 100, 10)
