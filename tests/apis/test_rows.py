"""Every format, read back by the library that others use for it; values exactly as they were."""

import csv
import datetime as dt
import io
import json
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.apis.rows import _FEW_ROWS, WRITERS, CsvWriter, json_objects, json_rows, json_values, plain, type_name

UTC = dt.UTC
TABLE = pa.table({
    "a": pa.array([True, None, False]),
    "b": pa.array([1, -5, None], pa.int8()),
    "c": pa.array([2**53 - 1, 2**53, -(2**63)], pa.int64()),
    "d": pa.array([1.5, float("nan"), float("-inf")]),
    "e": pa.array([Decimal("1.20"), Decimal("0.00"), None], pa.decimal128(12, 2)),
    "f": pa.array(["x", 'q"uo\nte\\', ""]),
    "g": pa.array([b"\x00\xff", None, b""]),
    "h": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1)]),
    "i": pa.array([dt.datetime(2024, 1, 1, 12, 0, 0, 5, UTC), dt.datetime(2024, 1, 1, tzinfo=UTC), None],
                  pa.timestamp("us", "UTC")),
    "j": pa.array([[1, None], [], None], pa.list_(pa.int32())),
    "k": pa.array([[("x", 1.0)], [], None], pa.map_(pa.string(), pa.float64())),
    "l": pa.array([{"x": 1, "y": [{"z": "q"}]}, None, {"x": None, "y": None}],
                  pa.struct([("x", pa.int64()), ("y", pa.list_(pa.struct([("z", pa.string())])))])),
    "m": pa.array([Decimal(5), Decimal(10**30), None], pa.decimal128(38, 0)),
    "n": pa.nulls(3),
    "o": pa.array([Decimal("0.00000001"), Decimal("0E-8"), Decimal("-1E-8")], pa.decimal128(20, 8)),
    "p": pa.array([dt.time(1, 2, 3), None, dt.time(0)], pa.time64("us")),
    'q"\u00e9': pa.array(["é\u2028", "👍", None]),
})  # fmt: skip
EXPECTED = [
    [True, 1, 2**53 - 1, 1.5, "1.20", "x", "AP8=", "2024-02-29", "2024-01-01T12:00:00.000005Z", [1, None], {"x": 1.0},
     {"x": 1, "y": [{"z": "q"}]}, 5, None, "0.00000001", "01:02:03", "é\u2028"],
    [None, -5, str(2**53), "NaN", "0.00", 'q"uo\nte\\', None, None, "2024-01-01T00:00:00Z", [], [],
     None, str(10**30), None, "0.00000000", None, "👍"],
    [False, None, str(-(2**63)), "-Infinity", None, "", "", "0001-01-01", None, None, None,
     {"x": None, "y": None}, None, None, "-0.00000001", "00:00:00", None],
]  # fmt: skip


def written(name, table, pieces=2, **options):
    """The whole answer, made of several batches."""
    writer = WRITERS[name](table.schema, **options)
    batches = table.to_batches(max_chunksize=max(1, len(table) // pieces)) if len(table) else []
    return b"".join([writer.head(), *(writer.batch(batch) for batch in batches), writer.tail({"truncated": False})])


def test_json():
    told = json.loads(written("json", TABLE))
    assert [column["name"] for column in told["columns"]] == TABLE.column_names
    assert told["rows"] == EXPECTED
    assert told["truncated"] is False


def test_ndjson():
    lines = written("ndjson", TABLE).decode().split("\n")
    assert lines.pop() == ""
    assert [list(json.loads(line).values()) for line in lines] == EXPECTED
    assert list(json.loads(lines[0])) == TABLE.column_names


def test_csv_is_read_by_the_csv_module_and_by_polars():
    plain_table = TABLE.select(["a", "b", "c", "d", "e", "f", "g", "h", "i", "m"])
    data = written("csv", plain_table)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert rows[0] == plain_table.column_names
    assert rows[1] == ["true", "1", str(2**53 - 1), "1.5", "1.20", "x", "AP8=", "2024-02-29",
                       "2024-01-01T12:00:00.000005Z", "5"]  # fmt: skip
    assert rows[2][5] == 'q"uo\nte\\'
    frame = pl.read_csv(data, try_parse_dates=True, infer_schema_length=None)
    assert frame["c"].to_list() == TABLE["c"].to_pylist()
    assert frame["h"].to_list() == TABLE["h"].to_pylist()
    nested = list(csv.reader(io.StringIO(written("csv", TABLE.select(["j", "k", "l", "n"])).decode())))
    assert nested[1] == ["[1,null]", '{"x":1.0}', '{"x":1,"y":[{"z":"q"}]}', ""]


def test_csv_tells_null_from_nothing():
    data = written("csv", pa.table({"a": ["", None, "x"], "b": [1, 2, 3]}))
    assert data == b'"a","b"\n"",1\n,2\n"x",3\n'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_runs_nothing(text):
    table = pa.table({text: [text, "x=1"], "n": [-1, 2]})
    rows = list(csv.reader(io.StringIO(written("csv", table, guard=True).decode(), newline="")))
    assert rows == [[f"'{text}", "n"], [f"'{text}", "-1"], ["x=1", "2"]]
    assert list(csv.reader(io.StringIO(written("csv", table).decode(), newline="")))[1][0] == text


def test_arrow_and_parquet():
    table = TABLE.drop_columns("d")  # NaN equals nothing
    assert pyarrow.ipc.open_stream(written("arrow", table)).read_all().equals(table)
    table = table.drop_columns("n")
    data = written("parquet", table)
    assert pq.read_table(io.BytesIO(data)).equals(table)
    told = json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"lodestream"])
    assert told == {"truncated": False}
    assert len(pl.read_parquet(io.BytesIO(data))) == 3


