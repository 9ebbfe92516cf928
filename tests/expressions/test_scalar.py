"""What is refused and how it is said, laziness of errors, bare SQL for simple things, and that nothing ever raises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.expressions.errors import CODES, ExpressionError
from lodestream.expressions.functions import AGGREGATES, REFUSED, SCALARS
from lodestream.expressions.reference import page
from lodestream.expressions.scalar import compile_scalar
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import BIGINT, STRING, Column, DataType, Schema, parse_type
from tests.expressions.spark_rows import WILD_SCHEMA as SCHEMA
from tests.expressions.spark_rows import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "duckdb_text"),
    [
        ("a > 5", '"a" > 5'),
        ("m >= 0", '"m" >= CAST(0 AS DECIMAL(12,2))'),
        ("s is not null", '"s" IS NOT NULL'),
        ("s = 'x'", "\"s\" = 'x'"),
        ("A = 1 and p", '("a" = 1) AND "p"'),
        ("s in ('a', 'b')", "\"s\" IN ('a', 'b')"),
        ("t >= '2024-01-01'", "\"t\" >= TIMESTAMP '2024-01-01 00:00:00'"),
        ("cast(a as bigint)", 'CAST("a" AS BIGINT)'),
        ("cast(t as date)", 'CAST("t" AS DATE)'),
        ("x * 2", "\"x\" * CAST('2.0' AS DOUBLE)"),
        ("s like 'a%'", "\"s\" LIKE 'a%'"),
        ("length(s)", 'CAST(length("s") AS INTEGER)'),
        ("year(d)", 'CAST(year("d") AS INTEGER)'),
        ("coalesce(a, 0)", 'coalesce("a", 0)'),
    ],
)
def test_simple_expressions_stay_bare_and_cannot_err(text: str, duckdb_text: str) -> None:
    made = compile_scalar(text, SCHEMA)
    assert (made.duckdb, made.error) == (duckdb_text, None)


def test_text_grows_with_the_expression_not_exponentially() -> None:
    text = "s"
    for _ in range(8):
        text = f"upper(trim(reverse({text})))"
    nested = "m"
    for _ in range(4):
        nested = f"cast({nested} / 3 as decimal(12,2))"
    assert len(compile_scalar(text, SCHEMA).duckdb) < 60_000
    assert len(compile_scalar(nested, SCHEMA).duckdb) < 40_000


def run(text: str, **row: Any) -> tuple[Any, bool]:
    made = compile_scalar(text, SCHEMA)
    data = {}
    for column in SCHEMA:
        kind = to_arrow_type(column.type)
        data[column.name] = pa.array(
            [row.get(column.name)], pa.timestamp("us") if pa.types.is_timestamp(kind) else kind
        )
    con = duckdb.connect()
    con.register("input", pa.table(data))
    got = con.sql(f"SELECT {made.duckdb}, {made.error or 'false'} FROM input").fetchall()[0]
    assert isinstance(got[1], bool)
    return got


@pytest.mark.parametrize(
    ("text", "raises"),
    [
        ("a / b", True),
        ("b <> 0 and a / b > 1", False),
        ("a / b > 1 and b <> 0", True),
        ("b = 0 or a / b > 1", False),
        ("if(b = 0, 0, a / b)", False),
        ("case when b <> 0 then a / b end", False),
        ("coalesce(a, a / b)", False),
        ("coalesce(null, a / b)", True),
        ("null / b", False),
        ("a / b is null", True),
        ("l + a / b", False),
        ("a / b + l", True),
        ("a in (1, a / b)", False),
        ("l in (1, a / b)", False),
        ("a in (2, a / b)", True),
        ("try_divide(a, b)", False),
        ("try_divide(a, b div b)", True),
        ("nullif(a / b, 1)", True),
        ("greatest(a, a div b)", True),
        ("a between 0 and a / b", True),
        ("a between 2 and a / b", False),
    ],
)
def test_only_what_spark_evaluates_can_err(text: str, raises: bool) -> None:
    value, erred = run(text, a=1, b=0)
    assert erred is raises
    assert not (erred and value is not None)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{'a': 1}", "$.a"),  # Spark reads single quotes
        ('{"a": 1} x', "$.a"),  # and stops where the first value ends
        ('{"a": "x\ny"}', "$.a"),
        ('{"a": "\\ud83d"}', "$.a"),
        ('{"a": 1e20}', "$.a"),  # 1.0E20 in Java
        ('{"a": 0.0001}', "$.a"),
        ('{"a": [1.5]}', "$.a"),
        ('{"a": {"b": "👧"}}', "$.a"),
        ('{"a": null, "a": 2}', "$.a"),  # Spark goes on to the second
    ],
)
def test_json_that_spark_reads_in_its_own_way_fails_instead_of_differing(text: str, path: str) -> None:
    assert run(f"get_json_object(s, '{path}')", s=text) == (None, True)


def test_columns_structs_and_names() -> None:
    made = compile_scalar("Q.c + A > 1 and q.n.v = 'x'", SCHEMA)
    assert made.columns == {"q", "a"}
    assert run("q.n.v", q={"c": 1, "n": {"v": "é"}}) == ("é", False)
    assert run("q.n.v", q=None) == (None, False)
    odd = Schema((Column("select", STRING), Column("a b", STRING), Column('q"', BIGINT)))
    assert compile_scalar('`select` || `a b` = "x"', odd).duckdb == '("select" || "a b") = \'x\''
    assert compile_scalar('`q"` > 1', odd).duckdb == '"q""" > CAST(1 AS BIGINT)'


