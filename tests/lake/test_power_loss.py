"""Whatever the power takes, a reopened table has every acknowledged row; a forgotten sync is found out."""

import json
import os
import pathlib
import re
import shutil
import tempfile
from collections import Counter

import pyarrow as pa
import pytest

from lodestream.errors import LodestreamError
from lodestream.lake import crash
from lodestream.lake.actions import RemoveFile
from lodestream.lake.disk import LocalDisk, put_if_absent, write_durable
from lodestream.lake.log import checkpoint_contents, list_log, load
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow
from lodestream.testing.faults import ForgetfulDisk, PowerLoss, RecordingDisk

APP = "lodestream/silver.x/1"
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.string())])


def batch(number: int, days: list[str]) -> pa.Table:
    ids = [number * 100 + i for i in range(2 * len(days))]
    return pa.table(
        {"id": ids, "text": [f"row {i}" for i in ids], "day": [days[i % len(days)] for i in range(len(ids))]},
        schema=SCHEMA,
    )


def unsynced() -> ForgetfulDisk:
    """A disk that skips the real syncs, which cost time and tell these tests nothing."""
    return ForgetfulDisk(LocalDisk(), lambda kind, path: True)


def workload(disk, recorder: RecordingDisk, root: str, phase: list[str]) -> None:
    """Create, append to old and new partitions, swap a hot file, checkpoint, clean up, keep a plan and a state."""
    path = os.path.join(root, "silver", "x")
    phase[0] = "create"
    table = DeltaTable.create(
        disk, path, from_arrow(SCHEMA), partition_columns=["day"], table_id="t", clock_us=1_000_000
    )
    recorder.mark(("table", 0))
    days = [["a"], ["a", "b"], ["c"], ["b"], ["a"]]
    for number, batch_days in enumerate(days, 1):
        phase[0] = "plan"
        plan = os.path.join(root, "_lodestream", "plans", f"{number}.json")
        assert put_if_absent(disk, plan, json.dumps(number).encode())
        recorder.mark(("plan", number))
        phase[0] = "commit"
        staged = table.stage(batch(number, batch_days), name=f"{number}-a")
        table.commit(adds=staged.adds, txn=(APP, number), clock_us=number * 1_000_000)
        recorder.mark(("batch", number))
        phase[0] = "state"
        write_durable(disk, os.path.join(root, "_lodestream", "state", f"{number}"), b"s" * number)
        recorder.mark(("state", number))
        if number in (2, 4):
            phase[0] = "checkpoint"
            crash.install(lambda name: phase.__setitem__(0, "hint") if name == "checkpoint.written" else None)
            table.checkpoint(number * 1_000_000)
            crash.install(None)
            recorder.mark(("checkpoint", number))
    phase[0] = "clean"
    assert table.clean_log(keep_versions=1, needed_from=100) > 0
    phase[0] = "swap"
    old = table.files()[0]
    staged = table.stage(table.read([old]), name="6-a", hot=True)
    table.commit(adds=staged.adds, removes=[RemoveFile.of(old)], txn=(APP, 6), clock_us=6_000_000)
    recorder.mark(("swap", 6))


def violation(root: str, marks: tuple[object, ...], go_on: bool) -> str | None:
    """What a reopened lake lacks, or None."""
    disk = unsynced()
    acknowledged = set(marks)
    path = os.path.join(root, "silver", "x")
    try:
        table = DeltaTable.open(disk, path)
        if table is None:
            return "no table" if any(kind in ("table", "batch") for kind, _ in acknowledged) else None
        rows = table.read(table.files())
        for version in {kind_number for kind, kind_number in acknowledged if kind == "checkpoint"}:
            if version == max(n for k, n in acknowledged if k == "checkpoint") and (
                version not in list_log(disk, path).checkpoints
            ):
                return f"checkpoint {version} is gone"
        hint = os.path.join(path, "_delta_log", "_last_checkpoint")
        if os.path.exists(hint):
            named = json.loads(disk.read(hint))["version"]
            load_without_commits(disk, path, named)
    except (LodestreamError, ValueError) as error:
        return f"error: {error}"
    counts = Counter(rows["id"].to_pylist())
    if max(counts.values(), default=1) > 1:
        return "row twice"
    present = {n for n in range(1, 6) if counts[n * 100]}
    for number in present:
        if sum(number * 100 <= i < number * 100 + 100 for i in counts) != batch_rows(number):
            return f"half of batch {number}"
    if missing := {number for kind, number in acknowledged if kind == "batch"} - present:
        return f"batch lost: {missing}"
    if table.snapshot.txns.get(APP, 0) not in (max(present, default=0), 6):
        return "txn and rows disagree"
    if ("swap", 6) in acknowledged and table.snapshot.txns.get(APP) != 6:
        return "swap lost"
    for kind, folder, suffix in (("plan", "plans", ".json"), ("state", "state", "")):
        for number in (n for k, n in acknowledged if k == kind):
            file = os.path.join(root, "_lodestream", folder, f"{number}{suffix}")
            want = json.dumps(number).encode() if kind == "plan" else b"s" * number
            if not os.path.exists(file) or disk.read(file) != want:
                return f"{kind} lost"
    if not go_on:
        return None
    staged = table.stage(batch(9, ["z"]), name="9-z")
    table.commit(adds=staged.adds, txn=(APP, 9), clock_us=9_000_000)
    return None if DeltaTable.open(disk, path).snapshot.txns[APP] == 9 else "cannot go on"


