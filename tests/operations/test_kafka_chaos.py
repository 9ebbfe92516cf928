"""Processes that share a Kafka table are killed again and again, and the broker too: nothing is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chaos(folder: Path, *, share: bool, seed: int, kills: int, restarts: int, timeout_s: float) -> dict:
    """In a process of its own, which forks and so must have no threads."""
    command = [sys.executable, "-m", "tests.operations.kafka_chaos", "--kills", str(kills), "--restarts", str(restarts),
               "--seed", str(seed), "--folder", str(folder), *([] if share else ["--alone"])]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict, kills: int, restarts: int) -> None:
    assert not found["problems"], found["problems"]
    assert found["kills"] >= kills
    assert found["broker_restarts"] == restarts
    assert found["produced"] > 0
    assert (found["lost"], found["duplicated"], found["unknown"], found["gold_off"]) == (0, 0, 0, 0), found


@pytest.mark.parametrize("share", [True, False], ids=["shared", "competing"])
def test_a_few_kills_and_a_restarted_broker(needs_java, tmp_path, share):
    check(chaos(tmp_path, share=share, seed=1, kills=6, restarts=1, timeout_s=180), 6, 1)


@pytest.mark.long
@pytest.mark.parametrize("share", [True, False], ids=["shared", "competing"])
def test_a_hundred_kills_and_ten_restarts_of_the_broker(needs_java, tmp_path, share):
    check(chaos(tmp_path, share=share, seed=2, kills=100, restarts=10, timeout_s=1500), 100, 10)
