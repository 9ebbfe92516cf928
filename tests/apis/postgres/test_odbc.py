"""psqlodbc under pyodbc and isql: what spreadsheets and reporting tools come with."""

import datetime as dt
import os
import subprocess
from decimal import Decimal

import pytest

from tests.apis.postgres.lake import KINDS, MOMENT, ROWS
from tests.apis.postgres.packages import installed

DRIVER = "/usr/lib/*/odbc/psqlodbcw.so"

pytestmark = pytest.mark.skipif(
    not (installed("odbc-postgresql", DRIVER) and installed("unixodbc", "isql")), reason="psqlodbc cannot be had here"
)


def told(shop, **more):
    """A connection string."""
    given = {
        "Driver": "{PostgreSQL Unicode}",
        "Server": "127.0.0.1",
        "Port": shop.port,
        "Database": "shop",
        "Uid": "dev",
    }
    given |= {"Pwd": shop.passwords["dev"], "BoolsAsChar": 0, "MaxVarcharSize": 4000} | more
    return ";".join(f"{name}={value}" for name, value in given.items())


@pytest.fixture
def connection(shop):
    import pyodbc

    made = pyodbc.connect(told(shop), autocommit=True)
    yield made
    made.close()


def test_every_type_comes_back(connection):
    wanted = "n, flag, tiny, small, whole, big, single, wide, money, words, bytes, day, moment, names"
    row = connection.execute(f"select {wanted} from gold.kinds order by n").fetchone()
    assert tuple(row) == (
        1, True, 1, 2, 3, 4, 1.5, 2.25, Decimal("12345.6789"), "plain", b"\x00\xff", dt.date(2024, 5, 1),
        MOMENT.replace(tzinfo=None), '{"a b","NULL",NULL,"x\\"y\\\\"}',
    )  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "value", "count"),
    [
        ("id = ?", 3, 1), ("customer = ?", "customer 3", 25), ("amount > ?", Decimal("624.75"), 1),
        ("weight <= ?", 0.25, 2), ("ordered_on = ?", dt.date(2024, 5, 1), 689),
        ("ordered_at < ?", dt.datetime(2024, 5, 1, 13), 29), ("paid = ?", True, 833),
    ],
)  # fmt: skip
def test_parameters(connection, condition, value, count):
    assert connection.execute(f"select count(*) from gold.orders where {condition}", value).fetchone()[0] == count


def test_what_is_there(connection):
    cursor = connection.cursor()
    assert sorted((row.table_schem, row.table_name) for row in cursor.tables(tableType="TABLE")) == [
        ("bronze", "secrets"), ("gold", "kinds"), ("gold", "orders"), ("silver", "people"),
    ]  # fmt: skip
    columns = cursor.columns(table="kinds", schema="gold").fetchall()
    assert [row.column_name for row in columns] == list(KINDS)
    assert {row.column_name: row.type_name for row in columns}["money"] == "numeric"
    assert cursor.primaryKeys(table="orders", schema="gold").fetchall() == []
    assert cursor.foreignKeys(table="orders", schema="gold").fetchall() == []
    assert cursor.statistics(table="orders", schema="gold").fetchall() == []
    assert {row.procedure_schem for row in cursor.procedures()} == {"pg_catalog"}
    assert "int8" in [row.type_name for row in cursor.getTypeInfo()]


def test_rows_by_cursor(shop):
    import pyodbc

    made = pyodbc.connect(told(shop, UseDeclareFetch=1, Fetch=100))
    rows = made.execute("select id from gold.orders order by id").fetchall()
    assert [row[0] for row in rows] == list(range(1, ROWS + 1))
    made.rollback()
    made.close()


def test_errors(connection):
    import pyodbc

    with pytest.raises(pyodbc.ProgrammingError, match=r"42S22|42703"):
        connection.execute("select nothing from gold.orders")
    with pytest.raises(pyodbc.Error, match=r"25006|read-only"):
        connection.execute("delete from gold.orders")
    assert connection.execute("select 1").fetchone()[0] == 1


def test_isql(shop, tmp_path):
    named = {"Driver": "PostgreSQL Unicode", "Servername": "127.0.0.1", "Port": shop.port, "Database": "shop"}
    (tmp_path / "odbc.ini").write_text("[shop]\n" + "".join(f"{name}={value}\n" for name, value in named.items()))
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ODBCINI": str(tmp_path / "odbc.ini")}
    done = subprocess.run(
        ["isql", "-v", "-b", "-d,", "shop", "dev", shop.passwords["dev"]],
        input="select id, customer from gold.orders where id = 7\n",
        env=surroundings, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "7,customer 7" in done.stdout, done.stdout + done.stderr
