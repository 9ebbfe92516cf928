"""Every route, asked by everybody about everything: each status follows from the table of endpoints and the grants.

Made from the table that the server runs with, so that a route that is added is in it.
"""

import re
from dataclasses import replace

import pytest

from lodestream.apis import routing
from lodestream.apis.openapi import answered
from lodestream.apis.routing import PUBLIC, admits, endpoints
from lodestream.app import now_us
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from tests.apis.paths import TRAVERSALS, url_path
from tests.apis.rest.conftest import serving, write_lake

OBJECTS = ("gold.orders", "gold.secret", "silver.notes", "gold.nothing", "gold.orders__quarantine",
           "silver.notes__quarantine", "gold.nothing__quarantine")  # fmt: skip
MISSING = {"gold.orders": "gold.nothing", "gold.secret": "gold.nothing", "silver.notes": "gold.nothing"}
OTHERS = {"stream": "clicks", "name": "nothing", "on": "gold.nothing", "kind": "mask"}
READING = re.compile(r"/api/tables/\{table\}(/schema|/history|/stats|/changes)?")
LIVE = {"/api/live", "/api/tables/{table}/changes"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix") / "shop"
    table, notes = write_lake(folder)
    with serving(folder, table, notes) as running:
        expired, _ = running.key("alice", expires_us=now_us() - 1)
        running.keys |= {
            "unknown": "ls_prod_000000000000_x", "expired": expired, "counts": running.key("alice", "metrics:read")[0],
            "feed": running.key("feed", "ingest:clicks")[0],
        }  # fmt: skip
        yield running


SCOPES = {
    "nobody": None, "unknown": None, "expired": None, "counts": ("metrics:read",), "feed": ("ingest:clicks",),
    "bob": ("query:*",), "oscar": ("query:*",), "alice": ("query:*",),
    "quinn": ("query:*",), "mia": ("query:*", "admin:*"), "owner": ("*",),
}  # fmt: skip
"""Roles: no key, a wrong one, one that has ended, ones for other purposes, then users by what they were granted."""
NAMES = {"counts": "alice"}


def principal(shop, role):
    if role == "owner":
        return Principal("dev", "owner")
    name = NAMES.get(role, role)
    found = shop.app.catalog.principal(name) or Principal(name)
    return replace(found, scopes=SCOPES[role])


def asked(shop, endpoint, role, thing):
    """Status and body of one request; of what never ends, the status."""
    values = {name: thing if name == "table" else OTHERS.get(name, "nothing") for name in endpoint.in_path}
    path = re.sub(r"\{([a-z_]+)(:path)?\}", lambda match: values[match[1]], endpoint.path)
    options = {} if endpoint.method in ("GET", "HEAD", "DELETE") else {"json": {}}
    who = None if role == "nobody" else role
    with shop.client(who) as client, client.stream(endpoint.method, path, **options) as answer:
        return answer.status_code, "" if endpoint.path in LIVE and answer.status_code == 200 else answer.read().decode()


def expected(shop, endpoint, role, thing):
    """The statuses that the table and the grants leave open; and whether the object must look as if it were absent."""
    if endpoint.permission == PUBLIC:
        return answered(endpoint), False
    if SCOPES[role] is None:
        return {401}, False
    who = principal(shop, role)
    scope = endpoint.permission.replace("{stream}", OTHERS["stream"])
    if endpoint.permission != routing.SIGNED_IN and not admits(who, scope):
        return {403}, False
    if "table" not in endpoint.in_path:
        return answered(endpoint) - {401}, False
    name = TableName.parse(thing)
    there = name in shop.app.query.snapshots.tables() and bool(shop.app.catalog.visible(who, [name]))
    if READING.fullmatch(endpoint.path):
        readable = "select" in shop.app.catalog.privileges(who, name)
        return ({200} if readable else {403}) if there else {404}, not there
    return answered(endpoint) - {401}, not there


def mismatches(shop, roles, table):
    found, count = [], 0
    for endpoint in table:
        things = OBJECTS if "table" in endpoint.in_path else OBJECTS[:1]
        for role in roles:
            for thing in things:
                count += 1
                status, body = asked(shop, endpoint, role, thing)
                allowed, hidden = expected(shop, endpoint, role, thing)
                case = (endpoint.method, endpoint.path, role, thing)
                if status not in allowed or status == 500:
                    found.append((*case, status, sorted(allowed)))
                elif hidden:
                    absent = "gold.nothing__quarantine" if thing.endswith("__quarantine") else "gold.nothing"
                    other, other_body = asked(shop, endpoint, role, absent)
                    if other != status or told(body, thing) != told(other_body, absent):
                        found.append((*case, "differs from what is not there", body, other_body))
                if any(word in body for word in ("canary-secret", "canary-quarantine")) and status >= 400:
                    found.append((*case, "tells what it holds"))
    return found, count


def told(body, thing):
    """A body without the name it is about, and without what it is like."""
    return re.sub(r',? ?"nearest": ?("[^"]*"|null)', "", body).replace(thing, "?")


@pytest.mark.parametrize("role", SCOPES)
def test_every_route_by_everybody_about_everything(shop, role):
    table = endpoints(shop.http)
    found, count = mismatches(shop, [role], table)
    assert found == []
    assert count >= len(table)
    assert len(table) > 20


def test_a_server_that_forgets_its_permissions_is_seen(shop, monkeypatch):
    monkeypatch.setattr(routing, "admits", lambda _principal, _scope: True)
    table = [one for one in endpoints(shop.http) if one.path in ("/api/tables", "/api/sql", "/metrics")]
    found, _ = mismatches(shop, ["feed"], table)
    assert {(method, path) for method, path, *_ in found} >= {("GET", "/api/tables"), ("GET", "/metrics")}


def test_no_parameter_of_a_path_is_a_path(shop):
    """Strings that try to become another path, in the place of every parameter of every route."""
    count = 0
    for endpoint in endpoints(shop.http):
        for place, name in enumerate(endpoint.in_path):
            texts = TRAVERSALS if endpoint.method == "GET" else TRAVERSALS[place::5]
            for text in texts:
                values = dict.fromkeys(endpoint.in_path, "gold.orders") | OTHERS | {name: url_path(text)}
                path = endpoint.path
                for other in endpoint.in_path:
                    path = path.replace(f"{{{other}:path}}", values[other]).replace(f"{{{other}}}", values[other])
                if "#" in path or "?" in path or endpoint.path in LIVE:
                    continue
                status, body = shop.raw(endpoint.method, path)
                count += 1
                assert status in (200, 204, 400, 403, 404, 405, 411, 413, 414, 415, 422, 431, 503), (path, status)
                assert "root:" not in body, path
                assert "canary" not in body, path
    assert count > 1000
