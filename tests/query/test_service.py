import datetime as dt
import os
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from lodestream.errors import ConfigError, LodestreamError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.query.scan import scan
from lodestream.query.service import OWNER, Budget
from tests.query.conftest import append, ask, make, moment

ORDERS = TableName("silver", "orders")


def test_rows_come_back_in_the_tables_types(service):
    found = service.table("select id, amount, seen_at, name from silver.orders order by id")
    assert found.schema.field("seen_at").type == pa.timestamp("us", tz="UTC")
    assert found.schema.field("amount").type == pa.decimal128(10, 2)
    assert found.column("seen_at").to_pylist() == [moment(1), moment(2, 3), moment(2, 4)]


def test_time_is_utc(service):
    found = service.table("select hour(seen_at) as h, current_setting from (select seen_at, 1 as current_setting "
                          "from silver.orders) order by h")  # fmt: skip
    assert found.column("h").to_pylist() == [0, 3, 4]


def test_partition_values_are_those_of_the_log(service):
    found = service.table("select id, seen_date, kind from gold.days order by id").to_pylist()
    assert found == [
        {"id": 1, "seen_date": dt.date(2024, 5, 1), "kind": "x y"},
        {"id": 2, "seen_date": dt.date(2024, 5, 2), "kind": "a/b=c'd"},
        {"id": 3, "seen_date": None, "kind": None},
    ]


def test_partition_values_do_not_hang_on_folder_names(tmp_path):
    root = str(tmp_path / "env=prod" / "lake")
    table = make(root, "silver.t", {"env": "string", "day": "date"}, ("day",))
    append(table, pa.table({"env": ["mine", None], "day": [dt.date(2024, 1, 1), None]}), "1")
    found = ask(root, "select * from silver.t order by env")
    assert found.to_pylist() == [{"env": "mine", "day": dt.date(2024, 1, 1)}, {"env": None, "day": None}]


def test_a_filter_on_a_partition_leaves_files_out(lake):
    table = DeltaTable.open(LocalDisk(), table_path(lake, TableName("gold", "days")))
    text = f"explain select id from ({scan(table, table.snapshot)[0]}) where seen_date = date '2024-05-01'"
    (plan,) = duckdb.sql(text).fetchall()
    assert "1/3" in plan[1]


@pytest.mark.parametrize("partitions", [(), ("kind",)])
def test_a_column_that_older_files_lack_is_null(tmp_path, partitions):
    from dataclasses import replace

    from lodestream.model.types import BIGINT, Column

    root = str(tmp_path / "lake")
    table = make(root, "silver.t", {"id": "int", "kind": "string"}, partitions)
    append(table, pa.table({"id": pa.array([1], pa.int32()), "kind": ["a"]}), "1")
    old = table.snapshot.metadata
    wider = old.schema.with_columns(Column("id", BIGINT), Column("more", BIGINT), Column("never", BIGINT))
    table.commit(metadata=replace(old, schema=wider), clock_us=0)
    append(table, pa.table({"id": [1 << 40], "kind": ["b"], "more": [5]}), "2")
    found = ask(root, "select id, more, never from silver.t order by id")
    assert found.to_pylist() == [{"id": 1, "more": None, "never": None}, {"id": 1 << 40, "more": 5, "never": None}]
    assert found.schema.field("id").type == pa.int64()


def test_an_empty_table_has_its_columns(tmp_path):
    root = str(tmp_path / "lake")
    make(root, "silver.t", {"id": "bigint", "list": "array<struct<a:int,b:timestamp>>", "m": "map<string,int>"})
    found = ask(root, "from silver.t")
    assert found.num_rows == 0
    assert found.column_names == ["id", "list", "m"]


def test_older_versions_can_be_asked(service):
    assert service.table("select count(*) n from silver.orders", as_of={ORDERS: 1})["n"].to_pylist() == [2]
    found = service.table("select n.id from silver.orders n anti join silver.orders at (version => 1) using (id)")
    assert found["id"].to_pylist() == [3]
    with pytest.raises(ConfigError, match="no such version"):
        service.table("select * from silver.orders", as_of={ORDERS: 99})
    with pytest.raises(ConfigError, match="does not read this table"):
        service.table("select 1", as_of={ORDERS: 1})


def test_a_running_query_does_not_see_later_commits(lake, service):
    with service.ask("select id from silver.orders", principal=OWNER) as answer:
        table = DeltaTable.open(LocalDisk(), table_path(lake, ORDERS))
        append(table, pa.table({"id": [4]}), "3")
        assert answer.table().num_rows == 3
        assert answer.pins == {"silver.orders": 2}
    assert service.table("from silver.orders").num_rows == 4


def test_a_missing_table_names_the_nearest(service):
    with pytest.raises(ConfigError, match=r"nearest='silver\.orders'"):
        service.table("select * from silver.ordres")


def test_tables_lists_what_is_in_the_lake(service):
    assert service.tables() == [ORDERS, TableName("gold", "days")]


@pytest.mark.parametrize(
    "text",
    [
        "select idd from silver.orders",
        "select cast(name as int) from silver.orders",
        "select sum(name) from silver.orders",
    ],
)
def test_a_query_that_errs_is_a_config_error(service, text):
    with pytest.raises(ConfigError, match="query fails"):
        service.table(text)


def test_memory_is_bounded(service):
    text = "select list(a.range || b.range) from range(1000000) a, range(100) b"
    with pytest.raises(ConfigError, match="more memory"):
        service.ask(text, principal=OWNER, budget=Budget(memory_bytes=20 << 20)).table()


def test_a_file_that_is_gone_is_an_error_not_fewer_rows(lake, service):
    table = DeltaTable.open(LocalDisk(), table_path(lake, ORDERS))
    os.unlink(table.file_path(table.files()[0]))
    with pytest.raises(LodestreamError):
        service.table("select * from silver.orders")


def test_decimals_add_up(tmp_path):
    root = str(tmp_path / "lake")
    table = make(root, "silver.t", {"amount": "decimal(10,2)"})
    append(table, pa.table({"amount": pa.array([Decimal("0.10"), Decimal("0.20")], pa.decimal128(10, 2))}), "1")
    found = ask(root, "select sum(amount) s from silver.t")
    assert found["s"].to_pylist() == [Decimal("0.30")]


def test_times_finer_than_microseconds_are_cut_off(service):
    found = service.table("select timestamp_ns '2020-01-01 00:00:00.123456789' as t")
    assert found["t"].to_pylist() == [dt.datetime(2020, 1, 1, 0, 0, 0, 123456, tzinfo=dt.UTC)]