def test_parquet_row_groups_do_not_follow_the_batches():
    table = pa.table({"a": range(300_000)})
    found = pq.read_metadata(io.BytesIO(written("parquet", table, pieces=300)))
    assert found.num_rows == 300_000
    assert found.num_row_groups == 3


@pytest.mark.parametrize("name", WRITERS)
def test_an_answer_without_rows_is_whole(name):
    table = TABLE.drop_columns("n").slice(0, 0)
    data = written(name, table)
    if name == "json":
        assert json.loads(data)["rows"] == []
    elif name == "arrow":
        assert pyarrow.ipc.open_stream(data).read_all().equals(table)
    elif name == "parquet":
        assert pq.read_table(io.BytesIO(data)).equals(table)
    elif name == "csv":
        assert len(list(csv.reader(io.StringIO(data.decode())))) == 1
    else:
        assert data == b""


def test_names_of_types():
    told = [type_name(field.type) for field in TABLE.schema]
    assert told[:9] == [
        "boolean",
        "tinyint",
        "bigint",
        "double",
        "decimal(12,2)",
        "string",
        "binary",
        "date",
        "timestamp",
    ]
    assert told[9:12] == ["array<int>", "map<string,double>", "struct<x:bigint,y:array<struct<z:string>>>"]


values = st.one_of(
    st.lists(st.one_of(st.none(), st.text())).map(lambda some: pa.array(some, pa.string())),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))).map(lambda some: pa.array(some, pa.int64())),
    st.lists(st.one_of(st.none(), st.floats())).map(lambda some: pa.array(some, pa.float64())),
    st.lists(st.one_of(st.none(), st.datetimes(dt.datetime(1, 1, 1)))).map(
        lambda some: pa.array(some, pa.timestamp("us"))
    ),
    st.lists(st.one_of(st.none(), st.decimals(-(10**10), 10**10, places=6))).map(
        lambda some: pa.array(some, pa.decimal128(38, 6))
    ),
)


@given(values)
@settings(max_examples=300, deadline=None)
def test_values_by_column_are_values_one_by_one(column):
    found = [json.loads(text) for text in json_values(column).to_pylist()]
    assert found == [plain(one) for one in column.to_pylist()]


def test_a_writer_knows_its_names():
    for name, writer in WRITERS.items():
        assert writer.media_type
        assert writer.suffix, name
    assert CsvWriter.media_type == "text/csv"


def test_few_rows_look_like_many():
    """Up to some rows values are written one by one, beyond that by columns."""
    more = {
        "thin": pa.array([0.1, None, float("nan")], pa.float32()),
        "far": pa.array([300_000_000_000_000_000, None, -5], pa.timestamp("us", "UTC")),
    }
    for table in (TABLE, TABLE.append_column("thin", more["thin"]), TABLE.append_column("far", more["far"])):
        (few,) = table.combine_chunks().to_batches()
        (many,) = pa.concat_tables([table] * 10).combine_chunks().to_batches()
        assert many.num_rows > _FEW_ROWS >= few.num_rows
        for write in (json_rows, json_objects):
            assert [json.loads(text) for text in write(few)] == [json.loads(text) for text in write(many)[:3]]
