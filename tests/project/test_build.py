import dataclasses
import subprocess
import sys

import pytest

import lodestream
from lodestream.model.table import TableName
from lodestream.project.build import define_project, table
from lodestream.project.load import load_project
from lodestream.project.mistakes import ProjectError

TABLES = {
    "bronze.orders": {
        "source": {"files": {"path": "data"}},
        "format": "json",
        "columns": {
            "order_id": "string",
            "customer_id": "string",
            "amount": "decimal(12,2)",
            "country": "string",
            "items": "array<string>",
            "ordered_at": "timestamp",
            "day": "date",
        },
    },
    "bronze.customers": {
        "source": {"files": {"path": "customers"}},
        "columns": {"customer_id": "string", "tier": "string", "since": "timestamp", "score": "double"},
    },
    "silver.orders": {
        "from_": "stream(bronze.orders)",
        "derive": {"big": "amount > 100"},
        "expect": {"has_id": {"that": "order_id is not null", "else": "quarantine"}},
        "event_time": {"column": "ordered_at", "delay": "30 seconds"},
        "dedup": {"keys": ["order_id"]},
        "enrich": {"lookup": {"table": "bronze.customers", "on": "customer_id", "columns": ["tier"]}},
        "partition_by": ["date(ordered_at)"],
        "retention": "2 years",
    },
    "gold.revenue": {
        "from_": "stream(silver.orders)",
        "event_time": {"column": "ordered_at", "delay": "30 seconds"},
        "window": {"every": "1 minute"},
        "group_by": ["country"],
        "measures": {"orders": "count(*)", "revenue": "sum(amount)"},
        "emit": "updates",
    },
}


def test_files_and_python_give_the_same_model(write):
    root = write()
    from_files = load_project(root)
    one_by_one = define_project("shop", [table(name, **keys) for name, keys in TABLES.items()], root=root, lake="lake")
    at_once = define_project("shop", TABLES, root=root)
    for other in (one_by_one, at_once):
        assert dict(other.tables) == dict(from_files.tables)
        same = {"tables": {}, "locations": {}, "unsure": {}}
        assert dataclasses.replace(other, **same) == dataclasses.replace(from_files, **same)


def test_a_mistake_points_to_the_call():
    with pytest.raises(ProjectError) as error:
        table("silver.orders", from_="stream(bronze.orders)", deriv={"x": "1"}, retention="soon")  # the line told
    found = error.value.diagnostics
    assert {(d.code, d.nearest) for d in found} == {("D103", "derive"), ("D107", None)}
    (line,) = {d.line for d in found}
    assert found[0].file == __file__
    with open(__file__) as file:
        assert "# the line told" in file.readlines()[line - 1]


def test_mistakes_between_tables_are_told_together():
    with pytest.raises(ProjectError) as error:
        define_project("x", {"silver.a": {"from_": "stream(bronze.b)", "drive": {}}, "silvr.c": {}}, lkae="x")
    assert [d.code for d in error.value.diagnostics] == ["D103", "D103", "D201", "D201"]


def test_a_table_cannot_be_declared_twice():
    one = table("bronze.a", source="generator")
    with pytest.raises(ProjectError, match="D113 table declared twice"):
        define_project("x", [one, one])


def test_a_wrong_table_name():
    with pytest.raises(ProjectError, match="D201 not a table name"):
        table("orders", source="generator")


def test_public_names_are_there():
    assert lodestream.table is table
    assert lodestream.Table.__name__ == "Table"
    assert lodestream.TableName("silver", "x") == TableName("silver", "x")
    assert set(lodestream.__all__) <= set(dir(lodestream))
    for name in lodestream.__all__:
        assert getattr(lodestream, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lodestream.nothing


def test_importing_costs_nothing():
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import lodestream; "
        "cost = time.process_time() - start; new = {n.partition('.')[0] for n in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)), cost)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, _, cost = out.strip().rpartition(" ")
    assert names == "['lodestream']"
    assert float(cost) < 0.05
