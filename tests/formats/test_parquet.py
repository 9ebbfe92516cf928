"""Parquet: exact types, ranges of rows, and broken files that stop nothing."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.errors import ConfigError
from lodestream.formats.parquet import ParquetFormat, ParquetSettings
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.source import Reading


def schema(**columns):
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def made(columns, drift="quarantine", keep_raw=False):
    return ParquetFormat(ParquetSettings(), Reading(columns, keep_raw, drift, "/"))


def write(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return str(path)


def test_rows_come_by_number_across_row_groups(tmp_path):
    path = write(tmp_path / "x.parquet", a=list(range(10)), b=[str(i) for i in range(10)])
    source = made(schema(b="string", a="bigint"), keep_raw=True)
    assert [part.rows for part in source.parts(path)] == [4, 4, 2]
    pieces = list(source.read(path, "x.parquet", 3, 9))
    rows = pa.concat_tables([p.rows for p in pieces])
    assert rows["a"].to_pylist() == rows["_position"].to_pylist() == [3, 4, 5, 6, 7, 8]
    assert rows.column_names == ["b", "a", "_source", "_position", "_raw"]
    assert rows["_raw"].null_count == 6


def test_half_a_file_is_one_reject(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, a=list(range(1000)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = made(schema(a="bigint"))
    assert [part.rows for part in source.parts(str(path))] == [1]
    (piece,) = source.read(str(path), "u", 0, 1)
    assert piece.rows.num_rows == 0
    assert piece.rejects["_position"].to_pylist() == [0]
    assert piece.rejects["_reasons"].to_pylist() == [["parse:file"]]
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        source.infer_file(str(path))


def test_a_broken_row_group_rejects_its_rows_only(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"a": list(range(3000))}), path, row_group_size=1000, compression="snappy", use_dictionary=False
    )
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    pieces = list(made(schema(a="bigint")).read(str(path), "u", 0, 3000))
    positions = [p for piece in pieces for t in (piece.rows, piece.rejects) for p in t["_position"].to_pylist()]
    assert sorted(positions) == list(range(3000))
    rejects = pa.concat_tables([p.rejects for p in pieces])
    assert rejects["_position"].to_pylist() == list(range(1000, 2000))


WIDER = [
    (pa.int8(), "bigint", True), (pa.int32(), "int", True), (pa.int64(), "int", False), (pa.uint32(), "bigint", True),
    (pa.int32(), "double", True), (pa.int64(), "double", False), (pa.float32(), "double", True),
    (pa.float64(), "float", False), (pa.int64(), "string", False), (pa.int16(), "decimal(7,2)", True),
    (pa.int32(), "decimal(7,2)", False), (pa.decimal128(5, 2), "decimal(8,3)", True),
    (pa.decimal128(5, 2), "decimal(5,1)", False), (pa.large_string(), "string", True), (pa.string(), "bigint", False),
    (pa.dictionary(pa.int32(), pa.string()), "string", True), (pa.bool_(), "int", False),
    (pa.timestamp("ms"), "timestamp", True), (pa.timestamp("s", tz="Europe/Berlin"), "timestamp", True),
    (pa.date32(), "timestamp", False), (pa.binary(), "string", False), (pa.list_(pa.int32()), "array<bigint>", True),
    (pa.struct([("x", pa.int32())]), "struct<x:int>", True), (pa.float64(), "bigint", False),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "declared", "fits"), WIDER, ids=[f"{a}-{b}" for a, b, _ in WIDER])
def test_a_type_is_kept_widened_or_quarantined_never_changed(tmp_path, stored, declared, fits):
    path = write(tmp_path / "x.parquet", a=example(stored))
    (piece,) = made(schema(a=declared)).read(path, "u", 0, 1)
    if fits:
        (want,) = example(stored).to_pylist()
        if isinstance(want, dt.datetime) and want.tzinfo is None:
            want = want.replace(tzinfo=dt.UTC)
        assert piece.rows["a"].to_pylist() == [want]
        assert piece.rejects.num_rows == 0
    else:
        assert piece.rows.num_rows == 0
        assert piece.rejects["_reasons"].to_pylist() == [["drift:a"]]


def example(kind):
    if pa.types.is_dictionary(kind):
        return pa.array(["x"]).dictionary_encode()
    if pa.types.is_timestamp(kind):
        return pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], kind)
    special = {
        "string": "x", "large_string": "x", "bool": True, "binary": b"x", "struct<x: int32>": {"x": 1},
        "date32[day]": dt.date(2024, 1, 1),
    }  # fmt: skip
    return pa.array([[1] if pa.types.is_list(kind) else special.get(str(kind), 1)], kind)


def test_nanoseconds_that_would_be_cut_are_rejected(tmp_path):
    times = pa.array([1_000, 1_001, None], pa.timestamp("ns"))
    path = write(tmp_path / "x.parquet", a=times, b=[1, 2, 3])
    (piece,) = made(schema(a="timestamp", b="bigint")).read(path, "u", 0, 3)
    assert piece.rows["b"].to_pylist() == [1, 3]
    assert piece.rejects["_reasons"].to_pylist() == [["parse:a:precision"]]
    assert piece.rejects["_position"].to_pylist() == [1]
    assert piece.rejects["_raw"].to_pylist() == [b'{"a": "1970-01-01 00:00:00.000001001", "b": 2}']


def test_nulls_in_a_column_that_has_none_are_rejected(tmp_path):
    path = write(tmp_path / "x.parquet", a=[1, None])
    (piece,) = made(Schema((Column("a", parse_type("bigint"), nullable=False),))).read(path, "u", 0, 2)
    assert piece.rows["a"].to_pylist() == [1]
    assert piece.rejects["_reasons"].to_pylist() == [["parse:a:null"]]


def test_missing_and_unknown_columns_follow_the_drift_policy(tmp_path):
    path = write(tmp_path / "x.parquet", a=[1], c=[1.5])
    columns = schema(a="bigint", b="string")
    (piece,) = made(columns).read(path, "u", 0, 1)
    assert piece.rejects["_reasons"].to_pylist() == [["parse:b:missing", "drift:c"]]
    assert piece.rejects["_raw"].to_pylist() == [b'{"a": 1, "c": 1.5}']
    (piece,) = made(columns, "add").read(path, "u", 0, 1)
    assert piece.rows.select(["a", "b"]).to_pylist() == [{"a": 1, "b": None}]
    assert [(c.name, str(c.type)) for c in piece.found] == [("c", "double")]
    with pytest.raises(ConfigError, match="drift is stop"):
        list(made(columns, "stop").read(path, "u", 0, 1))


def test_drift_widen_reports_the_wider_type(tmp_path):
    path = write(tmp_path / "x.parquet", a=[1 << 40])
    (piece,) = made(schema(a="int"), "widen").read(path, "u", 0, 1)
    assert piece.rejects["_reasons"].to_pylist() == [["drift:a"]]
    assert [(c.name, str(c.type)) for c in piece.found] == [("a", "bigint")]


def test_columns_are_inferred_from_the_file(tmp_path):
    path = write(tmp_path / "x.parquet", a=[1], b=pa.array([1], pa.time32("s")), c=["x"])
    assert [(c.name, str(c.type)) for c in made(Schema()).infer_file(path)] == [("a", "bigint"), ("c", "string")]
