"""The crash tester's checker and `reconcile` see each bug that loses, doubles or hides rows: here all are planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lodestream.engines.embedded import expect
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.passing import INDEX, Pass
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.errors import ConflictError
from lodestream.lake import crash
from lodestream.lake.actions import RemoveFile
from lodestream.lake.layout import table_path
from lodestream.lake.proposal import Proposal
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.chaos_check import Verdict
from lodestream.operations.reconcile import reconcile
from lodestream.sources.files import FilesSource
from tests.engines.workloads import BRONZE, FINAL, SILVER, UPDATES, Project, findings, mixed, opened, unsynced

Plant = pytest.MonkeyPatch


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.make(tmp_path / "p")
    for start in (0, 12, 24, 36):
        made.events(mixed(start, 12))
    return made


@pytest.fixture(autouse=True)
def _no_hook_left() -> Iterator[None]:
    yield
    crash.install(None)


def crash_and_go_on(project: Project, at: str, thread_flow: TableName) -> None:
    """Run, die in the second batch of a flow at a point, and go on as another process."""
    left = 2

    class Killed(BaseException):
        pass

    def hook(name: str) -> None:
        nonlocal left
        if name == at:
            left -= 1
            if not left:
                crash.install(None)
                raise Killed

    with opened(project.pipeline(), list(project.flows)) as flows:
        for flow in flows:
            if flow.name == thread_flow:
                crash.install(hook)
            try:
                while flow.step():
                    pass
            except Killed:
                break
    project.events(mixed(48, 12))
    project.run()


# --- the bugs --------------------------------------------------------------------------------------------------------


def swap_a_good_row_for_a_duplicate(plant: Plant) -> None:
    """Each batch with a duplicate takes it in, and calls the good row after it a duplicate instead."""
    right = DedupMap.claim

    def claim(self: DedupMap, *given: Any) -> np.ndarray:
        first = right(self, *given)
        for i in np.flatnonzero(~first[:-1]):
            if first[i + 1]:
                first[i], first[i + 1] = True, False
        return first

    plant.setattr(DedupMap, "claim", claim)


def keep_the_second_of_two(plant: Plant) -> None:
    """The duplicate is taken and the row before it, which it repeats, is set aside."""
    right = DedupMap.claim

    def claim(self: DedupMap, high: Any, low: Any, *given: Any) -> np.ndarray:
        first = right(self, high, low, *given)
        for i in np.flatnonzero(~first[1:]) + 1:
            if first[i - 1] and low[i] == low[i - 1]:
                first[i - 1], first[i] = False, True
        return first

    plant.setattr(DedupMap, "claim", claim)


def skip_the_quarantine_commit(plant: Plant) -> None:
    """Rows are set aside and written nowhere."""
    plant.setattr(Flow, "_commit_quarantine", lambda self, batch, attempt, outcome: None)


def take_a_late_row_in_as_well(plant: Plant) -> None:
    """A late row is recorded as late and goes on to the table too."""

    right = Pass.reject_late

    def reject_late(self: Pass, late: np.ndarray) -> None:
        if self.state.dedup is None:
            right(self, late)
        elif late.any():
            indexes = self.column(INDEX).to_numpy()[late]
            self.record(indexes, "late", [["late"]] * int(late.sum()))

    plant.setattr(Pass, "reject_late", reject_late)


def call_a_good_row_late(plant: Plant) -> None:
    """The last row of a batch is called late whatever its time."""
    right = Pass.reject_late

    def reject_late(self: Pass, late: np.ndarray) -> None:
        late = late.copy()
        late[-1:] = True
        right(self, late)

    plant.setattr(Pass, "reject_late", reject_late)


def never_call_a_row_late(plant: Plant) -> None:
    right = Pass.reject_late
    plant.setattr(Pass, "reject_late", lambda self, late: right(self, late) if self.state.dedup is None else None)


def read_ranges_one_record_short(plant: Plant) -> None:
    """The last record of every planned range is not read."""
    right = FilesSource.read

    def read(self: FilesSource, planned: Any) -> Iterator[Any]:
        for piece in right(self, planned):
            yield replace(piece, rows=piece.rows.slice(0, len(piece.rows) - 1))

    plant.setattr(FilesSource, "read", read)


def read_ranges_twice_at_the_edge(plant: Plant) -> None:
    """The last record of every planned range comes twice."""
    right = FilesSource.read

    def read(self: FilesSource, planned: Any) -> Iterator[Any]:
        for piece in right(self, planned):
            yield replace(piece, rows=pa.concat_tables([piece.rows, piece.rows.slice(len(piece.rows) - 1)]))

    plant.setattr(FilesSource, "read", read)


def pass_a_broken_rule(plant: Plant) -> None:
    plant.setattr(expect, "_set_aside", lambda passing, bad, detail, flags: None)


def forget_open_windows(plant: Plant) -> None:
    """A batch starts its windows anew."""
    right = OpenWindows.fold

    def fold(self: OpenWindows, *given: Any) -> pa.Table:
        self._keep([])
        return right(self, *given)

    plant.setattr(OpenWindows, "fold", fold)


def leave_the_last_hot_file(plant: Plant) -> None:
    """The file of open windows is added and the one before it stays."""
    plant.setattr(DeltaTable, "hot_files", lambda self: [])


EVERY_RUN: dict[str, tuple[Callable[[Plant], None], str]] = {
    plant.__name__: (plant, kind)
    for plant, kind in (
        (swap_a_good_row_for_a_duplicate, "lost"),
        (keep_the_second_of_two, "lost"),
        (skip_the_quarantine_commit, "lost"),
        (take_a_late_row_in_as_well, "duplicated"),
        (call_a_good_row_late, "lost"),
        (never_call_a_row_late, "unaccounted"),
        (read_ranges_one_record_short, "lost"),
        (read_ranges_twice_at_the_edge, "duplicated"),
        (pass_a_broken_rule, "unaccounted"),
        (forget_open_windows, "unaccounted"),
        (leave_the_last_hot_file, "duplicated"),
    )
}


@pytest.mark.parametrize("bug", EVERY_RUN)
def test_a_bug_in_a_batch_is_seen(project: Project, monkeypatch: Plant, bug: str) -> None:
    plant, kind = EVERY_RUN[bug]
    plant(monkeypatch)
    project.run()
    verdict = project.check()
    assert getattr(verdict, kind) > 0, verdict
    assert verdict.notes


def test_the_same_runs_without_a_bug_have_no_findings(project: Project) -> None:
    project.run()
    assert project.check() == Verdict(produced=len(_lines(project)))


def _lines(project: Project) -> list[bytes]:
    return [line for path in (project.root / "events").iterdir() for line in path.read_bytes().splitlines()]


# --- bugs that only a crash or a rival brings out --------------------------------------------------------------------


def test_a_batch_committed_twice_is_seen(project: Project, monkeypatch: Plant) -> None:
    """Neither the recorded `txn` nor the winner of the race is looked at."""
    monkeypatch.setattr(Proposal, "check", lambda self, standing: None)
    monkeypatch.setattr(Proposal, "refuse", lambda self, winner: None)
    both_run_the_same_batch(project)
    verdict = project.check()
    assert verdict.duplicated > 0


def test_a_batch_that_two_processes_run_is_committed_once(project: Project) -> None:
    both_run_the_same_batch(project)
    assert findings(project.check()) == 0


def both_run_the_same_batch(project: Project) -> None:
    with opened(project.pipeline(), [BRONZE]) as ours, opened(project.pipeline(), [BRONZE]) as rivals:
        ours[0].step()
        try:
            rivals[0].step()
        except ConflictError:
            rivals[0].open()
    project.run()


def load_the_newest_state(plant: Plant) -> None:
    """Whatever state file was written last is loaded, not the one that the main commit names."""
    right = Flow._load_state

    def load(self: Flow) -> None:
        right(self)
        names = sorted(self.around.disk.list(self.store._states))
        if names and names[-1] != self.state.last:
            batch = int(names[-1][:20])
            for link in self.store.chain(names[-1], self.table.snapshot.metadata.id, self.epoch, batch)[-1:]:
                self.state.apply(link)

    plant.setattr(Flow, "_load_state", load)


@pytest.mark.parametrize("planted", [True, False])
def test_state_of_another_attempt_is_seen(project: Project, monkeypatch: Plant, planted: bool) -> None:
    """A process dies between state and main commit: what it wrote must not count."""
    if planted:
        load_the_newest_state(monkeypatch)
    crash_and_go_on(project, "state.after", SILVER)
    verdict = project.check()
    assert (verdict.lost > 0) == planted, verdict
    assert planted or findings(verdict) == 0


def test_windows_of_another_attempt_are_seen(project: Project, monkeypatch: Plant) -> None:
    load_the_newest_state(monkeypatch)
    crash_and_go_on(project, "state.after", UPDATES)
    assert findings(project.check()) > 0


@pytest.mark.parametrize("planted", [True, False])
def test_quarantine_committed_twice_is_seen(project: Project, monkeypatch: Plant, planted: bool) -> None:
    """A process dies after the quarantine commit, and the next one does not look at that table's `txn`."""
    if planted:
        monkeypatch.setattr(Proposal, "check", lambda self, standing: None)
        monkeypatch.setattr(Flow, "_commit_quarantine", _commit_quarantine_again)
    crash_and_go_on(project, "quarantine.after", SILVER)
    verdict = project.check()
    assert (verdict.unaccounted > 0) == planted, verdict


