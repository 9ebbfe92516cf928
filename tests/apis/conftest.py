"""A project whose tables take records over HTTP, served in this process."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pytest

from lodestream.apis.serving import HttpServer
from lodestream.app import App, open_project
from tests.apis.running import running

TOKEN = "a-token-for-tests"
ORDERS = """\
source: {http: {stream: orders}}
columns: {id: bigint, name: string, amount: 'decimal(12,2)', at: timestamp}
"""
PLACES = """\
source: {http: {stream: places}}
format: {csv: {delimiter: ';'}}
columns: {id: bigint, name: string}
"""


@dataclass
class Served:
    """A running server and a client of it."""

    app: App
    url: str
    port: int
    client: httpx.Client

    def post(self, body, kind="application/json", stream="orders", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body.encode() if isinstance(body, str) else body
        return self.client.post(f"/ingest/{stream}", content=content, headers={"content-type": kind} | named)

    def rows(self, table="bronze.orders", columns=("id", "name")):
        """Rows of a table in order of position, once everything is taken in; read by delta-rs."""
        with open_project(self.app.project.root) as app:
            app.run()
        path = Path(self.app.lake, *table.split("."))
        found = pl.read_delta(str(path)).sort("_position").select(columns).to_arrow() if path.exists() else pa.table({})
        return found.to_pylist()


def write_project(folder: Path, server: str = "", tables: dict[str, str] | None = None) -> Path:
    (folder / "tables/bronze").mkdir(parents=True)
    (folder / "lodestream.yaml").write_text(f"project: shop\nlake: lake\nserver: {{port: 0, {server}}}\n")
    for name, text in (tables or {"orders": ORDERS, "places": PLACES}).items():
        (folder / f"tables/bronze/{name}.yaml").write_text(text)
    return folder


@contextlib.contextmanager
def serving(folder, token=TOKEN, **changes):
    """Serve the project in `folder`; ends with everything answered."""
    with open_project(str(folder)) as app:
        settings = app.serving(**changes)
        server = HttpServer(settings, str(folder))
        headers = {"authorization": f"Bearer {token}"} if token else {}
        with (
            running(server, app.http(settings, token), 30),
            httpx.Client(base_url=server.url, headers=headers, timeout=30) as client,
        ):
            yield Served(app, server.url, server.port, client)


@pytest.fixture
def project(tmp_path):
    """Makes a project; give what stands under `server:`."""

    def make(server="", tables=None):
        return write_project(tmp_path / "shop", server, tables)

    make.folder = tmp_path / "shop"
    return make


@pytest.fixture
def served(project):
    with serving(project()) as running:
        yield running