def batch_rows(number: int) -> int:
    return 4 if number == 2 else 2


def load_without_commits(disk, path: str, version: int) -> None:
    """Read the checkpoint itself, as a reader that trusts `_last_checkpoint` does."""
    checkpoints = list_log(disk, path).checkpoints
    if version not in checkpoints:
        raise ValueError("_last_checkpoint names no checkpoint")
    checkpoint_contents(disk, path, version, checkpoints[version])
    load(disk, path, version)


def first_violation(folder, forget=lambda phase, kind, path: False) -> tuple[str | None, int, int]:
    """(violation, states looked at, syncs forgotten)."""
    root = str(folder / "lake")
    os.mkdir(root)
    phase = [""]
    recorder = RecordingDisk(unsynced(), root)
    first: list[int] = []

    def forgets(kind: str, path: str) -> bool:
        if forget(phase[0], kind, os.path.relpath(path, root)):
            first.append(len(recorder.record))
            return True
        return False

    disk = ForgetfulDisk(recorder, forgets)
    workload(disk, recorder, root, phase)
    count = 0
    for state in PowerLoss(recorder.record).states(since=first[0] if first else 0):
        count += 1
        left = str(folder / f"s{count}")
        found = violation(state.build(left), state.marks, go_on=count % 5 == 0)
        shutil.rmtree(left)
        if found:
            last = recorder.record[state.after - 1]
            return f"after {state.after} ({last.kind} {last.path}), {state.variant}: {found}", count, disk.forgotten
    return None, count, disk.forgotten


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory where there is one: hundreds of states are made and deleted."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield pathlib.Path(folder)


def test_every_acknowledged_row_survives_a_power_loss_at_any_point(quick_path):
    found, states, _ = first_violation(quick_path)
    assert found is None
    assert states > 200


FORGOTTEN = {
    "data file": ("commit", "fsync", r"silver/x/.*\.parquet$"),
    "partition folder": ("commit", "sync_directory", r"silver/x/day=\w$"),
    "partition folder's name": ("commit", "sync_directory", r"silver/x$"),
    "table folder's name": ("create", "sync_directory", r"silver$"),
    "layer folder's name": ("create", "sync_directory", r"\.$"),
    "log folder's name": ("create", "sync_directory", r"silver/x$"),
    "first commit's file": ("create", "fsync", r".*_delta_log/\.tmp-"),
    "first commit's name": ("create", "sync_directory", r".*_delta_log$"),
    "commit's file": ("commit", "fsync", r".*_delta_log/\.tmp-"),
    "commit's name": ("commit", "sync_directory", r".*_delta_log$"),
    "checkpoint's file": ("checkpoint", "fsync", r".*\.tmp-"),
    "checkpoint's name": ("checkpoint", "sync_directory", r".*_delta_log$"),
    "hint's file": ("hint", "fsync", r".*\.tmp-"),
    "swapped file": ("swap", "fsync", r".*\.parquet$"),
    "swap's file": ("swap", "fsync", r".*\.tmp-"),
    "swap's name": ("swap", "sync_directory", r".*_delta_log$"),
    "plan's file": ("plan", "fsync", r".*"),
    "plan's name": ("plan", "sync_directory", r".*plans$"),
    "plan folder's name": ("plan", "sync_directory", r"_lodestream$"),
    "state's file": ("state", "fsync", r".*"),
    "state's name": ("state", "sync_directory", r".*state$"),
    "state folder's name": ("state", "sync_directory", r"_lodestream$"),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_forgotten_sync_is_found_out(quick_path, what):
    phase, kind, pattern = FORGOTTEN[what]
    found, _, forgotten = first_violation(
        quick_path, lambda p, k, path: p == phase and k == kind and bool(re.match(pattern, path))
    )
    assert forgotten > 0
    assert found is not None
