"""Whatever the power takes, a batch that is in a table has all it stands on, and the pipeline goes on from there."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from polars.exceptions import PanicException, PolarsError

from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import ConflictError, CorruptionError, LodestreamError
from lodestream.lake.disk import Data, Disk
from lodestream.lake.log import load
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.testing.faults import DiskState, Effect, PowerLoss, RecordingDisk, ThroughDisk
from tests.engines.workloads import (
    BRONZE,
    SILVER,
    UPDATES,
    Project,
    findings,
    mixed,
    opened,
    quick_folder,
    step_all,
    unsynced,
)

ROWS_MAX = 10
UPSTREAM = {"silver/events": "bronze/events", "gold/activity": "silver/events"}


# --- what a state must have ------------------------------------------------------------------------------------------


def lacks(state: DiskState, whole: Mapping[str, bytes], set_aside: set[tuple[str, int]]) -> str | None:
    """What is missing of all that the committed and acknowledged batches stand on; None when all is there.

    Looks at bare files with none of the engine's code.

    Args:
        state: what the disk holds.
        whole: every file that was ever written, with its full content.
        set_aside: (table, batch) of the batches that quarantine holds rows of.
    """
    files = state.files
    committed: dict[str, tuple[int, int]] = {}
    for table in ("bronze/events", "silver/events", "gold/activity"):
        found, batch, info, version = _log(files, whole, table)
        if found:
            return found
        committed[table] = (version, batch)
        epoch = f"_lodestream/flows/{table.replace('/', '.')}/1"
        for number in range(1, batch + 2):
            plan = f"{epoch}/plans/{number:020d}.json"
            if (number <= batch or plan in files) and files.get(plan) != whole[plan]:
                return f"plan {number} of {table}"
        if f"{epoch}/plans/{batch + 2:020d}.json" in files:
            return f"batch {batch + 1} of {table}, for the next one is planned"
        if batch and (found := _chain(files, whole, f"{epoch}/state", str(info["state"]))):
            return found
        found, aside, _, _ = _log(files, whole, f"{table}__quarantine")
        if found:
            return found
        if aside > batch + 1:
            return f"batch {aside - 1} of {table}, for quarantine rows of the next one are there"
        if needed := [n for name, n in set_aside if name == table and aside < n <= batch]:
            return f"quarantine rows of batch {needed[0]} of {table}"
        upto = int(info.get("upto", -1))
        if table in UPSTREAM and upto > committed[UPSTREAM[table]][0]:
            return f"version {upto} of {UPSTREAM[table]}, which {table} has read"
    for name, number in state.marks:  # type: ignore[misc]
        if committed[f"{name.layer}/{name.name}"][1] < number:  # type: ignore[has-type]
            return f"acknowledged batch {number} of {name}"  # type: ignore[has-type]
    return None


def _log(files: Mapping[str, bytes], whole: Mapping[str, bytes], table: str) -> tuple[str | None, int, dict, int]:
    """(what is missing, last batch, its commit info, last version) of the table whose log lies in `files`."""
    batch, version, last, live = 0, -1, {}, set()
    while (path := f"{table}/_delta_log/{version + 1:020d}.json") in files:
        if files[path] != whole[path]:
            return f"content of {path}", 0, {}, 0
        version += 1
        info, number = {}, 0
        for action in map(json.loads, files[path].splitlines()):
            info = action.get("commitInfo", info)
            number = action["txn"]["version"] if "txn" in action else number
            live |= {action["add"]["path"]} if "add" in action else set()
            live -= {action["remove"]["path"]} if "remove" in action else set()
        if number:
            batch, last = number, info
    for file in live:
        path = f"{table}/{file}"
        if files.get(path) != whole[path]:
            return f"data file {path}", 0, {}, 0
    return None, batch, last, version


def _chain(files: Mapping[str, bytes], whole: Mapping[str, bytes], folder: str, name: str | None) -> str | None:
    while name is not None:
        path = f"{folder}/{name}"
        if files.get(path) != whole[path]:
            return f"state {path}"
        name = json.loads(whole[path].split(b"\n", 3)[2])["previous"]
    return None


def contents(record: Sequence[Effect]) -> dict[str, bytes]:
    """Every name that a record gave to a file, with the file's content."""
    whole: dict[str, bytes] = {}
    for effect in record:
        if effect.kind == "write":
            whole[effect.path] = effect.data
        elif effect.kind in ("link", "replace"):
            whole[effect.target] = whole[effect.path]
    return whole


