"""SQL over HTTP: every format read back by its own library, parameters, versions, limits, and what is refused."""

import csv
import datetime as dt
import io
import json
import socket
import threading
import time
from decimal import Decimal

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from lodestream.catalog.audit_table import Wanted
from tests.apis.rest.conftest import ORDERS, append, orders

ALL = "SELECT * FROM gold.orders ORDER BY id"


def test_rows_in_json(served):
    told = served.sql("SELECT id, country, amount, seen, raw FROM gold.orders WHERE id < 3 ORDER BY id").json()
    assert told == {
        "columns": [
            {"name": "id", "type": "bigint"}, {"name": "country", "type": "string"},
            {"name": "amount", "type": "decimal(10,2)"}, {"name": "seen", "type": "timestamp"},
            {"name": "raw", "type": "binary"},
        ],
        "rows": [
            [0, "DE", "0.00", "2024-01-01T00:00:00Z", "AA=="], [1, "FR", "0.25", "2024-01-01T00:01:00Z", "AQ=="],
            [2, "US", "0.50", "2024-01-01T00:02:00Z", "Ag=="],
        ],
        "versions": {"gold.orders": 3}, "truncated": False,
    }  # fmt: skip


def test_every_format_holds_the_same_rows(served):
    expected = orders(0, 300)
    arrow = served.sql(ALL, format="arrow")
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert arrow.headers["lodestream-versions"] == "gold.orders=3"
    table = pyarrow.ipc.open_stream(arrow.content).read_all()
    assert table.to_pylist() == expected.to_pylist()
    parquet = served.sql(ALL, format="parquet")
    assert pq.read_table(io.BytesIO(parquet.content)).to_pylist() == expected.to_pylist()
    assert pl.read_parquet(io.BytesIO(parquet.content)).to_dicts() == expected.to_pylist()
    lines = [json.loads(line) for line in served.sql(ALL, format="ndjson").text.splitlines()]
    assert [line["id"] for line in lines] == [*range(300)]
    assert list(lines[0]) == list(ORDERS)
    rows = list(csv.reader(io.StringIO(served.sql(ALL, format="csv").text, newline="")))
    assert rows[0] == list(ORDERS)
    assert [row[3] for row in rows[1:]] == [f"{Decimal(i) / 4:.2f}" for i in range(300)]
    assert served.sql(ALL).json()["rows"][299][0] == 299


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("text/html, */*;q=0.1", "application/json"), ("application/json;q=0, text/csv", "text/csv"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/*", "text/csv"), ("application/vnd.apache.arrow.stream;q=0.9, application/json;q=0.8",
                                 "application/vnd.apache.arrow.stream"),
    ],
)  # fmt: skip
def test_the_format_is_the_one_that_the_client_likes_best(served, accept, kind):
    answer = served.sql("SELECT 1 AS a", headers={} if accept is None else {"accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind


def test_a_format_that_nobody_has(served):
    answer = served.sql("SELECT 1", headers={"accept": "image/png"})
    assert (answer.status_code, "text/csv" in answer.json()["detail"]) == (406, True)
    assert served.sql("SELECT 1", format="xml").status_code == 400


def test_a_spreadsheet_is_guarded_when_asked(served):
    text = "SELECT text FROM silver.notes ORDER BY id"
    assert served.sql(text, format="csv").text == '"text"\n"=1+1"\n\n'
    assert served.sql(text, format="csv", csv_guard=True).text == '"text"\n"\'=1+1"\n\n'


def test_parameters_become_what_they_are_compared_with(served):
    def ids(text, *parameters):
        return [row[0] for row in served.sql(text, parameters=parameters).json()["rows"]]

    assert ids("SELECT id FROM gold.orders WHERE id = $1", 7) == [7]
    assert ids("SELECT id FROM gold.orders WHERE country = ? AND id < ? ORDER BY id", "FR", 6) == [1, 4]
    assert ids("SELECT id FROM gold.orders WHERE seen = $1", "2024-01-01T00:05:00Z") == [5]
    assert ids("SELECT id FROM gold.orders WHERE seen = $1", "2024-01-01T02:05:00+02:00") == [5]
    assert ids("SELECT min(id) FROM gold.orders WHERE day = $1", "2024-01-03") == [2]
    assert ids("SELECT id FROM gold.orders WHERE amount = $1", "2.50") == [10]
    assert ids("SELECT id FROM gold.orders WHERE id = $1", "11") == [11]
    assert ids("SELECT $1 + 1", 1) == [2]
    assert ids("SELECT $1::VARCHAR", None) == [None]
    assert ids("SELECT $1::DATE", {"type": "date", "value": "2024-02-29"}) == ["2024-02-29"]
    assert ids("SELECT $1", {"type": "decimal(12,3)", "value": "1.500"}) == ["1.500"]
    assert ids("SELECT $1", {"type": "bigint", "value": str(2**62)}) == [str(2**62)]
    assert ids("SELECT $1", True) == [True]
    text = "'; DROP TABLE gold.orders; --"
    assert ids("SELECT id FROM gold.orders WHERE country = $1", text) == []


@pytest.mark.parametrize(
    "parameters",
    [[], [1, 2], [{"type": "date", "value": "soon"}], [{"type": "blob", "value": "x"}], [["x"]], [{"a": 1}], ["x"]],
)
def test_parameters_that_do_not_fit(served, parameters):
    answer = served.sql("SELECT id FROM gold.orders WHERE id = $1", parameters=parameters)
    assert answer.status_code == 400, answer.text


def test_older_versions_and_times(fresh):
    count = "SELECT count(*) FROM gold.orders"

    def counted(as_of, text=count):
        return served_sql(text, as_of=as_of).json()["rows"][0][0]

    served_sql = fresh.sql
    between = dt.datetime.now(dt.UTC).isoformat()
    time.sleep(0.01)
    append(fresh.orders, orders(300, 10), "late")
    assert served_sql(count).json()["rows"] == [[310]]
    assert counted({"gold.orders": 1}) == 100
    assert counted({"gold.orders": between}) == 300
    assert counted(between) == 300
    assert counted(between, "SELECT count(*) FROM gold.orders, silver.notes") == 600
    assert counted(between, "SELECT count(*) FROM gold.orders AT (VERSION => 2)") == 200
    for wrong in (3, {"gold.orders": 99}, {"gold.orders": "soon"}, {"nothing": 1}, {"silver.notes": 1}, "2001-01-01",
                  {"gold.orders": -1}):  # fmt: skip
        assert served_sql(count, as_of=wrong).status_code in (400, 404), wrong


def test_an_answer_is_cut_where_the_caller_says(served):
    told = served.sql(ALL, rows_max=7).json()
    assert (len(told["rows"]), told["truncated"]) == (7, True)
    told = served.sql(ALL, rows_max=300).json()
    assert (len(told["rows"]), told["truncated"]) == (300, False)


def test_describe(served):
    told = served.post("/api/sql/describe", json={
        "sql": "SELECT id, amount * 2 AS twice FROM gold.orders WHERE country = $1 AND day > $2",
    })  # fmt: skip
    assert told.json()["parameters"] == ["string", "date"]
    assert [column["name"] for column in told.json()["columns"]] == ["id", "twice"]
    assert served.post("/api/sql/describe", "bob", json={"sql": ALL}).status_code == 400
    assert served.post("/api/sql/describe", "alice", json={"sql": "DROP TABLE x"}).status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"sql": "SELEC 1"}, 400), ({"sql": ""}, 400), ({}, 400), ({"sql": 1}, 400), ({"sql": "SELECT 1", "x": 1}, 400),
        ({"sql": "SELECT 1; SELECT 2"}, 403), ({"sql": "INSERT INTO gold.orders SELECT 1"}, 403),
        ({"sql": "SELECT * FROM read_csv('/etc/passwd')"}, 403), ({"sql": "SELECT getenv('HOME')"}, 403),
        ({"sql": "SELECT * FROM gold.nothing"}, 400), ({"sql": "SELECT nothing FROM gold.orders"}, 400),
        ({"sql": "x" * 70_000}, 400), ({"sql": "SELECT 1", "rows_max": 0}, 400),
        ({"sql": "SELECT 1", "time_s": 1e9}, 400),
        ({"sql": "SELECT 1", "time_s": -1}, 400), ({"sql": "SELECT 1", "parameters": [0] * 2000}, 400),
        ({"sql": "SELECT CAST('x' AS INT)"}, 400), ([], 400), ("x", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(served, body, status):
    answer = served.post("/api/sql", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_bodies_that_are_not_json(served):
    client = served
    assert client.post("/api/sql", content="SELECT 1").status_code == 415
    assert client.post("/api/sql", content="{", headers={"content-type": "application/json"}).status_code == 400
    deep = "[" * 100_000
    assert client.post("/api/sql", content=deep, headers={"content-type": "application/json"}).status_code == 400
    large = json.dumps({"sql": "x" * (2 << 20)})
    assert client.post("/api/sql", content=large, headers={"content-type": "application/json"}).status_code == 413
    assert client.get("/api/sql").status_code == 405


def test_what_others_may_not_see_is_not_there(served):
    told = served.sql("SELECT DISTINCT country, name FROM gold.orders", "alice").json()
    assert told["rows"] == [["DE", "***"]]
    missing = served.sql("SELECT * FROM gold.nothing", "bob")
    forbidden = served.sql("SELECT * FROM gold.secret", "bob")
    assert missing.status_code == forbidden.status_code == 400
    assert missing.text.replace("nothing", "secret") == forbidden.text
    assert served.sql("SELECT * FROM gold.secret", "alice").status_code == 400
    assert served.sql("SELECT 1", served.key("bob", "metrics:read")[0]).status_code == 403
    assert served.sql("SELECT 1", None).status_code == 401


def test_a_large_answer_is_streamed_and_whole(served):
    text = "SELECT i, 'x' || i AS t FROM range(200000) AS r(i)"
    body = {"sql": text, "format": "ndjson"}
    with served.client() as client, client.stream("POST", "/api/sql", json=body) as answer:
        assert "content-length" not in answer.headers
        assert sum(json.loads(line)["i"] for line in answer.iter_lines()) == sum(range(200000))


def test_an_error_after_the_first_piece_cuts_the_connection(served):
    """A client must never take a part for the whole."""
    body = {
        "sql": "SELECT i, md5(i::VARCHAR) AS t FROM range(1000000) a(i), range(4) b(j)",
        "format": "csv",
        "time_s": 2,
    }
    with served.client() as client, client.stream("POST", "/api/sql", json=body) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        next(pieces)
        time.sleep(3)  # the query stands still meanwhile, and is then over its time
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert served.sql("SELECT 1 AS a").json()["rows"] == [[1]]


def test_a_client_that_leaves_ends_its_query(served):
    """Both workers are taken by clients that leave: others are answered at once, not when those queries end."""
    body = json.dumps({"sql": "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i + j = 1"}).encode()
    head = f"POST /api/sql HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.keys['owner']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    open_ones = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2)]
    for one in open_ones:
        one.sendall(head.encode() + body)
    time.sleep(0.5)
    started = time.monotonic()
    for one in open_ones:
        one.close()
    assert served.sql("SELECT 1 AS a", "alice").json()["rows"] == [[1]]
    assert time.monotonic() - started < 25, "the queries that nobody waits for went on"


def test_a_query_that_takes_too_long_is_ended(served):
    text = "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i + j = 1"
    answer = served.sql(text, time_s=0.5)
    assert answer.status_code == 503
    assert "longer than it may" in answer.json()["detail"]


def test_what_was_asked_is_in_the_audit_log(fresh):
    fresh.sql("SELECT count(*) FROM gold.orders", "alice")
    fresh.sql("SELECT * FROM gold.secret", "bob")
    fresh.app.audit.flush()
    found = [record for record in fresh.app.audit.records(Wanted()) if '"rest"' in record.told]
    told = {(record.principal, record.decision) for record in found}
    assert {("alice", "allowed"), ("bob", "refused")} <= told


def test_many_at_once(served):
    answers = []

    def ask(number):
        answers.append(served.sql("SELECT $1 + 0", "alice" if number % 2 else "owner", parameters=[number]).json())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer["rows"][0][0] for answer in answers) == [*range(24)]


def test_an_arrow_answer_has_utc_times(served):
    answer = served.sql("SELECT seen FROM gold.orders LIMIT 1", format="arrow")
    schema = pyarrow.ipc.open_stream(answer.content).schema
    assert schema.field("seen").type == pa.timestamp("us", tz="UTC")
