"""Every mistake is told with file, line, code and the nearest thing that would be right, and nothing else is told."""

# ruff: noqa: E501 - one mistake, one line

import pytest

from lodestream.planning.compile import compile_project
from lodestream.project.codes import CODES
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError

CONFIG = "lodestream.yaml"
BRONZE, CUSTOMERS = "tables/bronze/orders.yaml", "tables/bronze/customers.yaml"
SILVER, GOLD = "tables/silver/orders.yaml", "tables/gold/revenue.yaml"

JOIN = (
    "join: {from: stream(bronze.customers), kind: inner, on: customer_id, event_time: {column: since, delay: 1 s},"
    " within: {after: 1 hour}, columns: [score]}"
)

# id, file, text to replace, its replacement, line, code, nearest
EDITS = [
    ("config-unknown-key", CONFIG, "lake: lake", "lakes: lake", 2, "D103", "lake"),
    ("config-missing-project", CONFIG, "project: shop\n", "", 1, "D105", None),
    ("config-project-is-number", CONFIG, "project: shop", "project: 7", 1, "D104", None),
    ("config-environment-key", CONFIG, "lake: lake", "environments: {dev: {lak: x}}", 2, "D103", "lake"),
    ("config-environments-list", CONFIG, "lake: lake", "environments: [dev]", 2, "D104", None),
    ("config-batch-rows", CONFIG, "lake: lake", "batch: {rows_max: 0}", 2, "D104", None),
    ("config-batch-interval", CONFIG, "lake: lake", "batch: {interval: fast}", 2, "D107", None),
    ("config-state-memory", CONFIG, "lake: lake", "state: {memory: 4 gigs}", 2, "D106", None),
    ("config-state-memory-little", CONFIG, "lake: lake", "state: {memory: 4 KiB}", 2, "D106", None),
    ("config-server-port", CONFIG, "lake: lake", "server: {port: 70000}", 2, "D104", None),
    ("config-lake-empty", CONFIG, "lake: lake", "lake: ''", 2, "D104", None),
    ("yaml-colon-in-value", SILVER, "amount > 100", "amount: > 100", 3, "D101", None),
    ("yaml-tab", SILVER, "  big:", "\tbig:", 3, "D101", None),
    ("yaml-quote-then-text", SILVER, "amount > 100", "'a' || country", 3, "D101", None),
    ("yaml-two-documents", SILVER, "retention: 2 years", "---\nretention: 2 years", 10, "D101", None),
    ("yaml-undefined-alias", SILVER, "amount > 100", "*amount", 3, "D101", None),
    ("yaml-tag", SILVER, "2 years", "!years 2 years", 10, "D101", None),
    ("yaml-duplicate-key", SILVER, "retention: 2 years", "derive: {x: amount}", 10, "D102", None),
    ("yaml-duplicate-inner-key", SILVER, "  big: amount > 100", "  big: amount > 1\n  big: amount > 2", 4, "D102", None),
    ("yaml-comma-in-braces", GOLD, "sum(amount)}", "sum(coalesce(amount, 0))}", 5, "D109", None),
    ("unknown-key", SILVER, "derive:", "derived:", 2, "D103", "derive"),
    ("unknown-key-far", SILVER, "retention: 2 years", "zzz: 1", 10, "D103", None),
    ("unknown-rule-key", SILVER, "else: quarantine", "on_fail: quarantine", 5, "D103", None),
    ("unknown-window-key", GOLD, "{every: 1 minute}", "{every: 1 minute, slides: 1 second}", 3, "D103", "slide"),
    ("unknown-lookup-key", SILVER, "columns: [tier]", "columns: [tier], since: x", 8, "D103", None),
    ("unknown-column-key", BRONZE, "  day: date", "  day: {type: date, null: true}", 10, "D103", "nullable"),
    ("derive-is-list", SILVER, "derive:\n  big: amount > 100", "derive: [amount]", 2, "D104", None),
    ("derive-is-nothing", SILVER, "  big: amount > 100", "  big:", 3, "D309", None),
    ("keep-raw-yes", BRONZE, "format: json", "keep_raw: yes", 2, "D104", None),
    ("comment-is-number", BRONZE, "format: json", "comment: 2013", 2, "D104", None),
    ("select-is-text", SILVER, "partition_by: [date(ordered_at)]", "select: order_id", 9, "D104", None),
    ("select-item-is-mapping", SILVER, "partition_by: [date(ordered_at)]", "select: [order_id, {a: b}]", 9, "D104", None),
    ("from-without-stream", SILVER, "stream(bronze.orders)", "bronze.orders", 1, "D104", "stream(bronze.orders)"),
    ("columns-empty", CUSTOMERS, "{customer_id: string, tier: string, since: timestamp, score: double}", "{}", 2, "D104", None),
    ("columns-text", CUSTOMERS, "{customer_id: string, tier: string, since: timestamp, score: double}", "all", 2, "D104", None),
    ("columns-item-without-name", CUSTOMERS, "score: double}", "score: double, x: {nullable: true}}", 2, "D105", None),
    ("missing-delay", GOLD, ", delay: 30 seconds", "", 2, "D105", None),
    ("missing-lookup-table", SILVER, "table: bronze.customers, ", "", 8, "D105", None),
    ("missing-measures", GOLD, "measures: {orders: count(*), revenue: sum(amount)}\n", "", 3, "D105", None),
    ("missing-that", SILVER, "that: order_id is not null, ", "", 5, "D105", None),
    ("window-without-event-time", GOLD, "event_time: {column: ordered_at, delay: 30 seconds}\n", "", 2, "D105", None),
    ("lookup-on-nothing", SILVER, "on: customer_id", "on: []", 8, "D104", None),
    ("lookup-no-columns", SILVER, "columns: [tier]", "columns: {}", 8, "D104", None),
    ("measures-none", GOLD, "{orders: count(*), revenue: sum(amount)}", "{}", 5, "D104", None),
    ("else-unknown", SILVER, "else: quarantine", "else: quarantin", 5, "D106", "quarantine"),
    ("drift-unknown", BRONZE, "format: json", "drift: widn", 2, "D106", "widen"),
    ("emit-unknown", GOLD, "emit: updates", "emit: update", 6, "D106", "updates"),
    ("engine-unknown", SILVER, "retention: 2 years", "engine: sparks", 10, "D106", "spark"),
    ("two-components", BRONZE, "{files: {path: data}}", "{files: {path: data}, generator: {}}", 1, "D106", None),
    ("slide-longer-than-every", GOLD, "{every: 1 minute}", "{every: 1 minute, slide: 2 minutes}", 3, "D106", None),
    ("duration-without-unit", SILVER, "2 years", "90", 10, "D107", None),
    ("duration-unit", SILVER, "delay: 30 seconds", "delay: 30 secnds", 6, "D107", None),
    ("duration-negative", SILVER, "delay: 30 seconds", "delay: -1 s", 6, "D107", None),
    ("duration-zero", GOLD, "every: 1 minute", "every: 0 minutes", 3, "D107", None),
    ("duration-below-ms", SILVER, "delay: 30 seconds", "delay: 0.5 ms", 6, "D107", None),
    ("dedup-within-nothing", SILVER, "delay: 30 seconds", "delay: 0 seconds", 7, "D107", None),
    ("type-unknown", BRONZE, "amount: decimal(12,2)", "amount: decimel(12,2)", 6, "D108", "decimal"),
    ("type-decimal-too-wide", BRONZE, "amount: decimal(12,2)", "amount: decimal(40,2)", 6, "D108", "decimal"),
    ("type-is-number", BRONZE, "day: date", "day: 1", 10, "D104", None),
    ("name-with-space", SILVER, "  big:", "  big one:", 3, "D110", None),
    ("name-reserved-derive", SILVER, "  big:", "  _big:", 3, "D111", "big"),
    ("name-reserved-column", BRONZE, "  day: date", "  _source: string", 10, "D111", "source"),
    ("name-reserved-window", GOLD, "orders: count(*)", "window_start: count(*)", 5, "D111", None),
    ("name-taken-by-partition", SILVER, "  big: amount > 100", "  ordered_at_date: day", 9, "D111", None),
    ("name-twice-by-case", BRONZE, "  day: date", "  Country: string", 10, "D113", None),
    ("key-twice-in-dedup", SILVER, "[order_id]}", "[order_id, order_id]}", 7, "D113", None),
    ("lookup-name-twice", SILVER, "columns: [tier]", "columns: {tier: country}", 8, "D307", None),
    ("derive-differs-in-case", SILVER, "  big: amount > 100", "  Country: upper(country)", 3, "D307", "country"),
    ("measure-named-as-group", GOLD, "orders: count(*)", "country: count(*)", 5, "D307", None),
    ("component-unknown", BRONZE, "source: {files:", "source: {file:", 1, "D202", "files"),
    ("format-unknown", BRONZE, "format: json", "format: jsn", 2, "D202", "json"),
    ("component-setting-unknown", BRONZE, "{path: data}", "{path: data, setle: 3}", 1, "D103", "settle"),
    ("component-setting-missing", BRONZE, "{path: data}", "{}", 1, "D105", None),
    ("component-setting-type", BRONZE, "{path: data}", "{path: data, settle: soon}", 1, "D203", None),
    ("component-needs-package", BRONZE, "{files: {path: data}}", "{kafka: {topic: orders}}", 1, "D204", None),
    ("table-unknown", SILVER, "stream(bronze.orders)", "stream(bronze.ordres)", 1, "D201", "bronze.orders"),
    ("table-name-wrong", SILVER, "stream(bronze.orders)", "stream(brons.orders)", 1, "D201", None),
    ("lookup-table-unknown", SILVER, "bronze.customers", "bronze.customer", 8, "D201", "bronze.customers"),
    ("no-input", SILVER, "from: stream(bronze.orders)\n", "", 1, "D205", None),
    ("two-inputs", SILVER, "retention: 2 years", "sql: select 1 as x", 10, "D206", None),
    ("format-on-stream", SILVER, "retention: 2 years", "format: json", 10, "D207", None),
    ("window-on-source", BRONZE, "format: json", "window: {every: 1 minute}", 2, "D207", None),
    ("emit-without-window", SILVER, "retention: 2 years", "emit: final", 10, "D207", None),
    ("select-on-window", GOLD, "emit: updates", "select: [country]", 6, "D207", None),
    ("columns-on-stream", SILVER, "retention: 2 years", "columns: {a: int}", 10, "D207", None),
    ("schedule-on-stream", SILVER, "retention: 2 years", "schedule: '@hourly'", 10, "D207", None),
    ("gold-below-silver", SILVER, "bronze.customers", "gold.revenue", 8, "D208", None),
    ("python-without-columns", SILVER, "retention: 2 years", "python: clean:orders", 10, "D105", None),
    ("gap-with-every", GOLD, "{every: 1 minute}", "{every: 1 minute, gap: 1 minute}", 3, "D207", None),
    ("gap-with-slide", GOLD, "{every: 1 minute}", "{gap: 1 minute, slide: 10 seconds}", 3, "D207", None),
    ("gap-is-nothing", GOLD, "{every: 1 minute}", "{gap: 0 minutes}", 3, "D107", None),
    ("late-unknown", GOLD, "emit: updates", "late: updates", 6, "D106", "update"),
    ("late-without-window", SILVER, "retention: 2 years", "late: update", 10, "D207", None),
    ("late-update-of-sessions", GOLD, "{every: 1 minute}", "{gap: 1 minute}\nlate: update", 4, "D207", None),
    ("late-update-with-dedup", GOLD, "emit: updates", "dedup: {keys: [order_id]}\nlate: update", 7, "D207", None),
    ("engine-spark", GOLD, "emit: updates", "engine: spark", 6, "P205", None),
    ("dedup-without-event-time", SILVER, "event_time: {column: ordered_at, delay: 30 seconds}\n", "", 6, "P202", None),
    ("event-time-missing-column", SILVER, "column: ordered_at", "column: orderd_at", 6, "P110", "ordered_at"),
    ("event-time-is-date", SILVER, "column: ordered_at", "column: day", 6, "D301", None),
    ("partition-unknown-column", SILVER, "[date(ordered_at)]", "[date(ordered)]", 9, "P110", "ordered_at"),
    ("partition-unknown-function", SILVER, "[date(ordered_at)]", "[hours(ordered_at)]", 9, "D302", "hour(ordered_at)"),
    ("partition-hour-of-date", SILVER, "[date(ordered_at)]", "[hour(day)]", 9, "D302", None),
    ("partition-by-decimal", SILVER, "[date(ordered_at)]", "[amount]", 9, "D302", None),
    ("z-order-unknown", SILVER, "retention: 2 years", "maintain: {z_order: [contry]}", 10, "D312", "country"),
    ("z-order-of-partition", SILVER, "retention: 2 years", "maintain: {z_order: [ordered_at_date]}", 10, "D312", None),
    ("partition-expression", SILVER, "[date(ordered_at)]", "[amount + (1)]", 9, "D302", None),
    ("lookup-key-types", SILVER, "on: customer_id", "on: {amount: customer_id}", 8, "D303", None),
    ("lookup-column-unknown", SILVER, "columns: [tier]", "columns: [tiers]", 8, "P110", "tier"),
    ("lookup-key-unknown", SILVER, "on: customer_id", "on: {customer: customer_id}", 8, "P110", "customer_id"),
    ("lookup-key-unknown-there", SILVER, "on: customer_id", "on: {customer_id: customer}", 8, "P110", "customer_id"),
    ("schema-unknown", CUSTOMERS, "columns: {customer_id: string, tier: string, since: timestamp, score: double}\n", "", 1, "D304", None),
    ("rule-not-boolean", SILVER, "order_id is not null", "amount + 1", 5, "D305", None),
    ("dedup-by-array", SILVER, "keys: [order_id]", "keys: [items]", 7, "D306", None),
    ("dedup-unknown-column", SILVER, "keys: [order_id]", "keys: [orderid]", 7, "P110", "order_id"),
    ("group-by-array", GOLD, "group_by: [country]", "group_by: [items]", 4, "D306", None),
    ("group-by-unknown", GOLD, "group_by: [country]", "group_by: [contry]", 4, "P110", "country"),
    ("derive-unknown-column", SILVER, "amount > 100", "amout > 100", 3, "P110", "amount"),
    ("derive-sees-no-sibling", SILVER, "  big: amount > 100", "  big: amount > 100\n  huge: not big", 4, "P110", None),
    ("derive-syntax", SILVER, "amount > 100", "amount >", 3, "P112", None),
    ("measure-unknown-column", GOLD, "sum(amount)", "sum(amuont)", 5, "P110", "amount"),
    ("measure-not-aggregate", GOLD, "sum(amount)", "amount", 5, "P113", "max(amount)"),
    ("select-unknown-column", SILVER, "partition_by: [date(ordered_at)]", "select: [order_id, contry, ordered_at, amount, country]", 9, "P110", "country"),
    ("join-unknown-key", SILVER, "retention: 2 years", JOIN.replace("kind", "knd"), 10, "D103", "kind"),
    ("join-without-keys", SILVER, "retention: 2 years", JOIN.replace("on: customer_id, ", ""), 10, "D105", None),
    ("join-of-no-stream", SILVER, "retention: 2 years", JOIN.replace("stream(bronze.customers)", "bronze.customers"), 10, "D104", "stream(bronze.customers)"),
    ("join-of-unknown", SILVER, "retention: 2 years", JOIN.replace("bronze.customers", "bronze.customer"), 10, "D201", "bronze.customers"),
    ("join-of-itself", SILVER, "retention: 2 years", JOIN.replace("bronze.customers", "silver.orders"), 10, "D209", None),
    ("join-kind", SILVER, "retention: 2 years", JOIN.replace("inner", "iner"), 10, "D106", "inner"),
    ("join-without-bounds", SILVER, "retention: 2 years", JOIN.replace("{after: 1 hour}", "{}"), 10, "D105", None),
    ("join-bound", SILVER, "retention: 2 years", JOIN.replace("1 hour", "soon"), 10, "D107", None),
    ("join-key-unknown", SILVER, "retention: 2 years", JOIN.replace("on: customer_id", "on: custmer_id"), 10, "P110", "customer_id"),
    ("join-key-types", SILVER, "retention: 2 years", JOIN.replace("on: customer_id", "on: {amount: customer_id}"), 10, "D303", None),
    ("join-key-nested", SILVER, "retention: 2 years", JOIN.replace("on: customer_id", "on: {items: customer_id}"), 10, "D306", None),
    ("join-column-unknown", SILVER, "retention: 2 years", JOIN.replace("[score]", "[scor]"), 10, "P110", "score"),
    ("join-column-twice", SILVER, "retention: 2 years", JOIN.replace("[score]", "{score: country}"), 10, "D307", None),
    ("join-column-is-ours", SILVER, "retention: 2 years", JOIN.replace("[score]", "{score: _score}"), 10, "D111", "score"),
    ("join-time-is-no-timestamp", SILVER, "retention: 2 years", JOIN.replace("column: since", "column: tier"), 10, "D301", None),
    ("join-time-unknown", SILVER, "retention: 2 years", JOIN.replace("column: since", "column: sinc"), 10, "P110", "since"),
    ("join-of-a-source", BRONZE, "format: json", JOIN, 2, "D207", None),
    ("join-with-windows", GOLD, "emit: updates", JOIN, 6, "D207", None),
    ("python-name", SILVER, "retention: 2 years", "python: clean.orders\ncolumns: {order_id: string, amount: double, country: string, customer_id: string, ordered_at: timestamp}", 10, "D211", "clean:orders"),
]  # fmt: skip


