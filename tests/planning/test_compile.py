import datetime as dt

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.model.steps import (
    Aggregation,
    Dedupe,
    Derive,
    Expect,
    LookUp,
    ReadSource,
    ReadTable,
    RunPython,
    RunQuery,
    Select,
    Watermark,
    Write,
)
from lodestream.model.table import META_COLUMNS, TableName
from lodestream.model.types import Column, Schema, parse_type
from lodestream.planning.compile import compile_project
from lodestream.project.build import define_project
from lodestream.project.graph import Edge, ordered
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError

BRONZE, SILVER, GOLD = TableName("bronze", "orders"), TableName("silver", "orders"), TableName("gold", "revenue")


def schema(**columns):
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def plan_of(write, name, text, existing=None, sample=None):
    layer, _, table = name.partition(".")
    folder = write({f"tables/{layer}/{table}.yaml": text})
    return compile_project(read_project(folder), existing or {}, sample).flows[TableName(layer, table)]


def kinds(plan):
    return [type(step) for step in plan.steps]


def test_the_sample_project_in_order_and_in_stages(write):
    flows = compile_project(read_project(write()), {}).flows
    assert [str(name) for name in flows] == ["bronze.customers", "bronze.orders", "silver.orders", "gold.revenue"]
    assert kinds(flows[BRONZE]) == [ReadSource, Write]
    assert kinds(flows[SILVER]) == [ReadTable, Derive, Expect, Watermark, Dedupe, LookUp, Write]
    assert kinds(flows[GOLD]) == [ReadTable, Watermark, Aggregation, Write]
    assert flows[SILVER].upstream == BRONZE
    assert flows[SILVER].waits_for == (TableName("bronze", "customers"),)
    assert flows[BRONZE].upstream is None


def test_columns_are_stored_in_the_order_of_the_contract(write, sample):
    text = sample["tables/bronze/orders.yaml"] + "keep_raw: true\npartition_by: [hour(ordered_at), country]\n"
    flows = compile_project(read_project(write({"tables/bronze/orders.yaml": text})), {}).flows
    user = ["order_id", "customer_id", "amount", "country", "items", "ordered_at", "day"]
    stored = [*user, "_raw", *META_COLUMNS, "ordered_at_date", "ordered_at_hour"]
    assert list(flows[BRONZE].schema.names) == stored
    assert flows[BRONZE].partition_columns == ("ordered_at_date", "ordered_at_hour", "country")
    assert list(flows[SILVER].schema.names) == [*user, "big", "tier", *META_COLUMNS, "ordered_at_date"]
    assert list(flows[GOLD].schema.names) == [
        "window_start", "window_end", "country", "orders", "revenue", "_rows", "_digest", "_batch",
    ]  # fmt: skip
    assert str(flows[GOLD].schema["revenue"].type) == "decimal(22,2)"
    assert not flows[BRONZE].schema["_source"].nullable
    assert flows[GOLD].schema["orders"].nullable


@pytest.mark.parametrize(
    ("by", "columns"),
    [
        ("[date(ordered_at)]", {"ordered_at_date": "date"}),
        ("[hour(ordered_at)]", {"ordered_at_date": "date", "ordered_at_hour": "int"}),
        ("[date(ordered_at), hour(ordered_at)]", {"ordered_at_date": "date", "ordered_at_hour": "int"}),
        ("[month(day)]", {"day_month": "date"}),
        ("[year(ordered_at)]", {"ordered_at_year": "int"}),
        ("[country]", {"country": "string"}),
        ("[Hour( ordered_at )]", {"ordered_at_date": "date", "ordered_at_hour": "int"}),
    ],
)
def test_partitions(write, by, columns):
    plan = plan_of(write, "silver.other", f"from: stream(bronze.orders)\npartition_by: {by}\n")
    partitions = plan.steps[-1].partitions
    assert {p.name: str(p.expression.type) for p in partitions} == columns
    assert {name: str(plan.schema[name].type) for name in columns} == columns


def test_partition_expressions_compute_what_they_say(write):
    text = "from: stream(bronze.orders)\npartition_by: [hour(ordered_at), month(ordered_at), year(day)]\n"
    partitions = plan_of(write, "silver.other", text).steps[-1].partitions
    sql = ", ".join(p.expression.duckdb for p in partitions)
    row = duckdb.sql(
        f"select {sql} from (select timestamp '1969-12-31 23:59:59.5' as ordered_at, date '2013-05-06' as day)"
    ).fetchall()
    assert row == [(dt.date(1969, 12, 31), 23, dt.date(1969, 12, 1), 2013)]


