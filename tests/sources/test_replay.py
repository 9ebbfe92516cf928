"""Replay: a file's rows come when their event time does, at the speed that was asked for."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.errors import ConfigError, DataLossRefused
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.formats.parquet import ParquetFormat, ParquetSettings
from lodestream.model.batch import BatchLimit
from lodestream.model.types import BIGINT, TIMESTAMP, Column, Schema
from lodestream.ports.source import Reading
from lodestream.sources.replay import ReplaySettings, ReplaySource
from lodestream.testing.source_contract import check_resumes, check_source, drain

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
SCHEMA = Schema((Column("id", BIGINT), Column("at", TIMESTAMP)))
TIMES = [0, 1, 2, 10, 5, 11, 60, None, 61, 120]


def reading(root):
    return Reading(SCHEMA, False, "quarantine", str(root))


def stamp(second):
    return None if second is None else f"2024-01-01T00:{second // 60:02d}:{second % 60:02d}Z"


def source(root, suffix="jsonl", speed=1.0):
    formats = {
        "jsonl": (JsonFormat, JsonSettings()), "csv": (CsvFormat, CsvSettings()),
        "parquet": (ParquetFormat, ParquetSettings()),
    }  # fmt: skip
    made, options = formats[suffix]
    settings = ReplaySettings(path=f"x.{suffix}", event_time="at", speed=speed)
    return ReplaySource(settings, made(options, reading(root)), reading(root))


@pytest.fixture
def files(tmp_path):
    rows = [{"id": i, "at": stamp(t)} for i, t in enumerate(TIMES)]
    lines = [json.dumps(row).encode() for row in rows]
    lines.insert(4, b"broken")
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "x.csv").write_text("id,at\n" + "".join(f"{r['id']},{r['at'] or ''}\n" for r in rows))
    table = pa.table({"id": [r["id"] for r in rows], "at": pa.array([r["at"] for r in rows])})
    pq.write_table(table.set_column(1, "at", table["at"].cast(SCHEMA_AT)), tmp_path / "x.parquet", row_group_size=3)
    return tmp_path


SCHEMA_AT = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_replay_keeps_the_contract(files, suffix):
    def make():
        return source(files, suffix)

    limits = (BatchLimit(), BatchLimit(rows_max=2), BatchLimit(bytes_max=30))
    rows = check_source(make, reading(files), now_us=NOW, limits=limits)
    assert rows["id"].to_pylist() == list(range(10))
    check_resumes(make, now_us=NOW, limit=BatchLimit(rows_max=2))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("restart", [False, True])
def test_rows_come_when_the_newest_event_time_so_far_is_due(files, suffix, restart):
    made, consumed, came = source(files, suffix, speed=10), {}, {}
    for tenth in range(130):
        if restart:
            made = source(files, suffix, speed=10)
        for planned in made.plan(consumed, BatchLimit(), NOW + tenth * SECOND // 10):
            for piece in made.read(planned):
                came |= dict.fromkeys(piece.rows["id"].to_pylist(), tenth)
            consumed[planned.unit] = planned
        if made.finished(consumed, NOW):
            break
    assert came == {0: 0, 1: 1, 2: 2, 3: 10, 4: 10, 5: 11, 6: 60, 7: 60, 8: 61, 9: 120}


def test_a_changed_or_missing_file_is_said(files):
    made = source(files)
    (planned,) = made.plan({}, BatchLimit(), NOW)
    path = files / "x.jsonl"
    data = path.read_bytes()
    path.write_bytes(data + b"{}\n")
    with pytest.raises(DataLossRefused):
        made.plan({"x.jsonl": planned}, BatchLimit(), NOW)
    path.write_bytes(b'{"id":9' + data[7:])
    with pytest.raises(DataLossRefused):
        list(made.read(planned))
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        source(files).plan({}, BatchLimit(), NOW)


def test_an_empty_file_is_an_end(files):
    (files / "x.jsonl").write_bytes(b"")
    assert drain(source(files), BatchLimit(), NOW) == ([], [])


def test_the_event_time_must_be_a_timestamp(files):
    bad = ReplaySettings(path="x.jsonl", event_time="id")
    with pytest.raises(ConfigError, match="no timestamp column"):
        ReplaySource(bad, JsonFormat(JsonSettings(), reading(files)), reading(files))
    assert ReplaySource.declares(bad) is None
    assert [c.name for c in source(files).sample()] == ["id", "at"]
