"""Logs stay short without anybody losing what they still have to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import pytest

from lodestream.app import now_us
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import pins_folder
from lodestream.lake.log import list_log
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.runtime.maintain import Maintenance, Upkeep
from lodestream.runtime.pipeline import Pipeline
from tests.engines.lakes import Lab

BRONZE = "source: {files: {path: events, settle: 0 seconds}}\nformat: json\ncolumns: {id: string}\n"


def _lab(tmp_path: Path, batches: int) -> Lab:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", "from: stream(bronze.e)\nselect: [id]\n")
    for number in range(batches):
        lab.events([{"id": f"e{number}"}])
        lab.run(tables=["bronze.e"])
    return lab


def _look(lab: Lab, every: int) -> Maintenance:
    app = lab.app()
    around = app.pipeline().around
    care = Maintenance([TableName("bronze", "e")], app.flows, around, Upkeep(every, 1, -(10**15)))
    care.look()
    assert care.errors == 0
    return care


def test_log_entries_go_only_when_every_reader_has_them(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 4)
    path = str(lab.root / "lake" / "bronze" / "e")
    disk = lab.app().disk
    _look(lab, 1)
    lab.events([{"id": "late"}])
    lab.run(tables=["bronze.e"])
    _look(lab, 1)
    assert min(list_log(disk, path).commits) == 0, "silver has read nothing yet"
    lab.run()
    assert len(lab.rows("silver.e")) == 5
    lab.events([{"id": "more"}])
    lab.run()
    _look(lab, 1)
    assert min(list_log(disk, path).commits) > 0
    lab.events([{"id": "last"}])
    lab.run()
    assert len(lab.rows("silver.e")) == 7
    lab.reconcile()


def with_windows(tmp_path: Path) -> Lab:
    """Windows that are shown while they are open, in a hot file."""
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE.replace("id: string", "id: string, at: timestamp"))
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nevent_time: {column: at, delay: 30 seconds}\n"
        "window: {every: 1 minute}\nmeasures: {n: count(*)}\n",
    )
    return lab


def test_swapped_out_hot_files_are_deleted_and_live_ones_stay(tmp_path: Path) -> None:
    lab = with_windows(tmp_path)
    for number in range(3):
        lab.events([{"id": "x", "at": f"2024-01-01T00:00:0{number}Z"}])
        lab.run()
    folder = lab.root / "lake" / "gold" / "w"
    assert len(list(folder.glob("*.parquet"))) == 3
    app = lab.app()
    care = Maintenance([TableName("gold", "w")], app.flows, app.pipeline().around, Upkeep(hot_kept_ms=-1))
    care.look()
    assert care.errors == 0
    assert [f.name for f in folder.glob("*.parquet")] == [a.file for a in lab.delta("gold.w").files()]
    assert lab.rows("gold.w", "n") == [{"n": 3}]


def test_a_hot_file_that_a_restore_brought_back_stays(tmp_path: Path) -> None:
    lab = with_windows(tmp_path)
    lab.events([{"id": "x", "at": "2024-01-01T00:00:00Z"}])
    lab.run()
    later, app = [0], lab.app()
    around = replace(app.pipeline().around, clock=lambda: now_us() + later[0])
    care = Maintenance([TableName("gold", "w")], app.flows, around, Upkeep())
    care.look()
    there = lab.delta("gold.w").snapshot.version
    lab.events([{"id": "x", "at": "2024-01-01T00:00:01Z"}])
    lab.run()
    deltalake.DeltaTable(lab.root / "lake" / "gold" / "w").restore(there)
    later[0] = 10 * 60_000_000
    care.look()
    assert care.errors == 0
    assert lab.rows("gold.w", "n") == [{"n": 1}]


def test_nobody_is_asked_what_they_need_while_there_is_nothing_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = _lab(tmp_path, 2)
    lab.run()
    app = lab.app()
    care = Maintenance(app.flows, app.flows, app.pipeline().around)
    care.look()  # the first one vacuums
    listed, names = [], LocalDisk.list

    def counted(disk: LocalDisk, path: str) -> list[str]:
        listed.append(path)
        return names(disk, path)

    monkeypatch.setattr(LocalDisk, "list", counted)
    care.look()
    assert care.errors == 0
    assert [path for path in listed if path == pins_folder(app.lake)] == []


def test_short_runs_leave_no_long_log_behind(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 4)
    app = lab.app()
    pipeline = Pipeline(
        app.project.root, app.flows, lake=app.lake, disk=app.disk, clock=now_us, upkeep=Upkeep(checkpoint_every=3)
    )  # fmt: skip
    pipeline.run(until_idle=True)
    assert list(list_log(app.disk, str(lab.root / "lake" / "bronze" / "e")).checkpoints) == [4]


DAY_US = 86_400_000_000


def _at(lab: Lab, names: list[str], days: float, **upkeep: Any) -> Maintenance:
    """One round over these tables, so many days from now."""
    app = lab.app()
    around = replace(app.pipeline().around, clock=lambda: now_us() + int(days * DAY_US))
    care = Maintenance([TableName.parse(name) for name in names], app.flows, around, Upkeep(**upkeep))
    care.look()
    assert care.errors == 0
    return care


def _files(lab: Lab, name: str) -> int:
    return len(list((lab.root / "lake" / Path(*name.split("."))).rglob("*.parquet")))


def test_small_files_become_few_and_nobody_notices(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 6)
    before = lab.rows("bronze.e")
    _at(lab, ["bronze.e"], 0, files_min=2)
    assert len(lab.delta("bronze.e").files()) == 1
    assert lab.rows("bronze.e") == before
    lab.run()  # silver had read nothing: it reads the files as they were committed
    assert len(lab.rows("silver.e")) == 6
    _at(lab, ["bronze.e", "silver.e"], 0, files_min=2)
    lab.events([{"id": "more"}])
    lab.run()
    assert len(lab.rows("silver.e")) == 7
    lab.reconcile()


def test_compaction_can_be_turned_off(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 4)
    lab.table("bronze.e", BRONZE + "maintain: {compact: false}\n")
    lab.app().apply(None)
    _at(lab, ["bronze.e"], 0, files_min=2)
    assert len(lab.delta("bronze.e").files()) == 4


def test_vacuum_waits_for_a_stream_that_is_behind(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 4)
    _at(lab, ["bronze.e"], 0, files_min=2)
    _at(lab, ["bronze.e"], 30)
    assert _files(lab, "bronze.e") == 5, "silver still has to read the four files that were put together"
    lab.run()
    assert len(lab.rows("silver.e")) == 4
    _at(lab, ["bronze.e"], 30)
    lab.reconcile()  # reads bronze as silver has read it
    assert _files(lab, "bronze.e") == 5
    lab.events([{"id": "more"}])
    lab.run()
    _at(lab, ["bronze.e"], 30)
    assert _files(lab, "bronze.e") == 2
    lab.reconcile()


def test_vacuum_leaves_the_files_of_a_batch_under_way(tmp_path: Path) -> None:
    """Killed between its files and its commit; the next run finds the plan and does the batch again."""
    lab = _lab(tmp_path, 2)
    table = lab.delta("bronze.e")
    for name in ("2-lost", "3-flying"):
        table.stage(table.read(table.files()).slice(0, 1), name=name)
    _at(lab, ["bronze.e"], 30)
    names = {path.name for path in (lab.root / "lake" / "bronze" / "e").glob("*.parquet")}
    assert "part-3-flying-0.snappy.parquet" in names
    assert "part-2-lost-0.snappy.parquet" not in names


def test_old_rows_leave_and_the_proof_says_so(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 3)
    lab.table("silver.e", "from: stream(bronze.e)\nselect: [id]\nretention: 30 days\n")
    lab.run()
    _at(lab, ["bronze.e", "silver.e"], 60)
    assert (len(lab.rows("bronze.e")), len(lab.rows("silver.e"))) == (3, 0)
    lab.events([{"id": "new"}])
    lab.run()
    assert lab.rows("silver.e", "id") == [{"id": "new"}]
    bronze, silver = lab.reconcile()
    assert silver.counts["expired"] == 3
    _at(lab, ["bronze.e", "silver.e"], 100)
    assert (len(lab.rows("bronze.e")), len(lab.rows("silver.e"))) == (0, 0)
    lab.events([{"id": "newest"}])
    lab.run()
    bronze, silver = lab.reconcile()
    assert (bronze.counts["expired"], bronze.counts["output"], silver.counts["output"]) == (4, 1, 1)
    _at(lab, ["bronze.e", "silver.e"], 200)
    _at(lab, ["bronze.e", "silver.e"], 220)
    assert _files(lab, "silver.e") == 0


def test_entries_of_the_quarantine_leave_whole_days_at_a_time_and_the_proof_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE + "retention: 10 days\n")
    lab.table(
        "silver.e", "from: stream(bronze.e)\nselect: [id]\nexpect: {short: {that: length(id) < 3, else: quarantine}}\n"
        "retention: forever\nmaintain: {quarantine_retention: 2 days}\n",
    )  # fmt: skip
    for number in range(3):
        lab.events([{"id": f"e{number}"}, {"id": f"long{number}"}])
        lab.run()
    names = ["bronze.e", "silver.e"]
    _at(lab, names, 5)
    assert len(lab.rows("silver.e__quarantine")) == 3, "the rows are still in bronze"
    _at(lab, names, 12)
    assert (len(lab.rows("bronze.e")), len(lab.rows("silver.e__quarantine")), len(lab.rows("silver.e"))) == (0, 0, 3)
    lab.events([{"id": "n"}, {"id": "longer"}])
    lab.run()
    assert len(lab.rows("silver.e__quarantine")) == 1
    _, silver = lab.reconcile()
    assert (silver.counts["output"], silver.counts["quarantine"]) == (4, 1)


def test_entries_that_left_are_told_apart_from_lost_rows(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE + "maintain: {quarantine_retention: 2 days}\n")
    lab.events([{"id": "a"}, "broken", "torn"])
    lab.run()
    _at(lab, ["bronze.e"], 4)
    assert len(lab.rows("bronze.e__quarantine")) == 0
    (bronze,) = lab.reconcile()
    assert (bronze.counts["output"], bronze.counts["expired"]) == (1, 2)
    table = lab.delta("bronze.e")
    table.commit(removes=table.files()[:1], clock_us=now_us(), operation="DELETE")
    app = lab.app()
    assert not reconcile(app.project.root, app.lake, app.flows[TableName("bronze", "e")], app.resolve).ok


def test_a_lost_row_is_not_taken_for_an_expired_one(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 3)
    lab.run()
    table = lab.delta("silver.e")
    table.commit(removes=table.files()[:1], clock_us=now_us(), operation="DELETE")
    app = lab.app()
    report = reconcile(app.project.root, app.lake, app.flows[TableName("silver", "e")], app.resolve)
    assert not report.ok


def test_rows_may_be_kept_for_ever(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 1)
    lab.table("bronze.e", BRONZE + "retention: forever\n")
    lab.app().apply(None)
    _at(lab, ["bronze.e"], 36_500)
    assert len(lab.rows("bronze.e")) == 1


def _corrected(tmp_path: Path) -> Lab:
    """Five windows of one row each, the last two of them open."""
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE.replace("id: string", "id: string, at: timestamp"))
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nevent_time: {column: at, delay: 1 second}\nlate: update\nemit: final\n"
        "window: {every: 1 minute}\nmeasures: {n: count(*)}\n",
    )
    for minute in range(5):
        lab.events([{"id": f"x{minute}", "at": f"2024-01-01T00:0{minute}:00Z"}])
        lab.run()
    return lab


def test_a_correction_goes_on_after_compaction(tmp_path: Path) -> None:
    """The flow removes files of closed windows that maintenance has just put together."""
    lab = _corrected(tmp_path)
    _at(lab, ["gold.w"], 1, files_min=2)
    assert len(lab.delta("gold.w").files()) == 1
    lab.events([{"id": "late", "at": "2024-01-01T00:01:30Z"}])
    lab.run()
    assert [row["n"] for row in sorted(lab.rows("gold.w"), key=lambda row: row["window_start"])] == [1, 2, 1]
    lab.reconcile()


def test_a_window_whose_rows_have_left_is_not_computed_again(tmp_path: Path) -> None:
    lab = _corrected(tmp_path)
    before = lab.rows("gold.w")
    _at(lab, ["bronze.e"], 100)
    assert lab.rows("bronze.e") == []
    lab.events([{"id": "late", "at": "2024-01-01T00:01:30Z"}])
    lab.run()
    assert lab.rows("gold.w") == before
    assert [(row["kind"], row["_position"]) for row in lab.quarantine("gold.w")] == [("late", 0)]
