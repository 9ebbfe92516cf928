"""Whatever the power takes, an answer that a plan counts is on disk, and what is on disk is not asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from lodestream.app import open_project
from lodestream.engines.embedded.ledger import question_key
from lodestream.testing.faults import DiskState, Effect, PowerLoss, RecordingDisk
from tests.engines.test_power_loss import contents, without
from tests.engines.workloads import unsynced
from tests.enrichers.service import Reviews, Service, good, score, serving

ANSWERS = "_lodestream/flows/silver.scored/answers"
PLANS = "_lodestream/flows/silver.scored/1/plans"
TEXTS: Mapping[int, str | None] = {i: f"text {i % 6}" for i in range(12)}


def groups(files: Mapping[str, bytes], whole: Mapping[str, bytes]) -> int:
    """How many groups of answers the ledger in `files` has whole, with none of the engine's code."""
    version = found = 0
    while (path := f"{ANSWERS}/_delta_log/{version:020d}.json") in files and files[path] == whole[path]:
        actions = [json.loads(line) for line in files[path].splitlines()]
        paths = [f"{ANSWERS}/{one['add']['path']}" for one in actions if "add" in one]
        if any(files.get(one) != whole[one] for one in paths):
            break
        found += any("txn" in one for one in actions)
        version += 1
    return found


def lacks(state: DiskState, whole: Mapping[str, bytes]) -> str | None:
    """A plan that counts more than there is; None for none."""
    there = groups(state.files, whole)
    for path, data in state.files.items():
        if re.fullmatch(rf"{PLANS}/\d+\.json", path) and data == whole[path] and json.loads(data)["answers"] > there:
            return f"{path} counts {json.loads(data)['answers']} groups of answers of {there}"
    return None


class Recorded:
    """A run that asks, with every effect on its lake."""

    def __init__(self, root: Path, service: Service) -> None:
        self.root = root
        reviews = Reviews(root, service.url)
        reviews.add(TEXTS)
        (root / "lake").mkdir()
        recorder = RecordingDisk(unsynced(), str(root / "lake"))
        with open_project(str(root)) as app:
            app.disk = recorder
            app.pipeline().run(until_idle=True)
        self.record = recorder.record
        self.whole = contents(self.record)

    def first_lack(self, record: list[Effect], since: int = 0) -> str | None:
        return next(filter(None, (lacks(state, self.whole) for state in PowerLoss(record).states(since))), None)


def test_after_a_power_loss_no_answer_is_missing_or_asked_again(tmp_path: Path) -> None:
    with serving(good) as service:
        recorded = Recorded(tmp_path / "p", service)
        assert recorded.first_lack(recorded.record) is None
        states = list(PowerLoss(recorded.record).states())
        assert len(states) > 200
        tried = 0
        for number, state in enumerate(states):
            if number % 150 == 90:
                tried += 1
                assert _goes_on(recorded, state, tmp_path / f"lake{number}", service) is None, (number, state.variant)
        assert tried >= 2


def _goes_on(recorded: Recorded, state: DiskState, lake: Path, service: Service) -> str | None:
    """Run on what is left: every row once, and nothing asked that the ledger has."""
    from lodestream.lake.disk import LocalDisk
    from lodestream.lake.table import DeltaTable

    state.build(str(lake))
    ledger = DeltaTable.open(LocalDisk(), str(lake / ANSWERS))
    known = set(ledger.read(ledger.files(), ["question"]).column(0).to_pylist()) if ledger else set()
    service.asked.clear()
    with open_project(str(recorded.root), lake=str(lake)) as app:
        app.disk = unsynced()
        app.pipeline().run(until_idle=True)
    again = {body for body in service.asked if question_key("http", "1", body) in known}
    table = DeltaTable.open(LocalDisk(), str(lake / "silver/scored"))
    assert table is not None
    rows = sorted((row["id"], row["score"]) for row in table.read(table.files()).to_pylist())
    if rows != [(i, score(text)["score"]) for i, text in TEXTS.items()]:
        return f"rows differ: {rows}"
    return f"asked again: {again}" if again else None


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("fsync", rf"{ANSWERS}/part-"),
        ("fsync", rf"{ANSWERS}/_delta_log/\.tmp-"),
        ("sync_directory", rf"{ANSWERS}/_delta_log$"),
        ("sync_directory", rf"{ANSWERS}$"),
    ],
    ids=["answers", "commit", "name of the commit", "name of the file"],
)  # fmt: skip
def test_a_missing_sync_is_found_out(tmp_path: Path, kind: str, pattern: str) -> None:
    with serving(good) as service:
        recorded = Recorded(tmp_path / "p", service)
    left, first = without(recorded.record, kind, pattern)
    assert recorded.first_lack(left, first) is not None
