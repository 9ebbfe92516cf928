"""Two tenants in one lake: everything that the HTTP server gives is crawled as one of them for traces of the other.

Tenant B's rows hold values that stand nowhere else, and there are so many of them that their number is a trace too. The
crawl walks the routing table, so a new path is in it the day it is declared. Each kind of answer is also crawled as the
owner, who must find traces there: a crawl that finds nothing proves nothing.
"""

import contextlib
import functools
import io
import itertools
import re
import time

import httpx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from lodestream.apis.routing import endpoints
from lodestream.apis.serving import HttpServer
from lodestream.app import now_us, open_project
from lodestream.security.keys import ApiKey, KeyStore
from tests.apis.running import running
from tests.engines.lakes import Lab

TOKEN = "a-token-for-tests"
OF_A, OF_B = 11, 4321
_SEEN = re.compile(r"CANARY|7770777|1987-06-05|(?<![\w.-])43(?:2[1-9]|[345]\d)(?![\w])")
"""Texts, numbers and times of B's rows, and how many there are: alone or with A's, also once some more have come."""
TABLES = {
    "bronze.orders": (
        "source: {files: {path: events, settle: 0 s}}\nformat: json\nkeep_raw: true\n"
        "columns: {id: bigint, at: timestamp, amount: int, tenant: string, name: string}\n"
    ),
    "silver.orders": (
        "from: stream(bronze.orders)\nexpect:\n  positive: {that: amount > 0, else: quarantine}\n"
        "event_time: {column: at, delay: 30000 days}\ndedup: {keys: [id]}\n"
    ),
    "gold.orders": (
        "sql: select tenant, name, count(*) as n, sum(amount) as amount, max(at) as last from silver.orders "
        "group by tenant, name\n"
    ),
    "gold.hidden": "sql: select name, max(at) as last from silver.orders where tenant = 'b' group by name\n",
}
POLICIES = """\
users:
  a: {attributes: {tenant: a}, groups: [tenants]}
  total: {}
  nobody: {}
grants:
  - {to: group:tenants, select: [silver.orders, gold.orders], quarantine: [silver.orders], replay: [silver.orders]}
row_filters:
  own: {on: [silver.orders, gold.orders], where: "tenant = attribute('tenant')"}
"""
BOARD = """\
title: Orders
panels:
- {title: All, kind: table, sql: select * from gold.orders}
- {title: Number, kind: number, sql: select count(*) as n from silver.orders}
- {title: Names, kind: table, sql: "select name, count(*) as n, max(at) as at from silver.orders group by name"}
- {title: Hidden, kind: table, sql: select * from gold.hidden}
"""
SQL = (
    "select * from silver.orders",
    "select count(*), max(name), min(at), sum(amount) from silver.orders",
    "select * from gold.orders order by name desc",
    "select * from gold.hidden",
    "select * from bronze.orders",
    "select * from silver.orders__quarantine",
    "select * from silver.orders at (version => 1)",
    "select approx_count_distinct(id), quantile_cont(amount, 0.99) from silver.orders",
    "select cast(name as int) from silver.orders",
    "select 1 / (amount - amount), name from silver.orders where cast(name as date) > '2000-01-01'",
    "select error(name) from silver.orders",
    "select string_agg(name, ',') from silver.orders group by all having count(*) > 0",
    "select (select max(name) from silver.orders o where o.id <> s.id) from silver.orders s limit 5",
    "summarize silver.orders",
    "describe silver.orders",
    "select * from duckdb_tables()",
    "select * from information_schema.columns",
)
FORMATS = ("json", "ndjson", "csv", "arrow", "parquet")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Eleven orders of A and thousands of B, one of each set aside."""
    lab = Lab(tmp_path_factory.mktemp("canaries") / "lab")
    for name, text in TABLES.items():
        lab.table(name, text)
    (lab.root / "policies.yaml").write_text(POLICIES)
    (lab.root / "dashboards").mkdir()
    (lab.root / "dashboards/orders.yaml").write_text(BOARD)
    (lab.root / "queries").mkdir()
    (lab.root / "queries/orders.sql").write_text("select * from silver.orders order by id desc limit 5000\n")
    lab.events([of_a(i) for i in range(OF_A)] + [of_a(99, amount=-1)])
    lab.run()
    lab.events([of_b(i) for i in range(OF_B)] + [of_b(99_999, amount=-7_770_777)])
    lab.run()
    return lab


def of_a(number, amount=1):
    return {
        "id": number,
        "at": f"2024-01-0{1 + number % 9}T00:00:00Z",
        "amount": amount,
        "tenant": "a",
        "name": "alpha",
    }


def of_b(number, amount=7_770_777):
    return {
        "id": 7_770_777_000_000 + number, "at": "1987-06-05T04:03:02Z" if number % 2 else "2024-01-01T00:00:00Z",
        "amount": amount, "tenant": "b", "name": f"CANARY{number % 7}",
    }  # fmt: skip


class Crawl:
    """Everything that one server says to one of its callers."""

    def __init__(self, lab, url, table, headers, stir):
        self.lab, self.url, self.headers, self.stir = lab, url, headers, stir
        self.endpoints = table
        self.client = httpx.Client(base_url=url, headers=headers, timeout=60)
        self.asked, self.found, self.codes = 0, {}, {}

    def run(self):
        with self.client:
            for endpoint in self.endpoints:
                if endpoint.method == "GET":
                    self.crawl(endpoint)
            for text, form in itertools.product(SQL, FORMATS):
                if form == "json" or text in SQL[:4]:
                    self.look(f"sql {form}", self.send("POST", "/api/sql", json={"sql": text, "format": form}))
            for text in SQL:
                self.look("describe", self.send("POST", "/api/sql/describe", json={"sql": text}))
            for name in self.tables():
                for body in ({"reason": "expect:positive"}, {"x": 1}):
                    if self.headers.get("authorization") != f"Bearer {TOKEN}":  # the owner's rows shall stay aside
                        self.look("replay", self.send("POST", f"/api/quarantine/{name}/replay", json=body))
            self.take()
        return self

    def take(self):
        """Every file that Delta Sharing gives, at the addresses that it gives."""
        for name in self.tables():
            layer, _, short = name.partition(".")
            path = f"/delta-sharing/shares/lab/schemas/{layer}/tables/{short}"
            listed = self.send("POST", f"{path}/query", json={}) + self.send("GET", f"{path}/changes?startingVersion=0")
            self.look("sharing", listed + self.send("GET", f"{path}/metadata"))
            for url in re.findall(r'"url":"([^"]+)"', listed):
                self.look("shared file", self.send("GET", url))

    def crawl(self, endpoint):
        """Each path, and where there is an answer each query too."""
        streams = any("text/event-stream" in reply.content for reply in endpoint.answers.values())
        ask = self.listen if streams else functools.partial(self.send, "GET")
        for path in self.paths(endpoint):
            self.look(f"GET {endpoint.path}", ask(path))
            if streams:
                continue
            queries = list(self.queries(endpoint))
            for query in queries if self.codes[path] == {200} else queries[:1]:
                self.look(f"GET {endpoint.path}", self.send("GET", f"{path}?{query}"))

    def tables(self):
        plain = [*TABLES, "gold.nothing"]
        return [*plain, *(f"{name}__quarantine" for name in TABLES)]

    def paths(self, endpoint):
        """The path with every value that could mean something."""
        values = {"table": self.tables(), "name": ["orders", "nothing"], "path": ["x"]}
        for chosen in itertools.product(*(values.get(name, ["x", "1"]) for name in endpoint.in_path)):
            path = re.sub(r"\{[a-z_]+(?::path)?\}", "{}", endpoint.path).format(*chosen)
            yield path

    def queries(self, endpoint):
        known = {parameter.name for parameter in endpoint.parameters if parameter.where == "query"}
        if "as_of" in known:
            yield from (f"as_of={version}" for version in (0, 1, 2, 3))
        if "format" in known:
            yield from (f"format={form}&limit=1000" for form in FORMATS)
        if "limit" in known:
            yield "limit=1000"
        if "order" in known:
            yield from (f"order={column}.desc&limit=3" for column in ("name", "amount", "at", "id"))
        if "filters" in known:
            yield from ("name=gt.b", "tenant=eq.b", "tenant=neq.a", "id=gt.100", "amount=eq.x", "name=gt.b&select=name")
        if "q" in known:
            yield from ("q=CAN", "q=orders", "q=b", "q=name")
        if "reason" in known:
            yield "reason=expect:positive"
        if "column" in known:
            yield from ("column=name", "column=nothing")

    def send(self, method, path, **given):
        self.asked += 1
        for _ in range(20):
            answer = self.client.request(method, path, **given)
            if answer.status_code not in (429, 503):
                break
            time.sleep(0.1)
        self.codes.setdefault(path.partition("?")[0], set()).add(answer.status_code)
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items() if name != "content-length")
        return headers + "\n" + readable(answer.content)

    def listen(self, path):
        """The first events of a stream, while B's rows go on changing."""
        self.asked += 1
        said = []
        with (
            contextlib.suppress(httpx.ReadTimeout),
            httpx.Client(base_url=self.url, headers=self.headers, timeout=2.0) as client,
            client.stream("GET", path, headers={"last-event-id": "0"}) as answer,
        ):
            self.codes.setdefault(path.partition("?")[0], set()).add(answer.status_code)
            if answer.status_code != 200:
                return readable(answer.read())
            self.stir()
            ends = time.monotonic() + 3.0
            for line in answer.iter_lines():
                said.append(line)
                if time.monotonic() > ends:
                    break
        return "\n".join(said)

    def look(self, what, text):
        traces = sorted(set(_SEEN.findall(text)))
        if traces:
            self.found.setdefault(what, set()).update(traces)


