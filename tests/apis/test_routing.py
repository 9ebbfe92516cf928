"""The table of endpoints: nothing is reached without its permission, and no error says more than it should."""

import ast
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from lodestream.apis.openapi import document
from lodestream.apis.problems import TITLES
from lodestream.apis.routing import (
    NOBODY,
    PUBLIC,
    SIGNED_IN,
    Body,
    Component,
    Endpoint,
    Parameter,
    Part,
    Reply,
    application,
    endpoints,
    is_permission,
)
from lodestream.app import open_project
from lodestream.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    CorruptionError,
    DataLossRefused,
    MissingDriverError,
    TransientError,
)
from lodestream.model.access import Principal
from tests.apis.conftest import TOKEN
from tests.apis.gates import Picky

APIS = Path(__file__).parents[2] / "src/lodestream/apis"
WHO = {
    "ann": Principal("ann", scopes=("query:*",)), "some": Principal("some", scopes=("query:gold",)),
    "all": Principal("all"), "feed": Principal("feed", scopes=("ingest:orders",)),
}  # fmt: skip


async def hello(_request, principal):
    return PlainTextResponse(f"hello {principal.name}")


def client(*made, **options):
    return TestClient(application([Part(made)], Picky(WHO), **options), raise_server_exceptions=False)


def test_every_endpoint_of_the_server_has_a_permission_and_nothing_else_makes_a_route(project):
    app = open_project(str(project())).http(open_project(str(project.folder)).serving(), TOKEN)
    found = endpoints(app)
    assert {"/ingest/{stream}", "/metrics", "/healthz", "/openapi.json"} <= {one.path for one in found}
    assert all(is_permission(one.permission) for one in found)
    public = {f"{one.method} {one.path}" for one in found if one.permission == PUBLIC}
    files = {f"{method} /delta-sharing/files/{{ticket}}" for method in ("GET", "HEAD")}  # by signed addresses
    assert public == {"GET /healthz", "GET /readyz", "POST /api/session"} | files
    paths = {one.path for one in found}
    for route in app.routes:
        assert type(route.endpoint).__name__ == "_Guarded", route
        assert route.path in paths
    assert type(app.router.default).__name__ == "_Open"


def test_only_the_table_makes_routes():
    """An import of starlette.routing elsewhere would be a way around the permission."""
    offenders = set()
    for file in APIS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name in ("starlette.routing", "starlette.applications") for name in names):
                offenders.add(file.relative_to(APIS).as_posix())
    # The schema registry is a server of its own, with users of its own.
    assert {name for name in offenders if not name.startswith("registry/")} == {"routing.py"}


@pytest.mark.parametrize("permission", ["", "anything", None, "query", "query:", "query:{table}", "Query:*", "a:b c"])
def test_an_endpoint_without_a_permission_cannot_be_made(permission):
    with pytest.raises(ValueError, match="permission"):
        Endpoint("GET", "/x", hello, permission, "Says hello.")
    with pytest.raises(TypeError, match="permission"):
        Endpoint("GET", "/x", hello, summary="Says hello.")


def test_what_is_not_a_path_or_is_there_twice_is_refused():
    for method, path in (("FETCH", "/x"), ("GET", "x"), ("GET", "/{X}"), ("get", "/x")):
        with pytest.raises(ValueError, match="not an endpoint"):
            Endpoint(method, path, hello, PUBLIC, "")
    one = Endpoint("GET", "/x", hello, PUBLIC, "")
    with pytest.raises(ValueError, match="two endpoints"):
        client(one, one)