def test_engine_embedded_may_use_any_function_that_duckdb_can_type() -> None:
    def describe(text: str) -> DataType:
        if "levenshtein" not in text:
            raise ValueError("no such function")
        return BIGINT

    made = compile_scalar("levenshtein(s, u) + 1", SCHEMA, portable=False, describe=describe)
    assert not made.portable
    assert made.type == BIGINT
    with pytest.raises(ExpressionError, match="P101"):
        compile_scalar("levenshteen(s, u)", SCHEMA, portable=False, describe=describe)
    with pytest.raises(ExpressionError, match="P101"):
        compile_scalar("levenshtein(s, u)", SCHEMA)
    con = duckdb.connect()
    assert con.sql(f"SELECT {made.duckdb}, {made.error} FROM (SELECT 'ab' AS s, 'ax' AS u)").fetchall() == [(2, False)]


WILD = st.fixed_dictionaries(
    {
        "a": st.none() | st.integers(-(2**31), 2**31 - 1),
        "b": st.none() | st.integers(-3, 3),
        "l": st.none() | st.integers(-(2**63), 2**63 - 1),
        "x": st.none() | st.floats(),
        "m": st.none() | st.decimals(min_value=-9999999999, max_value=9999999999, places=2),
        "w": st.none() | st.decimals(min_value=-(10**36) + 1, max_value=10**36 - 1, places=2),
        "s": st.none() | st.text(max_size=12),
        "u": st.none() | st.text(max_size=3),
        "d": st.none() | st.dates(),
        "t": st.none() | st.datetimes(),
        "p": st.none() | st.booleans(),
        "r": st.none() | st.lists(st.none() | st.integers(-5, 5), max_size=4),
    }
)