def told(folder):
    with pytest.raises(ProjectError) as error:
        compile_project(read_project(folder), {})
    return error.value.diagnostics


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "code", "near"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS]
)
def test_one_mistake_gives_one_diagnostic(write, sample, file, old, new, line, code, near):
    assert old in sample[file]
    found = told(write({file: sample[file].replace(old, new, 1)}))
    assert [(d.file, d.line, d.code, d.nearest) for d in found] == [(file, line, code, near)], "\n".join(
        map(str, found)
    )
    assert found[0].fix
    assert found[0].column >= 1
    assert found[0].code in CODES


def test_final_without_event_time(write, sample):
    text = sample[GOLD].replace("event_time: {column: ordered_at, delay: 30 seconds}\n", "").replace("updates", "final")
    assert [(d.line, d.code) for d in told(write({GOLD: text}))] == [(5, "P201")]


def test_a_column_hidden_by_a_mistake_is_not_told_again(write, sample):
    files = {
        SILVER: sample[SILVER].replace("amount > 100", "amout > 100"),
        GOLD: sample[GOLD].replace("sum(amount)", "sum(case when big then amount end)"),
        "tables/gold/big.yaml": "sql: select count(*) as n from silver.orders where big\n",
    }
    assert [(d.file, d.code) for d in told(write(files))] == [(SILVER, "P110")]


