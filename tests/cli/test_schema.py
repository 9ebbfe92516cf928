"""`lodestream schema check`: words and exit codes."""

import json

import pytest

from lodestream.ports.plugins import names
from tests.cli.conftest import call

pytestmark = pytest.mark.skipif("avro" not in names("formats"), reason="needs the Avro format")


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "tables/bronze").mkdir(parents=True)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "lodestream.yaml").write_text("project: shop\n")
    (tmp_path / "tables/bronze/orders.yaml").write_text(
        "source: {files: {path: incoming}}\nformat: {avro: {schema: schemas/orders.avsc}}\n"
        "columns: {order_id: bigint, note: string}\n"
    )
    write(tmp_path, order_id="long", note="string")
    return tmp_path


def write(shop, **fields):
    told = [{"name": name, "type": kind} for name, kind in fields.items()]
    (shop / "schemas/orders.avsc").write_text(json.dumps({"type": "record", "name": "Order", "fields": told}))


def test_what_breaks_nothing_ends_with_0(shop):
    result = call("schema", "check", project=shop)
    assert (result.code, result.out) == (0, "schemas/orders.avsc: breaks nothing\n")
    assert call("schema", "check", "--json", project=shop).json == {
        "ok": True, "schemas": ["schemas/orders.avsc"], "findings": [],
    }  # fmt: skip


def test_what_breaks_something_ends_with_1(shop):
    write(shop, order_id="long")
    result = call("schema", "check", "schemas/orders.avsc", project=shop)
    assert result.code == 1
    assert "BAD   table: bronze.orders.note: column vanishes" in result.out
    assert "(tables/bronze/orders.yaml:3)" in result.out
    told = call("schema", "check", "--json", str(shop / "schemas/orders.avsc"), project=shop)
    assert told.code == 1
    assert told.json["findings"][0]["column"] == "note"


def test_mistakes_of_the_command_line(shop):
    assert call("schema", "check", "nosuch.avsc", project=shop).code == 3
    assert call("schema", "check", "x.txt", project=shop).code == 3
    assert call("schema", "check", "--registry", "nosuch", project=shop).code == 3
    assert call("schema", "check", "--registry", "http://127.0.0.1:1", project=shop).code == 4


def test_schema_alone_prints_that_of_declarations(shop):
    assert call("schema").json["title"] == "A Lodestream table"
    out = shop / "x.json"
    assert call("schema", "--out", str(out)).code == 0
    assert json.loads(out.read_text())["title"] == "A Lodestream table"