@given(st.lists(WILD, min_size=1, max_size=30))
@settings(max_examples=12, deadline=None)
def test_nothing_raises_whatever_the_row(rows: list[dict[str, Any]]) -> None:
    data = {}
    for column in SCHEMA:
        kind = to_arrow_type(column.type)
        kind = pa.timestamp("us") if pa.types.is_timestamp(kind) else kind
        data[column.name] = pa.array([row.get(column.name) for row in rows], kind)
    con = duckdb.connect()
    con.register("input", pa.table(data))
    texts = [
        "a + a",
        "a * l",
        "l * l",
        "-l",
        "abs(a)",
        "a / b",
        "a % b",
        "l div b",
        "pmod(l, b)",
        "x * x",
        "x / x",
        "x % b",
        "m * m",
        "m / m",
        "w + w",
        "m % b",
        "cast(x as int)",
        "cast(x as bigint)",
        "cast(x as decimal(10,2))",
        "cast(x as float)",
        "cast(w as int)",
        "cast(s as int)",
        "cast(s as double)",
        "cast(s as decimal(10,2))",
        "cast(s as date)",
        "cast(s as timestamp)",
        "cast(s as boolean)",
        "upper(s)",
        "lower(s)",
        "reverse(s)",
        "substring(s, a, b)",
        "left(s, a)",
        "right(s, b)",
        "split_part(s, u, 2)",
        "replace(s, u, s)",
        "lpad(s, 9, 'é')",
        "translate(s, 'ab', 'x')",
        "md5(s)",
        "ascii(s)",
        "chr(l)",
        "trim(both u from s)",
        "s like '%a_'",
        "s rlike '[a-z]+x?'",
        "regexp_extract(s, '(a)|b', 1)",
        "split(s, '[,;]')",
        "concat_ws(u, s, s)",
        "instr(s, u)",
        "round(x, 3)",
        "ceil(x)",
        "sqrt(x)",
        "exp(x)",
        "ln(x)",
        "pow(x, x)",
        "sign(x)",
        "date_add(d, a)",
        "add_months(d, a)",
        "d + interval 3 months",
        "t + interval 1 year",
        "t - interval 9 days",
        "date_trunc('week', t)",
        "last_day(d)",
        "make_date(a, b, b)",
        "timestamp_seconds(l)",
        "timestamp_micros(l)",
        "date_from_unix_date(a)",
        "unix_millis(t)",
        "cast(t as string)",
        "date_format(t, 'yyyy-MM-dd HH:mm:ss')",
        "r[a]",
        "element_at(r, b)",
        "array_contains(r, b)",
        "array_max(r)",
        "get(r, a)",
        "if(p, a / b, l)",
        "coalesce(a div b, l)",
        "a / b in (1, x)",
        "shiftleft(l, a)",
        "shiftrightunsigned(a, b)",
        "bit_get(l, a)",
        "factorial(b)",
        "bround(m, 1)",
        "width_bucket(x, m, x, l)",
        "log(x, x)",
        "acosh(x)",
        "csc(x)",
        "unhex(s)",
        "decode(unhex(s), 'UTF-8')",
        "base64(s)",
        "url_encode(s)",
        "find_in_set(u, s)",
        "substring_index(s, ',', -2)",
        "overlay(s, u, 3)",
        "elt(b, s, u)",
        "format_string('%5d %-4s', a, s)",
        "regexp_instr(s, '[a-c]')",
        "regexp_extract_all(s, '(a)|b', 1)",
        "next_day(d, 'Friday')",
        "months_between(t, d)",
        "timestampadd(month, l, t)",
        "timestampadd(microsecond, l, t)",
        "timestampdiff(year, t, d)",
        "timestampdiff(microsecond, t, d)",
        "make_timestamp(a, b, b, a, b, m)",
        "to_timestamp(s, 'yyyy-MM-dd HH:mm:ss')",
        "to_date(s, 'd/M/yyyy')",
        "from_unixtime(l)",
        "extract(second from t)",
        "sequence(a, b)",
        "sequence(b, a, b)",
        "slice(r, b, a)",
        "slice(r, a, b)",
        "array_insert(r, -3, a)",
        "array_union(r, r)",
        "arrays_overlap(r, array(a, b))",
        "arrays_zip(r, array(s))",
        "flatten(array(r, r))",
        "array_sort(r)",
        "transform(r, v -> 10 / v)",
        "filter(r, v -> a / v > 1)",
        "exists(r, v -> a / v > 1)",
        "forall(r, v -> 1 / (v - 1) > 0)",
        "aggregate(r, a, (acc, v) -> acc * v, acc -> 1 / acc)",
        "zip_with(r, r, (v, w) -> v + a)",
        "map(s, a, u, b)",
        "map_concat(map(s, 1), map(u, 2))",
        "map_from_arrays(array(s, u), array(a, b))",
        "transform_keys(map(a, s, b, u), (k, v) -> v)",
        "str_to_map(s)",
        "named_struct('x', a / b).x",
        "get_json_object(s, '$.a[0].b')",
        "json_array_length(s)",
        "json_object_keys(s)",
        "to_json(named_struct('t', t, 's', s, 'r', r))",
        "get_json_object(to_json(map(s, d)), '$.a')",
    ]
    for text in texts:
        made = compile_scalar(text, SCHEMA)
        got = con.sql(f"SELECT {made.duckdb} AS v, {made.error or 'false'} AS e FROM input").to_arrow_table()
        assert got["e"].null_count == 0, text
        assert all(
            value is None
            for value, erred in zip(got["v"], got["e"].to_pylist(), strict=True)
            if erred and value.is_valid
        ), text


def test_every_admitted_name_has_rows_that_spark_answered() -> None:
    rows = "\n".join(path.read_text("utf-8") for path in (Path(__file__).parent / "rows").glob("*.jsonl"))
    asked = set(re.findall(r"\b([a-z_0-9]+)\(", "\n".join(re.findall(r'"text":"((?:[^"\\]|\\.)*)"', rows))))
    assert set(SCALARS) | set(AGGREGATES) <= asked
    assert not set(SCALARS) & set(REFUSED)
    assert len(SCALARS) + len(AGGREGATES) >= 200


def test_the_reference_page_is_current_and_every_code_has_a_remedy() -> None:
    assert (ROOT / "docs" / "reference" / "functions.md").read_text("utf-8") == page()
    used = {
        code
        for path in (ROOT / "src/lodestream/expressions").rglob("*.py")
        for code in re.findall(r'"(P1\d\d)"', path.read_text())
    }
    assert used == set(CODES)


@pytest.mark.parametrize("name", ["dates", "times"])
def test_dates_and_times_at_the_ends_of_their_types_do_not_raise(name: str) -> None:
    head, cases = load(name)
    schema = Schema(tuple(Column(column, parse_type(kind)) for column, kind in head["columns"]))
    days = [2**31 - 1, -(2**31), -(2**31) + 1, 2**31 - 2, -719163, 2932897, 10**8]
    micros = [2**63 - 1, -(2**63), -(2**63) + 1, 2**63 - 2, 9 * 10**18, -9 * 10**18, 253402300800000000]
    dates, times = pa.array(days, pa.int32()).cast(pa.date32()), pa.array(micros, pa.int64()).cast(pa.timestamp("us"))
    columns = {"d": dates, "e": dates[::-1], "n": pa.array([1] * 7, pa.int32()), "t": times, "u": times[::-1]}
    con = duckdb.connect()
    con.register("input", pa.table(columns))
    for case in cases:
        if "refused" not in case:
            made = compile_scalar(case["text"], schema)
            con.sql(f"SELECT {made.duckdb}, {made.error or 'false'} FROM input").to_arrow_table()