def test_a_broken_lookup_hides_its_columns(write, sample):
    files = {
        SILVER: sample[SILVER].replace("on: customer_id", "on: 5"),
        GOLD: sample[GOLD].replace("[country]", "[country, tier]"),
    }
    assert [(d.file, d.line, d.code) for d in told(write(files))] == [(SILVER, 8, "D104")]


def test_a_broken_table_hides_what_reads_it_but_not_its_neighbours(write, sample):
    files = {
        BRONZE: "source: [\n",
        SILVER: sample[SILVER].replace("order_id is not null", "order_id is not"),
        CUSTOMERS: sample[CUSTOMERS].replace("double", "duoble"),
    }
    assert [(d.file, d.line, d.code) for d in told(write(files))] == [
        (CUSTOMERS, 2, "D108"),
        (BRONZE, 2, "D101"),
        (SILVER, 5, "P112"),
    ]


def test_many_mistakes_of_all_kinds_are_told_at_once(write, sample):
    silver = (
        sample[SILVER]
        .replace("amount > 100", "amout > 100")
        .replace("keys: [order_id]", "keys: [orderid]")
        .replace("columns: [tier]", "columns: [teir]")
        .replace("2 years", "2 yeers")
        .replace("partition_by", "partitionby")
    )
    gold = sample[GOLD].replace("group_by: [country]", "group_by: [contry]").replace("1 minute", "1 minuet")
    files = {
        CONFIG: "project: shop\nlaek: x\n",
        SILVER: silver,
        GOLD: gold,
        "tables/gold/other.yaml": "sql: select contry from silver.orders\n",
        "tables/gold/third.yaml": "sql: select * from silver.order\n",
        "tables/silver/brnoze.yml": "",
    }
    found = [(d.file, d.line, d.code, d.nearest) for d in told(write(files))]
    assert found == sorted(found, key=lambda one: one[:2])
    assert set(found) == {
        (CONFIG, 2, "D103", "lake"),
        (SILVER, 3, "P110", "amount"),
        (SILVER, 7, "P110", "order_id"),
        (SILVER, 8, "P110", "tier"),
        (SILVER, 9, "D103", "partition_by"),
        (SILVER, 10, "D107", None),
        (GOLD, 3, "D107", None),
        ("tables/gold/third.yaml", 1, "P109", "silver.orders"),
        ("tables/silver/brnoze.yml", 1, "D112", "tables/silver/brnoze.yaml"),
    }


