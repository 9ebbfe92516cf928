import textwrap

import pytest

from lodestream.errors import ConfigError
from lodestream.model.types import Schema
from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from lodestream.testing.pipeline import find_cases, run_case

TABLES = {
    "bronze/orders": """
        source: {files: {path: data}}
        columns: {id: string, at: timestamp, country: string, amount: "decimal(10,2)"}
    """,
    "bronze/tiers": """
        source: {files: {path: tiers}}
        columns: {country: string, tier: string}
    """,
    "silver/orders": """
        from: stream(bronze.orders)
        derive: {label: upper(id)}
        expect: {positive: {that: amount > 0, else: quarantine}, small: {that: amount < 1000, else: drop}}
        event_time: {column: at, delay: 10 seconds}
        dedup: {keys: [id]}
        enrich: {lookup: {table: bronze.tiers, on: country, columns: [tier]}}
        partition_by: [date(at)]
    """,
    "gold/per_minute": """
        from: stream(silver.orders)
        event_time: {column: at, delay: 10 seconds}
        window: {every: 1 minute}
        group_by: [country]
        measures: {orders: count(*), total: sum(amount)}
        emit: updates
    """,
    "gold/totals": """
        sql: select country, sum(amount) as total from silver.orders group by country
    """,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "lodestream.yaml").write_text("project: p\nlake: lake\n")
    for name, text in TABLES.items():
        file = root / "tables" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    (root / "tests").mkdir()
    return load_project(str(root))


@pytest.fixture(scope="module")
def flows(project):
    return compile_project(project, {}, lambda _: Schema()).flows


def run(project, flows, text):
    with open(f"{project.root}/tests/one.yaml", "w") as file:
        file.write(textwrap.dedent(text))
    (case,) = find_cases(project.root, ["tests/one.yaml"])
    return run_case(project, flows, case)


SILVER = """
    table: silver.orders
    given:
      bronze.tiers: [{{country: DE, tier: gold}}]
      bronze.orders:
        - {{id: a, at: 2024-05-01T12:00:00Z, country: DE, amount: 1.50}}
        - {{id: b, at: 2024-05-01T12:00:01Z, country: FR, amount: -1}}
        - {{id: c, at: 2024-05-01T12:00:02Z, country: FR, amount: 5000}}
        - {{id: a, at: 2024-05-01T12:00:03Z, country: DE, amount: 1.50}}
        - {{id: d, country: DE, amount: 2}}
    expect:
      rows: [{rows}]
      quarantine:
        - {{kind: quarantine, reasons: ["expect:positive"]}}
        - {{kind: dropped, reasons: ["drop:small"]}}
        - {{kind: duplicate, _position: 3}}
        - {{kind: quarantine, reasons: [null_event_time]}}
"""


def test_stages_run_as_they_do_in_the_lake(project, flows):
    row = "{id: a, label: A, tier: gold, amount: 1.50, at_date: 2024-05-01, _position: 0}"
    assert run(project, flows, SILVER.format(rows=row)).differences == ()


def test_a_wrong_expectation_fails(project, flows):
    found = run(project, flows, SILVER.format(rows="{id: a, label: B}"))
    assert not found.ok
    assert [line[0] for line in found.differences] == ["-", "+"]


def test_batches_move_the_watermark(project, flows):
    text = """
        table: gold.per_minute
        given:
          silver.orders:
            batches:
              - [{id: a, at: 2024-05-01T12:00:00Z, country: DE, amount: 1}]
              - [{id: b, at: 2024-05-01T12:05:00Z, country: DE, amount: 2}]
              - [{id: c, at: 2024-05-01T12:00:30Z, country: DE, amount: 4}]
        expect:
          rows:
            - {window_start: 2024-05-01T12:00:00Z, orders: 1, total: 1.00}
            - {window_start: 2024-05-01T12:05:00Z, orders: 1, total: 2.00}
          quarantine: [{kind: late, _position: 2}]
    """
    assert run(project, flows, text).differences == ()


def test_records_are_decoded_and_the_clock_is_the_tests(project, flows):
    text = """
        table: bronze.orders
        clock: 2020-02-02T00:00:00Z
        given: {records: ['{"id": "a", "amount": 1.5}', '{"id": ']}
        expect:
          rows: [{id: a, amount: 1.5, _ingest_time: 2020-02-02T00:00:00Z}]
          quarantine: [{kind: quarantine, reasons: ["parse:json"]}]
    """
    assert run(project, flows, text).differences == ()


def test_queries_see_whole_tables(project, flows):
    text = """
        table: gold.totals
        given: {silver.orders: [{country: DE, amount: 1}, {country: DE, amount: 2.5}]}
        expect: {rows: [{country: DE, total: 3.50}]}
    """
    assert run(project, flows, text).differences == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "mapping"),
        ("table: silver.orders", "given"),
        ("{table: nope, given: {}, expect: {}}", "table name"),
        ("{table: silver.orders, givn: {}, expect: {}}", "nearest='given'"),
        ("{table: silver.orders, given: {bronze.orders: 1}, expect: {}}", "list"),
        ("{table: silver.orders, given: {}, expect: {rows: 1}}", "list"),
        ("{table: silver.orders, clock: noon, given: {}, expect: {}}", "noon"),
        ("{table: [", "D1"),
    ],
)
def test_what_is_not_a_test_is_told(project, flows, text, says):
    with pytest.raises(ConfigError, match=says):
        run(project, flows, text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("bronze.orders: []", "missing='bronze.tiers'"),
        ("bronze.orders: [], bronze.tiers: [], gold.totals: []", "does not read this"),
        ("bronze.orders: [{idd: a}], bronze.tiers: []", "nearest='id'"),
        ("bronze.orders: [{amount: much}], bronze.tiers: []", "column='amount'"),
    ],
)
def test_what_cannot_be_given_fails_the_test(project, flows, given, says):
    found = run(project, flows, f"{{table: silver.orders, given: {{{given}}}, expect: {{rows: []}}}}")
    assert not found.ok
    assert says in found.differences[0]


def test_a_missing_table_is_a_mistake_of_the_test(project, flows):
    with pytest.raises(ConfigError, match=r"nearest='silver\.orders'"):
        run(project, flows, "{table: silver.order, given: {}, expect: {}}")