def quarantined(record: Sequence[Effect]) -> set[tuple[str, int]]:
    """(table, batch) of every quarantine commit."""
    found = set()
    for effect in record:
        if effect.kind == "link" and (match := re.match(r"(.*)__quarantine/_delta_log/\d", effect.target)):
            whole = contents(record)[effect.target]
            numbers = [a["txn"]["version"] for a in map(json.loads, whole.splitlines()) if "txn" in a]
            found |= {(match[1], number) for number in numbers}
    return found


# --- one run, recorded -----------------------------------------------------------------------------------------------


class Recorded:
    """A pipeline's run with every effect on its lake."""

    def __init__(self, folder: Path) -> None:
        self.project = Project.make(folder / "p")
        self.project.flows = {name: self.project.flows[name] for name in (BRONZE, SILVER, UPDATES)}
        for start in (0, 12, 24):
            self.project.events(mixed(start, 12))
        (folder / "lake").mkdir()
        recorder = RecordingDisk(unsynced(), str(folder / "lake"))
        self.counts: dict[str, int] = {}

        def told(name: TableName, committed: object) -> None:
            recorder.mark((name, committed.batch))  # type: ignore[attr-defined]
            for kind, number in committed.counts.items():  # type: ignore[attr-defined]
                self.counts[kind] = self.counts.get(kind, 0) + number

        self.project.run(recorder, str(folder / "lake"), told=told, rows_max=ROWS_MAX)
        self.record = recorder.record
        self.whole, self.set_aside = contents(self.record), quarantined(self.record)

    def first_lack(self, record: Sequence[Effect], since: int = 0) -> tuple[str | None, DiskState | None, int]:
        """(what is missing, in which state, states looked at) over every state a power loss could leave."""
        count = 0
        for state in PowerLoss(record).states(since):
            count += 1
            if found := lacks(state, self.whole, self.set_aside):
                return found, state, count
        return None, None, count

    def goes_on(self, state: DiskState, folder: Path) -> str | None:
        """Run the pipeline again on what is left, from the same sources; says what is wrong in the end."""
        lake = state.build(str(folder))
        try:
            self.project.run(None, lake, rows_max=ROWS_MAX)
            verdict = self.project.check(lake)
        except LodestreamError as error:
            return f"stops: {error}"
        except (OSError, PolarsError, PanicException) as error:
            return f"cannot be read: {error}"
        finally:
            shutil.rmtree(lake)
        return "; ".join(verdict.notes) if findings(verdict) else None


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with quick_folder() as folder:
        yield Recorded(folder)


def _goes_on_everywhere(recorded: Recorded, folder: Path, chosen: Callable[[int], bool]) -> int:
    tried = 0
    for number, state in enumerate(PowerLoss(recorded.record).states()):
        if chosen(number):
            tried += 1
            wrong = recorded.goes_on(state, folder / f"s{number}")
            assert wrong is None, f"after {state.after}, {state.variant}: {wrong}"
    return tried


def test_the_run_meets_every_disposition(recorded: Recorded) -> None:
    assert {"output", "quarantine", "late", "duplicate", "dropped"} <= recorded.counts.keys()
    assert {name for name, _ in recorded.set_aside} == {"bronze/events", "silver/events"}
    assert "gold/activity" in {posixpath.dirname(path) for path in recorded.whole if "part-hot-" in path}


def test_after_any_power_loss_committed_batches_have_all_they_stand_on(recorded: Recorded) -> None:
    found, state, count = recorded.first_lack(recorded.record)
    assert found is None, (found, state and (state.after, state.variant))
    assert count > 500


def test_after_a_power_loss_the_pipeline_goes_on_and_nothing_is_lost_or_doubled(
    recorded: Recorded, tmp_path: Path
) -> None:
    assert _goes_on_everywhere(recorded, tmp_path, lambda number: number % 450 == 77) > 3


@pytest.mark.long
def test_after_a_power_loss_at_every_point_the_pipeline_goes_on(recorded: Recorded) -> None:
    with quick_folder() as folder:
        assert _goes_on_everywhere(recorded, folder, lambda number: number % 450 != 77) > 500


# --- one kind of sync left out ---------------------------------------------------------------------------------------

_PLANS, _STATE = r"_lodestream/flows/silver\.events/1/plans", r"_lodestream/flows/silver\.events/1/state"
_MAIN, _ASIDE = r"(bronze|silver|gold)/(events|activity)", r"(bronze|silver)/events__quarantine"