def test_who_may_ask():
    served = client(
        Endpoint("GET", "/open", hello, PUBLIC, ""),
        Endpoint("GET", "/mine", hello, SIGNED_IN, ""),
        Endpoint("GET", "/rows", hello, "query:*", ""),
        Endpoint("POST", "/rows", hello, "admin:*", ""),
        Endpoint("POST", "/ingest/{stream}", hello, "ingest:{stream}", ""),
    )
    cases = {
        ("GET", "/open", None): 200, ("GET", "/open", "ann"): 200, ("GET", "/mine", None): 401,
        ("GET", "/mine", "ann"): 200, ("GET", "/rows", "some"): 200, ("GET", "/rows", "all"): 200,
        ("POST", "/rows", "some"): 403, ("POST", "/rows", "all"): 200,
        ("GET", "/rows", None): 401, ("GET", "/rows", "ann"): 200,
        ("GET", "/rows", "feed"): 403, ("POST", "/rows", "ann"): 403, ("POST", "/ingest/orders", "feed"): 200,
        ("POST", "/ingest/places", "feed"): 403, ("POST", "/ingest/orders", "ann"): 403,
        ("POST", "/ingest/orders", None): 401, ("PUT", "/rows", "ann"): 405, ("HEAD", "/rows", None): 405,
        ("GET", "/nothing", None): 404, ("OPTIONS", "/rows", None): 405, ("GET", "/rows/", "ann"): 404,
    }  # fmt: skip
    found = {}
    for method, path, name in cases:
        answer = served.request(method, path, headers={"x-name": name} if name else {}, follow_redirects=False)
        found[method, path, name] = answer.status_code
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
    assert found == cases
    assert served.get("/open").text == f"hello {NOBODY.name}"
    assert served.get("/mine", headers={"x-name": "ann"}).text == "hello ann"
    assert set(served.put("/rows").headers["allow"].split(", ")) == {"GET", "POST"}
    assert served.get("/open", headers={"host": "evil"}).status_code == 421


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (AccessError("no", table="secret"), 403, {"detail": "no"}),
        (ConfigError("bad", fix="so", file="/home/x"), 400, {"detail": "bad", "fix": "so"}),
        (MissingDriverError("pip install x"), 503, {}),
        (TransientError("later", retry_after_s=2.5), 503, {"detail": "later"}),
        (ConflictError("again"), 409, {}),
        (DataLossRefused("gone", table="/lake/gold/x"), 410, {"detail": "gone"}),
        (CorruptionError("table is broken", table="/lake/gold/x"), 500, {}),
        (ZeroDivisionError("secret value 42"), 500, {}),
    ],
)
def test_errors_are_problems_that_say_no_more_than_they_should(error, status, told, caplog):
    async def fail(_request, _principal):
        raise error

    answer = client(Endpoint("GET", "/x", fail, PUBLIC, "")).get("/x")
    assert answer.status_code == status
    body = answer.json()
    assert body["title"] == TITLES[status]
    assert body.items() >= told.items()
    for hidden in ("secret", "/lake", "/home", "broken", "42"):
        assert hidden not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get("retry-after") == ("3" if isinstance(error, TransientError) else None)
    assert (status == 500) == bool(caplog.records)


def test_every_answer_tells_a_browser_what_not_to_do():
    async def page(_request, _principal):
        return PlainTextResponse("x", headers={"cache-control": "max-age=60", "content-security-policy": "mine"})

    served = client(Endpoint("GET", "/x", hello, PUBLIC, ""), otherwise=page, secure=True)
    for path in ("/x", "/anything/else"):
        headers = served.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["strict-transport-security"]
        assert "access-control-allow-origin" not in headers
    assert served.get("/x").headers["cache-control"] == "no-store"
    assert "default-src 'none'" in served.get("/x").headers["content-security-policy"]
    assert served.get("/else").headers["content-security-policy"] == "mine"
    assert "strict-transport-security" not in client().get("/x").headers


def test_the_document_says_all_that_the_table_does():
    thing = Component("Thing", {"type": "object", "properties": {"next": {"type": "integer"}}})
    made = Endpoint(
        "POST", "/things/{thing}", hello, "query:*", "Do it.",
        (Parameter("limit", schema={"type": "integer"}, description="At most."), Parameter("If-Match", "header")),
        Body({"application/json": thing}),
        {201: Reply("Made.", {"application/json": {"type": "array", "items": thing}})},
        (409,), "things", stands_for=None,
    )  # fmt: skip
    alone = Endpoint("GET", "/one", hello, PUBLIC, "One.")
    several = Endpoint("GET", "/q/{name}", hello, SIGNED_IN, "Any.", stands_for=lambda who: [
        Endpoint("GET", f"/q/{who.name}", hello, SIGNED_IN, "Mine."),
    ])  # fmt: skip
    unseen = Endpoint("GET", "/unseen", hello, SIGNED_IN, "", hidden=True)
    told = document([made, alone, several, unseen], WHO["ann"], "http://x", "shop")
    validate(told, cls=OpenAPIV31SpecValidator)
    assert told["paths"].keys() == {"/things/{thing}", "/one", "/q/ann"}
    operation = told["paths"]["/things/{thing}"]["post"]
    assert [one["name"] for one in operation["parameters"]] == ["thing", "limit", "If-Match"]
    assert operation["x-scope"] == "query:*"
    assert set(operation["responses"]) >= {"201", "400", "401", "403", "409", "413"}
    assert told["components"]["schemas"]["Thing"]["type"] == "object"
    assert told["paths"]["/one"]["get"]["security"] == []


def test_requests_are_counted_by_the_pattern_of_their_path():
    async def fail(_request, _principal):
        raise ZeroDivisionError

    served = client(
        Endpoint("GET", "/things/{thing}", hello, PUBLIC, ""), Endpoint("GET", "/fails", fail, PUBLIC, "")
    )  # fmt: skip
    for path in ("/things/1", "/things/2", "/fails", "/nothing/at/all"):
        served.get(path)
    counts = served.app.state.counts
    assert counts.requests == {
        ("GET", "/things/{thing}", 200): 2, ("GET", "/fails", 500): 1, ("GET", "", 404): 1,
    }  # fmt: skip
    text = counts.exposition(3)
    assert 'lodestream_http_requests_total{method="GET",path="/things/{thing}",status="200"} 2' in text
    assert 'lodestream_http_seconds_bucket{le="+Inf"} 4' in text
    assert "lodestream_http_streams 3" in text