def readable(content):
    """An answer as text, Arrow and Parquet too."""
    with contextlib.suppress(pa.ArrowInvalid, OSError):
        if content[:4] == b"PAR1":
            table = pq.read_table(io.BytesIO(content))
            return f"{table.to_pylist()} {table.num_rows} {pq.read_metadata(io.BytesIO(content))}"
        table = pyarrow.ipc.open_stream(content).read_all()
        return f"{table.to_pylist()} {table.num_rows}"
    return content.decode("utf-8", "replace")


@contextlib.contextmanager
def serving(lab):
    numbers = itertools.count(200_000)

    def stir():
        lab.events([of_b(next(numbers))])
        lab.run()

    def crawl(name):
        if name is None:
            headers = {}
        elif name == "owner":
            headers = {"authorization": f"Bearer {TOKEN}"}
        else:
            scopes = ("query:*", "admin:*", "metrics:read")
            key = ApiKey("", name, "", scopes, now_us(), None)
            headers = {"authorization": f"Bearer {KeyStore(app.keys_path).create('default', key)[0]}"}
        return Crawl(lab, server.url, endpoints(asgi), headers, stir)

    with open_project(str(lab.root)) as app:
        app.apply()
        settings = app.serving(port=0)
        server, asgi = HttpServer(settings, str(lab.root)), app.http(settings, TOKEN)
        with running(server, asgi, 30):
            yield crawl