FORGOTTEN = {
    "data file": ("fsync", rf"{_MAIN}/.*\.parquet$"),
    "name in data folder": ("sync_directory", r"bronze/events$"),
    "name in partition folder": ("sync_directory", r"silver/events/type=\w+$"),
    "partition folder's name": ("sync_directory", r"silver/events$"),
    "table folder's name": ("sync_directory", r"(bronze|silver|gold)$"),
    "layer folder's name": ("sync_directory", r"$"),
    "commit's file": ("fsync", rf"{_MAIN}/_delta_log/\.tmp-"),
    "commit's name": ("sync_directory", rf"{_MAIN}/_delta_log$"),
    "open windows": ("fsync", r"gold/activity/part-hot-"),
    "quarantine file": ("fsync", rf"{_ASIDE}/.*\.parquet$"),
    "name in quarantine folder": ("sync_directory", rf"{_ASIDE}$"),
    "quarantine commit's file": ("fsync", rf"{_ASIDE}/_delta_log/\.tmp-"),
    "quarantine commit's name": ("sync_directory", rf"{_ASIDE}/_delta_log$"),
    "plan's file": ("fsync", rf"{_PLANS}/"),
    "plan's name": ("sync_directory", rf"{_PLANS}$"),
    "plan folder's name": ("sync_directory", r"_lodestream/flows/silver\.events/1$"),
    "state's file": ("fsync", rf"{_STATE}/"),
    "state's name": ("sync_directory", rf"{_STATE}$"),
    "flow folder's name": ("sync_directory", r"_lodestream/flows$"),
    "flows folder's name": ("sync_directory", r"_lodestream$"),
}


def without(record: Sequence[Effect], kind: str, pattern: str) -> tuple[list[Effect], int]:
    """The record that code without these syncs would have left, and where the first one was."""
    gone = [i for i, e in enumerate(record) if e.kind == kind and re.match(pattern, e.path)]
    return [e for i, e in enumerate(record) if i not in set(gone)], gone[0]


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_missing_sync_is_found_out(recorded: Recorded, what: str) -> None:
    left, first = without(recorded.record, *FORGOTTEN[what])
    found, _, _ = recorded.first_lack(left, first)
    assert found is not None


@pytest.mark.long
@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_a_missing_sync_costs_shows_in_the_tables(recorded: Recorded, what: str, tmp_path: Path) -> None:
    """The bare-file check is not too strict: one of the states it refuses loses rows or stops the pipeline.

    Open windows are written again with the next batch, so it is the last state that shows it.
    """
    left, first = without(recorded.record, *FORGOTTEN[what])
    refused = [s for s in PowerLoss(left).states(first) if lacks(s, recorded.whole, recorded.set_aside)]
    tried = [*refused[:20], *refused[-20:]]
    assert any(recorded.goes_on(state, tmp_path / f"s{i}") is not None for i, state in enumerate(tried))


# --- processes that die between link and sync, and others that go on from there --------------------------------------


class Killed(BaseException):
    """A process that is gone."""


class MortalDisk(ThroughDisk):
    """Dies right after it linked a name that matches; it does nothing more from then on."""

    def __init__(self, inner: Disk, pattern: str | None = None) -> None:
        super().__init__(inner)
        self.settled = set()
        self._pattern = pattern
        self._dead = False

    def link(self, source: str, target: str) -> None:
        self._breathe()
        self.inner.link(source, target)
        if self._pattern and re.search(self._pattern, target):
            self._dead = True
            raise Killed

    def write(self, path: str, data: Data) -> None:
        self._breathe()
        self.inner.write(path, data)

    def unlink(self, path: str) -> None:
        self._breathe()
        self.inner.unlink(path)

    def sync_directory(self, path: str) -> None:
        self._breathe()
        self.inner.sync_directory(path)

    def _breathe(self) -> None:
        if self._dead:
            raise Killed


DEATHS = [
    (r"silver\.events/1/plans/", True),
    (r"silver/events__quarantine/_delta_log/", True),
    (r"bronze/events/_delta_log/", True),
    (r"silver/events/_delta_log/", False),
    (r"bronze\.events/1/plans/", False),
]
"""Where a process dies, and whether the one that goes on had its tables open by then."""


