from lodestream.model.table import TableName
from lodestream.planning.compile import compile_project
from lodestream.planning.explain import column_lineage, explain, influences
from lodestream.project.load import read_project

BRONZE, CUSTOMERS = TableName("bronze", "orders"), TableName("bronze", "customers")
SILVER, GOLD = TableName("silver", "orders"), TableName("gold", "revenue")


def flows(folder):
    return compile_project(read_project(folder), {}).flows


def test_steps_are_told_in_the_order_they_run(write):
    found = flows(write())
    assert explain(found[BRONZE]).steps == (
        "read files(path=data) as json: 7 columns, drift quarantine",
        "write 11 columns",
    )
    assert explain(found[SILVER]).steps == (
        "read new rows of bronze.orders",
        "derive big = amount > 100",
        "expect has_id: order_id IS NOT NULL, else quarantine",
        "quarantine rows without ordered_at",
        "watermark: newest ordered_at less 30 seconds",
        "drop repeats of order_id within 30 seconds",
        "look up tier in bronze.customers on customer_id",
        "write 14 columns, partitioned by ordered_at_date",
    )
    assert explain(found[GOLD]).steps[3:] == (
        "windows of 1 minute, by country, emit updates",
        "measure orders = count(*)",
        "measure revenue = sum(amount)",
        "write 8 columns",
    )


def test_columns_know_where_they_come_from(write):
    found = flows(write())
    columns = explain(found[SILVER]).columns
    assert list(columns) == list(found[SILVER].schema.names)
    assert columns["big"] == {(BRONZE, "amount")}
    assert columns["tier"] == {(CUSTOMERS, "tier")}
    assert columns["country"] == {(BRONZE, "country")}
    assert columns["_source"] == {(BRONZE, "_source")}
    assert columns["ordered_at_date"] == {(BRONZE, "ordered_at")}
    assert columns["_batch"] == frozenset()
    gold = explain(found[GOLD]).columns
    assert gold["revenue"] == {(SILVER, "amount")}
    assert gold["orders"] == frozenset()
    assert gold["window_start"] == {(SILVER, "ordered_at")}
    assert gold["_digest"] == {(SILVER, "_source"), (SILVER, "_position")}


def test_lineage_goes_down_to_bronze(write):
    files = {
        "tables/gold/tiers.yaml": """\
sql: |
  with big as (select tier, country, amount * 2 as double_amount from silver.orders where big)
  select upper(tier) as tier, sum(double_amount) as total from big group by upper(tier)
""",
        "tables/silver/scored.yaml": """\
from: stream(silver.orders)
python: score:orders
columns: {order_id: string, score: double}
""",
    }
    lineage = column_lineage(flows(write(files)))
    assert lineage[GOLD]["revenue"] == {(BRONZE, "amount")}
    assert lineage[TableName("gold", "tiers")]["tier"] == {(CUSTOMERS, "tier")}
    assert lineage[TableName("gold", "tiers")]["total"] == {(BRONZE, "amount")}
    assert lineage[BRONZE]["amount"] == {(BRONZE, "amount")}
    scored = lineage[TableName("silver", "scored")]
    assert {(BRONZE, "amount"), (CUSTOMERS, "tier")} <= scored["score"]
    assert scored["_position"] == {(BRONZE, "_position")}


def test_a_query_and_a_session_of_words(write):
    files = {
        "tables/gold/n.yaml": "sql: select count(*) as n from silver.orders\nschedule: every 5 minutes\n",
        "tables/gold/hopping.yaml": """\
from: stream(silver.orders)
event_time: {column: ordered_at, delay: 500 ms}
window: {every: 1 hour, slide: 15 minutes}
group_by: {land: upper(country)}
measures: {n: count(*)}
""",
        "tables/silver/raw.yaml": "from: stream(bronze.orders)\nselect: [order_id]\n",
    }
    found = flows(write(files))
    assert explain(found[TableName("gold", "n")]).steps[0] == "query over silver.orders, on schedule every 5 minutes"
    assert (
        "windows of 1 hour every 15 minutes, by land = upper(country), emit updates"
        in explain(found[TableName("gold", "hopping")]).steps
    )
    assert explain(found[TableName("silver", "raw")]).steps[1] == "keep order_id"


def test_what_decides_the_rows_is_told_by_kind(write):
    files = {
        "tables/gold/tiers.yaml": """\
sql: |
  with big as (select tier, country, coalesce(order_id, '-') as noted, amount from silver.orders where big)
  select noted, upper(tier) as t, sum(amount) as total from big group by noted, 2
""",
    }
    found = flows(write(files))
    assert influences(found[SILVER]) == {
        (BRONZE, "order_id", "filter"), (BRONZE, "order_id", "dedup"), (BRONZE, "ordered_at", "filter"),
        (BRONZE, "customer_id", "join"), (CUSTOMERS, "customer_id", "join"),
    }  # fmt: skip
    assert influences(found[GOLD]) == {
        (SILVER, "ordered_at", "window"), (SILVER, "ordered_at", "filter"), (SILVER, "country", "group"),
    }  # fmt: skip
    assert influences(found[BRONZE]) == frozenset()
    query = {column for _, column, how in influences(found[TableName("gold", "tiers")]) if how == "query"}
    assert query == {"big", "tier", "order_id"}, "by name, place and alias; not amount, nor country"
