import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from lodestream.demo import feed
from lodestream.demo.report import ANSWERS
from lodestream.demo.run import Committed, run_demo, write_project
from lodestream.project.load import load_project


class RecordedLake:
    """Notes what the demo asks for; the lake itself is tested in test_demo."""

    def __init__(self, folder: Path, *, reconciled: bool = True, dies_in_run: int = 0) -> None:
        self.folder, self.reconciled, self.dies_in_run = folder, reconciled, dies_in_run
        self.seen: list[bool] = []
        self.followed = False

    def tables(self) -> list[str]:
        return ["bronze.flights", "gold.delay_by_carrier"]

    def run(self, committed: Committed, *, until_idle: bool = True) -> None:
        if not until_idle:
            self.followed = True
            raise KeyboardInterrupt
        (self.folder / "lake").mkdir(exist_ok=True)
        self.seen.append((self.folder / "data" / feed.STRAGGLERS).exists())
        committed("bronze.flights", {"input": 7, "output": 7})
        if len(self.seen) == self.dies_in_run:
            raise KeyboardInterrupt

    def query(self, sql: str) -> pa.Table:
        bars = {answer.sql: answer.bar for answer in ANSWERS}
        return pa.table({"n": [7]}) if sql not in bars else pa.table({"what": ["x"], bars[sql]: [1.5]})

    def account(self, table: str) -> Mapping[str, Any]:
        return {"input": 7, "output": 7, "reconciled": self.reconciled}


def _run(folder: Path, lake: RecordedLake, *, as_json: bool = False) -> str:
    out = io.StringIO()
    run_demo(folder, open_lake=lambda _: lake, console=Console(file=out, width=120), json=as_json)
    return out.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, flights_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "demo-lake"
    folder.mkdir()
    (folder / "data").symlink_to(flights_data)
    return folder


@pytest.fixture
def folder(prepared: Path) -> Iterator[Path]:
    """A demo folder with data and without a lake."""
    (prepared / "data" / feed.STRAGGLERS).unlink(missing_ok=True)
    if (prepared / "lake").exists():
        (prepared / "lake").rmdir()
    yield prepared
    (prepared / "data" / feed.STRAGGLERS).unlink(missing_ok=True)


def test_the_last_line_of_json_says_it_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(folder, RecordedLake(folder), as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    line = json.loads(out)
    assert line.pop("seconds") > 0
    assert line == {"tables": {"bronze.flights": 7, "gold.delay_by_carrier": 7}, "reconciled": True}


def test_a_flow_that_does_not_add_up_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(folder, RecordedLake(folder, reconciled=False), as_json=True)
    assert json.loads(capsys.readouterr().out)["reconciled"] is False


def test_stragglers_come_when_all_else_was_taken_in(folder: Path) -> None:
    lake = RecordedLake(folder)
    _run(folder, lake)
    assert lake.seen == [False, True]


def test_an_interrupted_demo_goes_on(folder: Path) -> None:
    first = RecordedLake(folder, dies_in_run=1)
    with pytest.raises(KeyboardInterrupt):
        _run(folder, first)
    again = RecordedLake(folder)
    _run(folder, again)
    assert again.seen == [False, True]
    after = RecordedLake(folder)
    _run(folder, after)
    assert after.seen == [True]


def test_a_new_lake_gets_its_stragglers_last_again(folder: Path) -> None:
    _run(folder, RecordedLake(folder))
    (folder / "lake").rmdir()
    lake = RecordedLake(folder)
    _run(folder, lake)
    assert lake.seen == [False, True]


def test_the_report_ends_a_run_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = _run(folder, RecordedLake(folder))
    assert capsys.readouterr().out == ""
    assert ANSWERS[0].title in text
    assert "What to type next" in text


@pytest.mark.parametrize(
    ("once", "terminal", "followed"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_only_a_person_at_a_terminal_goes_on_watching(folder: Path, once: bool, terminal: bool, followed: bool) -> None:
    lake = RecordedLake(folder)
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
    assert run_demo(folder, console=console, once=once, open_lake=lambda _: lake)["reconciled"]
    assert lake.followed is followed


def test_the_project_is_declared_without_a_mistake(tmp_path: Path) -> None:
    assert len(write_project(tmp_path)) == 22
    project = load_project(str(tmp_path))
    assert [
        len([name for name in project.tables if name.layer == layer]) for layer in ("bronze", "silver", "gold")
    ] == [6, 6, 5]


def test_what_the_user_changed_stays(tmp_path: Path) -> None:
    write_project(tmp_path)
    changed = tmp_path / "tables" / "silver" / "planes.yaml"
    changed.write_text("from: stream(bronze.planes)\n")
    (tmp_path / "tables" / "gold" / "delay_by_route.yaml").unlink()
    assert write_project(tmp_path) == ["tables/gold/delay_by_route.yaml"]
    assert changed.read_text() == "from: stream(bronze.planes)\n"
