"""Processes that start side by side bring the same lake in line with the same declarations: each change once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lodestream.app import App
from lodestream.errors import ConflictError
from lodestream.lake.layout import epoch_of
from lodestream.planning.diff import accept_hash
from lodestream.runtime import apply as applying
from tests.engines.lakes import Lab

BRONZE = """source: {files: {path: events}}
format: json
columns: {id: bigint, at: timestamp}
"""
GOLD = """from: stream(bronze.events)
skip_silver: true
event_time: {column: at, delay: 1 second}
window: {every: 1 minute}
group_by: [id]
measures: {n: count(*)}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.table("bronze.events", BRONZE)
    lab.table("gold.counts", GOLD)
    return lab


def at_once(apps: list[App], do: Callable[[App], object]) -> None:
    """Each app has found its changes before the first one carries them out."""
    ready = Barrier(len(apps))

    def work(app: App) -> None:
        app.changes()
        ready.wait(10)
        do(app)

    with ThreadPoolExecutor(len(apps)) as pool:
        list(pool.map(work, apps))


def states(lab: Lab, name: str) -> tuple[int, int]:
    """(version, epoch) of a table."""
    table = lab.delta(name)
    return table.snapshot.version, epoch_of(table.snapshot.metadata.configuration)


@pytest.mark.parametrize("_round", range(5))
def test_many_make_the_tables(lab: Lab, _round: int) -> None:
    at_once([lab.app() for _ in range(6)], lambda app: app.apply())
    assert states(lab, "bronze.events") == states(lab, "gold.counts") == (0, 1)


@pytest.mark.parametrize("_round", range(5))
def test_many_change_what_is_known_of_a_table(lab: Lab, _round: int) -> None:
    lab.app().apply()
    lab.table("gold.counts", "comment: how many\n" + GOLD)
    at_once([lab.app() for _ in range(6)], lambda app: app.apply())
    assert states(lab, "gold.counts") == (1, 1)


@pytest.mark.parametrize("_round", range(5))
def test_many_rebuild_a_table_that_is_rebuilt_once(lab: Lab, _round: int) -> None:
    lab.app().apply()
    lab.table("gold.counts", GOLD.replace("1 minute", "2 minutes"))
    accept = accept_hash(lab.app().changes())
    at_once([lab.app() for _ in range(6)], lambda app: app.apply(accept))
    assert states(lab, "gold.counts") == (1, 2)


def test_a_table_that_somebody_else_has_changed_is_planned_again(lab: Lab) -> None:
    app, other = lab.app(), lab.app()
    assert [change.kind for change in app.changes()] == ["create", "create"]
    other.apply()
    assert app.apply() == []


def test_it_does_not_try_for_ever(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def never(*_given: object) -> bool:
        tried.append(1)
        return False

    monkeypatch.setattr(applying, "_is_as_seen", never)
    with pytest.raises(ConflictError, match="plan again"):
        lab.app().apply()
    assert len(tried) == applying.TRIES


def test_others_are_told_how_long_a_removed_file_is_kept(lab: Lab) -> None:
    def told(name: str) -> str:
        return lab.delta(name).snapshot.metadata.configuration["delta.deletedFileRetentionDuration"]

    lab.app().apply()
    assert told("bronze.events") == "interval 172800 seconds"
    assert told("gold.counts") == "interval 10 minutes"  # it swaps a file with each batch
    lab.table("bronze.events", BRONZE + "maintain: {deleted_file_retention: 1 day}\n")
    assert [change.kind for change in lab.app().apply()] == ["alter_metadata"]
    assert told("bronze.events") == "interval 86400 seconds"
