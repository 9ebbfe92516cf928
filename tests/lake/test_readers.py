"""delta-rs, Polars and DuckDB read what we write: every type, every partition value, also while it is written."""

import datetime as dt
import os
import threading
from dataclasses import replace
from decimal import Decimal

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow, to_arrow
from lodestream.query.scan import scan
from tests.lake.outside import agree
from tests.lake.variants import ROWS, TYPES, VALUES, VARIANTS

UTC = dt.UTC


def make(path, schema: pa.Schema, partitions=()) -> DeltaTable:
    return DeltaTable.create(
        LocalDisk(), str(path), from_arrow(schema), partition_columns=partitions, table_id="t", clock_us=10**15
    )


def put(table: DeltaTable, rows: pa.Table, number: int):
    staged = table.stage(rows, name=f"{number}-a")
    table.commit(adds=staged.adds, txn=("app", number), info={"batch": number}, clock_us=10**15 + number)
    return staged


def by_id(rows: pa.Table) -> list[dict]:
    return sorted(rows.to_pylist(), key=lambda row: row["id"])


def with_delta_rs(path, columns) -> pa.Table:
    table = deltalake.DeltaTable(str(path))
    builder = deltalake.QueryBuilder().register("t", table)
    names = ", ".join(f'"{name}"' for name in columns)
    return pa.table(builder.execute(f"select {names} from t").read_all())


def with_polars(path, columns) -> pa.Table:
    return pl.scan_delta(str(path)).select(columns).collect().to_arrow()


def with_duckdb(table: DeltaTable) -> pa.Table:
    files = [table.file_path(add) for add in table.files()]
    with duckdb.connect() as con:
        return con.sql(
            "select * from read_parquet($files, hive_partitioning=false)", params={"files": files}
        ).to_arrow_table()


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.astimezone(UTC) if isinstance(value, dt.datetime) and value.tzinfo else value


def test_every_type_reads_back_as_it_went_in(tmp_path):
    rows = pa.Table.from_pylist(ROWS, schema=TYPES)
    table = make(tmp_path / "t", TYPES)
    staged = put(table, rows, 1)
    assert table.read(table.files()).equals(rows.cast(to_arrow(table.snapshot.metadata.schema)))
    assert staged.rows.equals(rows)


@pytest.mark.parametrize("reader", ["delta-rs", "polars", "duckdb"])
def test_others_read_every_type(tmp_path, reader):
    rows = pa.Table.from_pylist(ROWS, schema=TYPES)
    table = make(tmp_path / "t", TYPES)
    put(table, rows, 1)
    columns = [n for n in TYPES.names if n != "facts"] if reader == "polars" else TYPES.names  # polars has no maps
    read = {
        "delta-rs": lambda: with_delta_rs(tmp_path / "t", columns),
        "polars": lambda: with_polars(tmp_path / "t", columns),
        "duckdb": lambda: with_duckdb(table),
    }[reader]()
    assert [plain(row) for row in by_id(read.select(columns))] == rows.select(columns).to_pylist()


@pytest.mark.parametrize("kind", VARIANTS)
def test_readers_agree_on_every_kind_of_table(tmp_path, kind):
    path = str(tmp_path / kind)
    VARIANTS[kind](path)
    table = DeltaTable.open(LocalDisk(), path)
    assert bool(agree(path, list(table.snapshot.metadata.schema.names))) == (kind != "no_rows")