def test_the_spot_inside_a_query_is_told(write):
    sql = "sql: |\n  -- by country\n  select country,\n         sum(amuont) as revenue\n  from silver.orders\n  group by country\n"
    (found,) = told(write({"tables/gold/by_country.yaml": sql}))
    assert (found.line, found.column, found.code, found.nearest) == (4, 14, "P110", "amount")
    assert str(found).startswith("tables/gold/by_country.yaml:4:14 P110 no such column")


@pytest.mark.parametrize(
    ("sql", "code", "near"),
    [
        (
            "select order_id, amount from silver.orders o join bronze.customer c on o.customer_id = c.customer_id",
            "P109",
            "bronze.customers",
        ),
        ("select order_id from", "P112", None),
        ("select count(*) as _n from silver.orders", "D111", "n"),
        ("select frobnicate(amount) as x from silver.orders", "P101", "locate"),
        ("delete from silver.orders", None, None),
        ("select read_csv('x') as x from silver.orders", "P101", None),
    ],
)
def test_queries(write, sql, code, near):
    (found,) = told(write({"tables/gold/other.yaml": f'sql: "{sql}"\n'}))
    assert (found.file, found.line) == ("tables/gold/other.yaml", 1)
    assert code is None or (found.code, found.nearest) == (code, near)


def test_a_function_that_only_duckdb_has_needs_the_mark(write, sample):
    bad = sample[SILVER].replace("amount > 100", "approx_count_distinct(amount) > 1")
    (found,) = told(write({SILVER: bad}))
    assert (found.file, found.line, found.column) == (SILVER, 3, 8)
    assert found.code.startswith("P1")


def test_a_sibling_is_explained(write, sample):
    text = sample[SILVER].replace("  big: amount > 100", "  big: amount > 100\n  huge: big and amount > 1000")
    (found,) = told(write({SILVER: text}))
    assert found.code == "P110"
    assert "derive sees input columns only" in found.fix


def test_every_code_has_a_title_and_a_remedy():
    for code, told_of in CODES.items():
        assert told_of.title, code
        assert told_of.remedy, code
        assert told_of.remedy[0].islower() or told_of.remedy[0] in "`'", code
        assert not told_of.remedy.endswith("."), code
