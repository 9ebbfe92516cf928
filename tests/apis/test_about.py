"""Lineage, search and the audit log over HTTP: each sees their own part of the demo, and looking is recorded."""

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lodestream.apis.about import About, about_part
from lodestream.apis.openapi import document
from lodestream.apis.routing import application
from lodestream.app import open_project
from lodestream.catalog import store
from lodestream.catalog.entries import entry
from lodestream.model.access import Principal
from lodestream.model.policy import Grant
from lodestream.ports.authority import Event
from tests.apis.gates import Gate

ROOT = Path(__file__).parents[2]
WHO = {
    "owner": Principal("owner", "owner", via="test"), "alice": Principal("alice"), "bob": Principal("bob"),
    "chief": Principal("chief"), "reader": Principal("chief", scopes=("query:*",)),
}  # fmt: skip
QUERY = "select carrier, arr_delay_mean from gold.delay_by_carrier where carrier = 'UA'"


class Served:
    def __init__(self, app) -> None:
        self.app = app
        made = about_part(About(app.catalog, app.known, app.audit.records))
        self.part = made
        self.client = TestClient(application([made], Gate(WHO)))

    def get(self, path, who="owner", **parameters):
        return self.client.get(path, params=parameters, headers={"x-name": who})


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    shutil.copytree(ROOT / "src/lodestream/demo/project", folder)
    shutil.rmtree(folder / "dashboards", ignore_errors=True)
    (folder / "dashboards").mkdir()
    (folder / "dashboards/delays.yaml").write_text(
        "title: Delays\npanels:\n- {title: a, kind: bar, x: carrier, y: arr_delay_mean, sql: "
        "'select carrier, arr_delay_mean from gold.delay_by_carrier'}\n"
    )
    app = open_project(str(folder))
    with app.catalog.changing(Event("root", "cli", "cli", "test", "allowed")) as (rows, at):
        for one in (Grant("alice", "select", "gold"), Grant("chief", "manage", "*"), Grant("chief", "select", "*")):
            store.put(rows, entry(one, who="root", at_us=at))
    app.catalog.record(
        Event("alice", "key:1", "rest", "query", "allowed", ("gold.delay_by_carrier",), detail={"sql": QUERY})
    )
    app.audit.flush()
    yield Served(app)
    app.catalog.close()


def test_lineage_runs_both_ways(served):
    found = served.get("/api/tables/silver.flights/lineage").json()
    edges = {(one["from"], one["to"]) for one in found["tables"]}
    assert ("bronze.flights", "silver.flights") in edges
    assert ("silver.flights", "gold.delay_by_carrier") in edges
    assert ("bronze.weather", "silver.weather") in edges
    columns = {(one["from"], one["from_column"], one["to"], one["to_column"]) for one in found["columns"]}
    assert ("silver.flights", "arr_delay", "gold.delay_by_carrier", "arr_delay_mean") in columns
    assert ("bronze.airlines", "name", "silver.airlines", "name") in columns
    assert {(one["kind"], one["name"]) for one in found["readers"]} == {
        ("dashboard", "delays"), ("principal", "alice"),
        ("saved_query", "late_airlines"), ("saved_query", "latest_at_airport"),
    }  # fmt: skip


def test_a_column_has_its_own_lineage(served):
    path = "/api/tables/gold.delay_by_carrier/lineage"
    found = served.get(path, column="arr_delay_mean").json()
    assert [(one["from"], one["from_column"]) for one in found["columns"]] == [
        ("silver.flights", "arr_delay"), ("bronze.flights", "arr_delay"),
    ]  # fmt: skip
    near = served.get(path, column="arr_delay_mean", depth=1).json()
    assert len(near["columns"]) == 1
    assert {one["name"] for one in served.get(path, column="arr_delay_max").json()["readers"]} == set()


def test_nothing_is_told_of_what_one_may_not_see(served):
    answer = served.get("/api/tables/gold.delay_by_carrier/lineage", "alice")
    assert answer.status_code == 200
    assert "silver" not in answer.text
    assert "bronze" not in answer.text
    assert {one["name"] for one in answer.json()["readers"]} == {"delays", "late_airlines"}, (
        "people are told to who manages"
    )
    hidden = served.get("/api/tables/silver.flights/lineage", "alice")
    absent = served.get("/api/tables/silver.nothing/lineage", "alice")
    assert (hidden.status_code, hidden.text) == (absent.status_code, absent.text) == (404, absent.text)
    assert served.get("/api/tables/gold.delay_by_carrier/lineage", "bob").status_code == 404
    chief = served.get("/api/tables/gold.delay_by_carrier/lineage", "chief").json()
    assert {one["name"] for one in chief["readers"]} == {"delays", "late_airlines", "alice"}
    scoped = served.get("/api/tables/gold.delay_by_carrier/lineage", "reader").json()
    assert {one["name"] for one in scoped["readers"]} == {"delays", "late_airlines"}, (
        "the credential does not admit managing"
    )


def test_search_finds_what_one_may_know_of(served):
    names = [one["name"] for one in served.get("/api/catalog/search", "alice", q="carier").json()["found"]]
    assert names
    assert all(name.startswith("gold.") for name in names)
    assert served.get("/api/catalog/search", "bob", q="carrier").json() == {"found": []}
    found = served.get("/api/catalog/search", q="delays", limit=3).json()["found"]
    assert {"kind": "dashboard", "name": "delays"}.items() <= found[0].items()
    assert len(found) <= 3


def test_the_audit_log_is_for_who_manages_all(served):
    found = served.get("/api/audit", "chief", principal="alice", action="query").json()["records"]
    assert [one["detail"]["sql"] for one in found] == [QUERY.replace("'UA'", "?")]
    served.app.audit.flush()
    assert served.get("/api/audit", "owner", limit=1).json()["records"][0]["action"] == "audit"
    for who in ("alice", "bob"):
        refused = served.get("/api/audit", who)
        assert refused.status_code == 403
        assert "UA" not in refused.text
    served.app.audit.flush()
    looked = served.get("/api/audit", action="audit", decision="refused").json()["records"]
    assert {one["principal"] for one in looked} == {"alice", "bob"}
    assert served.get("/api/audit", "reader").status_code == 403, "its scope is for reading data"


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/catalog/search", {}),
        ("/api/catalog/search", {"q": "a", "limit": "0"}),
        ("/api/catalog/search", {"q": "a", "limit": "-1"}),
        ("/api/catalog/search", {"q": "a", "limit": "1e3"}),
        ("/api/audit", {"decision": "perhaps"}),
        ("/api/audit", {"since_us": "yesterday"}),
        ("/api/audit", {"limit": "9" * 30}),
        ("/api/tables/gold.delay_by_carrier/lineage", {"depth": "x"}),
    ],
)
def test_wrong_parameters_are_told(served, path, parameters):
    assert served.get(path, **parameters).status_code == 400


def test_what_is_not_there_is_not_found(served):
    for path in ("/api/tables/nothing/lineage", "/api/tables/gold.a.b/lineage"):
        assert served.get(path).status_code == 404
    assert served.get("/api/tables/gold.delay_by_carrier/lineage", column="nothing").status_code == 404
    assert served.client.get("/api/audit").status_code == 401


def test_answers_are_as_the_document_says(served):
    from openapi_spec_validator import validate

    told = document(served.part.endpoints, WHO["owner"], "http://127.0.0.1", "flights")
    validate(told)
    assert {"/api/tables/{table}/lineage", "/api/catalog/search", "/api/audit"} <= told["paths"].keys()
