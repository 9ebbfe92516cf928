"""Every admitted function gives what Spark 4.2 gave on its defining rows: value, type, and where it raises."""

from __future__ import annotations

import math
import re
from typing import Any

import duckdb
import pytest

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.functions import SCALARS
from lodestream.expressions.scalar import compile_scalar
from lodestream.model.arrow import from_arrow_type
from lodestream.model.types import Schema
from tests.expressions.spark_rows import ROWS, load, results, table

# Java's Math and glibc may differ in the last digit; everything else is equal bit by bit.
LAST_DIGIT = tuple(
    f"{name}("
    for name in (
        *("exp", "ln", "log", "log10", "log2", "pow", "power", "cbrt", "degrees", "radians", "atan2"),
        *(f"{arc}{name}{hyper}" for name in ("sin", "cos", "tan") for arc in ("", "a") for hyper in ("", "h")),
        *("cot", "sec", "csc"),
    )
)


def same(got: Any, want: Any, loose: bool) -> bool:
    if loose and isinstance(got, str) and isinstance(want, str):
        return got == want or math.isclose(float(got), float(want), rel_tol=1e-15)
    return bool(got == want)


def mismatches(con: Any, schema: Schema, case: dict[str, Any], rows: list[list[Any]]) -> list[str]:
    text = case["text"]
    try:
        made = compile_scalar(text, schema)
    except ExpressionError as error:
        return [] if "refused" in case else [f"{text}: refused: {error}"]
    if "refused" in case:
        return [f"{text}: admitted, but Spark says {case['refused']}"]
    if str(made.type) != case["type"]:
        return [f"{text}: type {made.type}, Spark {case['type']}"]
    if compile_scalar(made.text, schema).duckdb != made.duckdb:
        return [f"{text}: canonical text means something else: {made.text}"]
    got = con.sql(f"SELECT {made.duckdb} AS v, {made.error or 'false'} AS e FROM input").to_arrow_table()
    kind = from_arrow_type(got.schema.field("v").type)
    if kind != made.type:
        return [f"{text}: DuckDB gives {kind}, not {made.type}"]
    wrong = []
    loose = any(word in text for word in LAST_DIGIT)
    for row, value, erred, want in zip(
        rows, results(got["v"], kind), got["e"].to_pylist(), case["values"], strict=True
    ):
        raises = isinstance(want, dict)
        if erred is not raises:
            wrong.append(f"{text}: {row} erred={erred} got={value!r}, Spark {want!r}")
        elif raises:
            if value is not None:
                wrong.append(f"{text}: {row} gives {value!r} where it errs")
        elif not same(value, want, loose):
            wrong.append(f"{text}: {row} gives {value!r}, Spark {want!r}")
        elif value is None and not made.nullable:
            wrong.append(f"{text}: {row} is NULL but declared not nullable")
    return wrong


SCALAR_DOMAINS = sorted(p.stem for p in ROWS.glob("*.jsonl") if p.stem not in ("aggregates", "queries"))


@pytest.mark.parametrize("name", SCALAR_DOMAINS)
def test_scalar_rows_equal_spark(name: str) -> None:
    head, cases = load(name)
    assert head["spark"] == "4.2.0"
    schema, data = table(head["columns"], head["rows"])
    con = duckdb.connect()
    con.register("input", data)
    wrong = [line for case in cases for line in mismatches(con, schema, case, head["rows"])]
    assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong[:60])


def test_composed_expressions_are_many_nested_and_alive() -> None:
    """What `test_scalar_rows_equal_spark[composed]` compares shows something."""
    _, cases = load("composed")
    functions = set(re.findall(r"\b([a-z_0-9]+)\(", " ".join(case["text"] for case in cases)))
    alive = [case for case in cases if any(not isinstance(v, dict | None) for v in case["values"])]
    assert len(cases) >= 200
    assert len(functions & set(SCALARS)) >= 120
    assert len(alive) >= 0.9 * len(cases)


def test_a_wrong_answer_is_noticed() -> None:
    head, cases = load("ints")
    schema, data = table(head["columns"], head["rows"])
    con = duckdb.connect()
    con.register("input", data)
    case = next(case for case in cases if case["text"] == "a + b")
    for planted in (
        {"type": "bigint"},
        {"text": "a - b"},
        {"values": [{"!": "X"}] * len(head["rows"])},
        {"refused": "X"},
    ):
        assert mismatches(con, schema, case | planted, head["rows"])
