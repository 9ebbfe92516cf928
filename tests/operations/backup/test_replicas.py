"""A replica follows cut by cut, is readable at any moment, takes over without loss, and is left again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest

from lodestream.app import now_us
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake import crash
from lodestream.lake.disk import LocalDisk
from lodestream.lake.standing import Standing, put_standing, standing
from lodestream.lake.table import DeltaTable
from lodestream.operations.backup.failover import activate, fence, rewind
from lodestream.operations.backup.replica import KEEP_US, Replica
from lodestream.operations.backup.restore import verify
from lodestream.operations.backup.vault import Entry, Group, Vault
from tests.engines.lakes import Lab, killed_at, points_of
from tests.operations.backup.copies import (
    contents,
    goes_on,
    hand_on,
    more,
    released,
    replica_of,
    shop,
    sibling,
    source,
    twin,
)
from tests.operations.test_erase import ADA, erase, holders
from tests.operations.test_erase import shop as people

TABLES = ("gold/per_country", "silver/orders", "bronze/orders")


@pytest.fixture
def second(lab: Lab, tmp_path: Path) -> Lab:
    """The same project elsewhere, without a lake."""
    return sibling(lab, tmp_path / "second")


def take_over(replica: Replica, old: Lab | None) -> dict[str, object]:
    fenced = (LocalDisk(), str(old.root / "lake")) if old is not None else None
    return activate(replica, now_us, lambda _text: None, fenced)


def test_it_follows_takes_over_and_is_left_again(lab: Lab, second: Lab) -> None:
    replica = replica_of(second)
    first = replica.follow(source(lab))
    more(lab)
    lab.run()
    then = replica.follow(source(lab))
    assert then["files"] < first["files"]
    assert contents(second) == contents(lab)
    with pytest.raises(ConfigError, match="lake is a replica"):
        second.run()
    assert verify(replica.vault, [replica.applied], print, replica.fetcher())["damaged"] == []  # type: ignore[list-item]
    more(lab)
    lab.run()  # what the replica never heard of
    report = take_over(replica, lab)
    assert report["fenced"]
    assert report["point"] == then["point"]
    with pytest.raises(ConfigError, match="left for its replica"):
        lab.run()
    goes_on_alone(lab, second)
    back = replica_of(lab)
    aside = rewind(back, source(second))
    assert aside["bronze/orders"] >= 1
    again = back.follow(source(second))
    assert again["kept_files"] > again["files"]
    assert contents(lab) == contents(second)
    take_over(back, second)
    more(lab)
    lab.run()
    lab.reconcile()
    with pytest.raises(ConfigError, match="left for its replica"):
        second.run()


def goes_on_alone(lab: Lab, second: Lab) -> None:
    """The second takes in all that the first had, and more."""
    hand_on(lab, second)
    second.files = lab.files
    second.run()
    second.reconcile()
    assert contents(second) == contents(lab)
    more(second)
    second.run()
    second.reconcile()


def read(lake: str, path: str) -> int:
    """Rows that delta-rs sees, of windows the rows that they cover."""
    try:
        table = deltalake.DeltaTable(os.path.join(lake, path)).to_pyarrow_table()
    except deltalake.exceptions.TableNotFoundError:
        return 0
    return sum(table.column("_rows").to_pylist()) if "_rows" in table.column_names else len(table)


def test_readers_see_no_row_without_its_input_at_any_moment(lab: Lab, second: Lab) -> None:
    replica, lake = replica_of(second), str(second.root / "lake")
    replica.follow(source(lab))
    seen = []

    def look(name: str) -> None:
        if name.startswith(("restore.file", "replicate.")):
            crash.install(None)
            seen.append([read(lake, path) for path in TABLES])
            crash.install(look)

    for _ in range(2):
        more(lab, 40)
        lab.run()
    crash.install(look)
    try:
        replica.follow(source(lab))
    finally:
        crash.install(None)
    assert len(seen) > 10
    assert seen[0] != seen[-1]
    for windows, silver, bronze in seen:
        assert windows <= silver <= bronze


@pytest.mark.parametrize("steps_in_between", [1, pytest.param(12, marks=pytest.mark.long)])
def test_killed_anywhere_it_can_take_over_and_goes_on(steps_in_between: int, lab: Lab, tmp_path: Path) -> None:
    base = sibling(lab, tmp_path / "base")
    replica_of(base).follow(source(lab))
    more(lab)
    lab.run()
    measured = twin(base.root, tmp_path / "measured")
    names = points_of(lambda: replica_of(measured).follow(source(lab)))
    whole = names.index("backup.point")
    between = {len(names) * (one + 1) // (steps_in_between + 1) for one in range(steps_in_between)}
    steps = sorted({*between, whole - 1, whole, whole + 6})
    for step in steps:
        copy = twin(base.root, tmp_path / f"copy{step}")
        replica = replica_of(copy)
        before = replica.applied
        assert before is not None
        killed_at(step, partial(replica.follow, source(lab)))
        released(replica.vault)
        after = twin(copy.root, tmp_path / f"after{step}")
        report = take_over(replica_of(after), None)
        assert (report["point"] == before.id) == (step < whole)
        goes_on(lab, after)
        replica.follow(source(lab))
        assert contents(copy) == contents(lab)


def test_an_activation_killed_anywhere_is_gone_on_with(lab: Lab, second: Lab, tmp_path: Path) -> None:
    replica_of(second).follow(source(lab))
    names = points_of(lambda: take_over(replica_of(twin(second.root, tmp_path / "m")), twin(lab.root, tmp_path / "n")))
    for step in range(0, len(names) - 1, 3):
        old, copy = twin(lab.root, tmp_path / f"old{step}"), twin(second.root, tmp_path / f"copy{step}")
        killed_at(step, partial(take_over, replica_of(copy), old))
        released(replica_of(copy).vault)
        with pytest.raises(ConfigError):
            copy.run()
        assert take_over(replica_of(copy), old)["fenced"]
        copy.run()
        with pytest.raises(ConfigError):
            old.run()


def test_a_writer_at_work_is_fenced(lab: Lab) -> None:
    app = lab.app()
    flow = app.pipeline().flow(next(iter(app.flows)))
    flow.open()
    more(lab)
    assert fence(app.disk, app.lake, "elsewhere", None, now_us()) == 6
    with pytest.raises(ConflictError):
        flow.step()
    flow.close()
    flow = app.pipeline().flow(next(iter(app.flows)))
    with pytest.raises(ConfigError, match="left for its replica"):
        flow.open()
    versions = [DeltaTable.open(app.disk, os.path.join(app.lake, path)).snapshot.version for path in TABLES]  # type: ignore[union-attr]
    fence(app.disk, app.lake, "elsewhere", None, now_us())
    assert versions == [DeltaTable.open(app.disk, os.path.join(app.lake, p)).snapshot.version for p in TABLES]  # type: ignore[union-attr]


def test_who_cannot_be_fenced_is_told(lab: Lab, second: Lab, tmp_path: Path) -> None:
    replica = replica_of(second)
    replica.follow(source(lab))
    gone = (LocalDisk(), str(tmp_path / "gone"))
    report = activate(replica, now_us, lambda _text: None, gone)
    assert not report["fenced"]
    assert report["unfenced"] == "it has no tables that can be seen"
    second.run()


def test_what_is_no_replica_is_not_touched(lab: Lab, second: Lab, tmp_path: Path) -> None:
    second.run()
    with pytest.raises(ConfigError, match="not empty and not a replica"):
        replica_of(second).follow(source(lab))
    with pytest.raises(ConfigError, match="place is no replica"):
        take_over(replica_of(second), None)
    other = sibling(lab, tmp_path / "other")
    put_standing(LocalDisk(), str(other.root / "lake"), Standing("replica", {"of": "somewhere"}))
    with pytest.raises(ConfigError, match="something else than a replica of this lake"):
        replica_of(other).follow(source(lab))
    with pytest.raises(ConfigError, match="no whole cut"):
        take_over(replica_of(other), None)
    fence(LocalDisk(), str(second.root / "lake"), "somewhere", None, now_us())
    with pytest.raises(ConfigError, match="left for another lake"):
        rewind(replica_of(second), source(lab))


def test_what_was_erased_leaves_with_the_next_cut(tmp_path: Path) -> None:
    lab = people(tmp_path / "lab")
    second = sibling(lab, tmp_path / "second")
    replica_of(second).follow(source(lab))
    assert holders(second, ADA)
    assert erase(lab, f"email={ADA}")["proven"]
    replica_of(second).follow(source(lab))
    assert holders(second, ADA) == []
    lake = second.root / "lake"
    held = [path for path in lake.rglob("*.parquet") if "_delta_log" not in path.parts and ADA.encode() in raw(path)]
    assert held == []


def raw(path: Path) -> bytes:
    """The values of a data file as text."""
    return repr(pq.read_table(path).to_pylist()).encode()


def test_files_that_nobody_reads_go_after_a_while(lab: Lab, second: Lab) -> None:
    replica, origin = replica_of(second), source(lab)
    replica.follow(origin)
    folder = second.root / "lake" / "gold" / "per_country"
    first = set(folder.glob("*.parquet"))
    more(lab)
    lab.run()
    replica.follow(origin)
    assert first < set(folder.glob("*.parquet"))
    origin.clock = lambda: now_us() + KEEP_US + 60_000_000
    replica.follow(origin)
    live = {path.name for path in (lab.root / "lake" / "gold" / "per_country").glob("*.parquet")}
    assert {path.name for path in folder.glob("*.parquet")} < live | {path.name for path in first}
    assert len(list((second.root / "lake/_lodestream/replica/points").iterdir())) == 1


def test_a_pass_with_nothing_new_reads_each_list_once(
    lab: Lab, second: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    replica, origin, read = replica_of(second), source(lab), []
    for _ in range(2):  # the first one has a checkpoint of its own, for readers
        replica.follow(origin)
    entries = Vault.entries

    def counted(vault: Vault, group: Group | None) -> dict[str, Entry]:
        read.append(group)
        return entries(vault, group)

    monkeypatch.setattr(Vault, "entries", counted)
    replica.follow(origin)
    made = replica.applied
    assert made is not None
    assert sorted(map(repr, read)) == sorted(map(repr, made.groups.values()))


def failed_over(tmp_path: Path, seconds: float) -> dict[str, float]:
    """Kill a primary under load, take over, and count: what the replica had not heard of, and how long it took."""
    lab = shop(tmp_path / "lab", batches=1)
    (lab.root / "lodestream.yaml").write_text("project: lab\nlake: lake\n")
    second = sibling(lab, tmp_path / "second")
    replica_of(second).follow(source(lab))
    command = [sys.executable, "-m", "tests.operations.backup.primary", str(lab.root)]
    here = Path(__file__).parents[3]
    primary = subprocess.Popen(command, cwd=here)
    following = subprocess.Popen([*command, str(second.root)], cwd=here)
    ends = time.monotonic() + seconds
    stopping = threading.Event()

    def produce() -> None:
        while not stopping.wait(0.02):
            more(lab)

    producing = threading.Thread(target=produce)
    producing.start()
    try:
        passes: set[str] = set()
        while time.monotonic() < ends or len(passes) < 3:
            passes |= {one.id for one in [replica_of(second).applied] if one is not None}
            time.sleep(0.05)
            assert primary.poll() is None
            assert following.poll() is None
            assert time.monotonic() < ends + 60
    finally:
        for process in (primary, following):
            process.send_signal(signal.SIGKILL)
        killed_us, died = now_us(), time.monotonic()
        stopping.set()
        producing.join()
        for process in (primary, following):
            process.wait()
    released(replica_of(second).vault)
    acknowledged = len(lab.read("bronze.orders"))
    report = take_over(replica_of(second), lab)
    had = len(second.read("bronze.orders"))
    hand_on(lab, second)
    with second.app() as app:
        app.apply()
        app.pipeline().run_once()
    rto_s = time.monotonic() - died
    second.run()
    second.reconcile()
    produced = sum(len(path.read_text().splitlines()) for path in (lab.root / "events").iterdir())
    assert len(second.read("bronze.orders")) == produced  # the source still had what the replica had not
    with pytest.raises(ConfigError):
        lab.run()
    made = replica_of(second).vault.newest()
    assert made is not None
    found = {
        "rpo_s": (killed_us - made.made_us) / 1e6, "rpo_rows": acknowledged - had, "produced": produced,
        "activated_s": float(str(report["seconds"])), "rto_s": rto_s,
    }  # fmt: skip
    back = replica_of(lab)
    rewind(back, source(second))
    back.follow(source(second))
    assert contents(lab) == contents(second)
    take_over(back, second)
    more(lab)
    lab.run()
    lab.reconcile()
    return found


def test_a_primary_killed_under_load_loses_nothing_that_its_source_has(tmp_path: Path) -> None:
    found = failed_over(tmp_path, 1.0)
    assert found["rpo_rows"] >= 0
    assert found["produced"] > 0


@pytest.mark.long
def test_failover_and_failback_again_and_again(tmp_path: Path) -> None:
    for number in range(5):
        found = failed_over(tmp_path / str(number), 8.0)
        print({name: round(value, 2) for name, value in found.items()})


def test_a_lake_that_is_a_copy_is_not_copied(lab: Lab, second: Lab) -> None:
    replica_of(second).follow(source(lab))
    with pytest.raises(ConfigError, match="copy itself"):
        source(second).take()
    assert standing(LocalDisk(), str(lab.root / "lake")) is None
