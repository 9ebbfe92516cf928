"""JSON checked against JSON Schema: what columns say of a row is what a validator says of its bytes."""

import json

import jsonschema_rs
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError, TransientError
from lodestream.formats._json_sure import sure_rows
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.model.types import Schema
from lodestream.ports.registry import Reference, RegisteredSchema
from tests.formats.avro_cases import outcome, reading
from tests.formats.avro_values import columns
from tests.formats.registry import Registry, framed

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "state": {"type": "string", "enum": ["new", "paid"]},
        "note": {"oneOf": [{"type": "null"}, {"type": "string", "maxLength": 5}]},
        "price": {"type": "number", "exclusiveMinimum": 0, "maximum": 99.5},
    },
    "required": ["id", "state"],
    "additionalProperties": False,
}
WANTED = columns(id="bigint", state="string", note="string", price="double")


def decode(messages, wanted=WANTED, registry=None, kind=None, **settings_):
    made = JsonFormat(JsonSettings(**settings_), reading(wanted, registry, **(kind or {})))
    return made.decode_messages(pa.array(messages, pa.binary()), "t-0", np.arange(len(messages)) * 3 + 5)


def checked(schema, records, wanted=WANTED, drift="quarantine"):
    registry = Registry()
    number = registry.add(json.dumps(schema), kind="JSON")
    messages = [framed(number, r if isinstance(r, bytes) else json.dumps(r).encode()) for r in records]
    return outcome(decode(messages, wanted, registry, {"drift": drift}, framing="confluent"))


BAD = [
    ({"id": 0, "state": "new"}, ["schema:id:minimum"]),
    ({"id": 1, "state": "old"}, ["schema:state:enum"]),
    ({"id": 1, "state": "new", "note": "abcdef"}, ["schema:note:oneOf"]),
    ({"id": 1, "state": "new", "price": 0}, ["schema:price:exclusiveMinimum"]),
    ({"id": 1, "state": "new", "price": 99.6}, ["schema:price:maximum"]),
    ({"id": 1}, ["schema:state:required"]),
    ({"id": 1, "state": None}, ["schema:state:enum", "schema:state:type"]),
    ({"id": 0, "state": "x"}, ["schema:id:minimum", "schema:state:enum"]),
    ({"id": 1, "state": "new", "price": None}, ["schema:price:type"]),
    ({"id": 1, "state": "new", "x": 1}, ["drift:x"]),
    (b"{", ["parse:json"]),
    ({"id": "1", "state": "new"}, ["parse:id:type"]),
]


@pytest.mark.parametrize("around", [1, 40])
def test_a_record_that_the_schema_refuses_is_a_reject_with_its_reason(around):
    good = {"id": 7, "state": "paid", "note": "äöüäö", "price": 3}
    row = good | {"price": 3.0}
    records, expected = [], {}
    for bad, reasons in BAD:
        for record, becomes in [*[(good, row)] * around, (bad, reasons)]:
            expected[len(records)] = becomes
            records.append(record)
    got = checked(ORDER, records)
    assert {i: sorted(v) if isinstance(v, list) else v for i, v in got.items()} == expected


def test_missing_and_null_are_told_apart():
    got = checked(ORDER, [{"id": 1, "state": "new", "note": None}, {"id": 1, "state": "new"}] * 40)
    assert all(isinstance(row, dict) for row in got.values())