def test_others_read_every_partition_value(tmp_path):
    schema = pa.schema([("id", pa.int64()), ("part", pa.string())])
    rows = pa.table({"id": range(2 * len(VALUES)), "part": VALUES * 2}, schema=schema)
    table = make(tmp_path / "t", schema, ["part"])
    staged = put(table, rows, 1)
    assert len(table.files()) == len(VALUES)
    assert table.read(staged.adds).equals(staged.rows)
    assert by_id(table.read(table.files())) == rows.to_pylist()
    assert by_id(DeltaTable.open(LocalDisk(), str(tmp_path / "t")).read(table.files())) == rows.to_pylist()
    assert by_id(with_delta_rs(tmp_path / "t", ["id", "part"])) == rows.to_pylist()
    short = [row for row in rows.to_pylist() if row["part"] != "x" * 300]  # Polars takes values from folder names
    read = by_id(with_polars(tmp_path / "t", ["id", "part"]))
    assert [row for row in read if row["id"] % len(VALUES) != VALUES.index("x" * 300)] == short
    assert sorted(with_duckdb(table)["id"].to_pylist()) == rows["id"].to_pylist()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int32(), [1, -5, None]),
        (pa.int64(), [2**62, 0, None]),
        (pa.bool_(), [True, False, None]),
        (pa.date32(), [dt.date(2013, 1, 1), dt.date(1969, 12, 31), None]),
        (
            pa.timestamp("us", tz="UTC"),
            [dt.datetime(2013, 1, 1, 5, 6, 7, 89, tzinfo=UTC), dt.datetime(1969, 1, 1, tzinfo=UTC), None],
        ),
        (pa.decimal128(10, 2), [Decimal("1.50"), Decimal("-0.01"), None]),
    ],
    ids=str,
)
def test_partition_columns_of_each_type(tmp_path, kind, values):
    schema = pa.schema([("id", pa.int64()), ("part", kind)])
    rows = pa.table({"id": [1, 2, 3, 4], "part": pa.array([*values, values[0]], kind)}, schema=schema)
    table = make(tmp_path / "t", schema, ["part"])
    staged = put(table, rows, 1)
    assert table.read(staged.adds).equals(staged.rows)
    assert by_id(table.read(table.files())) == rows.to_pylist()
    assert [plain(r) for r in by_id(with_delta_rs(tmp_path / "t", ["id", "part"]))] == rows.to_pylist()
    assert [plain(r) for r in by_id(with_polars(tmp_path / "t", ["id", "part"]))] == rows.to_pylist()


def test_an_empty_partition_text_becomes_null(tmp_path):
    schema = pa.schema([("id", pa.int64()), ("part", pa.string())])
    table = make(tmp_path / "t", schema, ["part"])
    staged = put(table, pa.table({"id": [1, 2, 3], "part": ["", "x", None]}, schema=schema), 1)
    assert staged.rows.to_pylist() == [{"id": 1, "part": None}, {"id": 3, "part": None}, {"id": 2, "part": "x"}]
    assert table.read(staged.adds).equals(staged.rows)


def test_others_read_while_it_is_written(tmp_path):
    """Each read sees whole batches only and never fewer rows than before."""
    path = tmp_path / "t"
    schema = pa.schema([("id", pa.int64()), ("day", pa.string()), ("batch", pa.int64())])
    table = make(path, schema, ["day"])
    done = threading.Event()

    def write():
        for number in range(1, 121):
            ids = range(number * 10, number * 10 + 10)
            put(table, pa.table({"id": ids, "day": ["a", "b"] * 5, "batch": [number] * 10}, schema=schema), number)
            if number % 20 == 0:
                table.checkpoint(10**15)
                table.clean_log(keep_versions=30, needed_from=10**9)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = {"delta-rs": 0, "polars": 0, "duckdb": 0}
    readers = {
        "delta-rs": lambda: with_delta_rs(path, ["id", "batch"]),
        "polars": lambda: with_polars(path, ["id", "batch"]),
        "duckdb": lambda: with_duckdb(DeltaTable.open(LocalDisk(), str(path))),
    }
    try:
        while True:
            last = done.is_set()
            for name, read in readers.items():
                if not DeltaTable.open(LocalDisk(), str(path)).files():
                    continue
                rows = read()
                assert rows.num_rows % 10 == 0
                assert len(set(rows["id"].to_pylist())) == rows.num_rows
                assert rows.num_rows >= seen[name]
                seen[name] = rows.num_rows
            if last:
                break
    finally:
        thread.join()
    assert set(seen.values()) == {1200}
    assert deltalake.DeltaTable(str(path)).transaction_version("app") == 120


