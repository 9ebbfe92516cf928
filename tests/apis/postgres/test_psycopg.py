"""psycopg 3 against the server: types in both forms, parameters, cursors, pipelines, COPY, errors."""

import datetime as dt
from decimal import Decimal

import psycopg
import pytest
from psycopg import errors

from tests.apis.postgres.lake import MOMENT, ROWS

FIRST = (
    1, True, 1, 2, 3, 4, 1.5, 2.25, Decimal("12345.6789"), "plain", b"\x00\xff", dt.date(2024, 5, 1), MOMENT,
    [1, None, 3], ["a b", "NULL", None, 'x"y\\'], {"lat": 1.5, "name": "x"}, {"k": "v"},
)  # fmt: skip
LAST = (
    3, False, -128, -32768, -(2**31), 2**63 - 1, None, float("-inf"), Decimal("-0.0000000001"),
    'tab\t quote" back\\slash, comma\nline ü', b"", dt.date(1969, 12, 31),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC), [], [], {"lat": None, "name": None}, {},
)  # fmt: skip


@pytest.fixture
def connection(shop):
    with shop.connect() as found:
        yield found


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_every_type_comes_back(connection, binary):
    rows = connection.cursor(binary=binary).execute("select * from gold.kinds order by n").fetchall()
    assert rows[0] == FIRST
    assert rows[1] == (2, *[None] * 16)
    assert rows[2][6] != rows[2][6]  # NaN
    assert (*rows[2][:6], None, *rows[2][7:]) == LAST


@pytest.mark.parametrize(
    ("condition", "value", "count"),
    [
        ("id = %s", 3, 1),
        ("id = any(%s)", [1, 2, 3], 3),
        ("customer = %s", "customer 3", 25),
        ("amount > %s", Decimal("624.75"), 1),
        ("weight <= %s", 0.25, 2),
        ("ordered_on = %s", dt.date(2024, 5, 1), 689),
        ("ordered_at < %s", dt.datetime(2024, 5, 1, 13, tzinfo=dt.UTC), 29),
        ("ordered_at < %s", dt.datetime(2024, 5, 1, 15, tzinfo=dt.timezone(dt.timedelta(hours=2))), 29),
        ("paid = %s", True, 833),
        ("customer is not distinct from %s", None, 50),
        ("ordered_on = %s", "2024-05-01", 689),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["%s", "%b", "%t"], ids=["chosen", "binary", "text"])
def test_parameters_in_every_form(connection, condition, value, count, form):
    condition = condition.replace("%s", form)
    assert connection.execute(f"select count(*) from gold.orders where {condition}", (value,)).fetchone() == (count,)


def test_integers_divide_as_in_postgres(connection):
    assert connection.execute("select 7 / 2, -7 / 2, 7 / 2.0").fetchone() == (3, -3, Decimal("3.5"))


def test_nulls_sort_as_the_largest(connection):
    found = connection.execute("select customer from gold.orders order by customer desc, id limit 1").fetchone()
    assert found == (None,)


def test_names_without_layer_are_found_where_they_are_unique(connection):
    assert connection.execute("select count(*) from orders").fetchone() == (ROWS,)
    with pytest.raises(errors.UndefinedTable, match="ordres"):
        connection.execute("select * from ordres")
    connection.rollback()
    connection.execute("set search_path to silver")
    with pytest.raises(errors.UndefinedTable):
        connection.execute("select * from orders")


def test_columns_are_called_as_in_postgres(connection):
    found = connection.execute("select count(*), max(id), id + 1, id::text, 1 as one from orders group by id limit 1")
    assert [column.name for column in found.description] == ["count", "max", "?column?", "id", "one"]


def test_server_cursor(connection):
    with connection.cursor("some") as cursor:
        cursor.execute("select id from gold.orders order by id")
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        cursor.scroll(10)
        assert cursor.fetchone() == (14,)
        assert len(cursor.fetchall()) == ROWS - 14
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("select id from gold.orders order by id")
        connection.commit()
        assert cursor.fetchone() == (1,)


def test_pipeline(connection):
    with connection.pipeline():
        found = [connection.execute("select %s::int + 1", (n,)) for n in range(20)]
    assert [one.fetchone() for one in found] == [(n + 1,) for n in range(20)]


def test_pipeline_goes_on_after_an_error(shop):
    with shop.connect(autocommit=True) as connection:
        with pytest.raises(errors.UndefinedColumn), connection.pipeline():
            connection.execute("select nothing from gold.orders")
        assert connection.execute("select 2").fetchone() == (2,)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("", b'3\tf\t-0.0000000001\ttab\\t quote" back\\\\slash, comma\\nline \xc3\xbc\n2\t\\N\t\\N\t\\N\n'),
        ("(format csv)", b'3,f,-0.0000000001,"tab\t quote"" back\\slash, comma\nline \xc3\xbc"\n2,,,\n'),
        ("with csv header delimiter ';' null 'none'", b"n;flag;money;words\n3;f;-0.0000000001;"
         b'"tab\t quote"" back\\slash, comma\nline \xc3\xbc"\n2;none;none;none\n'),
    ],
    ids=["text", "csv", "options"],
)  # fmt: skip
def test_copy_out_of_text(connection, form, told):
    query = "select n, flag, money, words from gold.kinds where n > 1 order by n desc"
    with connection.cursor().copy(f"copy ({query}) to stdout {form}") as copy:
        assert b"".join(map(bytes, copy)) == told


