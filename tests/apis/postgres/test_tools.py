"""Questions that tools ask about the catalogs run, and PostgreSQL's spellings mean what they mean there."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.lexer import statements
from lodestream.apis.postgres.spellings import c_format

TOOLS = statements(Path(__file__).with_name("tools.sql").read_text(encoding="utf-8"))


@pytest.mark.parametrize("question", TOOLS, ids=lambda text: " ".join(text.split())[:60])
def test_a_tool_s_question_runs(shop, question):
    with shop.connect(autocommit=True) as connection:
        cursor = connection.execute(question)
        assert cursor.description
        rows = cursor.fetchall()
    if "typname" in question and "elemtyp" in question:
        names = [row[2] for row in rows]
        assert {"int8", "_int8", "unknown", "timestamptz"} <= set(names)


def test_each_is_prepared_and_described(shop):
    with shop.connect(autocommit=True) as connection:
        for question in TOOLS:
            connection.execute(question, prepare=True, binary=True).fetchall()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", 3),
        ("7 / 2.0", Decimal("3.5")),
        ("mod(7, 3)", 1),
        ("'abc' ~ 'b'", True),
        ("'abc' ~* 'B'", True),
        ("'abc' !~ 'b'", False),
        ("'abc' !~* 'X'", True),
        ("'abc' like 'a%'", True),
        ("'abc' ilike 'A%'", True),
        ("'abc' similar to 'a.c'", True),
        ("1.23456::numeric", Decimal("1.2345600000")),
        ("'5'::int4 + 1", 6),
        ("to_char(timestamp '2024-05-01 13:05:09', 'YYYY-MM-DD HH24:MI:SS')", "2024-05-01 13:05:09"),
        ("to_char(timestamp '2024-05-01 13:05:09', 'FMMon DD, \"Q\"YY')", "May 01, Q24"),
        ("to_date('01.05.2024', 'DD.MM.YYYY')", dt.date(2024, 5, 1)),
        ("date_trunc('month', timestamp '2024-05-17 10:00:00')::date", dt.date(2024, 5, 1)),
        ("extract(year from date '2024-05-01')::int", 2024),
        ("date_part('hour', timestamp '2024-05-01 10:00:00')::int", 10),
        ("date '2024-05-01' + 1", dt.date(2024, 5, 2)),
        ("date '2024-05-03' - date '2024-05-01'", 2),
        ("timestamp '2024-05-01' + interval '1 day 2 hours'", dt.datetime(2024, 5, 2, 2, tzinfo=dt.UTC)),
        ("btrim('  x ')", "x"),
        ("substring('abcdef' from 2 for 3)", "bcd"),
        ("position('c' in 'abc')", 3),
        ("overlay('abcdef' placing 'X' from 2 for 3)", "aXef"),
        ("coalesce(null, 'x')", "x"),
        ("nullif(1, 1)", None),
        ("3 = any(array[1, 2, 3])", True),
        ("4 <> all(array[1, 2, 3])", True),
        ("array_length(array[1, 2], 1)", 2),
        ("string_to_array('a,b', ',')", ["a", "b"]),
        ("array_to_string(array['a', 'b'], '-')", "a-b"),
        ("greatest(1, 2)", 2),
        ("'a' || 'b'", "ab"),
        ("E'a\\tb'", "a\tb"),
        ("$$it's$$", "it's"),
        ("true and not false", True),
        ("case when 1 > 2 then 'a' else 'b' end", "b"),
        ("round(2.345, 2)", Decimal("2.35")),
        ("power(2, 3)", 8.0),
        ("cast('2024-05-01' as date)", dt.date(2024, 5, 1)),
        ("'t'::boolean", True),
        ("'\\x00ff'::bytea is not null", True),
        ("length('äb')", 2),
        ("upper('ab')", "AB"),
        ("md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
        ("div(7, 2)::int", 3),
        ("split_part('a-b-c', '-', 2)", "b"),
        ("left('abc', 2)", "ab"),
        ("lpad('7', 3, '0')", "007"),
        ("5 % 3", 2),
        ("2 ^ 3", 8.0),
        ("'a' is distinct from null", True),
        ("1 between 0 and 2", True),
        ("(1, 2) = (1, 2)", True),
        ("exists(select 1)", True),
        ("array(select unnest(array[2, 1]) order by 1)", [1, 2]),
        ("current_user", "dev"),
        ("current_database()", "shop"),
        ("'a'::name || 'b'::bpchar", "ab"),
        ("regexp_replace('abc', 'b', 'x')", "axc"),
        ("concat('a', 1, null)", "a1"),
        ("(select s from generate_series(1, 3) s order by s desc limit 1)", 3),
        ("interval '90 minutes'", dt.timedelta(minutes=90)),
    ],
)
def test_an_expression_means_what_it_means_in_postgres(shop, expression, value):
    with shop.connect(autocommit=True) as connection:
        for binary in (False, True):
            assert connection.execute(f"select {expression}", binary=binary).fetchone() == (value,)


@pytest.mark.parametrize(
    ("postgres", "c"),
    [
        ("YYYY-MM-DD", "%Y-%m-%d"), ("HH12:MI:SS AM", "%I:%M:%S %p"), ('"at" HH24h', None), ("FMDay", "%A"),
        ("US", "%f"), ("100%", "100%%"),
    ],
)  # fmt: skip
def test_formats_of_dates(postgres, c):
    if c is None:
        with pytest.raises(PgError):
            c_format(postgres)
    else:
        assert c_format(postgres) == c


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select 1; select 2;", ["select 1", "select 2"]), ("select ';' -- ;\n; ;", ["select ';'"]), ("", []),
        ("/* a /* b; */ c; */ select 1", ["select 1"]),
        ("select $x$;$x$; select E'\\';'", ["select $x$;$x$", "select E'\\';'"]),
        ('select ";" ; select $1', ['select ";"', "select $1"]),
        ("select 'a''; b'", ["select 'a''; b'"]),
    ],
)  # fmt: skip
def test_texts_are_cut_into_statements(text, found):
    assert statements(text) == found


@pytest.mark.parametrize("text", ["select '", 'select "', "select $a$ ", "/* ", "select E'\\'"])
def test_what_has_no_end_is_told(text):
    with pytest.raises(PgError) as caught:
        statements(text)
    assert caught.value.sqlstate == "42601"
