"""A small lake, its console's endpoints on a port, and people who may see different things of it."""

import contextlib
import json
from dataclasses import dataclass, field

import httpx
import pytest

from lodestream.apis.console.part import Console, console_part, following
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import application
from lodestream.apis.serving import HttpServer
from lodestream.app import App, now_us
from lodestream.engines.embedded.history import batches
from lodestream.errors import AccessError
from lodestream.lake.layout import QUARANTINE_SUFFIX
from lodestream.model.access import PRIVILEGES, Principal, TableAccess
from lodestream.model.table import TableName
from lodestream.project.dashboards import Dashboards
from lodestream.query.service import QueryService
from tests.apis.running import running
from tests.engines.lakes import Lab, wait_for

TABLES = {
    "bronze.orders": (
        "source: {files: {path: events, settle: 0 s}}\nformat: json\n"
        "columns: {id: bigint, at: timestamp, amount: int, tenant: string}\n"
    ),
    "silver.orders": (
        "from: stream(bronze.orders)\nexpect:\n  positive: {that: amount > 0, else: quarantine}\n"
        "  small: {that: amount < 100, else: warn}\nevent_time: {column: at, delay: 10 s}\ndedup: {keys: [id]}\n"
    ),
    "gold.total": "sql: select tenant, count(*) as n, sum(amount) as amount from silver.orders group by tenant\n",
    "gold.secret": "sql: select count(*) as n from bronze.orders\n",
}
BOARD = """\
title: Orders
refresh: 1 s
panels:
  - {title: All, kind: number, sql: select count(*) as n from silver.orders}
  - {title: By tenant, kind: bar, x: tenant, y: amount, sql: "select tenant, amount from gold.total order by tenant"}
  - {title: Hidden, kind: number, sql: select n from gold.secret}
  - {title: Words, kind: text, text: Hello.}
"""


@dataclass
class People:
    """An authority and a gate: grants and filters by name, in memory. The name is the credential."""

    grants: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    filters: dict[tuple[str, str], str] = field(default_factory=dict)
    masks: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    above: set = field(default_factory=set)
    changes: int = 1
    events: list = field(default_factory=list)
    full: bool = False

    def version(self):
        return self.changes

    def privileges(self, principal, table):
        if principal.is_owner:
            return frozenset(PRIVILEGES)
        name = str(table).removesuffix(QUARANTINE_SUFFIX)
        held = frozenset(self.grants.get(principal.name, {}).get(name, ()))
        if self.filters.get((principal.name, name)) or self.masks.get((principal.name, name)):
            held -= {"quarantine", "replay"}
        if str(table) != name:
            held = held & {"quarantine"} and held | {"select"}
        return held

    def access(self, principal, table, schema):
        if "select" not in self.privileges(principal, table):
            raise AccessError("may not read this table", table=str(table))
        masks = self.masks.get((principal.name, str(table)), {})
        where = self.filters.get((principal.name, str(table)))
        return TableAccess(tuple((n, masks.get(n)) for n in schema.names), (where,) if where else ())

    def filtered(self, principal, table):
        return any(name == principal.name for name, _ in self.filters) if table in self.above else False

    def visible(self, principal, tables):
        return [table for table in tables if self.privileges(principal, table)]

    def record(self, event):
        if self.full:
            raise AccessError("the audit log cannot be written")
        self.events.append(event)

    def connect(self, request):
        pass

    async def arrive(self, request):
        return self.principal(request)

    def principal(self, request):
        found = self.current(Principal(request.headers.get("authorization", "").removeprefix("Bearer ")))
        if found is None:
            raise ProblemError(401, "no valid key")
        return found

    def current(self, principal):
        if principal.name in self.gone or not principal.name:
            return None
        if principal.name == "owner":
            return Principal("owner", "owner", via="test")
        scopes = ("query:*",) if principal.name.startswith("reader") else None
        return Principal(principal.name, scopes=scopes, via="test") if principal.name in self.grants else None


@dataclass
class Served:
    lab: Lab
    app: App
    people: People
    url: str
    about: Console

    def client(self, name="owner"):
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {name}"}, timeout=30, verify=False)

    def get(self, path, name="owner", **given):
        with self.client(name) as client:
            return client.get(path, **given)

    def post(self, path, body, name="owner"):
        with self.client(name) as client:
            return client.post(path, json=body)

    def settle(self):
        """Until the server has seen what is in the lake."""
        from lodestream.lake.log import list_log

        def seen():
            found = self.about.live.tables()
            return all(
                name in found
                and found[name].version == list_log(self.app.disk, f"{self.app.lake}/{name.layer}/{name.name}").last
                for name in self.app.flows
            )

        wait_for(seen)


class Events:
    """What comes over one stream, event by event."""

    def __init__(self, response):
        self._lines = response.iter_lines()

    def __iter__(self):
        name = identity = ""
        for line in self._lines:
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "id":
                identity = value
            elif key == "data":
                yield name, identity, json.loads(value)


@contextlib.contextmanager
def events(served, name="owner", last=None):
    headers = {"last-event-id": last} if last else {}
    with served.client(name) as client, client.stream("GET", "/api/live", headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield iter(Events(response))


def order(number, amount=1, tenant="a", at=None):
    at = number % 60 if at is None else at
    return {"id": number, "at": f"2024-01-01T00:00:{at:02}Z", "amount": amount, "tenant": tenant}


def grants(*tables, privileges=("select",)):
    return {table: set(privileges) for table in tables}


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "lab")
    for name, text in TABLES.items():
        made.table(name, text)
    return made


@contextlib.contextmanager
def serve(lab, people):
    app = lab.app()
    service = QueryService(app.disk, app.lake, authority=people, catalog=app.project.name, threads=1)
    board = lab.root / "dashboards"
    board.mkdir(exist_ok=True)
    (board / "orders.yaml").write_text(BOARD)
    about = Console(
        app.project.name, app.live, app.flows, service, lambda name: batches(app.disk, app.lake, name),
        Dashboards(str(lab.root)).current, app.replay, people.current, now_us, "boot",
    )  # fmt: skip
    asgi = application([console_part(about, lambda: following(app.live.start, app.live.close))], people)
    server = HttpServer(app.serving(port=0), str(lab.root))
    with app, contextlib.closing(service), running(server, asgi, 30):
        served = Served(lab, app, people, server.url, about)
        served.streams = asgi.state.streams
        served.settle()
        yield served


@pytest.fixture
def served(lab):
    """Ten good orders of two tenants and two bad ones, and a server."""
    lab.events([order(i, tenant="ab"[i % 2]) for i in range(10)] + [order(20, amount=-1), order(21, amount=-2)])
    lab.run()
    with serve(lab, People()) as made:
        yield made


T = TableName.parse