def test_select_keeps_looked_up_columns(write, sample):
    text = sample["tables/silver/orders.yaml"] + "select: [order_id, big, ordered_at]\n"
    folder = write({"tables/silver/orders.yaml": text, "tables/gold/revenue.yaml": None})
    plan = compile_project(read_project(folder), {}).flows[SILVER]
    assert Select(("order_id", "big", "ordered_at", "tier")) in plan.steps
    assert kinds(plan)[-2:] == [Select, Write]
    assert list(plan.schema.names)[:4] == ["order_id", "big", "ordered_at", "tier"]


def test_a_derived_column_replaces_its_namesake_in_place(write):
    text = "from: stream(bronze.orders)\nderive: {amount: cast(amount as double), day: 'year(day)'}\n"
    plan = plan_of(write, "silver.other", text)
    assert [(c.name, str(c.type)) for c in plan.schema][2] == ("amount", "double")
    assert str(plan.schema["day"].type) == "int"
    read = plan.steps[0]
    assert str(read.schema["amount"].type) == "decimal(12,2)"


def test_provenance_can_be_read_and_raw_only_when_asked(write, sample):
    bronze = sample["tables/bronze/orders.yaml"] + "keep_raw: true\n"
    files = {
        "tables/bronze/orders.yaml": bronze,
        "tables/silver/raw.yaml": "from: stream(bronze.orders)\nderive: {file: _source, has_raw: _raw is not null}\n",
        "tables/silver/plain.yaml": "from: stream(bronze.orders)\nexpect: {fresh: _ingest_time >= ordered_at}\n",
    }
    flows = compile_project(read_project(write(files)), {}).flows
    raw, plain = flows[TableName("silver", "raw")], flows[TableName("silver", "plain")]
    assert "_raw" in raw.steps[0].schema
    assert "_raw" not in plain.steps[0].schema
    assert "_raw" not in raw.schema
    assert [c for c in plain.steps[0].schema.names if c.startswith("_")] == ["_source", "_position", "_ingest_time"]


def test_a_python_step_declares_what_it_returns(write):
    text = """\
from: stream(bronze.orders)
python: clean:orders
columns: {order_id: string, score: double}
derive: {good: score > 0.5}
"""
    plan = plan_of(write, "silver.other", text)
    assert kinds(plan) == [ReadTable, RunPython, Derive, Write]
    assert list(plan.schema.names) == ["order_id", "score", "good", *META_COLUMNS]
    with pytest.raises(ProjectError, match="P110 no such column: 'amount'"):
        plan_of(write, "silver.other", text.replace("score > 0.5", "amount > 1"))


def test_windows(write):
    text = """\
from: stream(silver.orders)
event_time: {column: ordered_at, delay: 0 s}
window: {every: 1 hour, slide: 15 minutes}
group_by: {country: upper(country), tier: tier}
measures: {n: count(*), mean: avg(amount), ratio: cast(sum(amount) as double) / count(*)}
emit: final
partition_by: [date(window_start)]
"""
    plan = plan_of(write, "gold.other", text)
    (step,) = [step for step in plan.steps if isinstance(step, Aggregation)]
    assert (step.window.every_us, step.window.slide_us, step.emit) == (3_600_000_000, 900_000_000, "final")
    names = [partial.name for _, measure in step.measures for partial in measure.partials]
    assert len({(p.name, p.initial) for _, m in step.measures for p in m.partials}) == len(set(names))
    assert list(plan.schema.names) == [
        "window_start", "window_end", "country", "tier", "n", "mean", "ratio", "_rows", "_digest", "_batch",
        "window_start_date",
    ]  # fmt: skip


def test_a_query_reads_only_the_columns_it_names(write):
    text = """\
sql: |
  select o.country, count(*) as n, max(c.score) as best
  from silver.orders o join bronze.customers c on o.customer_id = c.customer_id
  where o.big group by o.country
"""
    plan = plan_of(write, "gold.other", text)
    (step,) = [step for step in plan.steps if isinstance(step, RunQuery)]
    assert {table: set(columns) for table, columns in step.columns} == {
        "silver.orders": {"customer_id", "country", "big"},
        "bronze.customers": {"customer_id", "score"},
    }
    assert plan.waits_for == (TableName("bronze", "customers"), SILVER)
    assert list(plan.schema.names) == ["country", "n", "best", "_batch"]
    assert plan_of(write, "gold.other", "sql: select * from bronze.customers\n").steps[0].columns == ()
    only_counted = plan_of(write, "gold.other", "sql: select count(*) as n from bronze.customers\n").steps[0]
    assert only_counted.columns == (("bronze.customers", ("customer_id",)),)


