"""Whatever is sent, the registry answers with what is wrong, never with a failure of its own, and lives."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.testing.registry import running_registry

PARTS = st.sampled_from([
    "subjects", "versions", "schemas", "ids", "config", "mode", "compatibility", "latest", "1", "-1", "0", "fuzz",
    "schema", "referencedby", "guids", "metadata", "types", "%2F", "%00", "%ff", "", "..", "contexts", "9" * 30,
])  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(["normalize", "deleted", "permanent", "verbose", "format", "offset", "limit", "subject", "force",
                     "defaultToGlobal", "key", "value", "subjectPrefix", "deletedOnly"]),
    st.sampled_from(["true", "false", "", "serialized", "-1", "99999999999999999999", "x", "\x00", "٣"]), max_size=3,
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["AVRO", "JSON", "PROTOBUF", "record", "string", "fuzz", "FULL", "IMPORT", "READONLY", '"int"']),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
SCHEMA_KEYS = st.sampled_from([
    "type", "name", "fields", "symbols", "items", "values", "size", "default", "aliases", "namespace", "logicalType",
    "precision", "scale", "$ref", "$id", "$schema", "properties", "required", "anyOf", "oneOf", "allOf", "not", "enum",
    "const", "maximum", "exclusiveMaximum", "multipleOf", "pattern", "patternProperties", "additionalProperties",
    "$defs", "definitions", "prefixItems", "dependentRequired", "maxLength", "$anchor", "order",
])  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES | st.sampled_from(["#", "#/$defs/a", "#a", "int", "array", "map", "enum", "fixed", "A", "object", "a\\b("]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCHEMA_KEYS | st.sampled_from("ab"), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "schema": st.builds(json.dumps, SCHEMAS) | st.text(max_size=30) | VALUES,
        "schemaType": st.sampled_from(["AVRO", "JSON", "PROTOBUF"]) | LEAVES,
        "references": st.lists(st.fixed_dictionaries(
            {}, optional={"name": LEAVES, "subject": LEAVES, "version": LEAVES | st.just(1)}
        ), max_size=2) | LEAVES,
        "id": LEAVES, "version": LEAVES, "metadata": VALUES, "ruleSet": VALUES,
        "compatibility": LEAVES, "mode": st.sampled_from(["READWRITE", "x"]), "normalize": LEAVES,
    },
)  # fmt: skip
BOUNDS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    """A registry whose settings nobody else relies on."""
    store = str(tmp_path_factory.mktemp("fuzzed") / "r.db")
    with running_registry(store=store) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def check(answer):
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert {"error_code", "message"} <= answer.json().keys(), answer.text


@BOUNDS
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]), st.lists(PARTS, max_size=6), QUERIES, BODIES | VALUES)
def test_any_request_is_answered(http, method, parts, query, body):
    content = None if method in ("GET", "HEAD", "DELETE") else json.dumps(body)
    check(http.request(method, f"{http.base_url}/{'/'.join(parts)}", params=query, content=content))


@BOUNDS
@given(SCHEMAS, SCHEMAS, st.sampled_from(["AVRO", "JSON"]))
def test_any_two_schemas_are_compared(http, one, two, kind):
    for schema in (one, two, one):
        body = {"schema": json.dumps(schema), "schemaType": kind}
        check(http.post("/subjects/fuzzed/versions?normalize=true", json=body))
        check(http.post("/compatibility/subjects/fuzzed/versions?verbose=true", json=body))
    http.delete("/subjects/fuzzed")


@BOUNDS
@given(st.binary(max_size=60))
def test_any_bytes_are_answered(http, data):
    check(http.post("/subjects/fuzz/versions", content=data))
    check(http.put("/config/fuzz", content=data))


def test_deep_and_large_bodies_are_refused(http):
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"x" * (2 << 20) + b'"', b"9" * 10_000):
        check(http.post("/subjects/fuzz/versions", content=body))
    wide = {"type": "record", "name": "A", "fields": [{"name": f"f{i}", "type": ["null", "int"]} for i in range(5000)]}
    for _ in range(2):
        check(http.post("/subjects/fuzz-wide/versions", json={"schema": json.dumps(wide)}))
        wide["fields"][0]["name"] = "g"
    union = {"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "maxProperties": i}
                       for i in range(30)]}  # fmt: skip
    check(http.post("/subjects/fuzz-union/versions", json={"schema": json.dumps(union), "schemaType": "JSON"}))
    union["anyOf"].reverse()
    check(http.post("/subjects/fuzz-union/versions", json={"schema": json.dumps(union), "schemaType": "JSON"}))
    check(http.get("/subjects"))
