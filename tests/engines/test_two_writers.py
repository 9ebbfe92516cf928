"""Two processes on the same flows: whoever is first commits, the other stands by, and no row is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestream.engines.embedded import state as state_module
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.replay import open_entries
from lodestream.errors import ConflictError
from lodestream.lake import crash
from lodestream.lake.disk import Disk
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.runtime.maintain import Maintenance, Upkeep
from lodestream.testing.faults import ThroughDisk
from tests.engines.lakes import Lab
from tests.engines.workloads import BRONZE, SILVER, UPDATES, Project, findings, mixed, opened, step_all, unsynced

FLOWS = [BRONZE, SILVER, UPDATES]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.make(tmp_path / "p")
    made.flows = {name: made.flows[name] for name in FLOWS}
    return made


@pytest.fixture(autouse=True)
def _no_hook_left() -> Iterator[None]:
    yield
    crash.install(None)


class Killed(BaseException):
    """A process that is gone."""


def once_at(wanted: str, action: Callable[[], None]) -> None:
    """Call `action` the first time somebody comes by `wanted`; it may come by points itself."""

    def hook(name: str) -> None:
        if name == wanted:
            crash.install(None)
            action()

    crash.install(hook)


def points_of_a_batch(project: Project, name: TableName) -> list[str]:
    """The points that one batch of the flow comes by, in order; the flows before it run first."""
    with opened(project.pipeline(), FLOWS) as flows:
        project.events(mixed(0, 12))
        step_all(flows[: FLOWS.index(name)])
        seen: list[str] = []
        crash.install(seen.append)
        flows[FLOWS.index(name)].step()
        crash.install(None)
        step_all(flows)
    return list(dict.fromkeys(seen))


def step_to_idle(flow: Flow) -> int:
    """Step as a worker does: after a conflict open again; gives the number of conflicts."""
    conflicts = 0
    while True:
        try:
            if flow.step() is None:
                return conflicts
        except ConflictError:
            conflicts += 1
            flow.open()


@pytest.mark.parametrize("name", FLOWS, ids=str)
def test_a_rival_may_run_the_batch_at_any_point_of_ours(project: Project, name: TableName) -> None:
    points = points_of_a_batch(project, name)
    assert len(points) >= 14
    points = points if name == SILVER else points[FLOWS.index(name) % 2 :: 2]
    conflicts = 0
    before, at = FLOWS[: FLOWS.index(name)], FLOWS.index(name)
    with opened(project.pipeline(handover=False), FLOWS) as ours, opened(project.pipeline(), [name]) as rivals:
        for number, point in enumerate(points, 1):
            project.events(mixed(number * 12, 12))
            step_all([flow for flow in ours if flow.name in before])
            once_at(point, lambda: step_to_idle(rivals[0]) and None)
            conflicts += step_to_idle(ours[at])
            crash.install(None)
            step_to_idle(rivals[0])
            step_all(ours[at + 1 :])
    verdict = project.check()
    assert findings(verdict) == 0, verdict.notes
    assert conflicts >= len(points) // 2


def test_a_process_that_dies_at_any_point_is_followed_by_one_that_stood_by(project: Project) -> None:
    points = points_of_a_batch(project, SILVER)

    def die() -> None:
        raise Killed

    with opened(project.pipeline(handover=False), [SILVER]) as standing:
        for number, point in enumerate(points, 1):
            project.events(mixed(number * 12, 12))
            with suppress(Killed), opened(project.pipeline(), [BRONZE, SILVER]) as flows:
                step_all(flows[:1])
                once_at(point, die)
                step_all(flows[1:])
                pytest.fail(f"did not come by {point}")
            crash.install(None)
            step_to_idle(standing[0])
    project.run()
    verdict = project.check()
    assert findings(verdict) == 0, verdict.notes


class InterruptedDisk(ThroughDisk):
    """Calls `interrupt` before the call number `at` that looks at the disk."""

    def __init__(self, inner: Disk, at: int, interrupt: Callable[[], None]) -> None:
        super().__init__(inner)
        self.calls = 0
        self._at = at
        self._interrupt = interrupt

    def _look(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._interrupt()

    def read(self, path: str) -> bytes:
        self._look()
        return self.inner.read(path)

    def list(self, path: str) -> list[str]:
        self._look()
        return self.inner.list(path)

    def exists(self, path: str) -> bool:
        self._look()
        return self.inner.exists(path)


def test_opening_while_another_process_moves_on_is_no_corruption(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any look at the disk the other one may commit a batch, forget older state and plan the batch after."""
    monkeypatch.setattr(state_module, "_CHAIN_MAX", 0)
    project.flows = {name: project.flows[name] for name in (BRONZE, SILVER)}
    number = 0

    def move_on() -> None:
        nonlocal number
        for dies in (False, True):
            number += 1
            project.events(mixed(number * 4, 4))
            with suppress(Killed), opened(project.pipeline(), [BRONZE, SILVER]) as flows:
                step_all(flows[:1])
                if dies:
                    once_at("plan.after", raise_killed)
                step_all(flows[1:])

    def raise_killed() -> None:
        raise Killed

    project.events(mixed(0, 4))
    project.run()
    looks, conflicts, at = 99, 0, 0
    while at < looks:
        at += 5
        disk = InterruptedDisk(unsynced(), at, move_on)
        flow = project.pipeline(disk, handover=False).flow(SILVER)
        try:
            flow.open()
        except ConflictError:
            conflicts += 1
            flow.open()
        looks = disk.calls if disk.calls < at else looks
        step_to_idle(flow)
        flow.close()
    assert at > 12
    assert conflicts > 0
    verdict = project.check()
    assert findings(verdict) == 0, verdict.notes


