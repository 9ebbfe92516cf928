"""State beyond what memory may hold lies in files: bounded, the same rows, and nothing left behind."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.engines.embedded import store
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.spill import Spill, StateBudget, filtered, taken
from lodestream.engines.embedded.store import StateFile
from lodestream.errors import CorruptionError, TransientError
from lodestream.lake.disk import LocalDisk
from lodestream.model.table import TableName
from tests.engines.lakes import Lab

TIME = "event_time: {column: at, delay: 10 seconds}\n"
BRONZE = "source: {files: {path: %s, settle: 0}}\nformat: parquet\ncolumns: {id: bigint, at: timestamp, v: double}\n"
TABLES = {
    "keys": "from: stream(bronze.events)\n" + TIME + "dedup: {keys: [id], within: 30 days}\n",
    "windows": "from: stream(bronze.events)\n" + TIME + "window: {every: 30 days}\ngroup_by: [id]\n"
    "measures: {n: count(*), most: max(v), mean: avg(v)}\nemit: final\n",
    "sessions": "from: stream(bronze.events)\n" + TIME + "window: {gap: 30 days}\ngroup_by: [id]\n"
    "measures: {n: count(*), most: max(v)}\nemit: final\n",
    "waiting": "from: stream(bronze.events)\n" + TIME + "join: {from: stream(bronze.others), on: id,"
    " within: {after: 30 days}, event_time: {column: at, delay: 10 seconds}, columns: {v: other}}\n",
}  # fmt: skip


def make(root: Path, kind: str, events: int, files: int, memory: str) -> Lab:
    """A project with one stateful table over `events` rows, of which nearly every one has an id of its own."""
    lab = Lab(root)
    (root / "lodestream.yaml").write_text(
        f"project: lab\nlake: lake\nbatch: {{rows_max: {events // files}}}\nstate: {{memory: {memory}}}\n"
    )
    lab.table("silver.state", TABLES[kind])
    rng = np.random.default_rng(3)
    for name in ("events", "others") if kind == "waiting" else ("events",):
        lab.table(f"bronze.{name}", BRONZE % name)
        (root / name).mkdir(exist_ok=True)
        for number in range(files):
            first, count = number * events // files, events // files
            ids = np.arange(first, first + count, dtype=np.int64)
            again = rng.random(count) < 0.05
            ids[again] = rng.integers(0, first + 1, int(again.sum()))
            place(root / name, number, ids, rng.random(count))
    return lab


def place(folder: Path, number: int, ids: np.ndarray, values: np.ndarray) -> None:
    """File `number`, a second of event time after the one before."""
    at = pa.array(np.full(len(ids), 1_700_000_000_000_000 + number * 1_000_000), pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"id": ids, "at": at, "v": values}), folder / f"{number:03}.parquet")


def duplicates_after_a_restart(root: Path, memory: str) -> int:
    """How many of a thousand rows, which have all been there, a second process finds to be duplicates."""
    lab = make(root, "keys", 24_000, 6, memory)
    lab.run()
    before = len(lab.quarantine("silver.state"))
    place(lab.root / "events", 6, np.arange(0, 20_000, 20), np.zeros(1_000))
    lab.run()
    return len(lab.quarantine("silver.state")) - before


def test_a_second_start_knows_the_keys_that_had_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert duplicates_after_a_restart(tmp_path / "spilled", "1 MiB") >= 950
    assert duplicates_after_a_restart(tmp_path / "held", "1 GiB") >= 950
    monkeypatch.setattr(DedupMap, "load_segment", lambda self, *_: None)
    assert duplicates_after_a_restart(tmp_path / "broken", "1 MiB") < 900


@pytest.mark.parametrize("kind", TABLES)
def test_rows_are_the_same_and_status_says_what_lies_in_files(tmp_path: Path, kind: str) -> None:
    found = []
    for memory in ("1 MiB", "1 GiB"):
        lab = make(tmp_path / memory[2], kind, 24_000, 6, memory)
        lab.run()
        flow = lab.app().pipeline().flow(TableName("silver", "state"))
        flow.open()  # a second start has no more memory than the first
        rows, held, spilled = flow.state.held()
        flow.close()
        commits = [commit.info for commit in lab.delta("silver.state").commits(-1) if "state_bytes" in commit.info]
        assert (max(info["state_spilled_bytes"] for info in commits) > 0) == (memory == "1 MiB")
        assert (spilled > 0) == (memory == "1 MiB")
        if memory == "1 MiB":
            assert held <= 1 << 20
            assert all(info["state_bytes"] <= 1 << 20 for info in commits[3:])
        assert not list((lab.root / "lake").rglob("spill/*"))
        lab.reconcile()
        found.append((rows, lab.rows("silver.state"), len(lab.quarantine("silver.state"))))
    assert found[0][0] == found[1][0]
    assert sorted(map(strip, found[0][1])) == sorted(map(strip, found[1][1]))
    assert found[0][2] == found[1][2]


def strip(row: dict[str, object]) -> str:
    """A row without what depends on when which batch came."""
    return repr({name: value for name, value in row.items() if name not in ("_ingest_time", "_batch", "_position")})


CHILD = """
import json, resource, sys
from pathlib import Path
from lodestream.app import open_project
from lodestream.model.table import TableName

