"""`lodestream erase`: what is asked, told, recorded and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lodestream.cli.root import main
from tests.engines.lakes import Lab

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.table(
        "bronze.people",
        "source: {files: {path: events}}\nformat: json\ncolumns: {id: bigint, email: string, town: string}\n",
    )
    lab.table("silver.people", "from: stream(bronze.people)\n")
    lab.events([{"id": 1, "email": ADA, "town": "Rome"}, {"id": 2, "email": BOB, "town": "Oslo"}])
    lab.run()
    return lab


def call(lab: Lab, *arguments: str) -> int:
    try:
        main([*arguments, "--project", str(lab.root)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_dry_run_changes_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    before = lab.delta("bronze.people").snapshot.version
    assert call(lab, "erase", "--subject", f"email={ADA}", "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["would"] == {name: {"positions": 1, "windows": 0} for name in ("bronze.people", "silver.people")}
    assert lab.delta("bronze.people").snapshot.version == before


def test_the_report_is_printed_kept_and_recorded_without_the_value(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert call(lab, "erase", "--subject", f"email={ADA}", "--yes", "--json") == 0
    out, said = capsys.readouterr()
    report = json.loads(out)
    assert report["proven"]
    assert report["tables"]["silver.people"]["rows"] == 1
    assert report["sources"] == [{"table": "bronze.people", "source": "files", "barred": True}]
    (kept,) = (lab.root / "lake" / "_lodestream" / "erasures").glob("*.json")
    assert json.loads(kept.read_text())["report"] == report
    assert call(lab, "audit", "list", "--action", "erase", "--json") == 0
    recorded = capsys.readouterr().out
    assert '"erase"' in recorded
    assert report["subject"] in recorded
    assert call(lab, "audit", "verify") == 0
    for text in (out, said, kept.read_text(), recorded):
        assert ADA not in text
    assert [row["email"] for row in lab.rows("silver.people")] == [BOB]


def test_what_cannot_be_done_is_refused_before_anything_is(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    before = lab.delta("bronze.people").snapshot.version
    for asked, message in (
        ("email", "write --subject as COLUMN=VALUE"),
        ("mail=x", "no such column"),
        ("silver.people.idd=1", "no such column"),
        ("id=secret-7", "not a value of this column's type"),
    ):
        assert call(lab, "erase", "--subject", asked, "--yes") == 3
        said = capsys.readouterr().err
        assert message in said
        assert "secret-7" not in said
    assert call(lab, "erase", "--subject", f"email={ADA}") == 3
    assert "--yes" in capsys.readouterr().err
    lab.table("gold.towns", "from: stream(silver.people)\npartition_by: [email]\n")
    lab.run()
    assert call(lab, "erase", "--subject", f"email={ADA}", "--yes") == 3
    assert "names of folders" in capsys.readouterr().err
    assert lab.delta("bronze.people").snapshot.version == before


def test_what_is_left_is_named_and_ends_with_1(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.events([{"id": 3, "email": BOB, "town": f"near {ADA}"}])
    lab.run()
    assert call(lab, "erase", "--subject", f"email={ADA}", "--yes") == 1
    told = capsys.readouterr().out
    assert "word in column town" in told
    assert call(lab, "erase", "--subject", "id=3", "--yes") == 0
    assert call(lab, "erase", "--subject", f"email={ADA}", "--yes") == 0
    assert [row["id"] for row in lab.rows("silver.people")] == [2]
