# ruff: noqa: E501 - declarations are easier to read on one line

import pytest

from lodestream.errors import ConfigError
from lodestream.model.batch import BatchLimit
from lodestream.model.table import Component, Dedup, EventTime, Expectation, Lookup, Named, TableName, Window
from lodestream.model.types import parse_type
from lodestream.project.load import load_project, read_project
from lodestream.project.mistakes import ProjectError

SILVER = TableName("silver", "orders")


def mistakes_of(folder):
    return [(d.file, d.line, d.code, d.nearest) for d in read_project(folder).mistakes]


def test_a_project_is_read_whole(write):
    text = "project: shop\nbatch: {rows_max: 10, interval: 2 s}\nstate: {memory: 1.5 GiB}\nserver: {port: 8080}\n"
    root = write({"lodestream.yaml": text})
    project = load_project(root)
    assert project.name == "shop"
    assert project.lake == f"{root}/lake"
    assert project.limit == BatchLimit(rows_max=10)
    assert project.batch.interval_us == 2_000_000
    assert project.state_bytes_max == 3 << 29
    assert project.server == {"port": 8080}
    assert [str(name) for name in project.tables] == [
        "bronze.customers",
        "bronze.orders",
        "gold.revenue",
        "silver.orders",
    ]
    table = project.tables[SILVER]
    assert table.from_ == TableName("bronze", "orders")
    assert table.derive == (Named("big", "amount > 100"),)
    assert table.expect == (Expectation("has_id", "order_id is not null", "quarantine"),)
    assert table.event_time == EventTime("ordered_at", 30_000_000)
    assert table.dedup == Dedup(("order_id",))
    assert table.lookups == (
        Lookup(TableName("bronze", "customers"), (("customer_id", "customer_id"),), (("tier", "tier"),)),
    )
    assert table.partition_by == ("date(ordered_at)",)
    assert table.retention_us == 2 * 365 * 86_400_000_000
    bronze = project.tables[TableName("bronze", "orders")]
    assert bronze.source == Component("files", {"path": "data"})
    assert bronze.format == Component("json")
    assert bronze.columns["amount"].type == parse_type("decimal(12,2)")
    gold = project.tables[TableName("gold", "revenue")]
    assert gold.window == Window(60_000_000)
    assert gold.group_by == (Named("country", "country"),)
    assert gold.measures == (Named("orders", "count(*)"), Named("revenue", "sum(amount)"))


def test_every_value_has_its_place(write):
    project = load_project(write())
    place = project.place(SILVER, "expect", "has_id", "that")
    assert (place.file, place.line, place.column) == ("tables/silver/orders.yaml", 5, 18)
    assert project.place(SILVER, "lookups", 0, "on").line == 8
    assert project.place(SILVER, "dedup", "keys", 0).column == 16
    assert project.place(SILVER, "never", "written").line == 1
    assert project.tables[SILVER].declared_at.line == 1


def test_environments_change_the_lake(write):
    root = write(
        {
            "lodestream.yaml": "project: shop\nenvironments:\n  dev: {lake: /tmp/dev}\n  test: {}\n  ci: {lake: 's3://b/x'}\n"
        }
    )
    assert load_project(root).lake == f"{root}/lake"
    assert load_project(root, "dev").lake == "/tmp/dev"
    assert load_project(root, "test").lake == f"{root}/lake"
    assert load_project(root).lake_of("ci") == "s3://b/x"
    with pytest.raises(ProjectError, match=r"D116 no such environment. environment='dve' nearest='dev'"):
        load_project(root, "dve")


def test_references_stay_text(write):
    text = "source: {files: {path: '${env:DATA}', settle: '${env:SETTLE}'}}\ncolumns: {a: int}\n"
    project = load_project(
        write({"tables/bronze/other.yaml": text, "lodestream.yaml": "project: x\nlake: ${env:LAKE}\n"})
    )
    assert project.tables[TableName("bronze", "other")].source.settings["path"] == "${env:DATA}"
    assert project.lake == "${env:LAKE}"


