"""The crash tester kills what it says, where it says, and finds nothing; and it would find something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lodestream.errors import ConfigError
from lodestream.operations.chaos import run_chaos

SCRIPT = """
import json, sys
from pathlib import Path
from lodestream.operations.chaos import run_chaos
{plant}
result = run_chaos(Path(sys.argv[1]), kills=int(sys.argv[2]), seed=int(sys.argv[3]))
more = {{"points": result.points, "inside": result.inside, "notes": result.verdict.notes}}
print(json.dumps({{**result.to_json(), **more}}))
"""
ZERO = {"lost": 0, "duplicated": 0, "unaccounted": 0}


def chaos(folder: Path, kills: int, seed: int, plant: str = "") -> dict:
    """Run in a clean interpreter, for workers are forked."""
    command = [sys.executable, "-c", SCRIPT.format(plant=plant), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    found = chaos(tmp_path / "c", 8, seed=3)
    assert found | ZERO == found, found["notes"]
    assert found["kills"] >= 8
    assert found["produced"] > 500
    assert found["inside"] >= 3
    kinds = {plan.parent.parent.parent.name for plan in (tmp_path / "c" / "lake" / "_lodestream").rglob("*.json")}
    assert len(kinds) == 4


@pytest.mark.long
def test_a_bug_behind_a_crash_is_found(tmp_path: Path) -> None:
    """Quarantine commits left out: what was set aside is nowhere."""
    plant = (
        "from lodestream.engines.embedded.flow import Flow\n"
        "Flow._commit_quarantine = lambda self, batch, attempt, outcome: None"
    )
    found = chaos(tmp_path / "c", 2, seed=5, plant=plant)
    assert found["lost"] > 0


@pytest.mark.long
def test_a_worker_that_stops_by_itself_is_a_finding(tmp_path: Path) -> None:
    """A flow that refuses to go on after a crash is no kill, and the test ends with it."""
    plant = (
        "from lodestream.engines.embedded.flow import Flow\n"
        "from lodestream.errors import CorruptionError\n"
        "from lodestream.operations import chaos\n"
        "right = Flow.open\n"
        "def refuse(self):\n"
        "    right(self)\n"
        "    if self.state.batch > 1 and chaos_is_on: raise CorruptionError('planted')\n"
        "chaos_is_on = False\n"
        "die_at = chaos._Chaos.die_at\n"
        "def die(self, target):\n"
        "    global chaos_is_on\n"
        "    chaos_is_on = True\n"
        "    die_at(self, target)\n"
        "chaos._Chaos.die_at = die\n"
        "Flow.open = refuse"
    )
    found = chaos(tmp_path / "c", 500, seed=4, plant=plant)
    assert found["unaccounted"] > 0
    assert any("planted" in note for note in found["notes"])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="empty"):
        run_chaos(tmp_path, kills=1)


@pytest.mark.long
def test_two_hundred_kills_at_every_point_lose_nothing(tmp_path: Path) -> None:
    found = chaos(tmp_path / "c", 200, seed=11)
    print(json.dumps({key: found[key] for key in ("kills", "produced", *ZERO)}))
    assert found | ZERO == found, found["notes"]
    assert found["kills"] >= 200
    assert found["inside"] >= found["kills"] // 2
    assert len({point.split("/")[1] for point in found["points"]}) >= 24
    kinds = {
        json.loads(plan.read_bytes())["kind"] for plan in (tmp_path / "c" / "lake" / "_lodestream").rglob("*.json")
    }
    assert {"data", "no_data"} <= kinds
    assert list((tmp_path / "c" / "lake").rglob("*.checkpoint.parquet"))
