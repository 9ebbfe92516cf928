"""Logs stay short without anybody losing what they still have to read."""

from __future__ import annotations

from pathlib import Path

from lodestream.app import now_us
from lodestream.lake.log import list_log
from lodestream.model.table import TableName
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


def test_swapped_out_hot_files_are_deleted_and_live_ones_stay(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE.replace("id: string", "id: string, at: timestamp"))
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nevent_time: {column: at, delay: 30 seconds}\n"
        "window: {every: 1 minute}\nmeasures: {n: count(*)}\n",
    )
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


def test_short_runs_leave_no_long_log_behind(tmp_path: Path) -> None:
    lab = _lab(tmp_path, 4)
    app = lab.app()
    pipeline = Pipeline(
        app.project.root, app.flows, lake=app.lake, disk=app.disk, clock=now_us, upkeep=Upkeep(checkpoint_every=3)
    )  # fmt: skip
    pipeline.run(until_idle=True)
    assert list(list_log(app.disk, str(lab.root / "lake" / "bronze" / "e")).checkpoints) == [4]
