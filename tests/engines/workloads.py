"""The crash tester's project in small: its flows stepped on one thread, over any disk and any lake folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.surroundings import Committed
from lodestream.lake.disk import Disk, LocalDisk
from lodestream.model.batch import BatchLimit
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.operations.chaos_check import GOLD, Verdict, check
from lodestream.operations.reconcile import reconcile
from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from lodestream.runtime.pipeline import Pipeline
from lodestream.testing.faults import ForgetfulDisk

START_US = 1_700_000_000_000_000
BRONZE, SILVER = TableName("bronze", "events"), TableName("silver", "events")
UPDATES, FINAL = TableName("gold", "activity"), TableName("gold", "activity_final")


def unsynced() -> Disk:
    """A disk that skips the real syncs, which cost time and tell these tests nothing."""
    return ForgetfulDisk(LocalDisk(), lambda kind, path: True)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """An event that passes every rule; ten seconds of event time lie between two numbers."""
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + number * 10))
    given = {
        "event_id": f"e{number}",
        "event_time": shown,
        "user_id": number % 7,
        "type": ("Click", "VIEW")[number % 2],
    }
    return {**given, "amount": number % 50, **changes}


def mixed(start: int, count: int) -> list[Any]:
    """Mostly good events, and one of each kind that is set aside in every dozen."""
    rows: list[Any] = []
    for number in range(start, start + count):
        rows.append(event(number))
        match number % 12:
            case 3:
                rows.append(event(number))  # a duplicate
            case 5:
                rows.append(event(number, event_id=None))
            case 6:
                rows.append(event(number, event_id=f"p{number}", type="ping"))
            case 8:
                rows.append('{"event_id": "torn')
            case 10 if number > 20:
                rows.append(event(number - 20, event_id=f"late{number}"))
    return rows


WINDOWED = {
    TableName("gold", "visits"): """
from: stream(silver.events)
event_time: {column: event_time, delay: 30 seconds}
window: {gap: 20 seconds}
group_by: [type]
measures: {events: count(*), amount: sum(amount)}
""",
    TableName("gold", "visits_final"): """
from: stream(silver.events)
event_time: {column: event_time, delay: 30 seconds}
window: {gap: 25 seconds}
group_by: [type]
measures: {events: count(*), amount: sum(amount)}
emit: final
""",
    TableName("gold", "visits_per_minute"): """
from: stream(gold.visits_final)
window: {every: 1 minute}
measures: {visits: count(*), events: sum(events)}
""",
    TableName("gold", "corrected"): """
from: stream(bronze.events)
event_time: {column: event_time, delay: 30 seconds}
window: {every: 1 minute}
group_by: [type]
measures: {events: count(*), amount: sum(amount)}
emit: final
late: update
""",
}
"""Sessions, windows of sessions, and windows that late rows correct."""


@dataclass
class Project:
    """The crash tester's project in a folder of its own, with its lake in any folder.

    Attributes:
        root: the project folder.
        flows: the flows that run; all of them unless told otherwise.
        files: event files made so far.
    """

    root: Path
    flows: Mapping[TableName, FlowPlan]
    files: int = 0

    @classmethod
    def make(cls, root: Path, more: Mapping[TableName, str] = MappingProxyType({})) -> Project:
        """A new project in `root`, with `more` tables beside its own."""
        with resources.as_file(resources.files("lodestream.operations") / "chaos_project") as template:
            shutil.copytree(template, root, dirs_exist_ok=True)
        (root / "events").mkdir()
        for name, text in more.items():
            (root / "tables" / name.layer / f"{name.name}.yaml").write_text(text)
        return cls(root, compile_project(load_project(str(root)), {}).flows)

    @property
    def lake(self) -> str:
        return str(self.root / "lake")

    def events(self, rows: Sequence[Any]) -> Path:
        path = self.root / "events" / f"{self.files:06}.jsonl"
        self.files += 1
        part = path.with_name(f".{path.name}.part")  # a reader sees the whole file or none
        part.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        part.rename(path)
        return path

    def pipeline(self, disk: Disk | None = None, lake: str | None = None, rows_max: int = 12, **more: Any) -> Pipeline:
        clock = more.pop("clock", lambda: START_US)
        return Pipeline(
            str(self.root), self.flows, lake=lake or self.lake, disk=disk or unsynced(), clock=clock,
            limit=BatchLimit(rows_max=rows_max), poll_s=0.01, standby_s=0.01, **more,
        )  # fmt: skip

    def run(
        self,
        disk: Disk | None = None,
        lake: str | None = None,
        told: Callable[[TableName, Committed], None] = lambda _name, _committed: None,
        **more: Any,
    ) -> None:
        """Step every flow on this thread, inputs first, until none has anything to do; `told` hears of each batch."""
        with opened(self.pipeline(disk, lake, **more), list(self.flows)) as flows:
            step_all(flows, told)

    def check(self, lake: str | None = None) -> Verdict:
        """Judge the tables with the crash tester's checker and with `reconcile`, whose findings count too."""
        lake = lake or self.lake
        gold = {name.name: GOLD[name.name] for name in self.flows if name.name in GOLD}
        verdict = check(self.root / "events", Path(lake), gold)
        for plan in self.flows.values():
            report = reconcile(str(self.root), lake, plan)
            for problem in report.problems:
                verdict.count(f"{plan.table.name}: {problem}", 1, "unaccounted")
        return verdict


@contextmanager
def opened(pipeline: Pipeline, names: Sequence[TableName]) -> Iterator[list[Flow]]:
    """The flows of a pipeline, open; closed in the end."""
    flows = [pipeline.flow(name) for name in names]
    try:
        for flow in flows:
            flow.open()
        yield flows
    finally:
        for flow in flows:
            flow.close()


def step_all(flows: Sequence[Flow], told: Callable[[TableName, Committed], None] = lambda _n, _c: None) -> None:
    """Step the flows, inputs first, until none has anything to do."""
    busy = True
    while busy:
        busy = False
        for flow in flows:
            while committed := flow.step():
                busy = True
                told(flow.name, committed)


def findings(verdict: Verdict) -> int:
    return verdict.lost + verdict.duplicated + verdict.unaccounted


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of lakes are made and deleted."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)
