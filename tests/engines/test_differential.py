"""Random streams through the embedded engine give the rows that the reference semantics give."""

import itertools
import random
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from lodestream.engines.embedded import dedup, inputs, sides, state, store
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.handover import Handover
from lodestream.engines.embedded.inputs import StreamInput
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.segments import Segment
from lodestream.engines.embedded.sessions import OpenSessions
from lodestream.engines.embedded.spill import Spill
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.lake import crash
from lodestream.lake.disk import LocalDisk
from lodestream.model.batch import BatchLimit
from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from lodestream.runtime.pipeline import Pipeline
from lodestream.testing.differential import differences
from lodestream.testing.streams import make_sourced, make_stream

SHORT, LONG = 80, 2_000

pytestmark = pytest.mark.usefixtures("one_duckdb")


class Unsynced(LocalDisk):
    """A disk that does not wait for the platter: these tests are about rows, not about power."""

    def fsync(self, path):
        pass

    def sync_directory(self, path):
        pass


@dataclass
class Site:
    """A project folder that files of a stream are put into, one after the other."""

    root: Path
    stream: object
    placed: int = 0
    ticks: object = field(default_factory=lambda: itertools.count(1_800_000_000_000_000, 1_000))

    def __post_init__(self):
        for path, text in self.stream.declarations.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        for folder in ("events", "users"):
            (self.root / "data" / folder).mkdir(parents=True)

    def place(self):
        """The next file of each source; False when there is none."""
        if self.placed == len(self.stream.files):
            return False
        for folder, files in (("events", self.stream.files), ("users", self.stream.users)):
            for file in files[self.placed : self.placed + 1]:
                (self.root / "data" / folder / file.unit).write_bytes(file.content)
        self.placed += 1
        return True

    def pipeline(self, *, handover=True, rows_max=1_000_000, state_bytes_max=None):
        project = load_project(str(self.root))
        return Pipeline(
            project.root, compile_project(project, {}).flows, lake=project.lake, disk=Unsynced(),
            clock=lambda: next(self.ticks), handover=handover, limit=BatchLimit(rows_max=rows_max), poll_s=0.005,
            state_bytes_max=state_bytes_max,
        )  # fmt: skip

    def differences(self):
        return differences(self.stream, self.root / "lake")


class Killed(BaseException):
    """The process ends here."""


def killed(flow, rng):
    """Step a flow whose process is killed at one of the points of the batch, if it comes to so many."""
    left = rng.randint(0, 12)

    def count(name):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed(name)

    crash.install(count)
    try:
        flow.step(idle=True)
    except Killed:
        return True
    finally:
        crash.install(None)
    return False


def drive(site, rng, *, handover, state_bytes_max=None, kills=0.0):
    """Step the flows in any order, with restarts and kills, while files arrive; then until nothing is left to do."""
    rows_max = rng.choice([12, 30, 1_000_000, 1_000_000])
    pipeline = site.pipeline(handover=handover, rows_max=rows_max, state_bytes_max=state_bytes_max)
    flows = {name: pipeline.flow(name) for name in pipeline.flows}
    for flow in flows.values():
        flow.open()
    spilled = set()
    while site.place():
        for _ in range(rng.randint(0, 3 * len(flows))):
            name = rng.choice(list(flows))
            if rng.random() < 0.05 or (kills and rng.random() < kills and killed(flows[name], rng)):
                flows[name].close()
                flows[name] = pipeline.flow(name)
                flows[name].open()
            flows[name].step(idle=rng.random() < 0.3)
            rows, _, nbytes = flows[name].state.held()
            spilled |= set(rows) if nbytes else set()
    while sum(flow.step(idle=True) is not None for flow in flows.values()):
        pass
    for flow in flows.values():
        flow.close()
    return spilled


def compare(folder, seed, make=make_stream):
    """Differences that one stream shows; even seeds run with the handover cache, odd ones without."""
    folder.mkdir()
    site = Site(folder, make(seed))
    drive(site, random.Random(seed), handover=seed % 2 == 0)
    return site.differences()


@pytest.mark.parametrize("first", range(0, SHORT, 10))
def test_flows_stepped_in_any_order(tmp_path, first):
    for seed in range(first, first + 10):
        assert compare(tmp_path / str(seed), seed) == [], f"seed={seed}"


