"""delta-sharing reads a lake in an object store through the server, without any right on the store."""

import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from lodestream.app import open_project
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.apis.sharing.peer import a_client, http_server, profile
from tests.query.conftest import schema_of

TOKEN = "a-token-for-tests"
PARTS = ["plain", "a b", "a/b", "%2F", "ä", "#?&", "it's", None]


@pytest.fixture(scope="module")
def client():
    with a_client() as made:
        yield made


def test_a_lake_in_a_store_is_shared_through_the_server(remote, tmp_path, client):
    root = tmp_path / "p"
    (root / "tables/bronze").mkdir(parents=True)
    (root / "tables/bronze/none.yaml").write_text("source: {http: {stream: none}}\ncolumns: {id: bigint}\n")
    with open(root / "lodestream.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump({"project": "shop", "lake": remote.declared, "server": {"port": 0}}, file)
    rows = pa.table({"id": range(len(PARTS)), "part": PARTS})
    table = DeltaTable.create(
        remote.disk(), table_path(remote.lake, TableName("gold", "t")), schema_of({"id": "bigint", "part": "string"}),
        partition_columns=("part",), table_id="one", clock_us=10**15,
    )  # fmt: skip
    for number in range(2):
        table.commit(adds=table.stage(rows, name=f"{number}").adds, clock_us=10**15)
    with http_server(open_project(str(root)), TOKEN) as server:
        told = profile(root, server.url, TOKEN)
        assert client.ask(told, "lists")[2] == ["gold.t"]
        for delta, version, times in ((False, None, 2), (True, None, 2), (True, 1, 1)):
            _, found = client.ask(told, "rows", table="shop.gold.t", use_delta_format=delta, version=version)
            assert sorted(found, key=lambda row: row["id"]) == sorted(rows.to_pylist() * times, key=lambda r: r["id"])
        _, found = client.ask(told, "changes", table="shop.gold.t", starting_version=2)
        assert len(found) == len(PARTS)
