"""Kills, full and failing disks, many writers, clocks that disagree: upkeep and commits lose no row and no file."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from lodestream.errors import LodestreamError, TransientError
from lodestream.lake.actions import RemoveFile
from lodestream.lake.compaction import due, rewrite
from lodestream.lake.disk import LocalDisk
from lodestream.lake.log import list_log
from lodestream.lake.maintenance import repair
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import stored_files, unneeded, vacuum
from lodestream.model.arrow import from_arrow
from lodestream.testing.faults import ForgetfulDisk
from tests.apis.postgres.packages import installed
from tests.lake import committing, dying
from tests.lake.dying import DAY_MS, NOW_MS, OPERATIONS
from tests.lake.outside import agree, rows_of, with_ours

SCHEMA = pa.schema([("id", pa.int64()), ("day", pa.string())])
HOUR_MS = 3_600_000


def make(path, disk=None) -> DeltaTable:
    disk = disk or ForgetfulDisk(LocalDisk(), lambda kind, path: True)
    return DeltaTable.create(disk, str(path), from_arrow(SCHEMA), partition_columns=["day"], table_id="t", clock_us=0)


def put(table, number, at_ms=NOW_MS - 10 * DAY_MS, days=("a", "b")):
    rows = pa.table({"id": [number * 10 + i for i in range(len(days))], "day": list(days)})
    table.commit(adds=table.stage(rows, name=f"{number}-x").adds, txn=("app", number), clock_us=at_ms * 1000)


# --- SIGKILL at every step -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A table with small files, two checkpoints, a removed file and an orphan, all of them old."""
    path = tmp_path_factory.mktemp("base") / "t"
    table = make(path)
    for number in range(1, 7):
        put(table, number)
        if number in (3, 5):
            table.checkpoint(NOW_MS * 1000)
    table.commit(removes=[RemoveFile.of(table.files()[0])], clock_us=(NOW_MS - 9 * DAY_MS) * 1000)
    table.stage(pa.table({"id": [99], "day": ["a"]}), name="0-lost")
    for file in [one.path for one in stored_files(table.disk, table.path)]:
        os.utime(Path(table.path, file), (0, 0))
    return path


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.long)], ids=["short", "long"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_before_any_effect_upkeep_costs_nothing_and_can_be_done_again(base, tmp_path, operation, every):
    """After each kill our reader, after every sixth (in the long form each) those of others too."""
    before = agree(str(base), SCHEMA.names)
    ran = subprocess.run(
        [sys.executable, dying.__file__, operation, str(base), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = json.loads(ran.stdout)
    assert told["code"] == 0, ran.stderr
    assert told["kills"] >= 2, "it has effects to be killed before"
    finished = agree(str(tmp_path / str(told["kills"])), SCHEMA.names)
    for number in range(told["kills"]):
        path = str(tmp_path / str(number))
        seen = rows_of(with_ours(path), SCHEMA.names) if number % every else agree(path, SCHEMA.names)
        assert seen in (before, finished), number
        table = DeltaTable.open(LocalDisk(), path)
        OPERATIONS[operation](table)
        assert rows_of(with_ours(path), SCHEMA.names) == finished, number
        put(table, 50 + number)
        vacuum(table, unneeded(table, now_ms=2 * NOW_MS, keep_ms=DAY_MS))
        assert {one.path for one in stored_files(table.disk, path)} == {
            add.file for add in table.refresh().files.values()
        }, number
        assert repair(table.disk, path) == []


# --- many writers ----------------------------------------------------------------------------------------------------


def write(path: str, writer: int, count: int) -> None:
    table = make(path)
    for number in range(1, count + 1):
        rows = pa.table({"id": [writer * 1000 + number], "day": ["a"]})
        table.commit(adds=table.stage(rows, name=f"{number}-{writer}").adds, txn=(f"app{writer}", number), clock_us=1)


@pytest.mark.parametrize("count", [8, pytest.param(150, marks=pytest.mark.long)])
def test_eight_writers_and_every_kind_of_upkeep(tmp_path, count):
    """Eight processes create and append to one table, while this one compacts, checkpoints, cleans up and vacuums."""
    path = str(tmp_path / "t")
    command = [sys.executable, "-c", "import sys; from tests.lake.test_faults import write; "
               "write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))", path]  # fmt: skip
    root = Path(__file__).parent.parent.parent
    writers = [subprocess.Popen([*command, str(n), str(count)], cwd=root) for n in range(8)]
    table = make(path)
    rewrites = 0
    while any(process.poll() is None for process in writers):
        live = table.refresh().files.values()
        for group in due(live, target_bytes=1 << 20, files_min=4, changed_before_ms=NOW_MS):
            rewrites += rewrite(table, group, target_bytes=1 << 20, clock_us=2000) is not None
        table.checkpoint(NOW_MS * 1000)
        table.clean_log(keep_versions=3, needed_from=10**9)
        vacuum(table, unneeded(table, now_ms=time.time_ns() // 1_000_000, keep_ms=3 * HOUR_MS))
        time.sleep(0.1)
    assert [process.wait(60) for process in writers] == [0] * 8
    table.refresh()
    assert rewrites
    assert table.snapshot.txns == {f"app{n}": count for n in range(8)}
    assert table.snapshot.version == 8 * count + rewrites
    wanted = sorted(repr([w * 1000 + n, "a"]) for w in range(8) for n in range(1, count + 1))
    assert agree(path, SCHEMA.names) == wanted


def test_clocks_an_hour_apart(tmp_path):
    """Two writers whose clocks differ by two hours, upkeep by a third one: nothing live goes, every version reads."""
    table = make(tmp_path / "t")
    other = DeltaTable.open(LocalDisk(), table.path)
    now = time.time_ns() // 1_000_000
    for number in range(10):
        writer, at_ms = ((table, now - HOUR_MS), (other, now + HOUR_MS))[number % 2]
        writer.refresh()
        put(writer, number + 1, at_ms=at_ms)
    table.refresh()
    versions = {v: len(table.read_version(v)) for v in range(table.snapshot.version + 1)}
    for skew in (-HOUR_MS, HOUR_MS):
        for group in due(table.refresh().files.values(), target_bytes=1 << 20, files_min=2, changed_before_ms=now * 2):
            rewrite(table, group, target_bytes=1 << 20, clock_us=(now + skew) * 1000)
        assert unneeded(table, now_ms=now + skew, keep_ms=3 * HOUR_MS) == []
    assert len(agree(table.path, SCHEMA.names)) == 20
    for version, files in versions.items():
        assert len(table.read(table.read_version(version))) == files


# --- failing disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB that can be made larger; skips where nothing can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_that_is_enlarged(small_disk):
    """Commits and upkeep fail with something to wait for, leave nothing behind, and go on when there is space."""
    schema = pa.schema([*SCHEMA, ("noise", pa.binary())])
    table = DeltaTable.create(LocalDisk(), str(small_disk / "t"), from_arrow(schema), table_id="t", clock_us=0)

    def one() -> None:
        """The next batch: half a megabyte that does not compress."""
        number = table.refresh().txns.get("app", 0) + 1
        rows = pa.table({"id": [number, -number], "day": ["a", "b"], "noise": [os.urandom(250_000) for _ in "ab"]})
        staged = table.stage(rows, name=f"{number}-{time.monotonic_ns()}")
        try:
            table.commit(adds=staged.adds, txn=("app", number), clock_us=1)
        except TransientError:
            table.discard(staged.adds)
            raise

    def until_full() -> None:
        while True:
            one()

    with pytest.raises(TransientError, match="disk is full"):
        until_full()
    done = table.refresh().txns["app"]
    assert done > 10
    (group, *_) = due(table.snapshot.files.values(), target_bytes=1 << 30, files_min=2, changed_before_ms=NOW_MS)
    for failing in (lambda: rewrite(table, group, target_bytes=1 << 30, clock_us=1), one):
        with pytest.raises(TransientError):
            failing()
        live = {add.file for add in table.refresh().files.values()}
        assert {one.path for one in stored_files(table.disk, table.path)} == live
    assert len(agree(table.path, ["id", "day"])) == 2 * done
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    one()
    assert rewrite(table, group, target_bytes=1 << 30, clock_us=1) is not None
    table.checkpoint()
    assert len(agree(table.path, ["id", "day"])) == 2 * (done + 1)


CALLS = ("fsync", "write", "link,linkat", "unlink,unlinkat", "openat", "close")
SHORT = [(call, "EIO" if when % 2 else "ENOSPC", when) for call in CALLS[:4] for when in (1, 2)]
LONG = [(call, error, when) for call in CALLS for error in ("EIO", "ENOSPC") for when in range(1, 13)]
CASES = [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG if case not in SHORT)]


@pytest.mark.parametrize(("call", "error", "when"), CASES)
def test_a_syscall_of_a_commit_fails(tmp_path, call, error, when):
    """Whatever call fails, each batch is in once, and the log is as a reader of others wants it."""
    if not installed("strace", "strace"):
        pytest.skip("no strace")
    table = make(tmp_path / "t")
    count = 3
    log, pipe = tmp_path / "strace", subprocess.PIPE
    command = [sys.executable, committing.__file__, table.path, str(count)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        rules = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
        trace = ["strace", "-f", "-p", str(child.pid), *rules, "-o", str(log)]
        with subprocess.Popen(trace, stderr=pipe, text=True) as tracer:
            attached = "attached" in tracer.stderr.readline()
            out, err = child.communicate("go\n", timeout=60)
            tracer.communicate(timeout=20)
    if not attached:
        pytest.skip("a process cannot be traced here")
    calls = Counter(line.split()[0] for line in log.read_text().splitlines() if "(" in line)
    assert "INJECTED" in log.read_text() or max(calls.values(), default=0) < when, "the fault came"
    failed_itself = child.returncode != 0  # its own pipe broke: as if it were killed
    done = [int(line.split()[1]) for line in out.splitlines() if line.startswith("done")]
    assert failed_itself or done == list(range(1, count + 1)), err
    after = DeltaTable.open(LocalDisk(), table.path)
    ids = sorted(after.read(after.files())["id"].to_pylist())
    assert ids == list(range(1, after.snapshot.txns.get("app", 0) + 1))
    assert set(done) <= set(ids)
    assert sorted(list_log(after.disk, after.path).commits) == list(range(after.snapshot.version + 1))
    assert len(agree(table.path, SCHEMA.names)) == len(ids)


def test_a_writer_goes_on_by_itself_after_every_kind_of_error(tmp_path):
    """The same without a tracer: every effect fails once, before it or after it took place."""
    from lodestream.testing.faults import FaultyDisk

    for after in (False, True):
        for failing in range(40):
            left = [failing]

            def fault(kind, path, left=left):
                left[0] -= 1
                return TransientError("file system failed") if left[0] == -1 else None

            path = tmp_path / f"{after}-{failing}"
            make(path)
            table = DeltaTable.open(LocalDisk(), str(path))
            table.disk = FaultyDisk(ForgetfulDisk(LocalDisk(), lambda k, p: True), fault, after=after)
            for number in (1, 2):
                for tries in range(5):
                    try:
                        if table.refresh().txns.get("app", 0) < number:
                            rows = pa.table({"id": [number], "day": ["a"]})
                            staged = table.stage(rows, name=f"{number}-{tries}")
                            table.commit(adds=staged.adds, txn=("app", number), clock_us=1)
                        table.checkpoint(1)
                        break
                    except LodestreamError:
                        continue
            assert sorted(table.read(table.refresh().files.values())["id"].to_pylist()) == [1, 2], (after, failing)


def test_threads_and_compaction_of_one_handle(tmp_path):
    """A handle may be used by several threads, upkeep among them."""
    table = make(tmp_path / "t")
    threads = [threading.Thread(target=lambda n=n: [put_one(table, n, i) for i in range(20)]) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for group in due(table.refresh().files.values(), target_bytes=1 << 20, files_min=4, changed_before_ms=NOW_MS):
            rewrite(table, group, target_bytes=1 << 20, clock_us=2000)
    for thread in threads:
        thread.join()
    assert len(agree(table.path, SCHEMA.names)) == 80


def put_one(table: DeltaTable, writer: int, number: int) -> None:
    rows = pa.table({"id": [writer * 1000 + number], "day": ["a"]})
    table.commit(adds=table.stage(rows, name=f"{number}-{writer}").adds, clock_us=1)
