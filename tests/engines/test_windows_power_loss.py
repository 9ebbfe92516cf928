"""Open sessions, windows of windows and corrections outlive every power loss and every kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestream.engines.embedded.sessions import OpenSessions
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.lake import crash
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.testing.faults import DiskState, PowerLoss, RecordingDisk
from tests.engines.workloads import (
    BRONZE,
    SILVER,
    WINDOWED,
    Project,
    event,
    mixed,
    opened,
    quick_folder,
    step_all,
    unsynced,
)

ROWS_MAX = 10
VISITS = TableName("gold", "visits")
Rows = dict[TableName, list[dict[str, Any]]]


def rows_of(project: Project, lake: str) -> Rows:
    """What readers see of each window table."""
    found: Rows = {}
    for name in WINDOWED:
        table = DeltaTable.open(unsynced(), table_path(lake, name))
        rows = table.read(table.files()).drop_columns(["_batch"]).to_pylist() if table is not None else []
        found[name] = sorted(rows, key=repr)
    return found


def problems(project: Project, lake: str) -> list[str]:
    reports = [reconcile(str(project.root), lake, project.flows[name]) for name in WINDOWED]
    return [f"{report.table}: {problem}" for report in reports for problem in report.problems]


def make(folder: Path, first: int = 36) -> Project:
    project = Project.make(folder / "p", WINDOWED)
    project.flows = {name: project.flows[name] for name in (BRONZE, SILVER, *WINDOWED)}
    for start in range(0, first, 12):
        project.events(mixed(start, 12))
    for number in (50, 60, 58, 62):  # the session of 60 begins earlier once 58 is there
        project.events([event(number)])
    return project


class Recorded:
    """A run with every effect on its lake, and what was there in the end."""

    def __init__(self, folder: Path) -> None:
        self.project = make(folder)
        (folder / "lake").mkdir()
        recorder = RecordingDisk(unsynced(), str(folder / "lake"))
        self.project.run(recorder, str(folder / "lake"), rows_max=ROWS_MAX)
        self.record = recorder.record
        self.rows = rows_of(self.project, str(folder / "lake"))
        self.problems = problems(self.project, str(folder / "lake"))
        table = DeltaTable.open(unsynced(), table_path(str(folder / "lake"), TableName("gold", "corrected")))
        assert table is not None
        self.corrections = sum(bool(commit.removes) for commit in table.commits(-1))

    def goes_on(self, state: DiskState, folder: Path) -> None:
        lake = state.build(str(folder))
        self.project.run(None, lake, rows_max=ROWS_MAX)
        assert rows_of(self.project, lake) == self.rows, (state.after, state.variant)
        assert problems(self.project, lake) == [], (state.after, state.variant)
        shutil.rmtree(lake)


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with quick_folder() as folder:
        yield Recorded(folder)


def test_the_run_has_sessions_corrections_and_windows_of_windows(recorded: Recorded) -> None:
    visits, final, per_minute, corrected = (recorded.rows[name] for name in WINDOWED)
    assert recorded.problems == []
    assert max(row["_rows"] for row in visits) > 3
    assert len(final) >= 3
    assert sum(row["visits"] for row in per_minute) == len(final)
    assert sum(row["events"] for row in per_minute) == sum(row["events"] for row in final)
    assert corrected
    assert recorded.corrections >= 1


def test_after_a_power_loss_windows_are_what_they_would_have_been(recorded: Recorded, tmp_path: Path) -> None:
    states = list(PowerLoss(recorded.record).states())
    assert len(states) > 1_000
    for number in range(len(states) // 7, len(states), len(states) // 3):
        recorded.goes_on(states[number], tmp_path / f"s{number}")


@pytest.mark.long
def test_after_a_power_loss_at_every_point_windows_are_what_they_would_have_been(recorded: Recorded) -> None:
    with quick_folder() as folder:
        for number, state in enumerate(PowerLoss(recorded.record).states()):
            if number % 7 == 0:
                recorded.goes_on(state, folder / f"s{number}")


# --- kills, and bugs that only a restart brings out ------------------------------------------------------------------


class Killed(BaseException):
    """A process that is gone."""


def run_with_kills(project: Project, lake: str) -> int:
    """Run while crash points kill the process now and then; how often they did."""
    count, killed = 0, 0

    def hook(name: str) -> None:
        nonlocal count, killed
        count += 1
        if count % 101 == 0:
            killed += 1
            raise Killed

    while True:
        crash.install(hook)
        try:
            project.run(None, lake, rows_max=ROWS_MAX)
        except Killed:
            continue
        finally:
            crash.install(None)
        return killed


def test_a_run_that_is_killed_again_and_again_gives_the_same_windows(recorded: Recorded, tmp_path: Path) -> None:
    project = make(tmp_path)
    assert run_with_kills(project, project.lake) > 5
    assert rows_of(project, project.lake) == recorded.rows
    assert problems(project, project.lake) == []


def state_forgets_open_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OpenSessions, "upsert", lambda self, changed: None)


def state_keeps_sessions_that_became_part_of_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OpenSessions, "_replaced", OpenWindows._replaced)


def state_tells_only_where_sessions_begin(patch: pytest.MonkeyPatch) -> None:
    """A session that is loaded ends where its last batch made it end, not where it ends."""
    right = OpenSessions.upsert

    def upsert(self: OpenSessions, changed: pa.Table) -> None:
        at = changed.schema.get_field_index("_end_us")
        begins = pa.array([start + 20_000_000 for start in changed.column("_start_us").to_pylist()], pa.int64())
        right(self, changed.set_column(at, "_end_us", begins))

    patch.setattr(OpenSessions, "upsert", upsert)


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    state_forgets_open_sessions,
    state_keeps_sessions_that_became_part_of_others,
    state_tells_only_where_sessions_begin,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_in_the_state_of_sessions_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    project = make(tmp_path, 0)
    project.flows = {name: project.flows[name] for name in (BRONZE, SILVER, VISITS)}
    reopened(project)
    right = reconcile(str(project.root), project.lake, project.flows[VISITS])
    assert right.ok, right.problems
    again = make(tmp_path / "again", 0)
    again.flows = project.flows
    bug(monkeypatch)
    reopened(again)
    assert rows_of(again, again.lake)[VISITS] != rows_of(project, project.lake)[VISITS]


def reopened(project: Project) -> None:
    """Run a row at a time, and load the state of the sessions again before every batch."""
    with opened(project.pipeline(rows_max=1), list(project.flows)) as flows:
        step_all(flows[:2])
        while flows[2].step():
            flows[2].open()