def test_no_reader_prunes_by_statistics_that_are_not_there(tmp_path):
    """delta-rs's pyarrow path drops rows of files that have statistics for some columns only."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("time", pa.timestamp("us", tz="UTC"))])
    table = make(tmp_path / "t", schema)
    for number in range(3):
        put(table, pa.table({"id": [number], "text": [f"t{number}"], "time": [None]}, schema=schema), number)
    dataset = deltalake.DeltaTable(str(tmp_path / "t")).to_pyarrow_dataset()
    assert dataset.to_table(filter=pa.compute.field("id") >= 1)["id"].to_pylist() in ([1, 2], [2, 1])
    assert pl.scan_delta(str(tmp_path / "t")).filter(pl.col("text") == "t1").collect().height == 1
    rows = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(str(tmp_path / "t")))
    assert len(pa.table(rows.execute("select id from t where id > 0 and time is null").read_all())) == 2


def test_delta_rs_can_write_on_and_we_read_it(tmp_path):
    """Compaction, a delta-rs checkpoint and an append by delta-rs are all understood."""
    path = tmp_path / "t"
    schema = pa.schema([("id", pa.int64()), ("part", pa.string())])
    table = make(path, schema, ["part"])
    for number in range(1, 6):
        put(table, pa.table({"id": [number, -number], "part": ["a b", "c/d"]}, schema=schema), number)
    other = deltalake.DeltaTable(str(path))
    other.optimize.compact()
    other.create_checkpoint()
    deltalake.write_deltalake(other, pa.table({"id": [99], "part": ["a b"]}, schema=schema), mode="append")
    table.refresh()
    wanted = sorted([*range(1, 6), *range(-5, 0), 99])
    assert sorted(table.read(table.files())["id"].to_pylist()) == wanted
    assert table.snapshot.txns == {"app": 5}
    fresh = DeltaTable.open(LocalDisk(), str(path))
    assert fresh.files() == table.files()
    put(table, pa.table({"id": [100], "part": ["c/d"]}, schema=schema), 6)
    assert sorted(with_delta_rs(path, ["id", "part"])["id"].to_pylist()) == [*wanted, 100]
    changes = [c for c in table.commits(-1) if any(a.data_change for a in c.adds)]
    assert sum(a.num_records for c in changes for a in c.adds) == 12


def test_timestamps_as_spark_writes_them_by_default(tmp_path):
    """INT96, as Spark's OPTIMIZE leaves them: every time that microseconds can hold, also inside lists and structs."""
    kind = pa.timestamp("us", "UTC")
    times = [
        dt.datetime(1, 1, 1, tzinfo=UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        dt.datetime(2024, 1, 1, 0, 0, 0, 123456, UTC), None,
    ]  # fmt: skip
    schema = pa.schema([("id", pa.int64()), ("t", kind), ("l", pa.list_(kind)), ("s", pa.struct([("a", kind)]))])
    rows = pa.table({"id": range(4), "t": times, "l": [[t] for t in times], "s": [{"a": t} for t in times]}, schema)
    table = make(tmp_path / "t", schema)
    staged = table.stage(rows, name="1")
    path = table.file_path(staged.adds[0])
    pq.write_table(rows, path, use_deprecated_int96_timestamps=True, store_schema=False)
    assert pq.ParquetFile(path).schema.column(1).physical_type == "INT96"
    table.commit(adds=[replace(staged.adds[0], size=os.path.getsize(path))], clock_us=10**15)
    assert table.read(table.files()).equals(rows)
    with duckdb.connect() as con:
        found = con.sql(scan(table, table.snapshot)[0]).to_arrow_table()
    naive = [time and time.replace(tzinfo=None) for time in times]
    assert found["t"].to_pylist() == naive
    assert found["l"].to_pylist() == [[time] for time in naive]
    whole = table.read(table.files(), columns=["t"])
    assert whole["t"].to_pylist() == times
