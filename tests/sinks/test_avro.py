"""Avro values, read back by fastavro and by the Apache library, which share no code with us."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal

import avro.io
import avro.schema
import fastavro
import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.sinks._avro import avro_records, avro_schema, number

ROWS = pa.table({
    "flag": pa.array([True, False, None]),
    "small": pa.array([1, -128, None], pa.int8()),
    "whole": pa.array([2**31 - 1, -(2**31), None], pa.int32()),
    "big": pa.array([2**63 - 1, -(2**63), None]),
    "single": pa.array([0.5, -1.25, None], pa.float32()),
    "ratio": pa.array([0.1, -1e300, None]),
    "money": pa.array([Decimal("127.00"), Decimal("-128.01"), None], pa.decimal128(12, 2)),
    "text": pa.array(["é" * 100, "", None]),
    "raw": pa.array([b"\x00\xff", b"", None]),
    "day": pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31), None]),
    "at": pa.array([0, -1, None], pa.timestamp("us", tz="UTC")),
    "many": pa.array([["a", None], [], None], pa.list_(pa.string())),
    "inside": pa.array([{"a": 1, "b": {"c": [1.5]}}, {"a": None, "b": None}, None]),
    "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
})  # fmt: skip


def plain(row):
    """fastavro gives maps as dicts."""
    return {**row, "map": None if row["map"] is None else dict(row["map"])}


def test_fastavro_reads_what_was_written():
    schema = fastavro.parse_schema(json.loads(avro_schema(ROWS.schema, "orders", "lodestream.silver")))
    found = [fastavro.schemaless_reader(io.BytesIO(data), schema) for data in avro_records(ROWS)]
    assert found == [plain(row) for row in ROWS.to_pylist()]


def test_bytes_are_those_that_fastavro_writes():
    schema = fastavro.parse_schema(json.loads(avro_schema(ROWS.schema, "orders", "lodestream.silver")))
    for row, data in zip(ROWS.to_pylist(), avro_records(ROWS), strict=True):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, plain(row))
        assert data == out.getvalue()


def test_the_apache_library_reads_it():
    rows = ROWS.select(["flag", "big", "text", "many", "map", "ratio"])
    schema = avro.schema.parse(avro_schema(rows.schema, "orders", "lodestream.silver"))
    for row, data in zip(rows.to_pylist(), avro_records(rows), strict=True):
        assert avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(data))) == plain(row)


def test_what_avro_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="such a name"):
        avro_schema(pa.schema([("a b", pa.int64())]), "t", "n")
    with pytest.raises(ConfigError, match="such a type"):
        avro_schema(pa.schema([("m", pa.map_(pa.int64(), pa.int64()))]), "t", "n")


@pytest.mark.parametrize("value", [0, 1, -1, 63, 64, -64, -65, 2**31, 2**63 - 1, -(2**63)])
def test_numbers_of_every_length(value):
    assert fastavro.schemaless_reader(io.BytesIO(number(value)), "long") == value


def test_no_rows():
    assert avro_records(ROWS.slice(0, 0)) == []
