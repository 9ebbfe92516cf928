"""ADBC, which reads everything by COPY in binary form, and Polars over it."""

import adbc_driver_postgresql.dbapi as adbc
import polars as pl
import pytest

from tests.apis.postgres.lake import KINDS, MOMENT, ROWS


@pytest.fixture
def url(shop):
    return f"postgresql://dev:{shop.passwords['dev']}@127.0.0.1:{shop.port}/shop"


def test_every_type_comes_back(url):
    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select * from gold.kinds order by n")
        table = cursor.fetch_arrow_table()
    assert table.column_names == list(KINDS)
    first = table.to_pylist()[0]
    assert first["moment"] == MOMENT
    assert (first["money"], first["numbers"], first["names"]) == (
        "12345.6789000000", [1, None, 3], ["a b", "NULL", None, 'x"y\\'],
    )  # fmt: skip
    assert [row["big"] for row in table.to_pylist()] == [4, None, 2**63 - 1]


def test_nothing_and_parameters(url):
    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select id, customer from gold.orders where id < 0")
        assert cursor.fetch_arrow_table().num_rows == 0
        cursor.execute("select count(*) from gold.orders where id > $1", (5,))
        assert cursor.fetchone() == (ROWS - 5,)


def test_what_is_there(url):
    with adbc.connect(url) as connection:
        found = connection.adbc_get_objects(depth="columns").read_all().to_pylist()
        assert connection.adbc_get_table_schema("orders", db_schema_filter="gold").names[:2] == ["id", "customer"]
    schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in found[0]["catalog_db_schemas"]}
    tables = {table["table_name"]: [c["column_name"] for c in table["table_columns"]] for table in schemas["gold"]}
    assert sorted(tables["kinds"]) == sorted(KINDS)


def test_polars(url):
    found = pl.read_database_uri("select * from gold.orders", url, engine="adbc")
    assert (found.height, found["id"].sum()) == (ROWS, ROWS * (ROWS + 1) // 2)