def test_copy_out_of_a_table_in_binary(connection):
    with connection.cursor().copy("copy gold.orders (id, amount, customer) to stdout (format binary)") as copy:
        copy.set_types(["int8", "numeric", "text"])
        rows = sorted(copy.rows())
    assert len(rows) == ROWS
    assert rows[1] == (2, Decimal("0.5"), "customer 2")


def test_a_failed_transaction_ends_with_rollback(connection):
    with pytest.raises(errors.UndefinedColumn):
        connection.execute("select nothing from gold.orders")
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("select 1")
    connection.rollback()
    assert connection.execute("select 1").fetchone() == (1,)


def test_savepoints(connection):
    connection.execute("select 1")
    with pytest.raises(errors.SyntaxError), connection.transaction():
        connection.execute("selec 1")
    assert connection.execute("select 2").fetchone() == (2,)


@pytest.mark.parametrize(
    "statement",
    ["insert into gold.orders values (1)",
     "update gold.orders set id = 1", "delete from gold.orders", "create table x (a int)",
     "drop table gold.orders", "truncate gold.orders", "copy gold.orders from stdin", "vacuum", "call f()", "do $$ $$"],
)  # fmt: skip
def test_nothing_can_be_changed(connection, statement):
    with pytest.raises(errors.ReadOnlySqlTransaction):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("selec 1", errors.SyntaxError), ("select from where", errors.SyntaxError), ("select 1 +", errors.SyntaxError),
        ("select * from gold.nothing", errors.UndefinedTable),
        ("select nothing from gold.orders", errors.UndefinedColumn),
        ("select no_such_function(1)", errors.UndefinedFunction), ("select 'x'::int", errors.InvalidTextRepresentation),
        ("select read_csv('/etc/passwd')", errors.UndefinedFunction), ("show nothing", errors.UndefinedObject),
        ("fetch 1 from nothing", errors.InvalidCursorName), ("execute nothing", errors.InvalidSqlStatementName),
        ("explain select 1", errors.FeatureNotSupported),
        ("copy gold.orders to '/tmp/x'", errors.InsufficientPrivilege),
    ],
)  # fmt: skip
def test_errors_have_the_codes_of_postgres(connection, statement, error):
    with pytest.raises(error):
        connection.execute(statement)


def test_settings(connection):
    assert connection.execute("show server_version_num").fetchone() == ("150000",)
    assert connection.info.server_version == 150_000
    connection.execute("set application_name = 'test'; set local statement_timeout to '3s'")
    assert connection.execute("show application_name").fetchone() == ("test",)
    assert connection.execute("show statement_timeout").fetchone() == ("3000",)
    connection.commit()
    assert connection.execute("select current_setting('statement_timeout')").fetchone() == ("0",)
    assert connection.info.parameter_status("application_name") == "test"
    connection.execute("set timezone to 'Europe/Berlin'")
    assert connection.execute("show timezone").fetchone() == ("UTC",)


def test_several_statements_at_once(connection):
    cursor = connection.execute("select 1; select 2; begin; select 'a;b' -- c; d\n; /* ; */")
    assert [cursor.fetchone()] == [(1,)]
    assert cursor.nextset()
    assert cursor.fetchone() == (2,)


def test_prepared_statements_in_sql(connection):
    connection.execute("prepare p (int, text) as select $1 + 1, $2")
    assert connection.execute("execute p (4, 'x')").fetchone() == (5, "x")
    connection.execute("deallocate p")
    with pytest.raises(errors.InvalidSqlStatementName):
        connection.execute("execute p (1, 'x')")


def test_a_wrong_password_is_refused(shop):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**shop.conninfo() | {"password": "wrong"})
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**shop.conninfo("alice") | {"user": "nobody"})
    with pytest.raises(psycopg.OperationalError, match='database "other" does not exist'):
        psycopg.connect(**shop.conninfo() | {"dbname": "other"})