def test_a_generator_knows_its_columns(write):
    plan = plan_of(write, "bronze.events", "source: {generator: {events: 5}}\n")
    assert list(plan.schema.names) == ["event_id", "happened_at", *META_COLUMNS]
    assert plan.steps[0].format.name == "json"


def test_columns_are_frozen_from_a_sample_and_then_from_the_lake(write):
    text = "source: {files: {path: x}}\npartition_by: [date(at)]\nkeep_raw: true\n"
    asked = []

    def sample(table):
        asked.append((str(table.name), table.format.name))
        return schema(id="bigint", at="timestamp")

    name = TableName("bronze", "frozen")
    first = plan_of(write, "bronze.frozen", text, sample=sample)
    assert asked == [("bronze.frozen", "json")]
    assert list(first.steps[0].schema.names) == ["id", "at"]
    again = plan_of(write, "bronze.frozen", text, {name: first.schema}, sample)
    assert len(asked) == 1
    assert again == first
    with pytest.raises(ProjectError, match="D304 columns not known"):
        plan_of(write, "bronze.frozen", text, sample=lambda table: None)


def test_what_drift_did_to_bronze_stays(write, sample):
    text = sample["tables/bronze/customers.yaml"].replace("score: double", "score: int")
    stored = schema(customer_id="string", tier="string", since="timestamp", score="bigint", more="string")
    stored = stored.with_columns(*(Column(name, parse_type("string")) for name in META_COLUMNS))
    name = TableName("bronze", "drifted")
    plain = plan_of(write, "bronze.drifted", text, {name: stored})
    added = plan_of(write, "bronze.drifted", text + "drift: add\n", {name: stored})
    assert [(c.name, str(c.type)) for c in plain.steps[0].schema][3:] == [("score", "int")]
    assert [(c.name, str(c.type)) for c in added.steps[0].schema][3:] == [("score", "bigint"), ("more", "string")]
    fresh = plan_of(write, "bronze.drifted", text + "drift: add\n")
    assert fresh.definition == added.definition


def test_the_definition_hash_covers_what_decides_rows(write, sample):
    base = sample["tables/silver/orders.yaml"]

    def hash_of(text):
        return compile_project(read_project(write({"tables/silver/orders.yaml": text})), {}).flows[SILVER]

    first = hash_of(base)
    assert len(first.definition) == 16
    assert hash_of("comment: other\n" + base.replace("2 years", "3 years")).definition == first.definition
    assert hash_of("comment: other\n" + base).declaration != first.declaration
    assert hash_of(base.replace("amount > 100", "amount   >  100")).definition == first.definition
    for old, new in [
        ("amount > 100", "amount > 101"),
        ("else: quarantine", "else: drop"),
        ("delay: 30 seconds", "delay: 31 seconds"),
        ("keys: [order_id]", "keys: [order_id, day]"),
        ("columns: [tier]", "columns: [tier, score]"),
        ("date(ordered_at)", "month(ordered_at)"),
    ]:
        assert hash_of(base.replace(old, new)).definition != first.definition, new


def test_types_above_decide_rows_below(write, sample):
    text = sample["tables/bronze/orders.yaml"].replace("decimal(12,2)", "decimal(14,2)")
    before = compile_project(read_project(write()), {}).flows
    after = compile_project(read_project(write({"tables/bronze/orders.yaml": text})), {}).flows
    assert before[GOLD].definition != after[GOLD].definition


def test_a_table_for_the_other_engine_is_refused(write, sample):
    folder = write({"tables/gold/revenue.yaml": sample["tables/gold/revenue.yaml"] + "engine: spark\n"})
    with pytest.raises(ProjectError, match="P205 this table runs on Spark only"):
        compile_project(read_project(folder), {})
    assert GOLD in compile_project(read_project(folder), {}, engine="spark").flows


