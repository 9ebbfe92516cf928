"""The demo as a whole: every gold row and every position, against Polars over the raw files."""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from lodestream.demo import feed, flights
from lodestream.demo.run import ProjectLake, run_demo
from tests.demo import independent


@dataclass
class Demo:
    """A finished demo: its folder, what it returned, what it printed for people."""

    folder: Path
    result: dict[str, Any]
    text: str

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_delta(str(self.folder / "lake" / name.replace(".", "/")))

    def aside(self, name: str) -> pl.DataFrame:
        return self.table(f"{name}__quarantine")


def _finish(folder: Path) -> Demo:
    out = io.StringIO()
    result = run_demo(folder, console=Console(file=out, width=140))
    return Demo(folder, result, out.getvalue())


def _folder(tmp: Path, flights_data: Path) -> Path:
    folder = tmp / "demo-lake"
    shutil.copytree(flights_data, folder / "data", copy_function=os.link)
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, flights_data: Path) -> Demo:
    return _finish(_folder(tmp_path_factory.mktemp("whole"), flights_data))


@pytest.fixture(scope="module")
def silver() -> pl.DataFrame:
    return independent.silver_flights()


@pytest.fixture(scope="module")
def fate(flights_data: Path) -> independent.Feed:
    files = [(path.name, path.read_bytes()) for path in sorted((flights_data / "feed").iterdir())]
    last = (Path(feed.STRAGGLERS).name, (flights_data / flights.HELD_BACK).read_bytes())
    return independent.judge_feed([*files, last])


def assert_same_rows(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Equal as sets of rows; doubles to 1e-9, integers exactly whatever their width."""
    found = found.select(expected.columns)
    expected = expected.cast({pl.UInt32: pl.Int64})
    assert_frame_equal(
        found, expected, check_row_order=False, check_dtypes=False, check_exact=False, rel_tol=1e-9, abs_tol=1e-9
    )


@pytest.mark.parametrize("name", independent.GOLD)
def test_gold_equals_polars_over_the_raw_files(demo: Demo, silver: pl.DataFrame, name: str) -> None:
    expected = independent.GOLD[name](silver)
    assert_same_rows(demo.table(name), expected)
    assert demo.result["tables"][name] == expected.height


def test_closed_days_of_the_feed_equal_polars(demo: Demo, fate: independent.Feed) -> None:
    expected, still_open = independent.feed_per_day(fate)
    assert_same_rows(demo.table("gold.feed_per_day"), expected)
    assert still_open == 15


def test_silver_flights_equal_polars_with_all_lookups(demo: Demo, silver: pl.DataFrame) -> None:
    found = demo.table("silver.flights")
    keys = ["carrier", "flight", "origin", "time_hour"]
    columns = [*keys, "dest", "dep_delay", "arr_delay", "cancelled", "delayed", "route", "temp", "wind_speed", "visib",
               "conditions", "manufacturer", "seats", "built", "dest_name", "airline"]  # fmt: skip
    assert_frame_equal(
        found.select(columns).sort(keys), silver.select(columns).sort(keys), check_dtypes=False, check_exact=True
    )


def test_bronze_rows_stand_where_their_position_says(demo: Demo) -> None:
    rows = demo.table("bronze.flights").select("_source", "_position", "carrier", "flight", "dep_time")
    assert rows.height == 336_776
    assert rows.unique(["_source", "_position"]).height == rows.height
    for row in rows.sample(200, seed=1).to_dicts():
        content = (demo.folder / "data" / "flights" / row["_source"]).read_bytes()
        line = json.loads(content[row["_position"] : content.index(b"\n", row["_position"])])
        assert all(line[name] == row[name] for name in ("carrier", "flight", "dep_time"))


def test_every_row_is_where_the_raw_files_say(demo: Demo, fate: independent.Feed) -> None:
    for name, expected in independent.accounting(fate).items():
        assert demo.result["tables"][name] == demo.table(name).height == expected["output"]
        if name.endswith("flights_feed"):
            kinds = dict(demo.aside(name).group_by("kind").len().iter_rows())
            assert kinds == {kind: n for kind, n in expected.items() if kind not in ("input", "output")}


def test_the_bad_feed_is_judged_line_by_line(demo: Demo, fate: independent.Feed) -> None:
    bronze, aside = demo.aside("bronze.flights_feed"), demo.aside("silver.flights_feed")

    def places(rows: pl.DataFrame) -> set[tuple[str, int]]:
        return set(rows.select("_source", "_position").iter_rows())

    assert places(demo.table("silver.flights_feed")) == set(fate.output)
    assert places(bronze) == fate.undecodable
    for kind, expected in (("late", fate.late), ("duplicate", fate.duplicate), ("dropped", fate.dropped)):
        assert places(aside.filter(pl.col("kind") == kind)) == expected
    reasons = {
        (source, position): reason
        for source, position, (reason,) in aside.filter(pl.col("kind") == "quarantine")
        .select("_source", "_position", "reasons")
        .iter_rows()
    }
    assert reasons == fate.reasons


def test_everything_reconciles_and_is_reported(demo: Demo) -> None:
    assert demo.result["reconciled"] is True
    assert demo.result["tables"]["silver.flights"] == 336_776
    assert "Every row that came in is in the output or has a recorded reason why not." in demo.text
    assert re.search(r"silver\.flights_feed +5,462 +4,462 +230 +300 +400 +70 +· +yes", demo.text)
    assert re.search(r"gold\.feed_per_day +4,462 +4,447 +· +· +· +· +15 +yes", demo.text)
    assert re.search(r"snow +1,282 +283 +40\.1 +22\.1 +█{16}", demo.text)


def test_a_lost_row_would_be_seen(demo: Demo, tmp_path: Path) -> None:
    """The accounting can fail: a source line added behind the engine's back is missed."""
    folder = tmp_path / "demo-lake"
    shutil.copytree(demo.folder, folder, copy_function=os.link)
    victim = folder / "data" / "feed" / "2013-05.jsonl"
    content = victim.read_bytes()
    victim.unlink()
    middle = content.index(b"\n", len(content) // 2) + 1
    victim.write_bytes(content[:middle] + b"{}\n" + content[middle:])
    found = ProjectLake(folder).account("bronze.flights_feed")
    assert found["reconciled"] is False


@pytest.mark.long
def test_killed_again_and_again_it_ends_the_same(
    tmp_path: Path, flights_data: Path, silver: pl.DataFrame, fate: independent.Feed
) -> None:
    folder = _folder(tmp_path, flights_data)
    code = (
        "import sys; from pathlib import Path; from rich.console import Console;"
        "from lodestream.demo.run import run_demo;"
        "run_demo(Path(sys.argv[1]), console=Console(stderr=True))"
    )
    chance, kills = random.Random(7), 0
    for _ in range(25):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=2 + 5 * chance.random())
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.1)
    assert kills > 3
    again = _finish(folder)
    assert again.result["reconciled"] is True
    for name, compute in independent.GOLD.items():
        assert_same_rows(again.table(name), compute(silver))
    test_every_row_is_where_the_raw_files_say(again, fate)
    test_the_bad_feed_is_judged_line_by_line(again, fate)
