"""The schema for editors agrees with the loader: it takes what is right and names every key."""

import json
import re

import pytest
from ruamel.yaml import YAML

from lodestream.ports import plugins
from lodestream.project.keys import KEYS
from lodestream.project.schema import json_schema


def accepts(schema, value, root):
    """Whether a JSON Schema of the few words we use takes a value."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    checks = [
        "anyOf" not in schema or any(accepts(one, value, root) for one in schema["anyOf"]),
        "enum" not in schema or value in schema["enum"],
        "pattern" not in schema or re.search(schema["pattern"], str(value)) is not None,
    ]
    kinds = schema.get("type", [])
    names = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    names |= {"number": (int, float), "integer": int}
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, names[kind]) for kind in kinds):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        checks += [key in value for key in schema.get("required", [])]
        checks.append(len(value) >= schema.get("minProperties", 0))
        checks.append(
            sum(all(k in value for k in o["required"]) for o in schema.get("oneOf", [])) == 1 or "oneOf" not in schema
        )
        for key, item in value.items():
            inner = properties.get(key, rest)
            checks.append(inner if isinstance(inner, bool) else accepts(inner, item, root))
    if isinstance(value, list) and "items" in schema:
        checks += [accepts(schema["items"], item, root) for item in value]
    return all(checks)


@pytest.fixture
def root():
    return json.loads(json.dumps(json_schema()))


def test_the_sample_project_is_accepted(root, sample):
    for name, text in sample.items():
        kind = "table" if name.startswith("tables/") else "project"
        assert accepts(root["$defs"][kind], YAML(typ="safe").load(text), root), name


@pytest.mark.parametrize(
    "text",
    [
        "{from: stream(silver.x), derivee: {a: b}}",
        "{from: silver.x}",
        "{comment: x}",
        "{source: generator, sql: select 1}",
        "{source: {files: {}}}",
        "{source: {files: {path: x, other: 1}}}",
        "{source: fils}",
        "{source: generator, keep_raw: 'yes'}",
        "{source: generator, retention: 90}",
        "{source: generator, retention: 90 moons}",
        "{from: stream(silver.x), emit: sometimes}",
        "{from: stream(silver.x), expect: {a: {else: drop}}}",
        "{from: stream(silver.x), dedup: {key: [a]}}",
        "{from: stream(silver.x), enrich: {lookup: {table: silver.y, on: a}}}",
    ],
)
def test_mistakes_are_refused(root, text):
    assert not accepts(root["$defs"]["table"], YAML(typ="safe").load(text), root)


def test_every_key_is_there_and_says_what_it_is(root):
    table = root["$defs"]["table"]["properties"]
    assert set(table) == set(KEYS)
    files = table["source"]["anyOf"][1]["properties"]["files"]
    assert files["properties"]["path"]["type"] == "string"
    assert files["required"] == ["path"]
    assert table["source"]["anyOf"][0] == {"enum": ["files", "generator", "kafka"]}


def test_an_empty_room_is_tolerated(monkeypatch, write):
    from lodestream.project.load import load_project

    monkeypatch.setattr(plugins, "names", lambda room: [])
    schema = json_schema()
    assert schema["$defs"]["table"]["properties"]["source"]["type"] == ["string", "object"]
    assert load_project(
        write({"tables/bronze/orders.yaml": "source: {anything: {a: 1}}\ncolumns: {order_id: string}\n"})
    )


def test_the_real_components_have_settings_that_fit(monkeypatch):
    monkeypatch.undo()
    assert json.dumps(json_schema())
