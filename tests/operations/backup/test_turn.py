"""Whose turn it is: nobody ends or renews that of another, and it lasts as long as the work does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from lodestream.errors import ConflictError, TransientError
from lodestream.lake.disk import LocalDisk
from lodestream.operations.backup import turn as turns
from lodestream.operations.backup.turn import TURN_US, Turn, renewed
from lodestream.operations.backup.vault import Vault
from tests.engines.lakes import wait_for


def held(root: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((root / "turn.json").read_text())
    return told


def test_whose_turn_has_ended_leaves_that_of_another_alone(tmp_path: Path) -> None:
    late, other = Turn(LocalDisk(), str(tmp_path), lambda: 0), Turn(LocalDisk(), str(tmp_path), lambda: TURN_US + 1)
    late.take()
    other.take()
    told = held(tmp_path)
    with pytest.raises(ConflictError, match="another process has taken over"):
        late.keep()
    late.leave()
    assert held(tmp_path) == told
    other.keep()
    other.leave()
    assert not (tmp_path / "turn.json").exists()
    with pytest.raises(ConflictError):  # who took it over has come and gone: who knows what it did
        late.keep()


class Overwritten(LocalDisk):
    """Another process takes the same turn at the same moment, and is the last to write."""

    def replace(self, source: str, target: str) -> None:
        super().replace(source, target)
        Path(target).write_text(json.dumps({"who": "another", "until_us": 5 * TURN_US}))


def test_of_two_that_find_it_ended_the_last_one_has_it(tmp_path: Path) -> None:
    Turn(LocalDisk(), str(tmp_path), lambda: 0).take()
    with (
        pytest.raises(ConflictError, match="another process has taken over"),
        Vault(Overwritten(), str(tmp_path)).turn(lambda: 2 * TURN_US),
    ):
        pytest.fail("both have it")
    assert held(tmp_path)["who"] == "another"


def test_a_turn_that_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "turn.json").write_text("{")
    with Vault(LocalDisk(), str(tmp_path)).turn(lambda: 7):
        assert held(tmp_path)["until_us"] == TURN_US + 7
    assert os.listdir(tmp_path) == []


def test_a_turn_lasts_as_long_as_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BEAT_S", 0.001)
    now = [0]
    with Vault(LocalDisk(), str(tmp_path)).turn(lambda: now[0]):
        now[0] = TURN_US - 1
        wait_for(lambda: held(tmp_path)["until_us"] == 2 * TURN_US - 1)
    assert not (tmp_path / "turn.json").exists()


def test_a_renewal_that_fails_is_tried_again_and_none_comes_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BEAT_S", 0.001)
    calls = []

    def renew() -> None:
        calls.append(None)
        raise TransientError("store is busy")

    with renewed(renew):
        wait_for(lambda: len(calls) > 2)
    count = len(calls)
    time.sleep(0.02)
    assert len(calls) == count
