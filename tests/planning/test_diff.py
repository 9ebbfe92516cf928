# ruff: noqa: E501 - one change, one line

from dataclasses import replace

import pytest

from lodestream.model.table import TableName
from lodestream.model.types import Column, parse_type
from lodestream.planning.compile import compile_project
from lodestream.planning.diff import Deployed, accept_hash, diff
from lodestream.planning.words import duration_text
from lodestream.project.load import read_project

BRONZE, SILVER, GOLD = "tables/bronze/orders.yaml", "tables/silver/orders.yaml", "tables/gold/revenue.yaml"
QUERY = "tables/gold/by_country.yaml"
SQL = "sql: select country, count(*) as n from silver.orders group by country\nschedule: '@hourly'\n"


def plans(folder, existing=None):
    return compile_project(read_project(folder), existing or {})


def deployed(found):
    return {name: Deployed(plan.declaration, plan.schema, plan.definition, 1, 5) for name, plan in found.flows.items()}


@pytest.fixture
def change(write):
    """The changes from the sample project to one with edits, as {table: (kind, lines)}."""

    def changes(files):
        lake = deployed(plans(write({QUERY: SQL})))
        found = diff(plans(write({QUERY: SQL, **files})), lake)
        return {str(one.table): (one.kind, one.lines) for one in found}

    return changes


def test_an_empty_lake_gets_all_tables_inputs_first(write):
    found = diff(plans(write({QUERY: SQL})), {})
    assert [(str(one.table), one.kind) for one in found] == [
        ("bronze.customers", "create"),
        ("bronze.orders", "create"),
        ("silver.orders", "create"),
        ("gold.by_country", "create"),
        ("gold.revenue", "create"),
    ]
    assert found[1].lines == ("new table from source files, 11 columns",)
    assert found[2].lines == ("new table from bronze.orders, 14 columns",)
    assert found[3].lines == ("new table from a query over silver.orders, 3 columns",)


def test_what_is_deployed_needs_no_change(change):
    assert change({}) == {}


# file, old, new, kind of that table's change, its first line, tables that are rebuilt for it
EDITS = [
    (SILVER, "2 years", "90 days", "alter_metadata", "retention: 2 years → 90 days", ()),
    (SILVER, "2 years", "forever", "alter_metadata", "retention: 2 years → forever", ()),
    (SILVER, "from:", "maintain: {z_order: [country]}\nfrom:", "alter_metadata", 'maintain.z_order: new, ["country"]', ()),
    (SILVER, "from:", "maintain: {log_retention: 2 days}\nfrom:", "alter_metadata", "maintain.log_retention: new, 2 days", ()),
    (SILVER, "from:", "comment: hello\nfrom:", "alter_metadata", "comment: new, hello", ()),
    (SILVER, "else: quarantine", "else: drop", "alter_forward", "expect.has_id: order_id IS NOT NULL else quarantine → order_id IS NOT NULL else drop", ()),
    (SILVER, "  has_id:", "  positive: amount > 0\n  has_id:", "alter_forward", "expect.positive: new, amount > 0 else quarantine", ()),
    (BRONZE, "path: data", "path: data, settle: 5", "alter_forward", "source.files.settle: new, 5", ()),
    (BRONZE, "format: json", "format: csv", "alter_forward", 'format: {"json": {}} → {"csv": {}}', ()),
    (BRONZE, "format: json", "format: json\ndrift: add", "alter_forward", "drift: new, add", ()),
    (QUERY, "@hourly", "@daily", "alter_forward", "schedule: @hourly → @daily", ()),
    (QUERY, "count(*) as n", "count(*) as rows", "refresh", None, ()),
    (SILVER, "amount > 100", "amount > 200", "rebuild", "derive.big: amount > 100 → amount > 200", ("gold.revenue",)),
    (SILVER, "delay: 30 seconds", "delay: 1 minute", "rebuild", "event_time.delay: 30 seconds → 1 minute", ("gold.revenue",)),
    (SILVER, "{keys: [order_id]}", "{keys: [order_id], within: 1 hour}", "rebuild", "dedup.within: new, 1 hour", ("gold.revenue",)),
    (SILVER, "columns: [tier]", "columns: {tier: level}", "rebuild", None, ("gold.revenue",)),
    (SILVER, "date(ordered_at)", "month(ordered_at)", "rebuild", 'partition_by: ["date(ordered_at)"] → ["month(ordered_at)"]', ("gold.revenue",)),
    (SILVER, "from: stream(bronze.orders)", "select: [order_id, amount, country, ordered_at]\nfrom: stream(bronze.orders)", "rebuild", None, ("gold.revenue",)),
    (BRONZE, "country: string", "country: string\n  extra: int", "alter_forward", "column extra: new, int", ()),
    (BRONZE, "decimal(12,2)", "decimal(14,2)", "rewrite", "column amount: decimal(12,2) → decimal(14,2), stored rows are cast", ("gold.revenue",)),
    (BRONZE, "decimal(12,2)", "decimal(10,2)", "rebuild", "columns.amount: decimal(12,2) → decimal(10,2)", ("silver.orders", "gold.revenue")),
    (BRONZE, "{files: {path: data}}", "generator", "rebuild", None, ("silver.orders", "gold.revenue")),
    (BRONZE, "format: json", "keep_raw: true", "rebuild", None, ("silver.orders", "gold.revenue")),
    (GOLD, "1 minute", "5 minutes", "rebuild", "window.every: 1 minute → 5 minutes", ()),
    (GOLD, "[country]", "[country, tier]", "rebuild", "group_by.tier: new, tier", ()),
    (GOLD, "sum(amount)", "max(amount)", "rebuild", "measures.revenue: sum(amount) → max(amount)", ()),
    (GOLD, "updates", "final", "rebuild", "emit: updates → final", ()),
    (GOLD, "stream(silver.orders)", "stream(bronze.orders)", "rebuild", "from: silver.orders → bronze.orders", ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "kind", "line", "below"), EDITS, ids=[f"{e[0].split('/')[1]}-{e[2][:25]}" for e in EDITS]
)
def test_each_kind_of_change(change, sample, file, old, new, kind, line, below):
    before = {**sample, QUERY: SQL}[file]
    assert old in before
    table = file.removeprefix("tables/").removesuffix(".yaml").replace("/", ".")
    found = change({file: before.replace(old, new, 1)})
    assert found[table][0] == kind
    if line is not None:
        assert line in found[table][1]
    assert {name for name, (what, _) in found.items() if what == "rebuild" and name != table} == set(below)