def relay(folder: Path, deaths: Sequence[tuple[str, bool]]) -> Sequence[Effect]:
    """In each turn one process dies at a link and another finishes its batch; gives the record of all effects."""
    project = Project.make(folder / "p")
    project.flows = {name: project.flows[name] for name in (BRONZE, SILVER)}
    (folder / "lake").mkdir()
    recorder = RecordingDisk(unsynced(), str(folder / "lake"))

    def process(pattern: str | None = None) -> AbstractContextManager[list[Flow]]:
        disk = MortalDisk(recorder, pattern)
        return opened(project.pipeline(disk, str(folder / "lake"), rows_max=20, handover=False), [BRONZE, SILVER])

    for turn, (pattern, standing_by) in enumerate([("nowhere", True), *deaths]):
        project.events(mixed(turn * 4 + 2, 7))
        with ExitStack() as stack:
            other = stack.enter_context(process()) if standing_by else None
            with suppress(Killed), process(pattern) as flows:
                step_all(flows)
                assert pattern == "nowhere", f"did not come by {pattern}"
            _go_on(other or stack.enter_context(process()), recorder)
    return recorder.record


def _go_on(flows: list[Flow], recorder: RecordingDisk) -> None:
    """Silver first: it meets what the dead process has left of bronze before anything mends it."""
    for flow in [*flows[::-1], *flows]:
        while True:
            try:
                committed = flow.step()
            except ConflictError:
                flow.open()
                continue
            if committed is None:
                break
            recorder.mark((flow.name, committed.batch))


def _relay_lack(deaths: Sequence[tuple[str, bool]]) -> str | None:
    with quick_folder() as folder:
        record = relay(folder, deaths)
    whole, set_aside = contents(record), quarantined(record)
    for state in PowerLoss(record).states():
        if found := lacks(state, whole, set_aside):
            return f"after {state.after}, {state.variant}: {found}"
    return None


def test_what_a_dead_process_had_linked_is_durable_before_others_build_on_it() -> None:
    assert _relay_lack(DEATHS) is None


class _Unhelpful(ThroughDisk):
    def sync_directory(self, path: str) -> None:
        """Not."""


def _without_sync(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of something with a disk, with the syncs of folders left out."""

    def changed(self: Any, *given: Any) -> Any:
        disk, self.disk = self.disk, _Unhelpful(self.disk)
        try:
            return method(self, *given)
        finally:
            self.disk = disk

    return changed


def _open_without_sync(disk: Disk, path: str, _new_id: object = None) -> DeltaTable | None:
    snapshot = load(disk, path)
    return None if snapshot is None else DeltaTable(disk, path, snapshot)


@pytest.mark.parametrize("what", ["refresh", "open", "plan"])
def test_a_helping_sync_left_out_is_found_out(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    match what:
        case "refresh":
            deaths = DEATHS[1:2]
            monkeypatch.setattr(DeltaTable, "refresh", _without_sync(DeltaTable.refresh))
        case "open":
            deaths = DEATHS[3:4]
            monkeypatch.setattr(DeltaTable, "open", _open_without_sync)
        case "plan":
            deaths = DEATHS[0:1]
            monkeypatch.setattr(FlowStore, "plan", _without_sync(FlowStore.plan))
    assert _relay_lack(deaths) is not None


# --- state that is gone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["all gone", "one link gone", "base gone", "cut", "a byte changed", "plans gone"])
def test_state_that_is_missing_or_damaged_is_never_taken_as_empty(tmp_path: Path, harm: str) -> None:
    project = Project.make(tmp_path / "p")
    project.flows = {name: project.flows[name] for name in (BRONZE, SILVER)}
    project.events(mixed(0, 30))
    project.run(rows_max=ROWS_MAX)
    project.events(mixed(30, 10))
    folder = Path(project.lake) / "_lodestream" / "flows" / "silver.events" / "1"
    links = sorted((folder / "state").iterdir())
    assert len(links) > 2
    match harm:
        case "all gone":
            shutil.rmtree(folder / "state")
        case "one link gone":
            links[-2].unlink()
        case "base gone":
            links[0].unlink()
        case "cut":
            links[-1].write_bytes(links[-1].read_bytes()[:-20])
        case "a byte changed":
            data = bytearray(links[1].read_bytes())
            data[-30] ^= 1
            links[1].write_bytes(data)
        case "plans gone":
            shutil.rmtree(folder / "plans")
    log = Path(project.lake) / "silver" / "events" / "_delta_log"
    before = sorted(log.iterdir())
    with pytest.raises(CorruptionError):
        project.run(rows_max=ROWS_MAX)
    assert sorted(log.iterdir()) == before
