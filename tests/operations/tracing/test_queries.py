"""A row of a `sql:` table leads to the input rows it was computed from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lodestream.errors import ConfigError
from lodestream.expressions.dialect import parse_select
from lodestream.expressions.query import compile_query
from lodestream.model.types import DOUBLE, INT, STRING, Column, Schema
from lodestream.operations.trace import Trace, trace
from lodestream.operations.tracing.queries import follow
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: int, kind: string, amount: int, shop: int}
"""
TABLES = {
    "bronze.e": BRONZE,
    "silver.e": "from: stream(bronze.e)\nexpect: {known: {that: kind is null or kind <> 'bad'}}\n",
    "gold.kinds": "sql: |\n  select coalesce(kind, 'none') as named, count(*) as n from silver.e\n"
    "  where amount > 1 group by 1\n",
    "gold.shops": "sql: |\n  with s as (select shop, max(amount) as most from silver.e group by shop)\n"
    "  select k.named, s.shop, s.most from gold.kinds k join s on s.most > k.n\n",
    "gold.total": "sql: select count(*) as n from silver.e where amount > 1\n",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Has run; tests do not change it."""
    lab = Lab(tmp_path_factory.mktemp("queries") / "p")
    for name, text in TABLES.items():
        lab.table(name, text)
    lab.events([row(1), row(2, amount=1), row(3), row(4, "sale"), row(5, None), row(6, "bad"), row(7, "tiny", 0)])
    lab.run()
    return lab


@pytest.fixture
def lab(ran: Lab, tmp_path: Path) -> Lab:
    """A copy to be changed."""
    shutil.copytree(ran.root, tmp_path / "p")
    copy = Lab.__new__(Lab)
    copy.root, copy.files = tmp_path / "p", ran.files
    return copy


def row(number: int, kind: str | None = "view", amount: int = 5) -> dict[str, object]:
    return {"id": number, "kind": kind, "amount": amount, "shop": number % 2}


def ask(lab: Lab, table: str, key: str) -> Trace:
    told = trace(lab.app(), table, key)
    json.dumps(told.to_json())
    assert told.lines()
    return told


def reason(told: Trace) -> str:
    assert not told.found
    assert told.absence is not None
    return told.absence.reason


def test_a_group_leads_to_its_input_rows_at_the_pinned_version(ran: Lab) -> None:
    told = ask(ran, "gold.kinds", "named=view")
    assert (told.found, told.kind, told.matches) == (True, "query", 1)
    (hop,) = told.hops
    assert hop.row is not None
    assert hop.written is not None
    assert (hop.written.kind, hop.written.pins) == ("refresh", {"silver.e": ran.delta("silver.e").snapshot.version})
    assert told.query is not None
    assert "GROUP BY coalesce(e.kind, 'none')" in told.query.text
    (rows,) = told.query.inputs
    assert (rows.table, rows.rows, rows.filtered, rows.by) == ("silver.e", hop.row["n"], True, {"named": "view"})
    assert rows.rows == 2  # three have the kind, one of them does not meet the condition
    assert rows.sample == (
        "lodestream trace silver.e 0000.jsonl:0",
        f"lodestream trace silver.e 0000.jsonl:{sum(len(json.dumps(one)) + 1 for one in (row(1), row(2, amount=1)))}",
    )
    unnamed = ask(ran, "gold.kinds", "named=none").query
    assert unnamed is not None
    assert unnamed.inputs[0].rows == 1


def test_the_version_read_and_the_newest_are_told_apart(lab: Lab) -> None:
    lab.events([row(8), row(9, "fresh")])
    lab.run(tables=["bronze.e", "silver.e"])
    told = ask(lab, "gold.kinds", "named=view").query
    assert told is not None
    assert (told.inputs[0].rows, told.inputs[0].newest) == (2, 3)
    stale = ask(lab, "gold.kinds", "named=fresh")
    assert reason(stale) == "not_refreshed"
    assert stale.absence is not None
    assert stale.absence.next == ("lodestream run --until-idle",)


def test_a_join_is_followed_into_each_input(ran: Lab) -> None:
    told = ask(ran, "gold.shops", "named=view,shop=1").query
    assert told is not None
    by = {one.table: (one.by, one.rows, one.filtered) for one in told.inputs}
    assert by == {
        "gold.kinds": ({"named": "view"}, 1, False),
        "silver.e": ({"shop": 1}, 4, False),
    }
    assert {one.sample[0] for one in told.inputs} >= {"lodestream trace gold.kinds named=view,n=2"}


def test_a_result_without_groups_counts_all_rows_that_meet_the_condition(ran: Lab) -> None:
    told = ask(ran, "gold.total", "n=4")
    assert told.found
    assert told.query is not None
    (rows,) = told.query.inputs
    assert (rows.rows, rows.by, rows.sample) == (4, {}, ())


def test_a_row_that_the_result_does_not_have(ran: Lab) -> None:
    assert reason(ask(ran, "gold.kinds", "named=view,n=99")) == "left_out"
    assert reason(ask(ran, "gold.kinds", "named=never")) == "no_such_row"
    assert reason(ask(ran, "gold.total", "n=99")) == "no_such_row"
    with pytest.raises(ConfigError, match="no positions"):
        trace(ran.app(), "gold.kinds", "0000.jsonl:0")


def test_a_value_that_was_set_aside_below_is_found_there(lab: Lab) -> None:
    lab.table("gold.plain", "sql: select kind as sort, count(*) as n from silver.e group by kind\n")
    assert reason(ask(lab, "gold.plain", "sort=view")) == "not_in_lake"
    lab.run()
    told = ask(lab, "gold.plain", "sort=bad")
    assert reason(told) == "quarantine"
    assert told.absence is not None
    assert (told.absence.table, told.record is not None) == ("silver.e", True)


@pytest.mark.parametrize(
    ("query", "followed"),
    [
        ("select coalesce(b, 'x') as k, count(*) as n, a from silver.t group by 1, a", {"k", "a"}),
        ("select b, sum(a) as total from silver.t group by b", {"b"}),
        ("select b, row_number() over (partition by b order by a) as r from silver.t", {"b"}),
        ("with z as (select a, sum(c) as s from silver.t group by a) "
         "select z.a, z.s, u.b from z join silver.u u on u.a = z.a", {"a", "b"}),
        ("select x.b from (select b, a from silver.t) x group by x.b", {"b"}),
        ("select t.b, t.a + 1 as p from silver.t t where a > 1", {"b", "p"}),
        ("select b from silver.t union all select b from silver.u", set()),
    ],
)  # fmt: skip
def test_only_values_of_one_input_row_are_followed(query: str, followed: set[str]) -> None:
    schema = Schema((Column("a", INT), Column("b", STRING), Column("c", DOUBLE)))
    schemas: Any = {"silver.t": schema, "silver.u": schema}
    text = compile_query(query, schemas).text
    assert set(follow(parse_select(text), schemas).results) == followed