def test_one_change_per_table_tells_all_that_differs(change, sample):
    text = (
        sample[SILVER].replace("amount > 100", "amount > 1").replace("2 years", "1 year").replace("quarantine", "warn")
    )
    kind, lines = change({SILVER: text})["silver.orders"]
    assert kind == "rebuild"
    assert {line.partition(":")[0] for line in lines} == {"derive.big", "retention", "expect.has_id"}


def test_dropped_tables_come_last(write):
    first = plans(write({QUERY: SQL}))
    lake = deployed(first)
    flows = {name: plan for name, plan in first.flows.items() if name.layer != "gold"}
    found = diff(replace(first, flows=flows), lake)
    assert [(str(one.table), one.kind) for one in found] == [("gold.by_country", "drop"), ("gold.revenue", "drop")]


def test_columns_that_drift_brought_go_forward_only(write, sample):
    text = sample[BRONZE] + "drift: add\n"
    first = plans(write({BRONZE: text}))
    lake = deployed(first)
    name = TableName("bronze", "orders")
    grown = lake[name].schema.with_columns(Column("more", parse_type("string")))
    lake[name] = replace(lake[name], schema=grown)
    now = plans(write({BRONZE: text}), {table: one.schema for table, one in lake.items()})
    found = {str(one.table): (one.kind, one.lines) for one in diff(now, lake)}
    assert found == {"silver.orders": ("alter_forward", ("column more: new, string",))}
    assert "more" in now.flows[name].schema


def test_a_lake_that_does_not_say_what_made_it(write):
    found = plans(write())
    lake = {name: replace(one, definition_json="{}") for name, one in deployed(found).items()}
    assert diff(found, lake) == []
    unknown = {name: replace(one, hash="") for name, one in lake.items()}
    assert {one.kind for one in diff(found, unknown)} == {"rebuild"}


def test_the_accept_hash_is_that_of_the_whole_list(write, sample):
    lake = deployed(plans(write()))
    one = diff(plans(write({SILVER: sample[SILVER].replace("> 100", "> 1")})), lake)
    other = diff(plans(write({SILVER: sample[SILVER].replace("> 100", "> 2")})), lake)
    assert len(accept_hash(one)) == 12
    assert accept_hash(one) == accept_hash(list(reversed(one)))
    assert accept_hash(one) != accept_hash(other)
    assert accept_hash(one) != accept_hash(one[:1])
    assert accept_hash([]) == accept_hash(())


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0 seconds"), (500_000, "500 ms"), (60_000_000, "1 minute"), (90 * 86_400_000_000, "90 days"), (1, "1 us")],
)
def test_durations_in_words(micros, text):
    assert duration_text(micros) == text
