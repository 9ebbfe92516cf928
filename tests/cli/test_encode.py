import csv
import datetime as dt
import io
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.csv import CSVWriter, WriteOptions

from lodestream.cli.encode import csv_columns, csv_schema, json_lines
from lodestream.cli.output import cell, plain, safe, size, span, when_us

MOMENT = dt.datetime(2024, 5, 1, 12, 0, 0, tzinfo=dt.UTC)
TYPES = {
    "flag": (pa.bool_(), st.booleans()),
    "small": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "large": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "real": (pa.float64(), st.floats()),
    "short": (pa.decimal128(10, 2), st.decimals(-99999999, 99999999, places=2)),
    "long": (pa.decimal128(38, 4), st.decimals(-(10**30), 10**30, places=4)),
    "whole": (pa.decimal128(38, 0), st.decimals(-(10**30), 10**30, places=0)),
    "text": (pa.string(), st.text()),
    "day": (pa.date32(), st.dates()),
    "at": (pa.timestamp("us", tz="UTC"), st.datetimes(timezones=st.just(dt.UTC))),
    "bytes": (pa.binary(), st.binary()),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(-5, 5))),
    "struct": (pa.struct([("a", pa.string())]), st.fixed_dictionaries({"a": st.text()})),
    "clock": (pa.time64("us"), st.times()),
    "none": (pa.null(), st.none()),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_lines_are_what_plain_says(name, data):
    kind, values = TYPES[name]
    column = pa.array(data.draw(st.lists(st.none() | values, max_size=6)), kind)
    batch = pa.record_batch([column, column], names=["a", 'b"'])
    lines = json_lines(batch).split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"a": plain(v), 'b"': plain(v)} for v in column.to_pylist()]


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_csv_can_be_read_again(name, data):
    kind, values = TYPES[name]
    column = pa.array(data.draw(st.lists(st.none() | values, max_size=6)), kind)
    batch = pa.record_batch([pa.array(range(len(column))), column], names=["n", "a,b"])
    sink = io.BytesIO()
    options = WriteOptions(quoting_style="needed", quoting_header="needed")
    with CSVWriter(sink, csv_schema(batch.schema), write_options=options) as writer:
        writer.write_batch(csv_columns(batch))
    rows = list(csv.DictReader(io.StringIO(sink.getvalue().decode(), newline="")))
    assert [int(row["n"]) for row in rows] == list(range(len(column)))
    if name in ("text", "day", "at", "small"):
        assert [row["a,b"] for row in rows] == ["" if v is None else str(plain(v)) for v in column.to_pylist()]


def test_values_in_json():
    assert plain(MOMENT) == "2024-05-01T12:00:00Z"
    assert plain(Decimal("0.10")) == 0.1
    assert plain(Decimal("12345678901234.567")) == "12345678901234.567"
    assert plain(Decimal(123456789012345678901)) == 123456789012345678901
    assert plain(float("nan")) == "nan"
    assert plain(b"\x00\xff") == "00ff"


def test_cells_for_people():
    assert cell(None) == "–"
    assert cell(True) == "true"
    assert cell(MOMENT) == "2024-05-01 12:00:00"
    assert cell("x" * 100, short=True).endswith("…")
    assert safe("a\x1b[31m\n\u202eb") == "a\\x1b[31m\\n\\u202eb"
    assert [span(s) for s in (None, 0.5, 59, 61, 3700, 90_000, -3)] == [
        "–",
        "0.5s",
        "59s",
        "1m 1s",
        "1h 1m",
        "1d 1h",
        "-3.0s",
    ]
    assert [size(n) for n in (None, 10, 2048, 5 << 20)] == ["–", "10 B", "2.0 KiB", "5.0 MiB"]
    assert when_us(1_700_000_000_000_000) == "2023-11-14T22:13:20.000Z"
    assert when_us(0) is None
