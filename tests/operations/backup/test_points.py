"""Points of a running lake: consistent, whole or not there, incremental, verified; restored ones go on exactly once."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lodestream.app import now_us
from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import ConfigError, ConflictError, CorruptionError
from lodestream.lake import crash
from lodestream.lake.disk import Disk, LocalDisk
from lodestream.lake.log import Snapshot, load
from lodestream.lake.pins import Pin, drop_pin, pins, put_pin
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.backup import cut as cutting
from lodestream.operations.backup import turn as turns
from lodestream.operations.backup.copying import Amount, Fetcher, in_flight
from lodestream.operations.backup.make import make_point, would
from lodestream.operations.backup.prune import prune, too_old
from lodestream.operations.backup.restore import Places, put_all, restore, verify
from lodestream.operations.backup.turn import TURN_US
from lodestream.operations.backup.vault import Entry, Point, Vault, digest_of
from lodestream.operations.health import examine
from lodestream.runtime.care import Care
from lodestream.runtime.maintain import Maintenance, Upkeep
from tests.engines.lakes import Lab, killed_at, points_of, wait_for
from tests.operations.backup.copies import contents, goes_on, more, point_of, released, restored, source
from tests.operations.test_erase import ADA, erase, holders
from tests.operations.test_erase import shop as people


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(LocalDisk(), str(tmp_path / "set"))


def newest(vault: Vault) -> Point:
    found = vault.newest()
    assert found is not None
    return found


@pytest.mark.parametrize("kinds", ["three tables", pytest.param("every kind of table", marks=pytest.mark.long)])
def test_any_point_goes_on_as_if_nothing_had_happened(kinds: str, lab: Lab, tmp_path: Path, vault: Vault) -> None:
    if kinds != "three tables":
        lab = people(tmp_path / "people")
    first, then = point_of(lab, vault).point, contents(lab)
    more(lab)
    lab.run()
    second = point_of(lab, vault).point
    old, new = restored(lab, vault, tmp_path / "old", first.id), restored(lab, vault, tmp_path / "new")
    assert contents(old) == then
    assert contents(new) == contents(lab)
    for copy in (old, new):
        app = copy.app()
        findings = examine(app.lake, app.disk, list(app.flows), repair=False, now_s=now_us() / 1e6)
        assert [one for one in findings if one.level == "error"] == []
        copy.reconcile()
    goes_on(lab, old)
    goes_on(lab, new)
    assert vault.points() == [first.id, second.id]


def test_only_what_is_new_crosses(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    first = point_of(lab, vault)
    data = [path for files in first.entries.values() for path in files if path.endswith(".parquet")]
    again = point_of(lab, vault)
    small = [
        p for files in again.entries.values() for p in files if p.startswith(("home/", "project/")) or "_last_" in p
    ]
    assert again.amount.files == len(small)
    assert again.point.file_count == first.point.file_count == first.amount.files
    more(lab)
    lab.run()
    third = point_of(lab, vault)
    fresh = [p for name, files in third.entries.items() for p in files if p not in again.entries.get(name, {})]
    assert third.amount.files == len(fresh) + len(small)
    assert 0 < len([path for path in fresh if path.endswith(".parquet")]) < len(data)
    assert would(source(lab), vault)["files"] == len(small)


class Moving:
    """Lets the pipeline run a batch whenever the cut is about to look at a table."""

    def __init__(self, lab: Lab, batches: int) -> None:
        self.lab, self.left = lab, batches
        self.app = lab.app()

    def open(self, *given: Any) -> DeltaTable | None:
        if self.left:
            self.left -= 1
            more(self.lab)
            self.app.pipeline().run_once()
        return DeltaTable.open(*given)


def test_a_cut_of_moving_tables_has_every_row_that_others_were_made_of(
    lab: Lab, tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = Moving(lab, 5)
    monkeypatch.setattr(cutting, "DeltaTable", moving)
    made = point_of(lab, vault).point
    monkeypatch.undo()
    assert not moving.left
    versions = {told["path"]: told["version"] for told in made.tables}
    assert versions["bronze/orders"] > versions["silver/orders"] > versions["gold/per_country"]
    copy = restored(lab, vault, tmp_path / "copy")
    copy.reconcile()
    goes_on(lab, copy)


def test_tables_looked_at_in_the_wrong_order_are_noticed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "DeltaTable", Moving(lab, 5))
    monkeypatch.setattr(cutting, "reversed", lambda flows: flows, raising=False)
    monkeypatch.setattr(cutting, "_TRIES", 1)
    with pytest.raises(ConflictError, match="changes faster"):
        source(lab).take()


def test_points_of_a_running_pipeline_are_whole(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    app = lab.app()
    app.apply()
    upkeep = Upkeep(checkpoint_every=3, versions_kept=2, log_kept_us=0, hot_kept_ms=0, look_every_s=0.02, files_min=2)
    pipeline = app.pipeline()
    pipeline._upkeep = upkeep
    running = threading.Thread(target=pipeline.run)
    running.start()
    made = []
    try:
        for _ in range(4):
            for _ in range(3):
                more(lab)
            made.append(point_of(lab, vault).point)
    finally:
        pipeline.stop()
        running.join()
    assert [status.error for status in pipeline.status] == [None] * 3
    for number, one in enumerate(made[1:]):
        goes_on(lab, restored(lab, vault, tmp_path / f"copy{number}", one.id))
    assert pins(LocalDisk(), app.lake, now_us()) == []


def test_killed_anywhere_there_is_no_half_point_and_the_next_goes_on(lab: Lab, tmp_path: Path) -> None:
    whole = point_of(lab, Vault(LocalDisk(), str(tmp_path / "measure")))
    names = points_of(lambda: point_of(lab, Vault(LocalDisk(), str(tmp_path / "steps"))))
    for step in range(0, len(names), max(1, len(names) // 8)):
        vault = Vault(LocalDisk(), str(tmp_path / f"set{step}"))
        killed_at(step, partial(point_of, lab, vault))
        assert len(vault.points()) == names[: step + 1].count("backup.point")
        released(vault)
        made = point_of(lab, vault)
        assert set(made.entries) == set(whole.entries)
        assert {p for files in made.entries.values() for p in files} == {
            p for files in whole.entries.values() for p in files
        }
        assert verify(vault, [made.point], print)["damaged"] == []
    copy = restored(lab, vault, tmp_path / "copy")
    goes_on(lab, copy)


def test_what_was_copied_before_the_end_is_not_copied_again(
    lab: Lab, tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lodestream.operations.backup.copying._SMALL", 1_000)
    names = points_of(lambda: point_of(lab, Vault(LocalDisk(), str(tmp_path / "measure"))))
    killed_at(names.index("backup.before_point"), lambda: point_of(lab, vault))
    assert vault.points() == []
    noted = vault.journal()
    assert noted
    released(vault)
    made = point_of(lab, vault)
    assert made.amount.kept == len(noted)
    assert made.amount.files + made.amount.kept == made.point.file_count
    assert vault.journal() == {}


class Slow(Amount):
    """Who counts looks, then waits for another that does the same at that moment."""

    both = threading.Barrier(2)

    @property
    def kept(self) -> int:
        found = self.__dict__["kept"]
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(0.5)
        return int(found)

    @kept.setter
    def kept(self, count: int) -> None:
        self.__dict__["kept"] = count


def test_files_that_stand_are_counted_one_by_one(tmp_path: Path) -> None:
    names = [f"lake/{number}" for number in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    amount = Slow(time.monotonic, print)
    places = Places(LocalDisk(), str(tmp_path / "lake"), str(tmp_path))
    put_all([Entry(name, 1, digest_of(b"x")) for name in names], lambda _entry: b"", places, amount)
    assert amount.kept == 2


def test_of_those_who_want_a_pack_one_reads_it(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = vault.put_blob(b"abcd"), digest_of(b"no such blob")
    wanted = [Entry(f"lake/{number}", 1, digest_of(b"abcd"[number : number + 1]), good, number) for number in range(4)]
    lost = [replace(entry, blob=bad) for entry in wanted]
    read, blob, others = [], vault.blob, threading.Event()

    def slow(digest: str) -> bytes:
        read.append(digest)
        others.wait(0.2)
        return blob(digest)

    monkeypatch.setattr(vault, "blob", slow)
    fetcher = Fetcher(vault)
    assert [data for _, data in in_flight(wanted, fetcher.read, lambda entry: entry.size)] == [b"a", b"b", b"c", b"d"]
    for entry in lost:
        with pytest.raises(CorruptionError, match="file of a backup is missing"):
            fetcher.read(entry)
    assert read == [good, bad]


def test_each_table_is_listed_once(lab: Lab, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, int]] = []

    def counted(disk: Disk, path: str, version: int) -> Snapshot | None:
        loaded.append((path, version))
        return load(disk, path, version)

    monkeypatch.setattr("lodestream.operations.backup.contents.load", counted)
    made = point_of(lab, vault).point
    assert len(set(loaded)) >= len(made.tables)
    assert len(set(loaded)) == len(loaded)


def test_a_restore_killed_anywhere_is_refused_until_it_is_done(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    point_of(lab, vault)
    names = points_of(lambda: restored(lab, vault, tmp_path / "measure"))
    for step in range(1, len(names), max(1, len(names) // 7)):
        root = tmp_path / f"copy{step}"
        killed_at(step, partial(restored, lab, vault, root))
        copy = Lab.at(root)
        if names[step] != "restore.done":
            with pytest.raises(ConfigError, match="not restored to the end"):
                copy.run()
            lake = str(root / "lake")
            restore(vault, newest(vault), Places(LocalDisk(), lake, lake), lambda _text: None)
        assert contents(copy) == contents(lab)
        copy.reconcile()


def test_a_changed_byte_is_found_and_never_restored(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    made = point_of(lab, vault).point
    blobs = sorted(Path(vault.root, "blobs").rglob("*/*"), key=lambda path: path.stat().st_size)
    lists = {digest for group in made.groups.values() for digest in group.lists}
    held = next(path for path in reversed(blobs) if path.name not in lists)
    data = bytearray(held.read_bytes())
    data[len(data) // 2] ^= 1
    held.write_bytes(data)
    damaged = verify(vault, [made], print)["damaged"]
    assert damaged
    assert all(one["point"] == made.id for one in damaged)
    with pytest.raises(CorruptionError, match="damaged"):
        restored(lab, vault, tmp_path / "copy")
    with pytest.raises(ConfigError, match="not restored to the end"):
        Lab.at(tmp_path / "copy").run()
    held.unlink()
    assert verify(vault, [made], print)["damaged"]
    again = point_of(lab, vault).point  # what is missing is copied once more
    assert verify(vault, [again, made], print)["damaged"] == []


def test_a_point_that_was_changed_is_not_believed(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    first = point_of(lab, vault).point
    second = point_of(lab, vault).point
    path = Path(vault.root, "points", f"{second.id}.json")
    path.write_text(path.read_text().replace('"project": "lab"', '"project": "lob"'))
    with pytest.raises(CorruptionError, match="point of a backup is damaged"):
        vault.point(second.id)
    assert newest(vault).id == first.id
    with pytest.raises(CorruptionError):
        prune(vault, now_us(), 1, None)
    assert verify(vault, [first], print)["damaged"] == []


def test_pruning_takes_only_what_no_point_needs(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    made = []
    for _ in range(3):
        more(lab)
        lab.run()
        made.append(point_of(lab, vault).point)
    with vault.turn(now_us):
        report = prune(vault, now_us(), 1, None)
    assert report["points"] == [one.id for one in made[:2]]
    assert report["blobs"]
    assert vault.points() == [made[2].id]
    assert verify(vault, [made[2]], print)["damaged"] == []
    goes_on(lab, restored(lab, vault, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("keep", "days", "gone"),
    [
        (None, None, []),
        (2, None, ["a", "b"]),
        (None, 2.5, ["a"]),
        (1, 1.5, ["a", "b"]),
        (9, None, []),
        (1, 0, ["a", "b", "c"]),
    ],
)
def test_points_that_no_rule_keeps_go(keep: int | None, days: float | None, gone: list[str]) -> None:
    day = 86_400_000_000
    points = [(name, number * day) for number, name in enumerate("abcd")]
    assert too_old(points, 3 * day + 1, keep, days) == gone


def test_upkeep_leaves_what_is_being_copied(lab: Lab, tmp_path: Path) -> None:
    app = lab.app()
    around = app.pipeline().around
    name = TableName("gold", "per_country")
    made = source(lab).take()
    put_pin(app.disk, app.lake, made.pin("x", now_us() + 60_000_000))
    hot = next(table.hot for table in made.tables if table.path == os.path.join("gold", "per_country"))
    states = next(table.flow.state for table in made.tables if table.flow is not None and table.flow.name == name)
    assert hot
    assert states
    for _ in range(3):
        more(lab)
        lab.run()
    state = Path(app.lake, "_lodestream", "flows", str(name), "1", "state")

    def tidied() -> tuple[bool, bool]:
        Maintenance(app.flows, app.flows, around, Upkeep(hot_kept_ms=-1)).look()
        FlowStore(app.disk, app.lake, name, 1).forget_before(f"{99:020d}", 1, now_us())
        return all(Path(app.lake, made_path, file).exists() for made_path, file in pairs), (state / states[-1]).exists()

    pairs = [(os.path.join("gold", "per_country"), file) for file in hot]
    care = Care.of(name, around, app.flows)
    table = care.open()
    assert table is not None
    assert care.needed_from(table) == 0
    assert tidied() == (True, True)
    drop_pin(app.disk, app.lake, Pin("x", 0))
    assert care.needed_from(table) > 0
    assert tidied() == (False, False)


def test_a_pin_ends_by_itself(tmp_path: Path) -> None:
    disk, lake = LocalDisk(), str(tmp_path / "lake")
    put_pin(disk, lake, Pin("a", 100, {"silver.orders": 3}))
    assert [pin.versions for pin in pins(disk, lake, 99)] == [{"silver.orders": 3}]
    assert pins(disk, lake, 100) == []
    assert disk.list(os.path.join(lake, "_lodestream", "pins")) == []


def test_two_at_once_take_turns(lab: Lab, tmp_path: Path, vault: Vault) -> None:
    vault.make("lab")
    with vault.turn(lambda: 1_000), pytest.raises(ConflictError, match="another process works on this set"):
        Vault(vault.disk, vault.root).turn(lambda: 2_000).__enter__()
    killed = vault.turn(lambda: 1_000)
    killed.__enter__()
    with Vault(vault.disk, vault.root).turn(lambda: 601_001_000):  # whoever died has lost it
        pass


def test_a_pin_lasts_as_long_as_one_file_takes(lab: Lab, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BEAT_S", 0.001)
    origin, ahead_us, waited = source(lab), [0], []
    origin.clock = lambda: now_us() + ahead_us[0]
    folder = Path(origin.lake, "_lodestream", "pins")

    def until_us() -> int:
        (path,) = folder.glob("*.json")
        return int(Pin(**json.loads(path.read_text())).until_us)

    def slow(name: str) -> None:
        if name == "backup.file" and not waited:
            waited.append(name)
            first, ahead_us[0] = until_us(), 10 * TURN_US
            wait_for(lambda: until_us() >= first + 10 * TURN_US)

    monkeypatch.setattr("lodestream.operations.backup.copying._SMALL", 1_000)
    vault.make("lab")
    crash.install(slow)
    try:
        with vault.turn(now_us):
            make_point(origin, vault)
    finally:
        crash.install(None)
    assert waited
    assert list(folder.glob("*.json")) == []


def test_whose_turn_was_taken_makes_no_point(lab: Lab, vault: Vault) -> None:
    vault.make("lab")
    origin = source(lab)
    with vault.turn(now_us), Vault(vault.disk, vault.root).turn(lambda: now_us() + 2 * TURN_US):
        with pytest.raises(ConflictError, match="another process has taken over"):
            make_point(origin, vault)
        with pytest.raises(ConflictError, match="another process has taken over"):
            prune(vault, now_us(), 1, None)
    assert vault.points() == []


def test_a_file_that_goes_meanwhile_means_a_later_moment(
    lab: Lab, tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.make("lab")
    origin = source(lab)
    take, taken = origin.take, []

    def once() -> cutting.Cut:
        found = take()
        if not taken:  # somebody who knows of no pins: the table moves on and its old file goes
            more(lab)
            lab.run()
            for table in found.tables:
                for file in table.hot:
                    os.unlink(os.path.join(origin.lake, table.path, file))
        taken.append(found)
        return found

    monkeypatch.setattr(origin, "take", once)
    with vault.turn(now_us):
        made = make_point(origin, vault)
    assert len(taken) == 2
    assert {t["path"]: t["version"] for t in made.point.tables} == {t.path: t.version for t in taken[1].tables}
    goes_on(lab, restored(lab, vault, tmp_path / "copy"))


@pytest.mark.long
def test_who_was_erased_comes_back_with_an_old_point_and_is_named(tmp_path: Path, vault: Vault) -> None:
    lab = people(tmp_path / "lab")
    before = point_of(lab, vault).point
    assert erase(lab, f"email={ADA}")["proven"]
    point_of(lab, vault)
    clean = restored(lab, vault, tmp_path / "clean")
    assert holders(clean, ADA) == []
    clean.reconcile()
    old = tmp_path / "old"
    made = vault.point(before.id)
    report = restore(vault, made, Places(LocalDisk(), str(old), str(old)), lambda _text: None)
    (again,) = report["erased_since"]
    assert again["columns"] == ["email"]


def test_more_room_than_there_is(lab: Lab, tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.make("lab")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10})())
    with vault.turn(now_us), pytest.raises(ConfigError, match="not enough space"):
        make_point(source(lab), vault, room=vault.root)
    assert vault.points() == []


def test_nothing_leaves_its_lake(tmp_path: Path) -> None:
    places = Places(LocalDisk(), str(tmp_path), str(tmp_path))
    for path in ("lake/../x", "lake//etc/passwd", "home/a/../../x", "elsewhere/x"):
        with pytest.raises(CorruptionError, match="outside its lake"):
            places.of(path)
    assert places.of("project/x") is None
