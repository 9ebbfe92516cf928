"""What a changed schema breaks is told before it is deployed, and what breaks nothing is let through."""

import json

import pytest

from lodestream.app import open_project
from lodestream.engines.embedded.frames import describe
from lodestream.errors import ConfigError, TransientError
from lodestream.operations.contracts import Changed, Contracts, schema_files
from lodestream.ports.plugins import names
from lodestream.testing.registry import running_registry

pytestmark = pytest.mark.skipif("avro" not in names("formats"), reason="needs the Avro format")

LONG, DOUBLE, TEXT = "long", "double", ["null", "string"]
FIELDS = {"order_id": LONG, "amount": DOUBLE, "country": TEXT}
COLUMNS = "{order_id: bigint, amount: double, country: string}"
SILVER = "from: stream(bronze.orders)\nderive: {country: upper(country), cents: cast(amount * 100 as bigint)}\n"
AVRO = "{avro: {schema: schemas/orders.avsc}}"


def avsc(fields):
    return json.dumps(
        {"type": "record", "name": "Order", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    )


def checked(folder, fields, *, form=AVRO, drift="quarantine", columns=COLUMNS, silver=SILVER, changed=None, **more):
    """Findings as (breaks, what, table, column) for the schema with these fields."""
    for name, text in {
        "lodestream.yaml": "project: shop\n",
        "tables/bronze/orders.yaml": (
            f"source: {{kafka: {{topic: orders, servers: '127.0.0.1:1'}}}}\nformat: {form}\n"
            f"columns: {columns}\ndrift: {drift}\n"
        ),
        "tables/silver/orders.yaml": silver,
        "schemas/orders.avsc": avsc(fields),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    app = open_project(str(folder))
    contracts = Contracts(app.project, app.flows, {}, app.registry, more.get("asked"), describe)
    return contracts.check(changed or Changed("schemas/orders.avsc"))


def told(found):
    return [(one.breaks, one.what, str(one.table) if one.table else None, one.column) for one in found]


def test_the_schema_that_is_there_breaks_nothing(tmp_path):
    assert checked(tmp_path, FIELDS) == []


def test_a_narrower_type_still_fits(tmp_path):
    assert checked(tmp_path, {**FIELDS, "order_id": "int", "amount": "float"}) == []


def test_a_column_that_vanishes_breaks_its_table_and_who_uses_it(tmp_path):
    found = checked(tmp_path, {"order_id": LONG, "amount": DOUBLE})
    assert told(found) == [
        (True, "table", "bronze.orders", "country"),
        (True, "consumer", "silver.orders", None),
    ]
    assert (found[0].file, found[0].line) == ("tables/bronze/orders.yaml", 3)
    assert (found[1].file, found[1].line) == ("tables/silver/orders.yaml", 2)
    assert "'country'" in found[1].text


def test_a_column_that_nobody_reads_breaks_no_consumer(tmp_path):
    found = checked(tmp_path, {"order_id": LONG, "amount": DOUBLE}, silver="from: stream(bronze.orders)\n")
    assert told(found) == [(True, "table", "bronze.orders", "country")]


def test_a_type_that_no_longer_decodes_breaks_table_and_expression(tmp_path):
    found = checked(tmp_path, {**FIELDS, "amount": "string"})
    assert told(found) == [(True, "table", "bronze.orders", "amount"), (True, "consumer", "silver.orders", None)]
    assert "from double to string" in found[0].text


def test_drift_says_what_becomes_of_new_and_wider_fields(tmp_path):
    more = {**FIELDS, "note": TEXT}
    assert told(checked(tmp_path, more)) == [(True, "table", "bronze.orders", "note")]
    assert told(checked(tmp_path, more, drift="stop")) == [(True, "table", "bronze.orders", "note")]
    assert told(checked(tmp_path, more, drift="add")) == [(False, "table", "bronze.orders", "note")]
    small = "{order_id: int, amount: double, country: string}"
    assert told(checked(tmp_path, FIELDS, columns=small)) == [(True, "table", "bronze.orders", "order_id")]
    assert told(checked(tmp_path, FIELDS, columns=small, drift="widen")) == [
        (False, "table", "bronze.orders", "order_id")
    ]


def test_files_and_subjects_name_tables(tmp_path):
    fewer = {"order_id": LONG, "amount": DOUBLE}
    for form in ("avro", "{avro: {subject: orders}}", "{avro: {subject: orders-value}}"):
        assert told(checked(tmp_path, fewer, form=form))[0] == (True, "table", "bronze.orders", "country")
    assert told(checked(tmp_path, fewer, form="{avro: {subject: other}}")) == [(False, "schema", None, None)]
    (tmp_path / "new.avsc").write_text(avsc(fewer))
    with running_registry(store=str(tmp_path / "r.db")) as server:
        changed = Changed("new.avsc", "orders-value")
        found = checked(tmp_path, FIELDS, form="avro", changed=changed, asked=server.url)
        assert told(found)[0] == (True, "table", "bronze.orders", "country")


def test_the_rule_of_the_registry_is_asked(tmp_path):
    with running_registry(store=str(tmp_path / "r.db")) as server:
        form = f"{{avro: {{schema: schemas/orders.avsc, registry: '{server.url}'}}}}"
        assert checked(tmp_path, FIELDS, form=form) == []
        app = open_project(str(tmp_path))
        app.registry(server.url).register("orders-value", "AVRO", avsc({"order_id": LONG}))
        found = checked(tmp_path, FIELDS, form=form)
        assert told(found) == [(True, "registry", None, None)] * len(found)
        assert "READER_FIELD_MISSING_DEFAULT_VALUE" in found[0].text
        assert told(checked(tmp_path, FIELDS)) == []
        assert told(checked(tmp_path, FIELDS, asked=server.url)) == told(found)
    with pytest.raises(TransientError):
        checked(tmp_path, FIELDS, form=form)


def test_what_is_no_schema_is_told(tmp_path):
    checked(tmp_path, FIELDS)
    (tmp_path / "schemas/bad.avsc").write_text("{")
    (tmp_path / "schemas/text.txt").write_text("")
    app = open_project(str(tmp_path))
    contracts = Contracts(app.project, app.flows, {}, app.registry)
    (tmp_path / "schemas/orders.avsc").write_text("{")
    broken = contracts.check(Changed("schemas/orders.avsc"))
    assert told(broken) == [(True, "schema", "bronze.orders", None)]
    for file in ("schemas/text.txt", "schemas/nosuch.avsc"):
        with pytest.raises(ConfigError):
            contracts.check(Changed(file))
    assert [one.file for one in schema_files(str(tmp_path))] == ["schemas/bad.avsc", "schemas/orders.avsc"]


def test_json_schemas_are_contracts_too(tmp_path):
    wanted = {"type": "object", "properties": {"order_id": {"type": "integer"}, "amount": {"type": "number"}}}
    checked(tmp_path, FIELDS)
    (tmp_path / "schemas/orders.json").write_text(json.dumps(wanted))
    found = checked(
        tmp_path, FIELDS, form="{json: {schema: schemas/orders.json}}", changed=Changed("schemas/orders.json")
    )
    assert (True, "table", "bronze.orders", "country") in told(found)
