"""How tables stand, for those who may see all and for those who may not; the graph; quality."""

import pytest

from lodestream.model.table import LAYERS
from tests.apis.console.conftest import TABLES, People, T, grants, order, serve
from tests.engines.lakes import Lab, wait_for

FIGURES = ("rows", "files", "size_bytes", "rate_per_s", "max_event_us", "freshness_s", "watermark_us", "accounted",
           "quarantine_open", "backlog")  # fmt: skip


def by_table(told):
    return {entry["table"]: entry for entry in told["tables"]}


def test_a_lake_without_anything(tmp_path):
    lab = Lab(tmp_path / "lab")
    lab.table("bronze.orders", TABLES["bronze.orders"])
    with serve(lab, People({"ana": {}})) as served:
        told = served.get("/api/overview").json()
        assert told["sentence"] == "No table is filled yet."
        assert [entry["state"] for entry in told["tables"]] == ["missing"]
        assert served.get("/api/flow").json()["nodes"][0]["state"] == "missing"
        other = served.get("/api/overview", "ana").json()
        assert (other["tables"], other["sentence"]) == ([], "There is no table to see yet.")
        assert served.get("/api/flow", "ana").json() == {"nodes": [], "edges": []}
        assert served.get("/api/quality", "ana").json() == {"tables": []}


def test_the_owner_sees_all(served):
    told = served.get("/api/overview").json()
    tables = by_table(told)
    assert list(tables) == sorted(TABLES)
    silver = tables["silver.orders"]
    assert silver["counts"] == {"input": 12, "output": 10, "quarantine": 2}
    assert (silver["rows"], silver["accounted"], silver["quarantine_open"], silver["backlog"]) == (10, True, 2, 0)
    assert silver["freshness_s"] > 0
    assert tables["gold.total"]["accounted"] is None
    assert set(told["history"]["rate"]) == set(LAYERS)
    assert len(told["history"]["t_us"]) == len(told["history"]["rate"]["gold"]) == 600
    assert told["totals"]["quarantine_open"] == 2
    assert "up to date" in told["sentence"]


def test_who_is_filtered_gets_no_figures(served):
    people = served.people
    people.grants = {"ana": grants("silver.orders", "gold.total"), "ben": grants("silver.orders", "gold.total")}
    people.filters["ben", "silver.orders"] = "tenant = 'a'"
    people.changes += 1
    assert by_table(served.get("/api/overview", "ana").json())["silver.orders"]["rows"] == 10
    told = served.get("/api/overview", "ben").json()
    tables = by_table(told)
    assert list(tables) == ["gold.total", "silver.orders"]
    for entry in tables.values():
        assert entry["filtered"], "gold is computed from what is filtered"
        assert [entry[figure] for figure in FIGURES] == [None] * len(FIGURES)
        assert entry["counts"] == {}
        assert entry["version"] is not None
    assert told["totals"]["quarantine_open"] == 0
    assert set(told["totals"]["rate_per_s"].values()) == {0.0}
    assert {rate for rates in told["history"]["rate"].values() for rate in rates} == {0.0}
    for node in served.get("/api/flow", "ben").json()["nodes"]:
        assert node["rate_per_s"] is node["freshness_s"] is node["quarantine_open"] is node["backlog"] is None
    quality = served.get("/api/quality/silver.orders", "ben").json()
    assert [rule["failed"] for rule in quality["rules"]] == [None, None]
    assert quality["series"] == {"t_us": [], "input": [], "rules": {}}
    assert served.get("/api/quality", "ben").json()["tables"][0]["failed"] is None


def test_a_filter_above_counts_without_a_grant_there(served):
    people = served.people
    people.grants = {"ana": grants("gold.total")}
    assert by_table(served.get("/api/overview", "ana").json())["gold.total"]["rows"] == 2
    people.filters["ana", "silver.orders"] = "tenant = 'a'"
    people.above = {T("gold.total")}
    people.changes += 1
    assert by_table(served.get("/api/overview", "ana").json())["gold.total"]["rows"] is None


def test_nobody_learns_of_what_is_not_theirs(served):
    served.people.grants = {"ana": grants("gold.total")}
    told = served.get("/api/overview", "ana")
    assert [entry["table"] for entry in told.json()["tables"]] == ["gold.total"]
    for path in ("/api/overview", "/api/flow", "/api/quality", "/api/dashboards", "/api/dashboards/orders"):
        text = served.get(path, "ana").text
        assert not {name for name in TABLES if name != "gold.total" and name in text}, path
    for path in ("/api/quality/silver.orders", "/api/quarantine/silver.orders", "/api/quality/gold.nothing",
                 "/api/quality/nothing", "/api/quality/gold.total__quarantine"):  # fmt: skip
        answer = served.get(path, "ana")
        assert (answer.status_code, answer.json()["detail"]) == (404, "no such table"), path
    assert served.get("/api/overview", "nobody").status_code == 401


def test_an_error_is_told_in_full_to_who_sees_all(served):
    log = served.lab.root / "lake/silver/orders/_delta_log"
    newest = max(log.glob("*.json"))
    (log / f"{int(newest.stem) + 1:020}.json").write_text("{")
    served.people.grants = {"ana": grants("silver.orders")}
    served.people.masks["ana", "silver.orders"] = {"tenant": "'x'"}
    orders = lambda: by_table(served.get("/api/overview").json())["silver.orders"]  # noqa: E731
    wait_for(lambda: orders()["state"] == "damaged", 30)
    assert "doctor" in orders()["error"]
    masked = by_table(served.get("/api/overview", "ana").json())["silver.orders"]
    assert (masked["state"], masked["error"]) == ("damaged", "the table cannot be read")
    assert "silver.orders cannot be read" in served.get("/api/overview").json()["sentence"]


def test_the_graph(served):
    told = served.get("/api/flow").json()
    nodes = {node["id"]: node for node in told["nodes"]}
    assert set(nodes) == {*TABLES, "source:bronze.orders"}
    assert nodes["source:bronze.orders"]["label"] == "files events"
    edges = {(edge["from"], edge["to"], edge["kind"]) for edge in told["edges"]}
    assert edges == {
        ("source:bronze.orders", "bronze.orders", "source"), ("bronze.orders", "silver.orders", "stream"),
        ("silver.orders", "gold.total", "query"), ("bronze.orders", "gold.secret", "query"),
    }  # fmt: skip


def test_quality(served):
    told = served.get("/api/quality/silver.orders").json()
    rules = {rule["name"]: rule for rule in told["rules"]}
    assert rules["positive"] == {
        "name": "positive", "that": "amount > 0", "otherwise": "quarantine", "failed": 2, "passed": 10,
    }  # fmt: skip
    assert rules["small"]["failed"] == 0
    assert sum(told["series"]["input"]) == 12
    assert sum(told["series"]["rules"]["positive"]) == 2
    served.lab.events([order(30, amount=500)])
    served.lab.run()
    served.settle()
    again = served.get("/api/quality/silver.orders").json()
    assert {rule["name"]: rule["failed"] for rule in again["rules"]} == {"positive": 2, "small": 1}
    assert len(again["series"]["t_us"]) == len(again["series"]["rules"]["small"]) <= 60
    lines = {line["table"]: line for line in served.get("/api/quality").json()["tables"]}
    assert set(lines) == {"bronze.orders", "silver.orders"}
    assert lines["silver.orders"]["failed"] == {"positive": 2, "small": 1}


@pytest.mark.parametrize("text", ["lab.silver.orders", "silver.orders"])
def test_a_table_by_its_whole_name(served, text):
    assert served.get(f"/api/quality/{text}").json()["table"] == str(T("silver.orders"))