def test_functions_of_the_engine_are_admitted_with_the_mark_and_noted(write, sample):
    from lodestream.model.arrow import from_arrow_type, to_arrow

    def describe(columns, sql):
        rows = to_arrow(columns).empty_table()
        assert rows.num_rows == 0  # DuckDB finds it by its name
        try:
            return from_arrow_type(duckdb.sql(f"select {sql} as x from rows").to_arrow_table().schema.field("x").type)
        except duckdb.Error as error:
            raise ValueError(str(error)) from error

    text = sample["tables/silver/orders.yaml"].replace("amount > 100", "jaro_similarity(country, order_id) > 0.5")
    marked = text + "engine: embedded\n"
    folder = write({"tables/silver/orders.yaml": marked})
    plans = compile_project(read_project(folder), {}, describe=describe)
    assert str(plans.flows[SILVER].schema["big"].type) == "boolean"
    assert [str(note) for note in plans.notes] == [
        "tables/silver/orders.yaml:3:8 N101 silver.orders will not run on Spark. at='derive.big'"
    ]
    with pytest.raises(ProjectError, match="P101"):
        compile_project(read_project(write({"tables/silver/orders.yaml": text})), {}, describe=describe)


def test_python_and_files_give_equal_plans(write):
    tables = {"bronze.a": {"source": "generator"}, "silver.a": {"from_": "stream(bronze.a)", "select": ["event_id"]}}
    files = {
        "tables/bronze/a.yaml": "source: generator\n",
        "tables/silver/a.yaml": "from: stream(bronze.a)\nselect: [event_id]\n",
    }
    from_files = compile_project(read_project(write(files)), {}).flows
    from_python = compile_project(define_project("x", tables), {}).flows
    for name, plan in from_python.items():
        assert plan == from_files[name]


EDGES = st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4), min_size=1)


@given(EDGES)
def test_inputs_come_before_their_readers_unless_in_a_circle(graph):
    names = {i: TableName("silver", f"t{i}") for i in range(10)}
    reads = {names[i]: [Edge(names[i], names[j], ("from",)) for j in above] for i, above in graph.items()}
    order, circles = ordered(reads)
    assert sorted(order) == sorted(reads)
    at = {name: i for i, name in enumerate(order)}
    backward = [e for found in reads.values() for e in found if e.table in at and at[e.table] >= at[e.reader]]
    closing = {(circle[-1].reader, circle[-1].table) for circle in circles}
    assert {(e.reader, e.table) for e in backward} == closing
    for circle in circles:
        assert all(one.table == after.reader for one, after in zip(circle, [*circle[1:], circle[0]], strict=True))


def test_gold_that_reads_bronze_is_noted_unless_it_says_so(write):
    files = {
        "tables/gold/raw.yaml": "comment: all of it\nsql: select count(*) as n from bronze.orders\n",
        "tables/gold/looked_up.yaml": """\
from: stream(silver.orders)
enrich: {lookup: {table: bronze.customers, on: customer_id, columns: {tier: class}}}
event_time: {column: ordered_at, delay: 30 seconds}
""",
        "tables/gold/streamed.yaml": "from: stream(bronze.orders)\nskip_silver: true\n",
    }
    plans = compile_project(read_project(write(files)), {})
    assert [str(note) for note in plans.notes if note.code == "N105"] == [
        "tables/gold/looked_up.yaml:2:26 N105 gold reads bronze. table='gold.looked_up' reads='bronze.customers'",
        "tables/gold/raw.yaml:2:6 N105 gold reads bronze. table='gold.raw' reads='bronze.orders'",
    ]
    meant = {name: text + "skip_silver: true\n" for name, text in files.items() if "streamed" not in name}
    again = compile_project(read_project(write(meant)), {})
    assert [note for note in again.notes if note.code == "N105"] == []
    raw = TableName("gold", "raw")
    assert again.flows[raw].definition == plans.flows[raw].definition, "it decides no row, so nothing is rebuilt"


def test_skip_silver_is_no_key_of_a_source(write):
    with pytest.raises(ProjectError, match=r"D207 .*key='skip_silver'"):
        compile_project(read_project(write({"tables/bronze/a.yaml": "source: generator\nskip_silver: true\n"})), {})


_LOOKED_UP = "enrich: {lookup: {table: silver.orders, on: {country: order_id}, columns: {amount: other}}}"


def test_windows_that_spark_does_not_have_are_noted(write, sample):
    text = sample["tables/gold/revenue.yaml"].replace("emit: updates", f"late: update\n{_LOOKED_UP}")
    plans = compile_project(read_project(write({"tables/gold/revenue.yaml": text})), {})
    assert [note.code for note in plans.notes] == ["N101"]
    assert "late: Spark corrects no closed window" in str(plans.notes[0])
    marked = compile_project(read_project(write({"tables/gold/revenue.yaml": text + "engine: embedded\n"})), {})
    assert marked.notes == ()
