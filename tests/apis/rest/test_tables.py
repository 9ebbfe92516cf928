"""Tables over HTTP: filters, pages that are complete under writes, columns, versions, figures, and who sees them."""

import csv
import io
import json
import shutil
import subprocess
import threading
from decimal import Decimal

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from lodestream.apis.secrets import secret_of
from tests.apis.paths import TRAVERSALS, url_path
from tests.apis.rest.conftest import append, make, orders

PATH = "/api/tables/gold.orders"


def ids(served, query, who="owner"):
    answer = served.get(f"{PATH}?select=id&limit=1000&{query}", who)
    assert answer.status_code == 200, answer.text
    return sorted(row[0] for row in answer.json()["rows"])


def pages(served, query, who="owner", path=PATH):
    """All rows, page by page."""
    rows, cursor, seen = [], None, []
    with served.client(who) as client:
        while True:
            answer = client.get(f"{path}?{query}" + (f"&cursor={cursor}" if cursor else ""))
            assert answer.status_code == 200, answer.text
            told = answer.json()
            rows += told["rows"]
            seen.append(told["version"])
            cursor = told["next"]
            assert (cursor is not None) == ("link" in answer.headers)
            if cursor is None:
                assert len(set(seen)) == 1, "every page is of one version"
                return rows


def test_what_there_is(served):
    told = served.get("/api/tables").json()["tables"]
    assert [one["table"] for one in told] == [
        "silver.notes", "silver.notes__quarantine", "gold.orders", "gold.orders__quarantine", "gold.secret",
    ]  # fmt: skip
    mine = {one["table"]: one["privileges"] for one in served.get("/api/tables", "alice").json()["tables"]}
    assert mine.keys() >= {"gold.orders", "silver.notes"}
    assert "select" in mine["gold.orders"]
    assert "gold.secret" not in mine
    assert served.get("/api/tables", "bob").json() == {"tables": []}


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("id=eq.7", lambda i: i == 7), ("id=neq.7", lambda i: i != 7), ("id=gt.290", lambda i: i > 290),
        ("id=gte.290&id=lt.295", lambda i: 290 <= i < 295), ("id=lte.3", lambda i: i <= 3),
        ("country=eq.DE", lambda i: i % 3 == 0), ("country=in.(DE,FR)", lambda i: i % 3 < 2),
        ("country=not.in.(DE,FR)", lambda i: i % 3 == 2), ("name=like.customer-1*", lambda i: str(i)[0] == "1"),
        ("name=ilike.CUSTOMER-2_", lambda i: 20 <= i < 30), ("name=not.like.*1*", lambda i: "1" not in str(i)),
        ("amount=eq.2.5", lambda i: i == 10), ("amount=gt.74", lambda i: i > 296),
        ("seen=gte.2024-01-01T04:55:00Z", lambda i: i >= 295), ("day=eq.2024-01-03", lambda i: i % 50 == 2),
        ("paid=is.null", lambda i: i % 5 == 0), ("paid=is.true", lambda i: i % 5 and i % 2 == 0),
        ("paid=not.is.null", lambda i: i % 5), ("paid=eq.false", lambda i: i % 5 and i % 2),
        (".limit=eq.3", lambda i: i % 7 == 3), ("ratio=lt.1", lambda i: i < 7), ("raw=eq.BQ==", lambda i: i % 256 == 5),
        ('name=in.("customer-1","customer-2")', lambda i: i in (1, 2)), ("ID=eq.7", lambda i: i == 7),
        ("country=eq.DE'%20OR%20'1'='1", lambda i: False), ("name=eq.{}", lambda i: False),
    ],
)  # fmt: skip
def test_filters(served, query, holds):
    assert ids(served, query) == [i for i in range(300) if holds(i)]