@pytest.fixture(scope="module")
def server(lake):
    with serving(lake) as crawl:
        yield crawl


def test_the_owner_finds_traces_on_every_kind_of_answer(server):
    """Whatever can show a row, a value of one, or how many there are, shows B's to whoever may see them."""
    found = server("owner").run()
    wanted = {
        "GET /api/overview", "GET /api/live", "GET /api/quality", "GET /api/quality/{table}",
        "GET /api/quarantine/{table}", "GET /api/dashboards/{name}/data", "GET /api/queries/{name}",
        "GET /api/tables/{table}/changes", "GET /api/tables/{table}",
        "GET /api/tables/{table}/stats", "GET /api/tables/{table}/history", *(f"sql {form}" for form in FORMATS),
        "sharing", "shared file",
    }  # fmt: skip
    assert wanted <= set(found.found), wanted - set(found.found)
    assert found.asked > 200


@pytest.mark.parametrize("name", ["a", "nobody", "stranger", None])
def test_nobody_else_finds_any(server, name):
    """The owner has asked for the same before, so whatever is kept is there to be given out."""
    found = server(name).run()
    assert found.found == {}
    assert found.asked > 100
    if name == "a":
        assert 200 in found.codes["/api/tables/silver.orders"]
        assert 200 in found.codes["/api/dashboards/orders/data"]
        assert found.codes["/api/quarantine/silver.orders"] == {403}


def test_a_planted_leak_is_found(lake):
    """The filter is gone for one table: the crawl as A says so, and says where."""
    file = lake.root / "policies.yaml"
    file.write_text(POLICIES.replace("on: [silver.orders, gold.orders]", "on: [gold.orders]"))
    try:
        with serving(lake) as crawl:
            found = crawl("a").run().found
    finally:
        file.write_text(POLICIES)
    assert {"GET /api/tables/{table}", "GET /api/overview", "GET /api/live", "sql json", "sql parquet"} <= set(found)
    assert {"sharing", "shared file"} <= set(found)