def _commit_quarantine_again(self: Flow, batch: Any, attempt: str, outcome: Any) -> None:
    if outcome.rejects and self.quarantine is not None:
        self.quarantine.refresh()
        staged = self.quarantine.stage(pa.concat_tables(outcome.rejects), name=f"{batch.batch}-{attempt}")
        self.quarantine.commit(adds=staged.adds, txn=(self.app_id, batch.batch), clock_us=batch.clock_us)
        crash.point("quarantine.after")


def compact(table: DeltaTable, *, hot: bool) -> None:
    """What a compaction does: write the files again as one, and say that no row changed."""
    files = [add for add in table.files() if hot or not add.hot]
    staged = table.stage(table.read(files), name="compacted")
    adds = [replace(add, data_change=False) for add in staged.adds]
    table.commit(adds=adds, removes=[RemoveFile.of(a, data_change=False) for a in files], clock_us=0, blind=False)


@pytest.mark.parametrize("planted", [True, False])
def test_the_hot_file_compacted_is_seen(project: Project, planted: bool) -> None:
    """A file of open windows that is rewritten as if they were closed is not swapped any more."""
    project.run()
    table = DeltaTable.open(unsynced(), table_path(project.lake, UPDATES))
    assert table is not None
    assert len(table.hot_files()) == 1
    assert len(table.files()) > 2
    compact(table, hot=planted)
    assert findings(project.check()) == 0, "compaction by itself changes no row"
    project.events(mixed(48, 12))
    project.run()
    verdict = project.check()
    assert (verdict.duplicated > 0) == planted, verdict
    assert planted or findings(verdict) == 0


@pytest.mark.parametrize("name", [UPDATES, FINAL], ids=str)
def test_reconcile_alone_sees_windows_that_forget(project: Project, monkeypatch: Plant, name: TableName) -> None:
    forget_open_windows(monkeypatch)
    project.run()
    report = reconcile(str(project.root), project.lake, project.flows[name])
    assert any("window" in problem for problem in report.problems)
