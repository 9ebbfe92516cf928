"""The record of a row is found again in every kind of source, and compared with the row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.operations.trace import trace
from lodestream.operations.tracing.findings import Record
from tests.engines.lakes import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "p")


def record(lab: Lab, key: str, *, found: bool = True) -> Record:
    told = trace(lab.app(), "bronze.e", key)
    json.dumps(told.to_json())
    assert told.lines()
    assert told.found is found
    assert told.record is not None
    return told.record


def why(lab: Lab, key: str) -> str:
    told = trace(lab.app(), "bronze.e", key)
    assert told.absence is not None
    return told.absence.reason


def table(lab: Lab, form: str, *, source: str = "{files: {path: events, settle: 0 seconds}}", more: str = "") -> None:
    lab.table("bronze.e", f"source: {source}\nformat: {form}\n{more}")


COLUMNS = "columns: {id: int, name: string}\n"


def test_csv_with_quotes_and_windows_line_ends(lab: Lab) -> None:
    table(lab, "csv", more=COLUMNS)
    (lab.root / "events/a.csv").write_bytes(b'id,name\r\n1,"x, y"\r\n\r\n2,z')
    lab.run()
    first = record(lab, "a.csv:9")
    assert (first.text, first.size, first.row, first.agrees, first.unchanged) == (
        '1,"x, y"', 10, {"id": 1, "name": "x, y"}, True, True,
    )  # fmt: skip
    assert record(lab, "a.csv:21").text == "2,z"
    assert (why(lab, "a.csv:0"), why(lab, "a.csv:19"), why(lab, "a.csv:24")) == ("head", "blank", "beyond_the_end")
    assert record(lab, "a.csv:0", found=False).next == 9


def test_csv_rows_over_several_lines_are_numbered(lab: Lab) -> None:
    table(lab, "{csv: {multiline: true}}", more=COLUMNS)
    (lab.root / "events/a.csv").write_text('id,name\n1,"x\ny"\n2,z\n')
    lab.run()
    assert record(lab, "a.csv:0").row == {"id": 1, "name": "x\ny"}
    assert record(lab, "a.csv:1").agrees
    assert why(lab, "a.csv:2") == "beyond_the_end"


def test_parquet_rows_are_numbered(lab: Lab) -> None:
    table(lab, "parquet", more=COLUMNS)
    path = lab.root / "events/a.parquet"
    pq.write_table(pa.table({"id": pa.array([1, 2, 3], pa.int32()), "name": ["a", "b", "c"]}), path, row_group_size=2)
    lab.run()
    last = record(lab, "a.parquet:2")
    assert (last.row, last.agrees, last.unchanged, last.text) == ({"id": 3, "name": "c"}, True, True, None)
    assert why(lab, "a.parquet:3") == "beyond_the_end"
    pq.write_table(pa.table({"id": pa.array([1, 2, 9], pa.int32()), "name": ["a", "b", "c"]}), path, row_group_size=2)
    changed = record(lab, "a.parquet:2")
    assert (changed.agrees, changed.unchanged) == (False, False)


def test_generated_events_are_made_again(lab: Lab) -> None:
    source = "{generator: {stream: orders, rows: 30, partitions: 2, chaos: {malformed: 0.3}}}"
    table(lab, "json", source=source)
    lab.run()
    good = lab.rows("bronze.e", "_source", "_position")[5]
    made = record(lab, f"{good['_source']}:{good['_position']}")
    assert (made.state, made.agrees, made.row is not None) == ("there", True, True)
    torn = lab.quarantine("bronze.e", "_source", "_position")[0]
    assert record(lab, f"{torn['_source']}:{torn['_position']}", found=False).rejects == ("parse:json",)
    assert why(lab, f"{torn['_source']}:{torn['_position']}") == "quarantine"
    assert (why(lab, "generator/0:15"), why(lab, "generator/2:0")) == ("beyond_the_end", "unknown_unit")


def test_events_that_are_not_made_yet(lab: Lab) -> None:
    table(lab, "json", source="{generator: {stream: clicks, rate: 0.001}}")
    assert why(lab, "generator/0:3") == "not_in_lake"
    app = lab.app()
    app.apply()
    app.pipeline().run_once()
    assert record(lab, "generator/0:0").agrees
    assert why(lab, "generator/0:3") == "not_read_yet"
    assert record(lab, "generator/0:3", found=False).state == "not made"


def test_a_replayed_file(lab: Lab) -> None:
    table(
        lab, "json", source="{replay: {path: events/0000.jsonl, event_time: at, speed: 1000000}}",
        more="columns: {id: int, at: timestamp}\n",
    )  # fmt: skip
    lab.events([{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-01-01T00:00:01Z"}])
    lab.run()
    first = record(lab, "0000.jsonl:0")
    assert (first.path, first.agrees, first.unchanged) == ("events/0000.jsonl", True, True)
    assert why(lab, "0001.jsonl:0") == "unknown_unit"


def test_a_file_that_the_source_does_not_take(lab: Lab) -> None:
    table(lab, "json", source="{files: {path: events/*.jsonl, settle: 0 seconds}}", more=COLUMNS)
    lab.events([{"id": 1, "name": "a"}])
    (lab.root / "events/x.part").write_text('{"id": 2}\n')
    (lab.root / "events/later.jsonl").write_text("")
    lab.run()
    assert why(lab, "x.part:0") == "unknown_unit"
    unknown = record(lab, "x.part:0", found=False)
    assert (unknown.state, unknown.text) == ("unknown", None)
    assert "does not take it" in unknown.notes[0]
    assert why(lab, "later.jsonl:0") == "beyond_the_end"


def test_a_file_that_grows(lab: Lab) -> None:
    table(lab, "json", source="{files: {path: events, append: true}}", more=COLUMNS)
    path = lab.events([{"id": 1, "name": "a"}])
    lab.run()
    size = path.stat().st_size
    with path.open("a") as file:
        file.write('{"id": 2, "name": "b"}\n')
    assert record(lab, "0000.jsonl:0").unchanged
    assert why(lab, f"0000.jsonl:{size}") == "not_read_yet"
    lab.run()
    second = record(lab, f"0000.jsonl:{size}")
    assert (second.row, second.unchanged) == ({"id": 2, "name": "b"}, True)


def test_a_record_longer_than_the_limit(lab: Lab) -> None:
    table(lab, "{json: {row_bytes_max: 2000}}", more=COLUMNS)
    lab.events([{"id": 1, "name": "a"}, {"id": 2, "name": "x" * 500_000}, {"id": 3, "name": "c"}])
    lab.run()
    at = lab.quarantine("bronze.e", "_position")[0]["_position"]
    long = record(lab, f"0000.jsonl:{at}", found=False)
    assert (long.rejects, long.size, long.state) == (("parse:size",), 500_000 + 22, "there")
    assert len(long.text or "") <= 1 << 16
    inside = record(lab, f"0000.jsonl:{at + 400_000}", found=False)
    assert (inside.state, inside.start, inside.next) == ("inside", at, at + 500_000 + 22)


def test_columns_that_drift_brought_in_are_decoded_too(lab: Lab) -> None:
    table(lab, "json", more=COLUMNS + "drift: add\n")
    lab.events([{"id": 1, "name": "a"}, {"id": 2, "name": "b", "size": 7}])
    lab.run()
    second = record(lab, "0000.jsonl:23")
    assert (second.row, second.agrees) == ({"id": 2, "name": "b", "size": 7}, True)
    assert ("size", "bigint") in second.schema