@pytest.mark.parametrize(
    ("text", "lookups"),
    [
        ("enrich: {lookup: {table: bronze.customers, on: customer_id, columns: [tier]}}", [([("customer_id",) * 2], [("tier",) * 2])]),
        ("enrich: {lookup: {table: bronze.customers, on: {country: customer_id}, columns: {tier: level}}}", [([("country", "customer_id")], [("tier", "level")])]),
        ("enrich: {lookup: {table: bronze.customers, on: [customer_id, day], columns: tier}}", [([("customer_id",) * 2, ("day",) * 2], [("tier",) * 2])]),
        ("enrich:\n  lookup:\n    - {table: bronze.customers, on: customer_id, columns: [tier]}\n    - {table: bronze.customers, on: customer_id, columns: [score]}", [([("customer_id",) * 2], [("tier",) * 2]), ([("customer_id",) * 2], [("score",) * 2])]),
        ("enrich:\n  - lookup: {table: bronze.customers, on: customer_id, columns: [tier]}\n  - lookup: {table: bronze.customers, on: customer_id, columns: [score]}", [([("customer_id",) * 2], [("tier",) * 2]), ([("customer_id",) * 2], [("score",) * 2])]),
    ],
)  # fmt: skip
def test_lookups_may_be_written_in_every_form(write, text, lookups):
    project = load_project(write({"tables/silver/other.yaml": f"from: stream(bronze.orders)\n{text}\n"}))
    found = project.tables[TableName("silver", "other")].lookups
    assert [(list(one.on), list(one.columns)) for one in found] == lookups


def test_columns_may_be_a_list(write):
    text = """\
source: generator
columns:
  - {name: a, type: int, nullable: false, comment: the key}
  - name: b
    type: array<struct<x:int,y:string>>
"""
    columns = load_project(write({"tables/bronze/other.yaml": text})).tables[TableName("bronze", "other")].columns
    assert [(c.name, str(c.type), c.nullable, c.comment) for c in columns] == [
        ("a", "int", False, "the key"),
        ("b", "array<struct<x:int,y:string>>", True, ""),
    ]


@pytest.mark.parametrize(
    ("file", "line", "code", "near"),
    [
        ("tables/silver/orders.yml", 1, "D112", "tables/silver/orders.yaml"),
        ("tables/sliver/other.yaml", 1, "D112", "tables/silver/other.yaml"),
        ("tables/other.yaml", 1, "D112", None),
        ("tables/silver/deep/other.yaml", 1, "D112", None),
        ("tables/silver/Other-Table.yaml", 1, "D110", "other_table"),
        ("tables/silver/2013.yaml", 1, "D110", None),
        ("tables/silver/orders__quarantine.yaml", 1, "D111", None),
    ],
)
def test_a_file_in_the_wrong_place(write, file, line, code, near):
    assert mistakes_of(write({file: "from: stream(bronze.orders)\n"})) == [(file, line, code, near)]


def test_other_files_are_left_alone(write):
    changes = {"tables/silver/notes.md": "x", "tables/silver/.orders.yaml": "x: [", "schemas/x.yaml": "["}
    assert not mistakes_of(write(changes))


def test_no_project_and_no_tables(tmp_path, write):
    with pytest.raises(ProjectError, match="D115 no project here"):
        read_project(str(tmp_path / "nowhere"))
    names = ["bronze/orders", "bronze/customers", "silver/orders", "gold/revenue"]
    empty = write({f"tables/{name}.yaml": None for name in names})
    assert mistakes_of(empty) == [("lodestream.yaml", 1, "D112", None)]


@pytest.mark.parametrize("schedule", ["@hourly", "every 5 minutes", "*/5 * * * *", "0 6,18 * 1-6 1-5", "15 3 1 */2 *"])
def test_schedules(write, schedule):
    text = f"sql: select 1 as x\nschedule: '{schedule}'\n"
    project = load_project(write({"tables/gold/other.yaml": text}))
    assert project.tables[TableName("gold", "other")].schedule == schedule


@pytest.mark.parametrize(
    ("schedule", "near"),
    [
        ("@hourley", "@hourly"),
        ("hourly", "@hourly"),
        ("every day at noon", None),
        ("every 10 ms", None),
        ("* * * *", None),
        ("60 * * * *", None),
        ("* * 0 * *", None),
        ("*/0 * * * *", None),
        ("5-1 * * * *", None),
        ("a b c d e", None),
    ],
)
def test_not_a_schedule(write, schedule, near):
    text = f"sql: select 1 as x\nschedule: '{schedule}'\n"
    assert mistakes_of(write({"tables/gold/other.yaml": text})) == [("tables/gold/other.yaml", 2, "D114", near)]


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("30 seconds", 30_000_000),
        ("30s", 30_000_000),
        ("1 minute", 60_000_000),
        ("2 hours", 7_200_000_000),
        ("500 ms", 500_000),
        ("1.5 seconds", 1_500_000),
        ("90 Days", 90 * 86_400_000_000),
        ("2 weeks", 14 * 86_400_000_000),
        ("1 year", 365 * 86_400_000_000),
    ],
)
def test_durations(write, text, micros):
    project = load_project(write({"tables/silver/other.yaml": f"from: stream(bronze.orders)\nretention: {text}\n"}))
    assert project.tables[TableName("silver", "other")].retention_us == micros


