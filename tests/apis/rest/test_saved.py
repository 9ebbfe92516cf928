"""Saved queries as endpoints: typed parameters, under the caller's own policies, declared or saved at run time."""

import csv
import io

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from lodestream.catalog.audit_table import Wanted
from tests.apis.paths import TRAVERSALS, url_path
from tests.apis.rest.conftest import serving, write_lake

DAILY = """\
-- title: Orders by day
-- parameters:
--   country: {type: string, default: DE, description: Two letters}
--   since: date
SELECT day, count(*) AS orders, sum(amount) AS amount FROM gold.orders
WHERE country = $country AND day >= $since GROUP BY day ORDER BY day
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "shop"
    table, notes = write_lake(folder)
    (folder / "queries").mkdir()
    (folder / "queries/daily.sql").write_text(DAILY)
    (folder / "queries/hidden.sql").write_text("SELECT * FROM gold.secret")
    with serving(folder, table, notes) as running:
        yield running


def put(shop, name, who="owner", **body):
    with shop.client(who) as client:
        return client.put(f"/api/queries/{name}", json=body)


def delete(shop, name, who="owner"):
    with shop.client(who) as client:
        return client.delete(f"/api/queries/{name}").status_code


def test_a_declared_query_is_an_endpoint(shop):
    told = shop.get("/api/queries/daily?since=2024-02-18&country=FR").json()
    assert [column["name"] for column in told["columns"]] == ["day", "orders", "amount"]
    assert told["rows"][0] == ["2024-02-18", 2, "111.50"]
    assert told["versions"] == {"gold.orders": 3}
    text = shop.get("/api/queries/daily?since=2024-02-18&format=csv&rows_max=1").text
    assert len([*csv.reader(io.StringIO(text))]) == 2


def test_who_asks_is_who_sees(shop):
    assert shop.get("/api/queries/daily?since=2024-01-01", "alice").json()["rows"]
    assert shop.get("/api/queries/daily?since=2024-01-01&country=FR", "alice").json()["rows"] == []


@pytest.mark.parametrize(
    "query", ["", "since=soon", "since=2024-01-01&other=1", "since=2024-01-01&rows_max=0", "since=2024-01-01&format=x",
              "country=DE", "since=2024-01-01&rows_max=x", "since=2024-01-01&country=%00"],
)  # fmt: skip
def test_parameters_that_do_not_fit(shop, query):
    answer = shop.get(f"/api/queries/daily?{query}")
    assert answer.status_code == 400, answer.text


def test_a_query_over_what_is_hidden_is_not_there(shop):
    names = [one["name"] for one in shop.get("/api/queries").json()["queries"]]
    assert names == ["daily", "hidden"]
    assert [one["name"] for one in shop.get("/api/queries", "alice").json()["queries"]] == ["daily"]
    assert shop.get("/api/queries", "bob").json() == {"queries": []}
    missing, hidden = shop.get("/api/queries/hiddem", "alice"), shop.get("/api/queries/hidden", "alice")
    assert missing.status_code == hidden.status_code == 404
    assert missing.text.replace("hiddem", "hidden") == hidden.text


def test_the_document_has_each_query_with_its_parameters(shop):
    told = shop.get("/openapi.json").json()
    validate(told, cls=OpenAPIV31SpecValidator)
    operation = told["paths"]["/api/queries/daily"]["get"]
    assert operation["summary"] == "Orders by day"
    given = {one["name"]: (one["required"], one["schema"]["type"]) for one in operation["parameters"]}
    assert given["since"] == (True, "string")
    assert given["country"] == (False, "string")
    assert "/api/queries/hidden" not in shop.get("/openapi.json", "alice").json()["paths"]


def test_queries_are_saved_and_forgotten_while_the_server_runs(shop):
    kept = put(
        shop, "of_id", sql="SELECT name FROM gold.orders WHERE id = $id", title="One order",
        parameters={"id": {"type": "bigint"}},
    )  # fmt: skip
    assert kept.status_code == 200
    assert shop.get("/api/queries/of_id?id=3", "alice").json()["rows"] == [["***"]]
    assert "of_id" in [one["name"] for one in shop.get("/api/queries", "alice").json()["queries"]]
    found = shop.get("/api/catalog/search?q=of_id").json()["found"]
    assert {"kind": "saved_query", "name": "of_id", "comment": "One order"}.items() <= found[0].items()
    assert shop.get("/api/tables/bronze.clicks/lineage").status_code == 200
    assert delete(shop, "of_id") == 204
    assert shop.get("/api/queries/of_id?id=3").status_code == delete(shop, "of_id") == 404
    shop.app.audit.flush()
    actions = [record.action for record in shop.app.audit.records(Wanted())]
    assert {"save query", "drop query"} <= {*actions}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), ({"sql": ""}, 400), ({"sql": "DROP TABLE x"}, 403), ({"sql": "SELECT $a"}, 400),
        ({"sql": "SELECT ?"}, 400), ({"sql": "SELECT 1", "parameters": {"a": {}}}, 400),
        ({"sql": "SELECT $format", "parameters": {"format": {}}}, 400), ({"sql": "SELECT * FROM gold.nothing"}, 400),
        ({"sql": "SELECT $a", "parameters": {"a": {"type": "date", "default": "soon"}}}, 400),
        ({"sql": "SELECT $a", "parameters": {"a": {"type": "blob"}}}, 400), ({"sql": "SELECT 1", "x": 1}, 400),
    ],
)  # fmt: skip
def test_what_cannot_be_saved(shop, body, status):
    answer = put(shop, "wrong", **body)
    assert answer.status_code == status, answer.text
    assert shop.get("/api/queries/wrong").status_code == 404


def test_who_may_save(shop):
    assert put(shop, "mine", "alice", sql="SELECT 1").status_code == 403
    assert put(shop, "mine", "mia", sql="SELECT 1").status_code == 403  # she manages one table, not the catalog
    assert put(shop, "daily", sql="SELECT 1").status_code == 409
    assert delete(shop, "daily") == 409
    assert delete(shop, "daily", "alice") == 403


def test_no_name_is_a_path(shop):
    for text in TRAVERSALS[::3]:
        if "#" in text or "?" in text:
            continue
        status, body = shop.raw("GET", f"/api/queries/{url_path(text)}")
        assert status in (400, 404, 414, 431), (text, status)
        assert "root:" not in body
