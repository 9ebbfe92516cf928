"""Measures equal Spark however their input is cut into batches, and refuse what cannot be merged."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import pytest

from lodestream.expressions.aggregate import compile_measures
from lodestream.expressions.errors import ExpressionError
from lodestream.model.expression import Aggregate
from lodestream.model.types import Column, Schema, parse_type
from tests.expressions.spark_rows import load, results, table

HEAD, CASES = load("aggregates")
SCHEMA, DATA = table(HEAD["columns"], HEAD["rows"])
GROUPS = sorted({row[0] for row in HEAD["rows"]})


def merged(con: Any, measure: Aggregate, key: str, pieces: int) -> tuple[Any, bool]:
    """The measure over one group whose rows arrive in `pieces` batches: (result, raises)."""
    parts = measure.partials
    rows = f"(SELECT * FROM (SELECT *, row_number() OVER () AS n FROM input WHERE g = '{key}'))"
    if measure.initial_error and con.sql(f"SELECT bool_or({measure.initial_error}) FROM {rows}").fetchall()[0][0]:
        return None, True
    first = ", ".join(f"{p.initial} AS {p.name}" for p in parts)
    batches = f"SELECT n % {pieces} AS b, {first} FROM {rows} GROUP BY b"
    state = f"SELECT {', '.join(f'{p.merge} AS {p.name}' for p in parts)} FROM ({batches})"
    got = con.sql(f"SELECT {measure.final} AS v, {measure.final_error or 'false'} AS e FROM ({state})").to_arrow_table()
    return results(got["v"], measure.type)[0], got["e"][0].as_py()


@pytest.mark.parametrize("pieces", [1, 3])
def test_measures_equal_spark(pieces: int) -> None:
    con = duckdb.connect()
    con.register("input", DATA)
    wrong = []
    for case in CASES:
        [(_, measure)] = compile_measures([("m", case["text"])], SCHEMA)
        if str(measure.type) != case["type"]:
            wrong.append(f"{case['text']}: type {measure.type}, Spark {case['type']}")
            continue
        for key, want in zip(GROUPS, case["values"], strict=True):
            got, raises = merged(con, measure, key, pieces)
            if raises is not isinstance(want, dict) or not (raises or close(got, want, case["type"])):
                wrong.append(f"{case['text']} over {key}: {got!r} raises={raises}, Spark {want!r}")
    assert not wrong, "\n".join(wrong[:40])


def close(got: Any, want: Any, kind: str) -> bool:
    """Sums of doubles depend on the order of rows, and what is left of equals on last digits; the rest is exact."""
    if kind == "double" and None not in (got, want):
        return got == want or math.isclose(float(got), float(want), rel_tol=1e-12, abs_tol=1e-15)
    return bool(got == want)


def schema(**columns: str) -> Schema:
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def test_partials_are_named_once_and_shared() -> None:
    made = dict(
        compile_measures(
            [("n", "count(*)"), ("a", "avg(x)"), ("s", "sum(x)"), ("m", "count(*) + 1")], schema(x="double")
        )
    )
    names = [p.name for p in made["n"].partials + made["a"].partials + made["s"].partials + made["m"].partials]
    assert names == ["p0", "p1", "p2", "p1", "p0"]


def test_error_in_an_argument_marks_the_row_and_a_filter_shields_it() -> None:
    con = duckdb.connect()
    (_, plain), (_, shielded) = compile_measures(
        [("a", "sum(a / b)"), ("b", "sum(a / b) filter (where b <> 0)")], schema(a="int", b="int")
    )
    row = "(SELECT 1::INTEGER AS a, 0::INTEGER AS b)"
    assert con.sql(f"SELECT {plain.initial_error} FROM {row}").fetchall() == [(True,)]
    assert con.sql(f"SELECT {shielded.initial_error} FROM {row}").fetchall() == [(False,)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a", "P113"),
        ("sum(a) + a", "P113"),
        ("1", "P113"),
        ("sum(sum(a))", "P113"),
        ("count(distinct a)", "P113"),
        ("sum(s)", "P111"),
        ("max()", "P111"),
        ("sum(*)", "P111"),
        ("approx_count_distinct(a)", "P102"),
        ("first(a)", "P104"),
        ("stddev(s)", "P111"),
        ("stddev(distinct a)", "P113"),
        ("corr(a)", "P111"),
        ("corr(a, s)", "P111"),
        ("bit_and(s)", "P111"),
        ("median(a)", "P113"),
        ("percentile(a, a)", "P114"),
        ("percentile(a, 2)", "P114"),
        ("collect_list(a)", "P104"),
        ("sort_array(collect_list(a))", "P113"),
        ("mode(a)", "P104"),
        ("sum(w)", "P103"),
        ("avg(w)", "P103"),
        ("max(r)", "P111"),
        ("count_if(a)", "P111"),
        ("null", "P106"),
        ("suum(a)", "P101"),
        ("upper(s) filter (where a > 0)", "P113"),
    ],
)
def test_refused(text: str, code: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_measures(
            [("ok", "count(*)"), ("x", text)], schema(a="int", s="string", w="decimal(38,2)", r="array<int>")
        )
    assert caught.value.code == code
    assert caught.value.item == 1
