"""Many writers on one table: versions are dense, nothing is overwritten, every batch is in once."""

import subprocess
import sys
import threading

import pyarrow as pa

from lodestream.errors import ConflictError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.log import list_log
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, Column, Schema
from lodestream.testing.faults import ForgetfulDisk

SCHEMA = Schema((Column("id", BIGINT),))


def disk() -> ForgetfulDisk:
    return ForgetfulDisk(LocalDisk(), lambda kind, path: True)


def write(path: str, writer: int, count: int) -> None:
    """Create or open, then commit `count` batches as an application of its own; checkpoint now and then."""
    table = DeltaTable.create(disk(), path, SCHEMA, table_id=f"t{writer}", clock_us=0)
    for number in range(1, count + 1):
        staged = table.stage(pa.table({"id": [writer * 1000 + number]}), name=f"{number}-{writer}")
        table.commit(adds=staged.adds, txn=(f"app{writer}", number), clock_us=number)
        if number % 10 == 0:
            table.checkpoint()


def check(path: str, writers: int, count: int) -> None:
    table = DeltaTable.open(LocalDisk(), path)
    assert table.snapshot.version == writers * count
    assert sorted(list_log(LocalDisk(), path).commits) == list(range(writers * count + 1))
    assert sorted(table.read(table.files())["id"].to_pylist()) == sorted(
        w * 1000 + n for w in range(writers) for n in range(1, count + 1)
    )
    assert table.snapshot.txns == {f"app{w}": count for w in range(writers)}
    creators = [c.metadata.id for c in table.commits(-1) if c.metadata]
    assert creators == [table.snapshot.metadata.id]


def test_threads(tmp_path):
    threads = [threading.Thread(target=write, args=(str(tmp_path / "t"), n, 20)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(str(tmp_path / "t"), 8, 20)


def test_processes(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "t")]
    processes = [subprocess.Popen([*command, str(n), "25"]) for n in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    check(str(tmp_path / "t"), 4, 25)


def test_one_flow_run_by_many_commits_each_batch_once(tmp_path):
    """All run the same application: whoever loses refreshes and goes on where the table is."""
    path = str(tmp_path / "t")
    won: list[tuple[int, int]] = []

    def run(writer: int) -> None:
        table = DeltaTable.create(disk(), path, SCHEMA, table_id="t", clock_us=0)
        while (number := table.refresh().txns.get("app", 0) + 1) <= 40:
            staged = table.stage(pa.table({"id": [number]}), name=f"{number}-{writer}")
            try:
                table.commit(adds=staged.adds, txn=("app", number), clock_us=0)
                won.append((number, writer))
            except ConflictError:
                continue

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = DeltaTable.open(LocalDisk(), path)
    assert sorted(table.read(table.files())["id"].to_pylist()) == list(range(1, 41))
    assert sorted(number for number, _ in won) == list(range(1, 41))


def test_one_handle_shared_by_threads(tmp_path):
    table = DeltaTable.create(disk(), str(tmp_path / "t"), SCHEMA, table_id="t", clock_us=0)

    def run(writer: int) -> None:
        for number in range(1, 21):
            staged = table.stage(pa.table({"id": [writer * 1000 + number]}), name=f"{number}-{writer}")
            table.commit(adds=staged.adds, txn=(f"app{writer}", number), clock_us=number)
            table.refresh()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(str(tmp_path / "t"), 6, 20)


def test_checkpoints_and_cleanup_beside_writers(tmp_path):
    """Maintenance and readers run on handles of their own while two writers commit."""
    path = str(tmp_path / "t")
    DeltaTable.create(disk(), path, SCHEMA, table_id="t0", clock_us=0)
    writers = [threading.Thread(target=write, args=(path, n, 60)) for n in range(2)]
    done = threading.Event()
    failures: list[BaseException] = []

    def maintain() -> None:
        try:
            while not done.is_set():
                table = DeltaTable.open(disk(), path)
                table.checkpoint(0)
                table.clean_log(keep_versions=3, needed_from=10**9)
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            last, reader = 0, DeltaTable.open(disk(), path)
            while not done.is_set():
                for table in (reader, DeltaTable.open(disk(), path)):
                    table.refresh()
                    rows = table.read(table.files()).num_rows
                    assert rows == table.snapshot.version >= last
                    last = rows
        except BaseException as error:
            failures.append(error)

    others = [threading.Thread(target=maintain), threading.Thread(target=read)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert failures == []
    table = DeltaTable.open(LocalDisk(), path)
    assert table.snapshot.version == 120
    assert len(table.files()) == 120
    assert len(list_log(LocalDisk(), path).commits) < 121


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
