"""`lodestream backup`, `restore` and `replicate`: what is said, recorded and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lodestream.app import now_us, open_project
from lodestream.cli.backup import _lake, _place
from lodestream.lake.disk import LocalDisk
from lodestream.lake.pins import Pin, put_pin
from lodestream.operations.backup.copying import Amount
from tests.cli.conftest import call
from tests.engines.lakes import Lab

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "lab")
    (lab.root / "lodestream.yaml").write_text(
        "project: lab\nlake: lake\nstores: {nightly: ../set, dr: {url: ../second}}\n"
    )
    lab.table(
        "bronze.people",
        "source: {files: {path: events, settle: 0}}\nformat: json\ncolumns: {id: bigint, email: string}\n",
    )
    lab.table("silver.people", "from: stream(bronze.people)\n")
    lab.events([{"id": 1, "email": ADA}, {"id": 2, "email": BOB}])
    lab.run()
    return lab


def refused(lab: Lab, *arguments: str) -> str:
    result = call(*arguments, project=lab.root)
    assert result.code == 3, result.out
    return result.err


def test_points_are_made_listed_verified_pruned_and_recorded(lab: Lab) -> None:
    would = call("backup", "nightly", "--dry-run", "--json", project=lab.root).json
    assert would["files"] > 5
    assert not (lab.root.parent / "set").exists()
    first = call("backup", "nightly", "--json", project=lab.root).json
    assert first["files"] >= would["files"]
    assert {"bytes_per_s", "hours_for_450_tb", "seconds"} < set(first)
    assert {one["path"]: one["version"] for one in first["tables"]}["silver/people"] == 1
    said = call("backup", "nightly", "--verify", "--keep", "1", project=lab.root)
    assert said.code == 0
    assert "taken away: 1 points" in said.out
    assert "all as they were written" in said.out
    listed = call("backup", "nightly", "--list", "--verify", "--json", project=lab.root).json
    assert len(listed["points"]) == 1
    assert listed["verified"]["damaged"] == []
    actions = call("audit", "list", "--action", "backup", "--json", project=lab.root)
    assert actions.out.count('"backup"') == 2
    assert known(lab) == [("backup", 1)]


def known(lab: Lab) -> list[tuple[str, int]]:
    copies = json.loads((lab.root / "lake/_lodestream/copies.json").read_text())
    return [(one["kind"], one["points"]) for one in copies.values()]


def test_points_taken_away_without_a_new_one_are_noted_as_well(lab: Lab) -> None:
    for _ in range(3):
        call("backup", "nightly", project=lab.root)
    assert known(lab) == [("backup", 3)]
    call("backup", "nightly", "--list", "--keep", "1", project=lab.root)
    assert known(lab) == [("backup", 1)]
    call("backup", "nightly", project=lab.root)
    shutil.rmtree(lab.root / "lake")
    call("backup", "nightly", "--list", "--keep", "1", project=lab.root)
    assert call("restore", "nightly", project=lab.root).code == 0  # a lake that is lost is not begun by a listing


def test_a_damaged_older_point_is_told_of_and_ends_no_backup(lab: Lab) -> None:
    call("backup", "nightly", project=lab.root)
    (first,) = (lab.root.parent / "set/points").iterdir()
    first.write_text("{}")
    said = call("backup", "nightly", project=lab.root)
    assert (said.code, "BAD  " + first.stem in said.out) == (0, True)
    report = call("backup", "nightly", "--json", project=lab.root).json
    assert [one["point"] for one in report["damaged"]] == [first.stem]
    assert known(lab) == [("backup", 2)]
    kept = call("backup", "nightly", "--keep", "1", project=lab.root)
    assert kept.code == 6
    assert "point " in kept.out  # it is there, and nothing else has gone
    assert "point of a backup is damaged" in kept.err
    assert len(list((lab.root.parent / "set/points").iterdir())) == 4


def test_a_place_has_its_home_where_variables_say(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTREAM_HOME", str(tmp_path / "homes"))
    url = "s3://bucket/lake"
    (lab.root / "lodestream.yaml").write_text(f"project: lab\nlake: lake\nstores: {{far: '{url}'}}\n")
    with open_project(str(lab.root)) as app:
        for place in ("far", url):
            assert Path(_place(app, place)[1].beside(url)).parent == tmp_path / "homes"
        assert _lake(app, "far", str(tmp_path / "own"))[1].beside(url) == str(tmp_path / "own")


def told_of(lab: Lab, *given: str) -> dict[str, list[str]]:
    """What doctor says of copies, by code."""
    found = call(*given, "doctor", "--json", project=lab.root)
    assert found.code == 0, found.out
    told: dict[str, list[str]] = {}
    for one in found.json["findings"]:
        if one["check"] == "copies" or one["code"].startswith("L5"):
            told.setdefault(one["code"], []).append(one["text"])
    return told


def test_doctor_tells_of_copies_of_who_makes_one_and_of_a_fence(lab: Lab) -> None:
    assert told_of(lab) == {}
    call("backup", "nightly", project=lab.root)
    point = call("backup", "nightly", "--json", project=lab.root).json["point"]
    cut = call("replicate", "dr", "--json", project=lab.root).json["point"]
    (texts,) = told_of(lab).values()
    backup, replica = lab.root.parent / "set", lab.root.parent / "second"
    assert [text.rpartition(",")[0] for text in texts] == [
        f"replica at {replica}: newest point {cut}",
        f"backup at {backup}: newest point {point}",
    ]
    disk, lake, now = LocalDisk(), str(lab.root / "lake"), now_us()
    put_pin(disk, lake, Pin("one", now + 600_000_000))
    put_pin(disk, lake, Pin("ended", now - 1))
    assert ["one is being copied" in text for text in told_of(lab)["L502"]] == [True]
    assert "lake is a replica" in told_of(lab, "--lake", str(replica))["L501"][0]
    call("replicate", "dr", "--activate", project=lab.root)
    assert told_of(lab)["L501"] == [
        f"lake was left for its replica, which is the one that is written now (by {replica}, point {cut})"
    ]
    (lab.root / "lake/_lodestream/standing.json").write_text("{")
    result = call("doctor", project=lab.root)
    assert result.code == 1
    assert "file that says what this lake is cannot be read" in result.out


def test_a_damaged_set_ends_with_1(lab: Lab) -> None:
    call("backup", "nightly", project=lab.root)
    for blob in (lab.root.parent / "set/blobs").rglob("*/*"):
        if blob.stat().st_size > 3_000:
            blob.write_bytes(b"x" + blob.read_bytes()[1:])
            break
    result = call("backup", "nightly", "--list", "--verify", project=lab.root)
    assert result.code == 1
    assert "BAD" in result.out
    assert call("restore", "nightly", "--lake", str(lab.root.parent / "r"), project=lab.root).code == 6


def test_restored_and_gone_on_with(lab: Lab) -> None:
    call("backup", "nightly", project=lab.root)
    target, files = lab.root.parent / "restored", lab.root.parent / "files"
    would = call("restore", "nightly", "--lake", str(target), "--dry-run", "--json", project=lab.root).json
    assert not target.exists()
    result = call("restore", "nightly", "--lake", str(target), "--declarations", str(files), project=lab.root)
    assert result.code == 0, result.err
    assert f"restored {would['point']}" in result.out
    assert (files / "tables/silver/people.yaml").read_text() == (lab.root / "tables/silver/people.yaml").read_text()
    assert oct((target / "_lodestream/access/catalog.db").stat().st_mode)[-3:] == "600"
    lab.events([{"id": 3, "email": BOB}])
    there = ["--lake", str(target)]
    assert call(*there, "doctor", project=lab.root).code == 0
    assert call(*there, "run", "--until-idle", project=lab.root).code == 0
    assert call(*there, "reconcile", project=lab.root).code == 0
    assert call(*there, "query", "select count(*) n from silver.people", "--json", project=lab.root).json == {"n": 3}
    assert call(*there, "audit", "verify", project=lab.root).code == 0
    assert '"restore"' in call(*there, "audit", "list", "--json", project=lab.root).out


def test_what_is_refused_says_what_helps(lab: Lab, tmp_path: Path) -> None:
    assert "lie in each other" in refused(lab, "backup", str(lab.root / "lake" / "x"))
    assert "lie in each other" in refused(lab, "replicate", str(lab.root / "lake"))
    assert "not empty and not a backup set" in refused(lab, "backup", str(lab.root / "tables"))
    assert "no backup set here" in refused(lab, "backup", "nightly", "--list")
    assert "no backup set here" in refused(lab, "restore", "nightly")
    call("backup", "nightly", project=lab.root)
    assert "place is not empty" in refused(lab, "restore", "nightly")
    assert "no such point" in refused(lab, "restore", "nightly", "--point", "x", "--lake", str(tmp_path / "r"))
    assert "leave --home out" in refused(lab, "restore", "nightly", "--lake", str(tmp_path / "r"), "--home", "h")
    assert "keep at least one point" in refused(lab, "backup", "nightly", "--keep", "0")
    assert "--every" in refused(lab, "replicate", "dr", "--every", "1s", "--activate")
    assert "not a time" in refused(lab, "replicate", "dr", "--every", "soon")
    assert "place is no replica" in refused(lab, "replicate", str(tmp_path / "none"), "--activate")
    marker = lab.root.parent / "set/backup.json"
    marker.write_text(json.dumps({"format": 99}))
    assert "newer form" in refused(lab, "backup", "nightly")
    assert "newer form" in refused(lab, "restore", "nightly", "--lake", str(tmp_path / "r"))


def test_one_that_works_on_the_set_keeps_others_away(lab: Lab) -> None:
    call("backup", "nightly", project=lab.root)
    turn = lab.root.parent / "set/turn.json"
    turn.write_text(json.dumps({"who": "x", "until_us": time.time_ns() // 1000 + 60_000_000}))
    result = call("backup", "nightly", project=lab.root)
    assert result.code == 7
    assert "another process works on this set" in result.err


def test_an_erasure_names_the_copies(lab: Lab) -> None:
    call("backup", "nightly", project=lab.root)
    call("replicate", "dr", project=lab.root)
    report = call("erase", "--subject", f"email={ADA}", "--yes", project=lab.root)
    assert report.code == 0, report.out
    assert "1 points still hold the subject" in report.out
    assert "until the next lodestream replicate" in report.out
    target = lab.root.parent / "restored"
    call("backup", "nightly", project=lab.root)
    old = call("backup", "nightly", "--list", "--json", project=lab.root).json["points"][0]["point"]
    restored = call("restore", "nightly", "--point", old, "--lake", str(target), project=lab.root)
    assert "erased since, and here again: email" in restored.out


def test_a_replica_is_kept_until_told_to_stop_and_takes_over(lab: Lab) -> None:
    second = lab.root.parent / "second"
    here = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "lodestream.cli",
        "-C",
        str(lab.root),
        "replicate",
        "dr",
        "--every",
        "50ms",
        "--json",
    ]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        second_pass = json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert second_pass["files"] < first["files"]
    away = lab.root / "lake-away"
    os.rename(lab.root / "lake", away)
    report = call("replicate", "dr", "--activate", "--json", project=lab.root).json
    assert report["fenced"] is False
    shutil.rmtree(lab.root / "lake", ignore_errors=True)
    os.rename(away, lab.root / "lake")
    assert call("run", "--until-idle", project=lab.root).code == 0  # nobody could tell it
    again = call("replicate", "dr", "--activate", project=lab.root)
    assert "NOT FENCED" not in again.out
    assert call("run", "--until-idle", project=lab.root).code == 3
    assert call("--lake", str(second), "run", "--until-idle", project=lab.root).code == 0
    lab.events([{"id": 3, "email": BOB}])
    assert call("--lake", str(second), "run", "--until-idle", project=lab.root).code == 0
    back = call("--lake", str(second), "replicate", str(lab.root / "lake"), project=lab.root)
    assert back.code == 0, back.err
    assert call("--lake", str(second), "replicate", str(lab.root / "lake"), "--activate", project=lab.root).code == 0
    assert call("query", "select count(*) n from silver.people", "--json", project=lab.root).json == {"n": 3}
    assert call("reconcile", project=lab.root).code == 0


def test_long_work_is_told_of() -> None:
    now, said = [0.0], []
    amount = Amount(lambda: now[0], said.append)
    amount.part, amount.bytes_expected = "table silver/orders", 8 << 20
    for second in range(5):
        now[0] = float(second)
        amount.add(1 << 20)
    assert said == [
        "table silver/orders: 3 files, 3.0 MiB of 8.0 MiB, 1.5 MiB/s",
        "table silver/orders: 5 files, 5.0 MiB of 8.0 MiB, 1.2 MiB/s",
    ]
    assert amount.told()["hours_for_450_tb"] == round(450e12 / (5 * (1 << 20) / 4) / 3600, 1)