@pytest.mark.parametrize(
    "query",
    ["id=7", "id=eq.x", "id=eq.99999999999999999999", "nothing=eq.1", "id=about.7", "id=eq", "id=is.true", "tags=eq.x",
     "country=in.DE", "country=in.(DE", "amount=eq.NaN", "amount=like.x", "seen=eq.soon", "limit=0", "limit=x",
     "limit=1000000", "limit=-1", "select=nothing", "order=nothing", "order=id.down", "cursor=x", "cursor=",
     "as_of=soon",
     "format=xml", 'country=in.("DE"x)', "id=eq.%00", "country=eq.%00", "as_of=99", "paid=eq.yes", "id=in.()",
     "&".join(f"id=neq.{n}" for n in range(60))],
)  # fmt: skip
def test_what_cannot_be_read(served, query):
    answer = served.get(f"{PATH}?{query}")
    assert answer.status_code in (400, 410, 414, 431), (query, answer.text)
    if answer.status_code == 400 and answer.content:
        assert answer.headers["content-type"] == "application/problem+json"


def test_columns_and_order(served):
    told = served.get(f"{PATH}?select=name,id&order=country.desc,id.desc&limit=3").json()
    assert [column["name"] for column in told["columns"]] == ["name", "id"]
    assert told["rows"] == [["customer-299", 299], ["customer-296", 296], ["customer-293", 293]]
    told = served.get(f"{PATH}?select=paid,id&order=paid,id&limit=1000").json()
    assert [row[0] for row in told["rows"]] == [False] * 120 + [True] * 120 + [None] * 60


@pytest.mark.parametrize(
    "order", ["", "id", "id.desc", "country", "country.desc,id", "paid", "paid.desc", "ratio.desc", "amount",
              "seen.desc", "day,country", "tags", "raw", "limit,country.desc"],
)  # fmt: skip
@pytest.mark.parametrize("select", ["", "id", "country,id", "id,tags"])
def test_pages_are_complete(served, order, select):
    rows = pages(served, f"limit=37&order={order}&select={select}")
    place = select.split(",").index("id") if select else 0
    assert sorted(row[place] for row in rows) == [*range(300)]


def test_pages_of_rows_that_are_the_same_are_complete(served):
    rows = pages(served, "limit=7&select=country")
    assert sorted(row[0] for row in rows) == sorted(["DE", "FR", "US"] * 100)
    rows = pages(served, "limit=7&select=paid&order=paid.desc&paid=is.null")
    assert rows == [[None]] * 60
    assert len(pages(served, "limit=11&select=country&country=eq.DE")) == 100


def test_pages_follow_an_order(served):
    rows = pages(served, "limit=13&order=country.desc,amount.desc&select=country,amount,id")
    assert rows == sorted(rows, key=lambda row: (row[0], row[2]), reverse=True)


def test_pages_are_complete_under_writes(fresh):
    stop, failed = threading.Event(), []

    def write():
        number = 0
        while not stop.is_set():
            try:
                append(fresh.orders, orders(1000 + number * 10, 10), f"more-{number}")
            except Exception as error:
                failed.append(error)
                return
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            rows = pages(fresh, "limit=50&select=id&id=lt.1000")
            assert sorted(row[0] for row in rows) == [*range(300)]
            everything = pages(fresh, "limit=200&select=id&order=id")
            numbers = [row[0] for row in everything]
            assert numbers == [*range(300), *range(1000, 1000 + len(numbers) - 300)]
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert len(pages(fresh, "limit=500&select=id&as_of=3")) == 300


def test_a_cursor_is_of_one_question_and_one_caller(served):
    cursor = served.get(f"{PATH}?limit=2&order=id").json()["next"]
    assert served.get(f"{PATH}?limit=5&order=id&cursor={cursor}").json()["rows"][0][0] == 2
    for query in ("order=id.desc", "order=id&country=eq.DE", "order=id&select=id", ""):
        assert served.get(f"{PATH}?limit=2&{query}&cursor={cursor}").status_code == 400
    assert served.get(f"{PATH}?limit=2&order=id&cursor={cursor}", "alice").status_code == 400
    assert served.get(f"/api/tables/silver.notes?limit=1&order=id&cursor={cursor}").status_code == 400
    other = "x" if cursor[30] != "x" else "y"
    for broken in (cursor[:-4], cursor + "AAAA", "AAAA" + cursor[4:], cursor[:30] + other + cursor[31:], "A" * 5000):
        assert served.get(f"{PATH}?limit=2&order=id&cursor={broken}").status_code == 400