def test_framing_keeps_all_bytes_and_says_what_is_wrong_with_it():
    registry = Registry()
    number = registry.add(json.dumps(ORDER), kind="JSON")
    registry.add('"int"')
    registry.add("{", kind="JSON")
    registry.add('{"$ref": "gone.json"}', kind="JSON", references=[Reference("gone.json", "gone", 1)])
    registry.add('{"$ref": "http://far.example/x.json"}', kind="JSON")
    body = b' {"id": 3,\n "state": "new"} '
    messages = [framed(number, body), body, b"", b"\0\0\0", framed(77, body), *(framed(i, body) for i in (2, 3, 4, 5))]
    messages += [framed(number, b'{"id": 0, "state": "new"}'), framed(number, b"")]
    decoded = decode(messages, registry=registry, kind={"keep_raw": True}, framing="confluent")
    reasons = {(r["_position"] - 5) // 3: r["_reasons"][0] for r in decoded.rejects.to_pylist()}
    unknown, invalid = "parse:schema_id:unknown", "parse:schema_id:invalid"
    assert reasons == {1: "parse:magic", 2: "parse:magic", 3: "parse:magic", 4: unknown, 5: "parse:schema_id:kind",
                       6: invalid, 7: unknown, 8: invalid, 9: "schema:id:minimum", 10: "parse:json"}  # fmt: skip
    assert decoded.rejects["_raw"].to_pylist() == messages[1:]
    assert decoded.rows["_raw"].to_pylist() == messages[:1]
    registry.down = True
    with pytest.raises(TransientError):
        decode(messages, registry=registry, framing="confluent")


def test_versions_in_one_batch_are_each_checked_by_their_own():
    registry = Registry()
    ids = [registry.add(json.dumps({"properties": {"id": {"type": "integer", "minimum": i}}}), "JSON") for i in (0, 50)]
    messages = [framed(ids[i % 2], b'{"id": %d}' % i) for i in range(100)]
    got = outcome(decode(messages, columns(id="int"), registry, framing="confluent"))
    assert got == {i: {"id": i} if i % 2 == 0 or i >= 50 else ["schema:id:minimum"] for i in range(100)}


def test_an_id_with_a_quote_in_it_changes_nothing():
    registry = Registry()
    registry.schemas[0x22225C22] = RegisteredSchema(0x22225C22, "JSON", json.dumps(ORDER))
    messages = [framed(0x22225C22, json.dumps({"id": i + 1, "state": "new"}).encode()) for i in range(100)]
    assert [row["id"] for row in outcome(decode(messages, registry=registry, framing="confluent")).values()] == [
        *range(1, 101)
    ]


def test_a_schema_file_checks_messages_and_lines(tmp_path):
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    kind = {"root": tmp_path}
    bodies = [b'{"id": 1, "state": "new"}', b'{"id": 0, "state": "new"}']
    assert list(outcome(decode(bodies, kind=kind, schema="order.json")).values())[1] == ["schema:id:minimum"]
    made = JsonFormat(JsonSettings(schema="order.json"), reading(WANTED, **kind))
    decoded = made.decode(b"\n".join(bodies * 40), "f", 0)
    assert decoded.rows.num_rows == decoded.rejects.num_rows == 40
    assert decoded.rejects["_raw"].to_pylist() == [bodies[1]] * 40
    framed_ = [framed(9, bodies[1])]  # the registry is not asked
    assert outcome(decode(framed_, kind=kind, schema="order.json", framing="confluent")) == {0: ["schema:id:minimum"]}
    for text in ("{", "5", '{"type": "nothing"}', '{"$ref": "far.json"}', "[" * 100_000):
        (tmp_path / "order.json").write_text(text)
        with pytest.raises(ConfigError, match="not a JSON Schema"):
            JsonFormat(JsonSettings(schema="order.json"), reading(WANTED, **kind))
    with pytest.raises(ConfigError, match="cannot read the schema file"):
        JsonFormat(JsonSettings(schema="none.json"), reading(WANTED, **kind))


def test_columns_come_from_the_schema():
    registry = Registry()
    schema = {
        "properties": {
            "id": {"type": "integer"}, "at": {"type": ["null", "string"], "format": "date-time"},
            "on": {"type": "string", "format": "date"}, "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}}, "any": {},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "self": {"$ref": "#"},
        },
        "$defs": {"item": {"type": "object", "properties": {"n": {"type": "number"}}}},
    }  # fmt: skip
    registry.add(json.dumps(schema), kind="JSON", subject="t-value")
    made = JsonFormat(JsonSettings(framing="confluent"), reading(Schema(), registry))
    expected = columns(
        id="bigint",
        at="timestamp",
        on="date",
        items="array<struct<n:double>>",
        tags="map<string,string>",
        note="string",
    )
    assert made.infer_messages([], "t") == expected
    assert made.infer_messages([framed(1, b'{"a": 1}')], "other") == columns(a="bigint")


def test_confluent_serializers_are_read():
    client = SchemaRegistryClient.new_client({"url": "mock://json"})
    serialize = JSONSerializer(json.dumps(ORDER | {"title": "Order"}), client)
    rows = [{"id": i + 1, "state": "paid", "note": None, "price": 2.5} for i in range(40)]
    messages = [serialize(row, SerializationContext("t", MessageField.VALUE)) for row in rows]
    registry = Registry()
    registry.schemas[1] = RegisteredSchema(1, "JSON", client.get_schema(1).schema_str)
    assert outcome(decode(messages, registry=registry, framing="confluent")) == dict(enumerate(rows))


NUMBERS = st.one_of(st.integers(-4, 4), st.sampled_from([2**53, 2**53 + 1, -(2**63)]))
TEXTS = st.sampled_from(["", "a", "ä", "ab", "abc", "🎈🎈"])
VALUE = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from([0.5, -1.5, 3.0]), TEXTS)
SUB = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["integer", "number", "string", "boolean", "null", ["null", "string"], ["integer"]]),
        "minimum": st.one_of(NUMBERS, st.just(0.5)), "exclusiveMaximum": NUMBERS, "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3), "enum": st.lists(VALUE, min_size=1, max_size=4, unique_by=repr), "const": VALUE,
        "description": st.just("x"),
    },
)  # fmt: skip
SUBS = st.one_of(SUB, st.booleans(), SUB.map(lambda sub: {"oneOf": [{"type": "null"}, sub]}))
SCHEMAS = st.fixed_dictionaries(
    {"properties": st.dictionaries(st.sampled_from(["i", "s", "d", "b"]), SUBS)},
    optional={
        "required": st.lists(st.sampled_from(["i", "s", "d", "b"]), unique=True),
        "additionalProperties": st.booleans(),
        "type": st.just("object"),
    },
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "i": st.one_of(st.none(), NUMBERS),
        "s": st.one_of(st.none(), TEXTS),
        "b": st.one_of(st.none(), st.booleans()),
        "d": st.one_of(st.none(), NUMBERS, st.sampled_from([0.5, -1.5])),
    },
)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, st.lists(RECORDS, min_size=1, max_size=6), st.sampled_from(["quarantine", "add"]))
def test_what_columns_call_sure_a_validator_calls_valid(schema, records, drift):
    wanted = columns(i="bigint", s="string", d="double", b="boolean")
    plain = JsonFormat(JsonSettings(), reading(wanted, drift=drift))
    bodies = [json.dumps(record).encode() for record in records]
    rows = plain.decode_messages(pa.array(bodies, pa.binary()), "u", np.arange(len(bodies))).rows
    assert len(rows) == len(records)
    sure = sure_rows(schema, wanted, iso=True, is_closed=drift == "quarantine")
    validator = jsonschema_rs.validator_for(schema, validate_formats=False)
    valid = [validator.is_valid(record) for record in records]
    if sure is not None:
        assert all(good or not is_sure for good, is_sure in zip(valid, sure(rows).tolist(), strict=True))
    got = checked(schema, records, wanted, drift)
    assert [isinstance(got[i], dict) for i in range(len(records))] == valid


def test_plain_schemas_are_answered_by_columns():
    check = sure_rows(ORDER, WANTED, iso=True, is_closed=True)
    rows = pa.table({"id": [1, 0, 5], "state": ["new", "new", None], "note": [None, "x", "x"], "price": [None, 1.5, 2]})
    assert check(rows).tolist() == [False, False, False]  # a price that is not there, or is null
    rows = rows.set_column(3, "price", pa.array([1.0, 1.5, 2.0]))
    assert check(rows).tolist() == [True, False, False]