RUN = """
import sys, time
from pathlib import Path
from lodestream.cli import main
sys.argv = ["lodestream", "-C", sys.argv[1], "run", *sys.argv[2:]]
main()
"""


def run_process(project: Project, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(project.root), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_processes_with_all_flows_both_end_well(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "p")
    (project.root / "lodestream.yaml").write_text("project: chaos\nlake: lake\nbatch: {rows_max: 30}\n")
    for start in range(0, 96, 12):
        project.events(mixed(start, 12))
    processes = [run_process(project, "--until-idle", "--json") for _ in range(2)]
    for start in range(96, 192, 12):
        time.sleep(0.1)
        project.events(mixed(start, 12))
    ends: list[Any] = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    end = run_process(project, "--until-idle", "--json")
    assert (end.communicate(timeout=60), end.returncode)[1] == 0
    verdict = project.check()
    assert findings(verdict) == 0, verdict.notes


def test_a_refresh_planned_long_ago_reads_what_there_is_now(tmp_path: Path) -> None:
    """Files of open windows are deleted soon; a plan that pinned them must not stop its table for good."""
    lab = Lab(tmp_path / "p")
    columns = "columns: {id: string, at: timestamp}"
    lab.table("bronze.e", f"source: {{files: {{path: events, settle: 0 seconds}}}}\nformat: json\n{columns}\n")
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nevent_time: {column: at, delay: 30 seconds}\nwindow: {every: 1 minute}\n"
        "measures: {n: count(*)}\n",
    )
    lab.table("gold.q", "sql: select window_start, n from gold.w\n")
    inputs = ["bronze.e", "gold.w"]

    def more(number: int, tables: list[str] | None) -> None:
        lab.events([{"id": f"e{number}", "at": f"2024-01-01T00:00:{number:02}Z"}])
        lab.run(tables=tables)

    def die() -> None:
        raise Killed

    more(0, None)
    more(1, inputs)
    app = lab.app()
    with suppress(Killed), opened(app.pipeline(), [TableName("gold", "q")]) as flows:
        once_at("plan.after", die)
        flows[0].step()
        pytest.fail("did not come by")
    crash.install(None)
    more(2, inputs)
    upkeep = Upkeep(hot_kept_ms=-1)
    Maintenance([TableName("gold", "w")], app.flows, app.pipeline().around, upkeep).look()
    lab.run()
    assert lab.rows("gold.q", "n") == [{"n": 3}]


def test_a_rival_may_run_at_any_point_of_a_replay(project: Project) -> None:
    """Whoever finds the plan of a replay runs it, once; late rows that are accepted come in exactly once."""
    points = [*points_of_a_batch(project, SILVER), "commit.lost_race"]
    number = 1
    with opened(project.pipeline(handover=False), FLOWS) as ours, opened(project.pipeline(), [SILVER]) as rivals:
        for point in points:
            while not (late := _late(project)):
                project.events(mixed(number * 12, 12))
                number += 1
                step_all(ours[:1])
                step_to_idle(ours[1])
            project.events(mixed(number * 12, 12))
            number += 1
            step_all(ours[:1])
            once_at(point, lambda: step_to_idle(rivals[0]) and None)
            with suppress(ConflictError):
                ours[1].submit_replay(late, accept_late=True)
            crash.install(None)
            ours[1].open()
            if left := [position for position in late if position in _late(project)]:
                ours[1].submit_replay(left, accept_late=True)
            step_to_idle(ours[1])
            rivals[0].open()
        step_all(ours)
    for plan in project.flows.values():
        report = reconcile(str(project.root), project.lake, plan)
        assert report.problems == []
        assert report.counts["output"] > 0
    kinds = [row["kind"] for row in _aside(project).to_pylist()]
    assert kinds.count("resolved") >= len(points)


def _aside(project: Project) -> pa.Table:
    table = DeltaTable.open(unsynced(), table_path(project.lake, quarantine_name(SILVER)))
    assert table is not None
    return table.read(table.files())


def _late(project: Project) -> list[tuple[str, int]]:
    rows = open_entries(_aside(project).sort_by("_batch")).to_pylist()
    return [(row["_source"], row["_position"]) for row in rows if row["kind"] == "late"]
