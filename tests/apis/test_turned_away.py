"""Whoever is not let in is in the audit log, and a flood of them costs a record in ten seconds."""

import asyncio

import pytest
from starlette.testclient import TestClient

from lodestream.apis.turned_away import TurnedAway
from lodestream.app import now_us, open_project
from lodestream.catalog.audit_table import Wanted, facts
from lodestream.errors import TransientError
from lodestream.security.keys import ApiKey, KeyStore
from tests.apis.conftest import TOKEN


def refused(app):
    app.audit.flush()
    return [facts(one) for one in reversed(app.audit.records(Wanted(action="sign in", decision="refused")))]


@pytest.fixture
def served(project):
    app = open_project(str(project()))
    yield app, TestClient(app.http(app.serving(), TOKEN), base_url="http://127.0.0.1")
    app.catalog.close()


def test_requests_that_are_not_let_in_are_recorded(served):
    app, client = served
    text, made = KeyStore(app.keys_path).create("prod", ApiKey("", "feed", "", ("ingest:orders",), now_us()))
    bad = f"{text[:-3]}abc"
    assert client.get("/api/tables", headers={"authorization": f"Bearer {bad}"}).status_code == 401
    assert client.get("/api/tables", headers={"authorization": f"Bearer {text}"}).status_code == 403
    assert client.post("/api/session", json={"key": bad}, headers={"origin": "http://evil"}).status_code == 403
    assert client.get("/api/tables", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    found = refused(app)
    assert [(one["principal"], one["door"], one["detail"]["path"]) for one in found] == [
        ("", "http", "/api/tables"), ("feed", "http", "/api/tables"), ("", "http", "/api/session"),
    ]  # fmt: skip
    assert "query" in found[1]["detail"]["why"]
    assert text.rpartition("_")[2] not in str(found)
    assert bad not in str(found)
    assert made.id not in str(found)


class Records:
    def __init__(self) -> None:
        self.events = []

    def __call__(self, event):
        self.events.append(event)


def notes(away, *reasons):
    for reason in reasons:
        asyncio.run(away.note("http", "eve", "127.0.0.9", reason))


def test_a_flood_is_one_record_and_a_number():
    clock = iter([100.0] * 500 + [111.0])
    records = Records()
    away = TurnedAway(records, lambda: next(clock))
    notes(away, *["no such key"] * 499, "expired")
    assert [one.detail["why"] for one in records.events] == ["no such key", "expired"]
    notes(away, "no such key")
    assert records.events[-1].detail["more"] == 498
    assert all(one.decision == "refused" for one in records.events)


def test_a_log_that_cannot_be_written_lets_nobody_in(served):
    def full(_event):
        raise TransientError("disk is full")

    notes(TurnedAway(full), "no such key")


def test_postgresql_clients_that_are_not_let_in_are_recorded(tmp_path):
    psycopg = pytest.importorskip("psycopg")
    from tests.apis.postgres.conftest import serving
    from tests.apis.postgres.lake import write_project

    with serving(write_project(tmp_path / "shop")) as shop:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**(shop.conninfo() | {"password": "wrong-and-secret"}))
        (found,) = refused(shop.app)
    assert (found["principal"], found["door"]) == ("dev", "postgres")
    assert "wrong-and-secret" not in str(found)