app = open_project(sys.argv[1])
flow = app.pipeline().flow(TableName("silver", "state"))
flow.open()
flow.step(idle=False)
status = Path("/proc/self/status").read_text().splitlines()
now = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (now + (int(sys.argv[2]) << 20),) * 2)
counts = {}
while (done := flow.step(idle=False)) is not None:
    for kind, number in done.counts.items():
        counts[kind] = counts.get(kind, 0) + number
counts["spilled"] = flow.state.held()[2]
flow.close()
again = app.pipeline().flow(TableName("silver", "state"))
again.open()
counts["keys"] = again.state.held()[0]["keys"]
print(json.dumps(counts))
"""


def test_a_process_that_may_not_have_more_memory_goes_on(tmp_path: Path) -> None:
    """The same three million keys under one bound of address space: without spilling it ends, with it all is there."""
    lab = make(tmp_path, "keys", 3_000_000, 12, "1 TiB")
    lab.run(tables=["bronze.events"])
    lab.app().apply()
    config = lab.root / "lodestream.yaml"
    command = [sys.executable, "-c", CHILD, str(lab.root), "190"]
    held = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert held.returncode != 0
    assert "MemoryError" in held.stderr or "Cannot allocate" in held.stderr or "alloc" in held.stderr
    config.write_text(config.read_text().replace("1 TiB", "32 MiB"))
    spilled = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert spilled.returncode == 0, spilled.stderr
    counts = json.loads(spilled.stdout)
    assert counts["spilled"] > 40 << 20
    assert counts["keys"] > 2_800_000


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    budget = StateBudget(0)
    first, second = (Spill(str(tmp_path), "f", budget) for _ in range(2))
    first.begin()
    (tmp_path / "dead" / "x").mkdir(parents=True)
    (tmp_path / "dead" / "x" / "duckdb_temp").write_text("x")
    (tmp_path / "dead.lock").touch()
    second.begin()
    names = {Path(one.folder).name for one in (first, second)}
    assert {path.name for path in tmp_path.iterdir()} == names | {f"{name}.lock" for name in names}
    first.end()
    second.end()
    second.end()
    assert list(tmp_path.iterdir()) == []


def test_a_flow_may_hold_what_the_others_leave_and_never_less_than_its_share() -> None:
    budget = StateBudget(1_000, flows=4)
    assert budget.room("a") == 1_000
    budget.holds("b", 300)
    assert budget.room("a") == 700
    assert budget.room("b") == 1_000
    budget.holds("b", 900)
    assert budget.room("a") == 250


def test_a_disk_without_room_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(str(tmp_path), "f", StateBudget(0))

    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TransientError, match="does not fit into memory"):
        spill.file(full)


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_tables_in_files_are_as_those_in_memory(tmp_path: Path, room: int) -> None:
    table = pa.table({"n": np.arange(1_000), "t": [f"row {i}" for i in range(1_000)]})
    kept = Spill(str(tmp_path), "f", StateBudget(0)).keep(table.schema, table.to_batches(max_chunksize=70), room)
    assert kept.table == table
    assert (kept.spilled > 0, kept.held > 0) == (room == 0, room > 0)
    numbers = np.random.default_rng(1).integers(0, 1_000, 300)
    assert taken(kept.table, numbers) == table.take(pa.array(numbers))
    assert taken(kept.table, numbers[:0]) == table.slice(0, 0)
    parts = list(filtered(kept.table, lambda part: pa.compute.less(part.column("n"), 100)))
    assert pa.concat_tables([part for part, _ in parts]) == table.slice(0, 100)
    assert [copied for _, copied in parts] == [False, True]


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("remote", [False, True])
def test_a_large_link_is_read_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, spilled: bool, remote: bool
) -> None:
    """On this machine's disk it is mapped; from elsewhere it is fetched, and put aside when there is a place for it."""
    monkeypatch.setattr(store, "_IN_MEMORY_BYTES_MAX", 1_000)
    if remote:
        monkeypatch.setattr(LocalDisk, "beside", lambda self, path: str(tmp_path / "beside"))
    flow = store.FlowStore(LocalDisk(), str(tmp_path / "lake"), TableName("silver", "t"), 1)
    rows = pa.table({"n": np.arange(100_000), "t": ["text"] * 100_000})
    spill = Spill(str(tmp_path / "spill"), "f", StateBudget(0)) if spilled else None
    link = StateFile("id", 1, 7, "a", None, {"late_us": 3}, {"rows": rows, "none": rows.slice(0, 0)})
    assert flow.put_state(link, spill) == (tmp_path / "lake").joinpath(flow.root, "state", link.name).stat().st_size
    before = pa.total_allocated_bytes()
    (again,) = flow.chain(link.name, "id", 1, 7, spill)
    assert pa.total_allocated_bytes() - before < rows.nbytes // 10
    assert (again.facts, again.sections) == ({"late_us": 3}, {"rows": rows, "none": rows.slice(0, 0)})
    damaged = tmp_path / "lake" / flow.root / "state" / link.name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.unlink()
    damaged.write_bytes(data)
    with pytest.raises(CorruptionError, match="not as it was written"):
        flow.chain(link.name, "id", 1, 7, spill)