def test_circles_are_told_once_and_name_their_way(write):
    files = {
        "tables/silver/a.yaml": "from: stream(silver.c)\n",
        "tables/silver/b.yaml": "from: stream(silver.a)\n",
        "tables/silver/c.yaml": "from: stream(bronze.orders)\nenrich: {lookup: {table: silver.b, on: order_id, columns: [x]}}\n",
        "tables/silver/d.yaml": "from: stream(silver.d)\n",
        "tables/gold/e.yaml": "sql: select * from gold.f\n",
        "tables/gold/f.yaml": "sql: |\n  select * from gold.e\n",
    }
    found = [str(d) for d in read_project(write(files)).mistakes]
    assert found == [
        "tables/gold/e.yaml:1:6 D209 tables in a circle. cycle='gold.e reads gold.f reads gold.e'",
        "tables/silver/a.yaml:1:7 D209 tables in a circle. cycle='silver.a reads silver.c reads silver.b reads silver.a'",
        "tables/silver/d.yaml:1:7 D209 tables in a circle. cycle='silver.d reads silver.d'",
    ]


@pytest.mark.parametrize(
    ("above", "told"),
    [
        ("from: stream(silver.orders)\nevent_time: {column: ordered_at, delay: 1 s}\nwindow: {every: 1 day}\nmeasures: {n: count(*)}\n", "windows with emit: updates cannot be streamed from"),
        ("from: stream(silver.orders)\nevent_time: {column: ordered_at, delay: 1 s}\nwindow: {every: 1 day}\nmeasures: {n: count(*)}\nemit: final\n", "only windows can be made of a stream of windows"),
        ("sql: select * from silver.orders\n", "a batch table cannot be streamed from"),
    ],
)  # fmt: skip
def test_what_is_no_stream_cannot_be_streamed_from(write, above, told):
    files = {"tables/gold/above.yaml": above, "tables/gold/below.yaml": "from: stream(gold.above)\n"}
    (found,) = read_project(write(files)).mistakes
    assert (found.file, found.line, found.code, found.message) == ("tables/gold/below.yaml", 1, "D210", told)
    assert "sql: select … from gold.above" in found.fix


ABOVE = "from: stream(silver.orders)\nevent_time: {column: ordered_at, delay: 1 s}\nmeasures: {n: count(*)}\n"
BELOW = "from: stream(gold.above)\nwindow: {every: 1 day}\nmeasures: {m: sum(n)}\n"


@pytest.mark.parametrize(
    ("above", "below", "told"),
    [
        ("window: {every: 1 hour}\nemit: final\n", "", []),
        ("window: {gap: 1 hour}\nemit: final\n", "", []),
        ("window: {every: 1 hour}\n", "", ["1 D210 windows with emit: updates cannot be streamed from"]),
        (
            "window: {every: 1 hour}\nemit: final\nlate: update\n", "",
            ["1 D210 windows with late: update cannot be streamed from"],
        ),
        (
            "window: {every: 1 hour}\nemit: final\n", "event_time: {column: window_end, delay: 1 s}\n",
            ["4 D207 event_time on windows of windows"],
        ),
        ("window: {every: 1 hour}\nemit: final\n", "dedup: {keys: [n]}\n", ["4 D207 dedup on windows of windows"]),
        (
            "window: {every: 1 hour}\nemit: final\n", "derive: {window_time: window_end}\n",
            ["4 D111 this name is taken by the windows above"],
        ),
    ],
)  # fmt: skip
def test_what_windows_of_windows_may_be(write, above, below, told):
    files = {"tables/gold/above.yaml": ABOVE + above, "tables/gold/below.yaml": BELOW + below}
    found = read_project(write(files)).mistakes
    assert [f"{d.line} {d.code} {d.message}" for d in found] == told
    assert all(d.file == "tables/gold/below.yaml" and d.fix for d in found)


def test_the_error_is_a_config_error_that_lists_all(write):
    files = {
        "lodestream.yaml": "project: shop\nlaek: x\n",
        "tables/silver/orders.yaml": "fron: stream(bronze.orders)\n",
    }
    with pytest.raises(ConfigError) as error:
        load_project(write(files))
    assert isinstance(error.value, ProjectError)
    assert [(d.file, d.code) for d in error.value.diagnostics] == [
        ("lodestream.yaml", "D103"),
        ("tables/silver/orders.yaml", "D103"),
    ]
    text = str(error.value)
    assert text.startswith("2 mistakes in the project\nlodestream.yaml:2:1 D103 unknown key in the project.")
    assert "tables/silver/orders.yaml:1:1 D103 unknown key in the table. key='fron' nearest='from'\n    fix: " in text
    assert error.value.exit_code == 3