@pytest.mark.parametrize("first", [0, *(pytest.param(f, marks=pytest.mark.long) for f in range(10, LONG // 4, 10))])
def test_sources_with_event_time(tmp_path, first):
    for seed in range(first, first + 10):
        assert compare(tmp_path / str(seed), seed, make_sourced) == [], f"seed={seed}"


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 10_000 + LONG, 10))
def test_flows_stepped_in_any_order_at_length(tmp_path, first):
    for seed in range(first, first + 10):
        assert compare(tmp_path / str(seed), seed) == [], f"seed={seed}"


def compare_spilled(folder, seed, patch):
    """The same with next to no memory for state, and kills; and the kinds of state that lay in files."""
    patch.setattr(dedup, "_SMALLEST", 8)
    patch.setattr(sides, "_PARTS_MAX", 3)
    patch.setattr(store, "_IN_MEMORY_BYTES_MAX", 1_000)
    patch.setattr(store, "_PAGE", 1_000)
    patch.setattr(state, "_CHAIN_MAX", seed % 3)
    folder.mkdir()
    site = Site(folder, make_stream(seed))
    spilled = drive(site, random.Random(seed), handover=seed % 2 == 0, state_bytes_max=1, kills=0.3)
    assert not list(folder.glob("lake/_lodestream/flows/*/spill/*"))
    return site.differences(), spilled


@pytest.mark.parametrize("first", range(60_000, 60_030, 10))
def test_state_without_memory(tmp_path, monkeypatch, first):
    spilled = set()
    for seed in range(first, first + 10):
        found, kinds = compare_spilled(tmp_path / str(seed), seed, monkeypatch)
        assert found == [], f"seed={seed}"
        spilled |= kinds
    assert spilled >= {"keys", "windows", "waiting"}


@pytest.mark.long
@pytest.mark.parametrize("first", range(70_000, 70_000 + LONG // 2, 10))
def test_state_without_memory_at_length(tmp_path, monkeypatch, first):
    for seed in range(first, first + 10):
        assert compare_spilled(tmp_path / str(seed), seed, monkeypatch)[0] == [], f"seed={seed}"


@pytest.mark.parametrize("seed", range(30_000, 30_010))
def test_all_flows_in_one_process_each_on_its_thread(tmp_path, seed):
    site = Site(tmp_path, make_stream(seed))
    while site.place():
        site.pipeline(handover=seed % 2 == 0).run(until_idle=True)
    assert site.differences() == []


WORKER = """
import sys, time
from lodestream.lake.disk import LocalDisk
from lodestream.model.table import TableName
from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from lodestream.runtime.pipeline import Pipeline

for folder in map(str.strip, sys.stdin):
    project = load_project(folder)
    pipeline = Pipeline(project.root, compile_project(project, {}).flows, lake=project.lake, disk=LocalDisk(),
                        clock=lambda: time.time_ns() // 1000, poll_s=0.005)
    pipeline.run(tables=[TableName.parse(sys.argv[1])], until_idle=True)
    print("idle", flush=True)
"""


class Processes:
    """One process per table, which runs that table of the folder it is told until it is idle."""

    def __init__(self):
        self.running = {}

    def begin(self, table, folder):
        if table not in self.running:
            command = [sys.executable, "-c", WORKER, table]
            self.running[table] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running[table].stdin.write(f"{folder}\n")
        self.running[table].stdin.flush()

    def end(self, table):
        assert self.running[table].stdout.readline() == "idle\n", table

    def close(self):
        for process in self.running.values():
            process.communicate()


@pytest.fixture(scope="module")
def processes():
    started = Processes()
    yield started
    started.close()


@pytest.mark.parametrize(
    "seed", [*range(40_000, 40_004), *(pytest.param(s, marks=pytest.mark.long) for s in range(50_000, 50_200))]
)
def test_each_table_in_a_process_of_its_own(tmp_path, seed, processes):
    """All processes at once while files arrive, as a deployment does it; then one after the other to the end."""
    site = Site(tmp_path, make_stream(seed))
    tables = list(map(str, site.pipeline().flows))
    while site.place():
        for table in tables:
            processes.begin(table, tmp_path)
        for table in tables:
            processes.end(table)
    for table in tables:
        processes.begin(table, tmp_path)
        processes.end(table)
    assert site.differences() == []


# --- the harness sees bugs --------------------------------------------------------------------------------------------


def late_by_the_new_watermark(patch):
    run = RowStages.run
    patch.setattr(RowStages, "run", lambda self, rows, b, *rest: run(self, rows, replace(b, late_us=b.evict_us), *rest))


def the_last_copy_survives(patch):
    claim = DedupMap.claim

    def backwards(self, high, low, expiry_us, late_us):
        return claim(self, high[::-1], low[::-1], expiry_us[::-1], late_us)[::-1]

    patch.setattr(DedupMap, "claim", backwards)


def expired_keys_still_count(patch):
    claim = DedupMap.claim
    patch.setattr(DedupMap, "claim", lambda self, high, low, expiry_us, late_us: claim(self, high, low, expiry_us, -1))


def windows_close_a_step_early(patch):
    close = OpenWindows.close
    patch.setattr(OpenWindows, "close", lambda self, evict_us: close(self, evict_us + 1_000_000))


def state_forgets_the_open_windows(patch):
    patch.setattr(OpenWindows, "upsert", lambda self, changed: None)


def the_handover_loses_a_row(patch):
    take = Handover.take

    def short(self, path, version):
        rows = take(self, path, version)
        return rows if rows is None else rows.slice(1)

    patch.setattr(Handover, "take", short)


def lookups_take_one_of_two(patch):
    find = LookupTable.find
    patch.setattr(LookupTable, "find", lambda self, rows: (find(self, rows)[0], np.zeros(len(rows), np.bool_)))


def sessions_that_touch_stay_apart(patch):
    patch.setattr(OpenSessions, "_merge", lambda self, near: near)


def windows_of_windows_run_ahead(patch):
    follow = StreamInput.next

    def ahead(self, *given):
        planned = follow(self, *given)
        if planned is not None:
            self.watermark_us += 60_000_000
        return planned

    patch.setattr(StreamInput, "next", ahead)


def windows_of_windows_have_the_time_of_their_end(patch):
    name = inputs.as_rows

    def later(windows, table, groups):
        rows = name(windows, table, groups)
        return rows.set_column(rows.schema.get_field_index("window_time"), "window_time", rows.column("window_end"))

    patch.setattr(inputs, "as_rows", later)


@pytest.mark.parametrize(
    "bug",
    [
        late_by_the_new_watermark, the_last_copy_survives, expired_keys_still_count, windows_close_a_step_early,
        state_forgets_the_open_windows, the_handover_loses_a_row, lookups_take_one_of_two,
        sessions_that_touch_stay_apart,
        windows_of_windows_run_ahead,
        windows_of_windows_have_the_time_of_their_end,
    ],
    ids=lambda bug: bug.__name__,
)  # fmt: skip
def test_a_planted_bug_is_seen(tmp_path, bug):
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        assert any(compare(tmp_path / str(seed), seed) for seed in range(SHORT))


def segments_are_not_looked_into(patch):
    patch.setattr(Segment, "find", lambda self, *_: None)


def keys_in_segments_never_expire(patch):
    find = Segment.find
    patch.setattr(Segment, "find", lambda self, high, low, late_us, *rest: find(self, high, low, -1, *rest))


def spilled_tables_end_early(patch):
    keep = Spill.keep

    def short(self, *given):
        kept = keep(self, *given)
        return replace(kept, table=kept.table.slice(0, len(kept.table) - 1)) if kept.spilled else kept

    patch.setattr(Spill, "keep", short)


@pytest.mark.parametrize(
    "bug",
    [
        segments_are_not_looked_into,
        keys_in_segments_never_expire,
        spilled_tables_end_early,
    ],
    ids=lambda bug: bug.__name__,
)
def test_a_planted_bug_without_memory_is_seen(tmp_path, bug):
    def shows(seed):
        with pytest.MonkeyPatch.context() as patch:
            bug(patch)
            try:
                return bool(compare_spilled(tmp_path / str(seed), seed, patch)[0])
            except (AssertionError, IndexError, ValueError):
                return True  # rows that do not add up

    assert any(shows(seed) for seed in range(60_000, 60_000 + SHORT))
