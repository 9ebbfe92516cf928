"""Queries equal Spark on small tables, and refuse what is not total, portable or known."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.query import compile_query
from lodestream.model.arrow import from_arrow_type
from tests.expressions.spark_rows import load, results, table

HEAD, CASES = load("queries")
TABLES = {name: table(value["columns"], value["rows"]) for name, value in HEAD["tables"].items()}
SCHEMAS = {name: schema for name, (schema, _) in TABLES.items()}


@pytest.fixture(scope="module")
def con() -> Any:
    connection = duckdb.connect()
    for name, (_, data) in TABLES.items():
        connection.register(name, data)
    return connection


@pytest.mark.parametrize("case", CASES, ids=[str(i) for i in range(len(CASES))])
def test_queries_equal_spark(con: Any, case: dict[str, Any]) -> None:
    query = compile_query(case["text"], SCHEMAS)
    if isinstance(case["values"], dict):
        with pytest.raises(duckdb.Error, match="query: "):
            con.sql(query.duckdb).fetchall()
        return
    assert [[c.name, str(c.type)] for c in query.schema] == case["types"]
    got = con.sql(query.duckdb).to_arrow_table()
    assert [from_arrow_type(f.type) for f in got.schema] == [c.type for c in query.schema]
    columns = [results(got[c.name], c.type) for c in query.schema]
    rows = sorted((list(row) for row in zip(*columns, strict=True)), key=json.dumps)
    assert rows == case["values"]
    assert all(column.nullable or None not in values for column, values in zip(query.schema, columns, strict=True))
    assert compile_query(query.text, SCHEMAS).schema == query.schema


def test_inputs_and_lineage() -> None:
    query = compile_query(
        "with big as (select carrier, sum(cost) as total from silver.flights group by carrier) "
        "select upper(c.name) as name, total / 2 as half, 1 as one from big join silver.carriers c using (carrier)",
        SCHEMAS,
    )
    assert query.inputs == ("silver.carriers", "silver.flights")
    assert query.lineage == {
        "name": frozenset({("silver.carriers", "name")}),
        "half": frozenset({("silver.flights", "cost")}),
        "one": frozenset(),
    }


def test_ties_are_broken_by_all_columns() -> None:
    query = compile_query("select id, row_number() over (order by carrier) as n from silver.flights", SCHEMAS)
    order = query.text.partition("ORDER BY ")[2].partition(")")[0]
    assert [key.split(" ")[0] for key in order.split(", ")] == [
        f"flights.{name}" for name in SCHEMAS["silver.flights"].names[1::-1]
    ] + [f"flights.{name}" for name in SCHEMAS["silver.flights"].names[2:]]


@pytest.mark.parametrize(
    ("text", "code", "near"),
    [
        ("select x from silver.flights", "P110", None),
        ("select carier from silver.flights", "P110", "carrier"),
        ("select carrier from silver.flights f join silver.carriers c on f.id = c.rank", "P110", None),
        ("select id from silver.flight", "P109", "silver.flights"),
        ("select id from silver.flights limit 3", "P104", "order by … limit"),
        ("select row_number() over (partition by carrier) as n from silver.flights", "P104", "over (… order by …)"),
        ("select id + 1 from silver.flights", "P112", "… as name"),
        ("select id, id from silver.flights", "P112", "… as another_name"),
        ("select carrier, id from silver.flights group by carrier", "P113", "max(id)"),
        ("select id from silver.flights where count(*) > 1", "P113", None),
        ("select id from silver.flights where id in (select 1)", "P101", "left semi join"),
        ("select id from silver.flights where exists (select 1 from silver.carriers)", "P101", None),
        ("select (select max(id) from silver.flights) as m from silver.flights", "P101", None),
        ("select id from silver.flights qualify row_number() over (order by id) = 1", "P101", None),
        ("select id from silver.flights tablesample (10 percent)", "P101", None),
        ("select id from silver.flights version as of 3", "P101", None),
        ("select id from silver.flights natural join silver.carriers", "P101", None),
        ("select id from silver.flights lateral view explode(array(1)) t as x", "P101", None),
        ("select id from silver.flights except select rank from silver.carriers", "P101", "select"),
        ("select * from read_parquet('x')", "P101", None),
        ("select f.* from silver.flights f join silver.carriers using (carrier)", "P101", "name the columns"),
        ("select null as x from silver.flights", "P106", "cast(null as string)"),
        ("select id from silver.flights union all select name from silver.carriers", "P111", None),
        ("select id from silver.flights union all select id, delay from silver.flights", "P111", None),
        ("select current_date as d from silver.flights", "P107", None),
        ("delete from silver.flights", "P101", "select"),
        ("select id from silver.flights; select 1", "P112", None),
        ("select from", "P112", None),
        ("with recursive r as (select id from silver.flights) select id from r", "P101", None),
        (
            "select sum(id) over (order by id range between 1 preceding and current row) as s from silver.flights",
            "P101",
            "rows between …",
        ),
        ("select carrier, count(*) as n from silver.flights group by all", "P101", None),
        ("select carrier, count(*) as n from silver.flights group by rollup(carrier)", "P101", None),
        ("select id, ntile(4) over (order by id) as n from silver.flights", "P101", None),
    ],
)
def test_refused(text: str, code: str, near: str | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_query(text, SCHEMAS)
    assert (caught.value.code, caught.value.nearest) == (code, near)