def test_a_page_that_the_caller_has_is_not_sent_again(fresh):
    first = fresh.get(f"{PATH}?limit=2&order=id")
    etag = first.headers["etag"]
    known = {"if-none-match": etag}
    again = fresh.get(f"{PATH}?limit=2&order=id", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert fresh.get(f"{PATH}?limit=3&order=id", headers=known).status_code == 200
    assert fresh.get(f"{PATH}?limit=2&order=id&format=csv", headers=known).status_code == 200
    assert fresh.get(f"{PATH}?limit=2&order=id", "alice", headers=known).status_code == 200
    assert fresh.get(f"{PATH}?limit=2&order=id", "bob", headers=known).status_code == 404
    append(fresh.orders, orders(300, 1), "more")
    assert fresh.get(f"{PATH}?limit=2&order=id", headers=known).status_code == 200


def test_formats(served):
    query = "order=id&limit=5"
    expected = orders(0, 5)
    assert pyarrow.ipc.open_stream(served.get(f"{PATH}?{query}&format=arrow").content).read_all().equals(
        expected.cast(pyarrow.ipc.open_stream(served.get(f"{PATH}?{query}&format=arrow").content).schema)
    )  # fmt: skip
    parquet = served.get(f"{PATH}?{query}", headers={"accept": "application/vnd.apache.parquet"})
    assert pq.read_table(io.BytesIO(parquet.content))["id"].to_pylist() == [*range(5)]
    assert json.loads(pq.read_metadata(io.BytesIO(parquet.content)).metadata[b"lodestream"])["version"] == 3
    text = served.get(f"{PATH}?{query}&format=csv")
    assert [row[0] for row in csv.reader(io.StringIO(text.text))] == ["id", "0", "1", "2", "3", "4"]
    assert 'rel="next"' in text.headers["link"]
    following = text.headers["link"].partition("<")[2].partition(">")[0]
    rows = [*csv.reader(io.StringIO(served.get(following).text))]
    assert [row[0] for row in rows[1:]] == ["5", "6", "7", "8", "9"]
    lines = served.get(f"{PATH}?{query}&format=ndjson").text.splitlines()
    assert json.loads(lines[1])["amount"] == "0.25"


def test_rows_and_columns_as_the_caller_may_see_them(served):
    rows = pages(served, "limit=40&select=country,name", "alice")
    assert rows == [["DE", "***"]] * 100
    assert served.get(f"{PATH}?country=eq.FR", "alice").json()["rows"] == []
    assert served.get(f"{PATH}?name=eq.customer-3", "alice").json()["rows"] == []
    told = served.get(f"{PATH}/schema", "alice").json()
    assert {one["name"]: one["masked"] for one in told["columns"]}["name"] is True
    assert not any(one["masked"] for one in served.get(f"{PATH}/schema").json()["columns"])
    stats = served.get(f"{PATH}/stats", "alice").json()
    assert stats["rows"] == 100
    assert "size_bytes" not in stats
    figures = {one["name"]: one for one in stats["columns"]}
    assert (figures["country"]["min"], figures["country"]["max"]) == ("DE", "DE")
    assert (figures["name"]["min"], figures["id"]["max"]) == ("***", 297)
    versions = served.get(f"{PATH}/history", "alice").json()["versions"]
    assert all("rows_added" not in one for one in versions)


def test_schema_history_and_figures(served):
    told = served.get(f"{PATH}/schema").json()
    assert told["version"] == 3
    assert [(one["name"], one["type"]) for one in told["columns"]][:4] == [
        ("id", "bigint"), ("country", "string"), ("name", "string"), ("amount", "decimal(10,2)"),
    ]  # fmt: skip
    versions = served.get(f"{PATH}/history").json()["versions"]
    assert [one["version"] for one in versions] == [3, 2, 1, 0]
    assert [one["rows_added"] for one in versions] == [100, 100, 100, 0]
    assert [one["version"] for one in served.get(f"{PATH}/history?limit=2&before=3").json()["versions"]] == [2, 1]
    assert served.get(f"{PATH}/history?limit=0").status_code == 400
    time = versions[1]["time"]
    assert served.get(f"{PATH}?as_of={time}&limit=1").json()["version"] == 2
    stats = served.get(f"{PATH}/stats").json()
    assert stats["rows"] == 300
    assert stats["files"] == 3
    figures = {one["name"]: one for one in stats["columns"]}
    assert figures["paid"]["nulls"] == 60
    assert figures["amount"]["max"] == f"{Decimal(299) / 4:.2f}"
    assert 250 <= figures["id"]["distinct"] <= 300
    assert served.get(f"{PATH}/stats?as_of=1").json()["rows"] == 100


@pytest.mark.parametrize("kind", ["", "/schema", "/history", "/stats"])
def test_what_is_not_for_the_caller_is_not_there(served, kind):
    """The same status and the same words for a table that is hidden and one that does not exist."""
    for who in ("alice", "bob"):
        missing = served.get(f"/api/tables/gold.secrot{kind}", who)
        hidden = served.get(f"/api/tables/gold.secret{kind}", who)
        assert missing.status_code == hidden.status_code == 404
        told, expected = hidden.json(), missing.json()
        assert {told.pop("nearest", None), expected.pop("nearest", None)} <= {None, "gold.orders"}, who
        assert told | {"table": ""} == expected | {"table": ""}
    assert served.get(f"/api/tables/gold.secret{kind}", None).status_code == 401


def test_quarantine_needs_its_own_privilege(served):
    assert b"canary" not in served.get("/api/tables/gold.orders__quarantine", "alice").content
    told = served.get("/api/tables/silver.notes__quarantine", "quinn")
    assert told.status_code == 200
    assert len(told.json()["rows"]) == 1
    assert served.get("/api/tables/silver.notes__quarantine", "oscar").status_code == 404


def test_whoever_may_only_manage_sees_no_row(served):
    assert served.get(PATH, "mia").status_code == 403
    assert b"customer" not in served.get(f"{PATH}/stats", "mia").content


def test_an_empty_table(fresh):
    make(fresh.app.lake, "gold.empty", {"id": "bigint"})
    assert fresh.get("/api/tables/gold.empty").json() == {
        "columns": [{"name": "id", "type": "bigint"}], "rows": [], "version": 0, "next": None,
    }  # fmt: skip
    assert fresh.get("/api/tables/gold.empty/stats").json()["rows"] == 0


def test_rows_that_are_large_make_short_pages(fresh):
    table = make(fresh.app.lake, "gold.large", {"id": "bigint", "text": "string"})
    append(table, pa.table({"id": range(60), "text": ["x" * (1 << 20)] * 60}), "1")
    rows = pages(fresh, "limit=1000&order=id", path="/api/tables/gold.large")
    assert [row[0] for row in rows] == [*range(60)]


@pytest.mark.parametrize("kind", ["", "/schema", "/history", "/stats"])
def test_no_path_leaves_the_lake(served, kind):
    """Nothing that stands for a table reaches a file, and no answer differs from that of a table that is not there."""
    for text in TRAVERSALS:
        status, body = served.raw("GET", f"/api/tables/{url_path(text)}{kind}")
        if "#" not in text and "?" not in text:
            assert status in (400, 404, 414, 431), (text, status)
        assert "root:" not in body
        assert "canary" not in body


def test_the_secret_of_cursors_is_made_once(tmp_path):
    path = str(tmp_path / "a" / "b" / "cursors.key")
    found = []
    threads = [threading.Thread(target=lambda: found.append(secret_of(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert (tmp_path / "a/b/cursors.key").stat().st_mode & 0o777 == 0o600
    assert len(list((tmp_path / "a/b").iterdir())) == 1


def test_curl_is_a_client(served):
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt-get install curl")
    command = ["curl", "-sS", "--fail", "-H", f"Authorization: Bearer {served.keys['alice']}"]
    rows = subprocess.run(
        [*command, "-G", f"{served.url}{PATH}", "--data-urlencode", "select=id,name", "-d", "order=id.desc&limit=1"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(rows.stdout)["rows"] == [[297, "***"]]
    body = json.dumps({"sql": "SELECT count(*) AS n FROM gold.orders", "format": "csv"})
    counted = subprocess.run(
        [*command, f"{served.url}/api/sql", "-H", "Content-Type: application/json", "-d", body],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert counted.stdout == '"n"\n100\n'
