"""A lake with policies, served: alice sees the orders of her country with masked names, bob sees nothing."""

import contextlib
import datetime as dt
import http.client
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from lodestream.apis.serving import HttpServer
from lodestream.app import App, now_us, open_project
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type
from lodestream.security.keys import ApiKey, KeyStore
from tests.apis.running import running

TOKEN = "a-token-for-tests"
ORDERS = {
    "id": "bigint", "country": "string", "name": "string", "amount": "decimal(10,2)", "seen": "timestamp",
    "day": "date",
    "paid": "boolean", "limit": "int", "ratio": "double", "tags": "array<string>", "raw": "binary",
}  # fmt: skip
COUNTRIES = ("DE", "FR", "US")
POLICIES = """\
users:
  alice: {groups: [analysts], attributes: {country: DE}}
  bob: {}
  quinn: {}
  mia: {}
  oscar: {}
grants:
  - {to: group:analysts, select: [gold.orders, silver.notes], quarantine: [gold.orders]}
  - {to: oscar, select: [silver.notes]}
  - {to: quinn, quarantine: [silver.notes]}
  - {to: mia, manage: [gold.orders]}
row_filters:
  own_country: {on: gold.orders, where: "country = attribute('country')"}
masks:
  hide_name: {on: [gold.orders.name], with: "'***'"}
"""


def schema_of(columns):
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def make(lake, name, columns, partitions=()):
    return DeltaTable.create(
        LocalDisk(), table_path(lake, TableName.parse(name)), schema_of(columns), partition_columns=partitions,
        table_id=f"id-{name}", clock_us=now_us(),
    )  # fmt: skip


def orders(first, count, **changes):
    """Rows of the orders table; the values of a row follow from its id."""
    ids = range(first, first + count)
    columns = {
        "id": ids, "country": [COUNTRIES[i % 3] for i in ids], "name": [f"customer-{i}" for i in ids],
        "amount": [Decimal(i) / 4 for i in ids], "seen": [moment(i) for i in ids],
        "day": [dt.date(2024, 1, 1) + dt.timedelta(i % 50) for i in ids],
        "paid": [None if i % 5 == 0 else i % 2 == 0 for i in ids], "limit": [i % 7 for i in ids],
        "ratio": [i / 7 for i in ids], "tags": [[f"t{i % 3}"] for i in ids], "raw": [bytes([i % 256]) for i in ids],
    }  # fmt: skip
    return pa.table({name: list(values) for name, values in (columns | changes).items()})


def moment(i):
    return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=i)


def append(table, rows, name):
    table.refresh()
    return table.commit(adds=table.stage(rows, name=name).adds, clock_us=now_us())


@dataclass
class Served:
    """A running server, and keys of its users."""

    app: App
    url: str
    port: int
    orders: DeltaTable
    notes: DeltaTable
    keys: dict[str, str] = field(default_factory=dict)
    http: Starlette | None = None

    def raw(self, method, path, who="owner"):
        """Status and body of a request whose path is sent as it stands."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, "/", skip_accept_encoding=True)
            connection._buffer[0] = f"{method} {path} HTTP/1.1".encode("latin-1")
            connection.putheader("Authorization", f"Bearer {self.keys.get(who, who)}")
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    def client(self, who="owner", **options):
        """A client of somebody; None for nobody. It reads no certificates, which costs more than a request does."""
        headers = {} if who is None else {"authorization": f"Bearer {self.keys.get(who, who)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False, **options)

    def get(self, path, who="owner", **options):
        with self.client(who) as client:
            return client.get(path, **options)

    def post(self, path, who="owner", **options):
        with self.client(who) as client:
            return client.post(path, **options)

    def sql(self, text, who="owner", headers=None, **more):
        with self.client(who) as client:
            return client.post("/api/sql", json={"sql": text} | more, headers=headers)

    def key(self, name, *scopes, **changes):
        store = KeyStore(self.app.keys_path)
        return store.create("prod", ApiKey("", name, "", scopes or ("query:*",), now_us(), **changes))


def write_lake(folder: Path, rows=300):
    """A project, and tables that its own committer wrote: orders in three commits, notes, and their quarantines."""
    (folder / "tables/bronze").mkdir(parents=True)
    clicks = "source: {http: {stream: clicks}}\ncolumns: {id: bigint}\n"
    (folder / "tables/bronze/clicks.yaml").write_text(clicks)
    (folder / "lodestream.yaml").write_text("project: shop\nlake: lake\nserver: {port: 0}\n")
    (folder / "policies.yaml").write_text(POLICIES)
    lake = str(folder / "lake")
    table = make(lake, "gold.orders", ORDERS)
    for part in range(3):
        append(table, orders(part * rows // 3, rows // 3), f"part-{part}")
    notes = make(lake, "silver.notes", {"id": "bigint", "text": "string"})
    append(notes, pa.table({"id": [1, 2], "text": ["=1+1", None]}), "part-0")
    for name in ("gold.orders__quarantine", "silver.notes__quarantine"):
        aside = make(lake, name, {"_reasons": "array<string>", "_raw": "binary"})
        append(aside, pa.table({"_reasons": [["bad"]], "_raw": [b"canary-quarantine"]}), "part-0")
    secret = make(lake, "gold.secret", {"id": "bigint", "text": "string"})
    append(secret, pa.table({"id": [1], "text": ["canary-secret"]}), "part-0")
    return table, notes


@contextlib.contextmanager
def serving(folder: Path, table=None, notes=None, token=TOKEN):
    with open_project(str(folder)) as app, app.follow_policies("rest", lambda _: None).start():
        settings = app.serving()
        server, asgi = HttpServer(settings, str(folder)), app.http(settings, token)
        with running(server, asgi, 60):
            found = Served(app, server.url, server.port, table, notes, {"owner": token}, asgi)
            for name in ("alice", "bob", "quinn", "mia", "oscar"):
                scopes = ("query:*", "admin:*") if name == "mia" else ("query:*",)
                found.keys[name] = found.key(name, *scopes)[0]
            yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One server for a module whose tests write nothing."""
    folder = tmp_path_factory.mktemp("rest") / "shop"
    table, notes = write_lake(folder)
    with serving(folder, table, notes) as running:
        yield running


@pytest.fixture
def fresh(tmp_path):
    """A server of a test's own."""
    table, notes = write_lake(tmp_path / "shop")
    with serving(tmp_path / "shop", table, notes) as running:
        yield running
