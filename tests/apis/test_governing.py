"""Users, grants and policies over HTTP: who manages something changes that, sees that, and nothing else."""

import pytest
from starlette.testclient import TestClient

from lodestream.apis.governing import Governing, governing_part
from lodestream.apis.openapi import document
from lodestream.apis.routing import application
from lodestream.app import open_project
from lodestream.catalog import store
from lodestream.catalog.entries import entry
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.policy import Grant
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from tests.apis.gates import Gate

WHO = {
    "root": Principal("root", "owner"), "alice": Principal("alice"), "chief": Principal("chief"),
    "reading": Principal("chief", scopes=("query:*",)), "ann": Principal("ann"),
}  # fmt: skip
SILVER = TableName("silver", "orders")


class Served:
    def __init__(self, app) -> None:
        self.app = app
        self.part = governing_part(Governing(app.catalog, lambda by: app.governing(by, "rest")))
        self.client = TestClient(application([self.part], Gate(WHO)))

    def __call__(self, method, path, asked=None, who="root", **query):
        more = ({} if asked is None else {"json": asked}) | ({"params": query} if query else {})
        return self.client.request(method, path, headers={"x-name": who}, **more)

    def get(self, path, who="root"):
        answer = self("GET", path, who=who)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json().values()
        return found


@pytest.fixture
def served(tmp_path):
    files = {
        "lodestream.yaml": "project: shop\n",
        "tables/bronze/orders.yaml": "source: {files: {path: data}}\ncolumns: {id: bigint, email: string}\n",
        "tables/silver/orders.yaml": "from: stream(bronze.orders)\n",
        "policies.yaml": "users: {bob: {groups: [a]}}\ngrants:\n  - {to: group:a, select: silver}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    app = open_project(str(tmp_path))
    app.apply()
    with app.catalog.changing(Event("root", "cli", "cli", "grant", "allowed")) as (rows, at):
        for grant in (Grant("chief", "manage", "*"), Grant("ann", "manage", "silver.orders")):
            store.put(rows, entry(grant, who="root", at_us=at))
    yield Served(app)
    app.catalog.close()


def test_users_are_kept(served):
    assert (
        served("PUT", "/api/users/alice", {"groups": ["a"], "attributes": {"country": "DE"}}, "chief").status_code
        == 200
    )
    alice = next(one for one in served.get("/api/users") if one["name"] == "alice")
    assert (alice["groups"], alice["attributes"], alice["who"], alice["file"]) == (
        ["a"],
        {"country": "DE"},
        "chief",
        None,
    )
    assert served.app.catalog.principal("alice").groups == {"a"}
    assert served("PUT", "/api/users/bob", {}).status_code == 400  # a file says who bob is
    assert served("PUT", "/api/users/bob", {"disabled": True}).status_code == 200  # but not that he stays
    with pytest.raises(AccessError, match="disabled"):
        served.app.catalog.principal("bob")
    assert served("PUT", "/api/users/tenant/1f-2", {}).status_code == 200
    assert served("DELETE", "/api/users/alice").json() == {"declared": []}
    assert served("DELETE", "/api/users/alice").status_code == 400


def test_grants_are_given_and_taken(served):
    grant = {"to": "alice", "privilege": "select", "on": "silver.orders"}
    assert served("PUT", "/api/grants", grant, "ann").status_code == 200
    assert served.app.catalog.visible(WHO["alice"], [SILVER]) == [SILVER]
    assert [one["to"] for one in served.get("/api/grants", "ann")] == ["ann", "alice"]
    assert served("DELETE", "/api/grants", who="ann", **grant).status_code == 200
    assert served.app.catalog.visible(WHO["alice"], [SILVER]) == []
    assert served("DELETE", "/api/grants", who="ann", **grant).status_code == 400
    assert served("DELETE", "/api/grants", to="alice", on="silver").status_code == 400


def test_policies_are_set_and_dropped(served):
    served("PUT", "/api/grants", {"to": "alice", "privilege": "select", "on": "silver"})
    assert (
        served("PUT", "/api/policies/row_filter/f", {"on": ["silver.orders"], "where": "id > 1"}, "ann").status_code
        == 200
    )
    mask = {"on": ["silver.orders.email"], "with": "value() || '…'", "except": ["group:x"]}
    assert served("PUT", "/api/policies/mask/m", mask, "ann").status_code == 200
    assert served("PUT", "/api/tags/pii/silver.orders.id", who="ann").status_code == 200
    assert served("PUT", "/api/policies/tag_policy/pii", {"with": "null"}, "chief").status_code == 200
    schema = served.app.flows[SILVER].schema
    found = served.app.catalog.access(WHO["alice"], SILVER, schema)
    assert found.policies == ("row_filter:f", "tag_policy:pii", "mask:m")
    told = {(one["kind"], one["name"]) for one in served.get("/api/policies", "ann")}
    assert told == {("row_filter", "f"), ("mask", "m"), ("tag", "pii on silver.orders.id")}
    assert next(one for one in served.get("/api/policies") if one["name"] == "m")["with"] == "value() || '…'"
    for path in ("/api/policies/row_filter/f", "/api/policies/mask/m", "/api/policies/tag_policy/pii"):
        assert served("DELETE", path).status_code == 200
    assert served("DELETE", "/api/tags/pii/silver.orders.id").status_code == 200
    assert served("PUT", "/api/declassified/pii/silver.orders.id", who="ann").status_code == 403
    assert served("PUT", "/api/declassified/pii/silver.orders.id").status_code == 200
    assert served("DELETE", "/api/declassified/pii/silver.orders.id").status_code == 200
    assert served.app.catalog.access(WHO["alice"], SILVER, schema).whole


def test_things_are_described(served):
    assert served("PUT", "/api/comments/silver.orders", {"text": "once each"}, "ann").status_code == 200
    assert served("PUT", "/api/owners/silver.orders", {"text": "group:sales"}, "ann").status_code == 200
    assert {e.kind: dict(e.body) for e in served.app.catalog.entries("comment", "owner")} == {
        "comment": {"text": "once each"}, "owner": {"owner": "group:sales"},
    }  # fmt: skip
    assert served("PUT", "/api/comments/silver.orders", {"text": ""}, "ann").status_code == 200
    assert served("PUT", "/api/comments/silver", {"text": "all"}, "ann").status_code == 403


CHANGES = [
    ("PUT", "/api/users/x", {}), ("DELETE", "/api/users/bob", None),
    ("PUT", "/api/grants", {"to": "x", "privilege": "select", "on": "silver"}),
    ("DELETE", "/api/grants?to=chief&privilege=manage&on=*", None), ("DELETE", "/api/users/nobody", None),
    ("DELETE", "/api/grants?to=nobody&privilege=manage&on=*", None), ("DELETE", "/api/policies/mask/nothing", None),
    ("PUT", "/api/policies/row_filter/f", {"on": ["bronze.orders"], "where": "true"}),
    ("PUT", "/api/policies/mask/f", {"on": ["bronze.orders.id"], "with": "null"}),
    ("PUT", "/api/policies/tag_policy/f", {"with": "null"}), ("PUT", "/api/tags/t/bronze.orders", None),
    ("PUT", "/api/comments/bronze.orders", {"text": "x"}), ("PUT", "/api/owners/gold", {"text": "x"}),
    ("GET", "/api/users", None),
]  # fmt: skip


@pytest.mark.parametrize("who", ["alice", "ann", "reading"])
@pytest.mark.parametrize(("method", "path", "asked"), CHANGES, ids=lambda value: str(value)[:40])
def test_who_does_not_manage_it_changes_nothing(served, method, path, asked, who):
    before = served.app.catalog.entries()
    answer = served(method, path, asked, who)
    assert answer.status_code == 403
    assert served.app.catalog.entries() == before


def test_lists_tell_only_of_what_one_manages(served):
    assert served.get("/api/grants", "alice") == []
    assert [one["to"] for one in served.get("/api/grants", "ann")] == ["ann"]
    assert len(served.get("/api/grants", "chief")) == 3


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/grants", {"to": "x", "privilege": "own", "on": "gold"}), ("/api/grants", {"to": "x"}),
        ("/api/grants", []),
        ("/api/grants", {"to": "group:", "privilege": "select", "on": "gold"}),
        ("/api/policies/row_filter/f", {"on": ["silver.orders"]}), ("/api/policies/filter/f", {"with": "null"}),
        ("/api/policies/row_filter/f", {"on": ["silver"], "where": "true"}),
        ("/api/policies/row_filter/f", {"on": ["silver.orders"], "where": "true", "with": "null"}),
        ("/api/policies/mask/m", {"on": ["silver.orders.emial"], "with": "null"}),
        ("/api/policies/mask/m", {"with": "null"}), ("/api/policies/tag_policy/t", {"on": ["gold.x"], "with": "null"}),
        ("/api/tags/t/silver", None), ("/api/comments/silver.orders.x", {"text": "y"}), ("/api/users/-", {}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_problem(served, path, asked):
    before = served.app.catalog.entries()
    answer = served("PUT", path, asked)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert served.app.catalog.entries() == before


def test_every_endpoint_needs_the_scope_and_is_in_the_document(served):
    assert {one.permission for one in served.part.endpoints} == {"admin:*"}
    told = document(served.part.endpoints, WHO["root"], "http://127.0.0.1", "shop")["paths"]
    assert set(told) >= {"/api/users", "/api/users/{name}", "/api/grants", "/api/policies/{kind}/{name}"}
