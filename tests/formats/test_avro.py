"""Avro messages: every bad one is a reject with its reason and touches no other; every good value is exact."""

import json
import time
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from lodestream.errors import ConfigError, TransientError
from lodestream.formats._avro_resolve import zigzag
from lodestream.formats._avro_schema import canonical, fingerprint, parse_schema
from lodestream.formats.avro import AvroFormat, AvroSettings
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.registry import Reference, RegisteredSchema
from tests.formats.avro_cases import FORM, columns_of, decode, one_schema, outcome, reading, written
from tests.formats.avro_values import ENUM, LOGICAL, VALUES, columns, record
from tests.formats.registry import Registry, framed
from tests.native import FORMS


@pytest.fixture(params=FORMS, autouse=True, scope="module")
def form(request):
    FORM[0] = request.param
    yield
    FORM[0] = None


@pytest.mark.parametrize(("writer", "body", "column", "expected"), VALUES)
def test_a_value_is_exact_in_its_column_or_a_reject(writer, body, column, expected):
    schema = record(id="int", f=writer)
    around = zigzag(1) + body
    good = good_body(writer, column)
    bodies = [good, around, good] if good else [around]
    got = outcome(one_schema(schema, bodies, columns(id="int", f=column), drift="add"))
    want = {"id": 1, "f": expected}
    if isinstance(expected, str) and (column != "string" or expected in ("type", "utf8", "range")):
        want = [f"parse:f{expected}" if expected.startswith(".") else f"parse:f:{expected}"]
    assert got[len(bodies) // 2] == want
    assert all(isinstance(got[i], dict) for i in got if good and i != 1)


def good_body(writer, column):
    """A body that is good for this writer and column, if the table above has one."""
    for kind, body, name, expected in VALUES:
        if kind is writer and name == column and not isinstance(expected, str):
            return zigzag(2) + body
    return None


BASE = record(
    id="int", name="string", tags={"type": "array", "items": "string"}, on="boolean", kind=ENUM, x=["null", "double"]
)
GOOD = zigzag(5) + b"\x06abc" + b"\x02\x02t\x00" + b"\x01" + b"\x02" + b"\x00"
BAD = [
    (b"", "parse:magic"),
    (b"\0\0\0\0", "parse:magic"),
    (b"\1\0\0\0\1" + GOOD, "parse:magic"),
    (GOOD, "parse:magic"),
    (framed(1, b""), "parse:avro:truncated"),
    (framed(1, GOOD + b"\0"), "parse:avro:trailing"),
    (framed(99, GOOD), "parse:schema_id:unknown"),
    (framed(2**32 - 1, GOOD), "parse:schema_id:unknown"),
    (framed(2, GOOD), "parse:schema_id:kind"),
    (framed(3, GOOD), "parse:schema_id:invalid"),
    (framed(4, b"\2"), "parse:schema_id:record"),
    (framed(5, b"\2"), "parse:schema_id:unknown"),
    (framed(1, b"\x80" * 10 + b"\1" + GOOD[1:]), "parse:avro:varint"),
    (framed(1, zigzag(2**31) + GOOD[1:]), "parse:avro:varint"),
    (framed(1, b"\xff" * 9 + b"\x02" + GOOD[1:]), "parse:avro:varint"),
    (framed(1, b"\x0a\x05abc" + GOOD[5:]), "parse:avro:length"),
    (framed(1, b"\x0a" + zigzag(2**62) + b"abcdefgh"), "parse:avro:truncated"),
    (framed(1, b"\x0a" + zigzag(2**63 - 1) + b"abcdefgh"), "parse:avro:truncated"),
    (framed(1, b"\x0a" + zigzag(-(2**63)) + b"abcdefgh"), "parse:avro:length"),
    (framed(1, b"\x0a\x06abc" + zigzag(2**40) + b"\2t\0\1\2\0"), "parse:avro:truncated"),
    (framed(1, b"\x0a\x06abc" + zigzag(-(2**63)) + b"\2t\0\1\2\0"), "parse:avro:length"),
    (framed(1, b"\x0a\x06abc" + b"\x01\x01\x02t\0\1\2\0"), "parse:avro:length"),
    (framed(1, b"\x0a\x06abc" + b"\x01\x02\x02t\0\1\2\0"), "parse:avro:block"),
    (framed(1, b"\x0a\x06abc" + b"\x01\x06\x02t\0\1\2\0"), "parse:avro:block"),
    (framed(1, b"\x0a\x06abc" + b"\x01\x7e\x02t\0\1\2\0"), "parse:avro:truncated"),
    (framed(1, b"\x0a\x06abc" + b"\x00\x02\x02\x00"), "parse:avro:boolean"),
    (framed(1, b"\x0a\x06abc" + b"\x00\x01\x04\x00"), "parse:avro:enum"),
    (framed(1, b"\x0a\x06abc" + b"\x00\x01\x01\x00"), "parse:avro:enum"),
    (framed(1, b"\x0a\x06abc" + b"\x00\x01\x02\x04"), "parse:avro:branch"),
    (framed(1, b"\x0a\x06abc" + b"\x00\x01\x02\x01"), "parse:avro:branch"),
    (framed(1, b"\x0a\x02\xff" + GOOD[5:]), "parse:name:utf8"),
]


def base_registry():
    registry = Registry()
    registry.add(json.dumps(BASE))
    registry.add("{}", kind="JSON")
    registry.add('{"type": "record", "name": "R"}')
    registry.add('"int"')
    registry.add(json.dumps(record(x="Gone")), references=[Reference("Gone", "gone", 1)])
    return registry


@pytest.mark.parametrize("size", [1, 40])
def test_a_bad_message_has_its_reason_and_touches_no_other(size):
    messages, expected = [], {}
    row = {"id": 5, "name": "abc", "tags": ["t"], "on": True, "kind": "B", "x": None}
    for bad, reason in BAD:
        for message, becomes in [*[(framed(1, GOOD), row)] * size, (bad, [reason])]:
            expected[len(messages)] = becomes
            messages.append(message)
    assert outcome(decode(messages, columns_of(BASE), base_registry())) == expected
    decoded = decode(messages, columns_of(BASE), base_registry(), {"keep_raw": True})
    assert decoded.rejects["_raw"].to_pylist() == [bad for bad, _ in BAD]
    assert set(decoded.rows["_raw"].to_pylist()) == {framed(1, GOOD)}


@pytest.mark.parametrize("wanted", [columns_of(BASE), columns(x="double")])
def test_every_prefix_of_a_record_is_a_reject(wanted):
    messages = [framed(1, GOOD[:i]) for i in range(len(GOOD))] + [framed(1, GOOD)] * 20
    got = outcome(decode(messages, wanted, base_registry(), {"drift": "add"}))
    assert [got[i] for i in range(len(GOOD))] == [["parse:avro:truncated"]] * len(GOOD)
    assert all(isinstance(got[i], dict) for i in range(len(GOOD), len(messages)))


def test_any_bit_flipped_anywhere_is_a_row_or_a_reject_and_changes_no_other():
    message = framed(1, GOOD)
    flipped = [
        bytes([*message[:i], message[i] ^ 1 << bit, *message[i + 1 :]]) for i in range(len(message)) for bit in range(8)
    ]
    messages = [m for each in flipped for m in (message, each)]
    got = outcome(decode(messages, columns_of(BASE), base_registry()))
    assert len(got) == len(messages)
    assert all(got[i] == got[0] for i in range(0, len(messages), 2))
    assert isinstance(got[0], dict)
    for i, each in enumerate(flipped):
        assert outcome(decode([each], columns_of(BASE), base_registry())) == {0: got[2 * i + 1]}


NODE = {
    "type": "record",
    "name": "N",
    "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "N"]}],
}
TREE = {"type": "record", "name": "N", "fields": [{"name": "k", "type": {"type": "array", "items": "N"}}]}
SELF = {"type": "record", "name": "N", "fields": [{"name": "a", "type": "N"}, {"name": "b", "type": "N"}]}
DOUBLING = record("A0", a="string", x="A1", y="A1")
for i in range(1, 40):
    inner = record(f"A{i}", a="string" if i == 39 else "A" + str(i + 1), b="string" if i == 39 else "A" + str(i + 1))
    DOUBLING = json.loads(json.dumps(DOUBLING).replace(f'"A{i}"', json.dumps(inner), 1))
NULLS = record(a={"type": "array", "items": "null"}, e={"type": "array", "items": record("Z")}, id="int")
NESTED = record(a={"type": "array", "items": {"type": "array", "items": {"type": "array", "items": "null"}}})
BOMBS = [
    (NULLS, zigzag(1_000_000_000) + b"\0\0\2", "items", {}),
    (NULLS, b"\0" + zigzag(1_000_000_000) + b"\0\2", "items", {}),
    (NULLS, zigzag(-1_000_000_000) + b"\0\0\0\2", "items", {}),
    (NULLS, zigzag(60) * 3 + b"\0\0\2", "items", {}),
    (NULLS, zigzag(2**63 - 1) + b"\0\0\2", "items", {}),
    (NESTED, b"\2" + (b"\2" + zigzag(60) + b"\0\0") * 2000, "items", {}),
    (NODE, b"\2\2" * 300_000 + b"\2\0", "depth", {}),
    (TREE, b"\2" * 1_000_000, "depth", {}),
    (TREE, b"\2\2\2\2\0\0\0\0\0", "depth", {"depth_max": 4}),
    (SELF, b"", "depth", {}),
    (DOUBLING, b"", "truncated", {}),
    (record(a={"type": "array", "items": "string"}), zigzag(2000) + b"\0" * 2000 + b"\0", "items", {"items_max": 1999}),
    (record(a={"type": "fixed", "name": "F", "size": 16 << 20}), b"\0" * 100, "truncated", {}),
]


@pytest.mark.parametrize(("schema", "body", "reason", "limits"), BOMBS)
@pytest.mark.parametrize("wanted", [None, columns(id="int")])
def test_a_bomb_costs_nothing(schema, body, reason, limits, wanted):
    started = time.process_time()
    tracemalloc.start()
    got = outcome(one_schema(schema, [body] * 20, wanted, drift="add", **limits))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A block that says how many bytes it has is jumped over where nobody wants it, whatever else it says.
    assert [got[i] for i in range(20)] == [[f"parse:avro:{reason}"]] * 20
    assert peak < 60 * 20 * (len(body) + 50_000)
    assert time.process_time() - started < 20


def test_a_schema_of_thousands_of_fields_is_read():
    schema = record(**{f"f{i}": ["null", "long"] for i in range(4000)})
    got = outcome(one_schema(schema, [b"\2\x08" * 4000] * 20, columns(f0="int", f3999="bigint"), drift="widen"))
    assert got == {i: {"f0": 4, "f3999": 4} for i in range(20)}


def test_bad_schemas_are_refused():
    for text in ("", "{", "nope", "[]", "3", '["int", "int"]', '["null", ["int"]]', '{"type": "array"}', '{"type": 5}',
                 '{"type": "fixed", "name": "F", "size": -1}', '{"type": "enum", "name": "E", "symbols": ["A", "A"]}',
                 json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}),
                 '{"type": "record", "name": "R", "fields": [{"type": "int"}]}', "[" * 100_000,
                 json.dumps(record(a={"type": "fixed", "name": "R", "size": 1}))):  # fmt: skip
        assert outcome(one_schema(text, [b"\0"], columns(a="int"))) == {0: ["parse:schema_id:invalid"]}, text


def test_several_versions_in_one_batch_keep_their_order():
    registry = Registry()
    one, two, three = (
        record(id="int"),
        record(id="long", name="string"),
        record(name=["null", "string"], id="int", more="int"),
    )
    ids = [registry.add(json.dumps(schema)) for schema in (one, two, three)]
    messages, expected = [], {}
    for i in range(300):
        which = i * 7 % 3
        value = [{"id": i}, {"id": i, "name": str(i)}, {"id": i, "name": None, "more": 1}][which]
        messages.append(framed(ids[which], written([one, two, three][which], [value])[0]))
        expected[i] = {"id": i, "name": value.get("name")}
        if which == 2:
            expected[i] = ["drift:more"]
    wanted = columns(id="bigint", name="string")
    assert outcome(decode(messages, wanted, registry)) == expected
    assert registry.asked == [1, 2, 3]
    decoded = decode(messages, wanted, registry, {"drift": "add"})
    assert decoded.found == columns(more="int")
    assert decoded.rejects.num_rows == 0


def test_drift_follows_the_policy():
    schema = record(id="long", extra=ENUM, bad={"type": "fixed", "name": "T", "size": 12, "logicalType": "duration"})
    bodies = written(record(id="long"), [{"id": 1}, {"id": 2**40}])
    bodies = [body + b"\2" + b"\0" * 12 for body in bodies]
    wanted = columns(id="int")
    assert outcome(one_schema(schema, bodies, wanted)) == {
        0: ["drift:extra", "drift:bad"],
        1: ["parse:id:range", "drift:extra", "drift:bad"],
    }
    added = one_schema(schema, bodies, wanted, drift="add")
    assert outcome(added) == {0: {"id": 1}, 1: ["parse:id:range"]}
    assert added.found == columns(extra="string")
    widened = one_schema(schema, bodies, wanted, drift="widen")
    assert outcome(widened) == {0: {"id": 1}, 1: ["drift:id"]}
    assert widened.found == columns(id="bigint", extra="string")
    with pytest.raises(ConfigError, match="drift is stop"):
        one_schema(schema, bodies, wanted, drift="stop")
    with pytest.raises(ConfigError, match="its values need bigint"):
        one_schema(record(id="long"), written(record(id="long"), [{"id": 2**40}]), wanted, drift="stop")
    assert outcome(one_schema(record(_x="int"), [b"\2"], columns(a="int"), drift="add")) == {0: ["drift:_x"]}


def test_a_column_that_may_not_be_null_rejects_null_and_absence():
    strict = Schema((Column("id", parse_type("int"), nullable=False), Column("n", parse_type("int"), nullable=False)))
    schema = record(id=["null", "int"])
    assert outcome(one_schema(schema, [b"\0", b"\2\2"], strict)) == {
        0: ["parse:id:null", "parse:n:null"],
        1: ["parse:n:null"],
    }


def test_a_reader_schema_adds_aliases_and_defaults(tmp_path):
    reader = record(
        id="int",
        name="string",
        tags={"type": "array", "items": "string"},
        kind=ENUM | {"default": "A"},
        s=record("S", a="int", b="int"),
    )
    by = {field["name"]: field for field in reader["fields"]}
    by["id"]["aliases"] = ["number"]
    by["name"]["default"] = "nobody"
    by["tags"]["default"] = ["x", "y"]
    by["s"]["type"]["fields"][1]["default"] = 9
    (tmp_path / "r.avsc").write_text(json.dumps(reader))
    writer = record(number="int", kind={"type": "enum", "name": "E", "symbols": ["A", "C"]}, s=record("S", a="int"))
    registry = Registry()
    number = registry.add(json.dumps(writer))
    got = outcome(
        decode([framed(number, b"\4\2\6")], columns_of(reader), registry, {"root": tmp_path}, schema="r.avsc")
    )
    assert got == {0: {"id": 2, "name": "nobody", "tags": ["x", "y"], "kind": "A", "s": {"a": 3, "b": 9}}}
    by["name"]["default"] = 5
    (tmp_path / "r.avsc").write_text(json.dumps(reader))
    with pytest.raises(ConfigError, match="default does not fit"):
        decode([framed(number, b"\4\2\6")], columns_of(reader), registry, {"root": tmp_path}, schema="r.avsc")


def test_a_registry_that_is_down_stops_only_what_is_new():
    registry = base_registry()
    made = AvroFormat(AvroSettings(), reading(columns_of(BASE), registry))
    messages = pa.array([framed(1, GOOD)], pa.binary())
    assert made.decode_messages(messages, "u", np.arange(1)).rows.num_rows == 1
    registry.down = True
    assert made.decode_messages(messages, "u", np.arange(1)).rows.num_rows == 1
    with pytest.raises(TransientError):
        made.decode_messages(pa.array([framed(1, GOOD), framed(9, GOOD)], pa.binary()), "u", np.arange(2))
    registry.down = False
    assert made.decode_messages(pa.array([framed(9, GOOD)], pa.binary()), "u", np.arange(1)).rejects.num_rows == 1
    registry.schemas[9] = registry.schemas[1]
    assert made.decode_messages(pa.array([framed(9, GOOD)], pa.binary()), "u", np.arange(1)).rows.num_rows == 1


def test_only_so_many_ids_are_asked_for():
    registry = base_registry()
    messages = [framed(1, GOOD)] * 3 + [framed(1000 + i, GOOD) for i in range(50)]
    got = outcome(decode(messages, columns_of(BASE), registry, schemas_max=10))
    assert len(registry.asked) == 10
    assert [got[i] for i in (3, 11, 12, 52)] == [["parse:schema_id:unknown"]] * 2 + [["parse:schema_id:many"]] * 2


def test_bare_messages_and_single_objects(tmp_path):
    old, new = record(id="int"), record(id="long", name="string")
    (tmp_path / "old.avsc").write_text(json.dumps(old))
    (tmp_path / "new.avsc").write_text(json.dumps(new))
    wanted = columns(id="bigint", name="string")
    kind = {"root": tmp_path}
    assert outcome(decode([b"\2", b""], wanted, None, kind, framing="none", schema="old.avsc")) == {
        0: {"id": 1, "name": None}, 1: ["parse:avro:truncated"],
    }  # fmt: skip
    single = b"\xc3\x01" + fingerprint(parse_schema(json.dumps(old))) + b"\2"
    other = (
        b"\xc3\x01"
        + fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(new), "CRC-64-AVRO").encode()
    )
    newer = b"\xc3\x01" + fingerprint(parse_schema(json.dumps(new))) + b"\2\2x"
    got = outcome(decode([single, newer, other, b"\xc3\x02" + single[2:], b"\xc3", b""], wanted, None, kind,
                         framing="single_object", schema="new.avsc", writers=["old.avsc"]))  # fmt: skip
    assert got == {
        0: {"id": 1, "name": None}, 1: {"id": 1, "name": "x"}, 2: ["parse:schema_id:unknown"],
        3: ["parse:magic"], 4: ["parse:magic"], 5: ["parse:magic"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "schema", [BASE, NODE, TREE, record(**LOGICAL), {**record(a="int", b=["null", record("x.Y")]), "namespace": "n.s"}]
)
def test_fingerprints_are_those_of_fastavro(schema):
    form = fastavro.schema.to_parsing_canonical_form(schema)
    assert canonical(parse_schema(json.dumps(schema))) == form
    assert fingerprint(parse_schema(json.dumps(schema))).hex() == fastavro.schema.fingerprint(form, "CRC-64-AVRO")


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="framing none needs"):
        AvroSettings(framing="none")
    for text in (None, "{", '"int"', b"\xff"):
        if text is not None:
            (tmp_path / "s.avsc").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError, match=r"s\.avsc"):
            AvroFormat(AvroSettings(schema="s.avsc"), reading(Schema(), root=tmp_path))


def test_references_are_followed():
    registry = Registry()
    registry.add(json.dumps(ENUM), subject="enum")
    registry.add(json.dumps(record("Inner", kind="E")), subject="inner", references=[Reference("E", "enum", 1)])
    number = registry.add(
        json.dumps(record("Outer", a="Inner", b="E")),
        references=[Reference("Inner", "inner", 1), Reference("E", "enum", 1)],
    )
    got = outcome(decode([framed(number, b"\2\0")], columns(a="struct<kind:string>", b="string"), registry))
    assert got == {0: {"a": {"kind": "B"}, "b": "A"}}


def test_columns_come_from_the_subject_or_from_the_messages():
    registry = Registry()
    number = registry.add(
        json.dumps(record(id="int", t=LOGICAL["millis"], d=LOGICAL["dec"], u=["int", "string"])), subject="orders-value"
    )
    made = AvroFormat(AvroSettings(), reading(Schema(), registry))
    expected = columns(id="int", t="timestamp", d="decimal(12,2)")
    assert made.infer_messages([], "orders") == expected
    assert made.infer_messages([framed(number, b""), b"", framed(77, b"")], "other") == expected
    assert made.infer_messages([], "other") == Schema()


def test_confluent_serializers_are_read():
    client = SchemaRegistryClient.new_client({"url": "mock://formats"})
    schema = record(id="long", at=LOGICAL["millis"], amount=LOGICAL["dec"], tags={"type": "map", "values": "double"})
    serialize = AvroSerializer(client, json.dumps(schema))
    at = datetime(2024, 5, 1, 12, 0, 0, 250_000, UTC)
    rows = [{"id": i, "at": at, "amount": Decimal(i).scaleb(-2), "tags": {"a": i / 2}} for i in range(30)]
    messages = [serialize(row, SerializationContext("t", MessageField.VALUE)) for row in rows]
    registry = Registry()
    registry.schemas[1] = RegisteredSchema(1, "AVRO", client.get_schema(1).schema_str)
    got = outcome(decode(messages, columns_of(schema), registry))
    assert got == {i: row | {"tags": list(row["tags"].items())} for i, row in enumerate(rows)}


def test_sliced_and_large_arrays_and_long_messages():
    registry = Registry()
    number = registry.add(json.dumps(record(a="string")))
    messages = [framed(number, zigzag(len(text)) + text) for text in [b"x" * i for i in range(50)]]
    made = AvroFormat(AvroSettings(row_bytes_max=1024), reading(columns(a="string"), registry))
    for kind in (pa.binary(), pa.large_binary()):
        values = pa.array([b"junk" * 100, *messages, b"junk"], kind).slice(1, 50)
        got = made.decode_messages(values, "u", np.arange(50))
        assert got.rows["a"].to_pylist() == ["x" * i for i in range(50)]
    long = framed(number, zigzag(2000) + b"y" * 2000)
    decoded = made.decode_messages(pa.array([messages[3], long, messages[4]], pa.binary()), "u", np.arange(3))
    assert decoded.rows["_position"].to_pylist() == [0, 2]
    assert decoded.rejects.to_pylist()[0] | {"_raw": b""} == {
        "_source": "u",
        "_position": 1,
        "_reasons": ["parse:size"],
        "_raw": b"",
        "_detail": None,
    }
    big = framed(number, zigzag(16 << 20) + b"z" * (16 << 20))
    made = AvroFormat(AvroSettings(row_bytes_max=32 << 20), reading(columns(a="string"), registry))
    decoded = made.decode_messages(
        pa.array([messages[3]] * 20 + [big] + [messages[4]] * 20, pa.binary()), "u", np.arange(41)
    )
    assert [len(text) for text in decoded.rows["a"].to_pylist()] == [3] * 20 + [16 << 20] + [4] * 20
    assert made.decode_messages(pa.array([], pa.binary()), "u", np.arange(0)).rows.num_rows == 0


def test_numbers_without_logical_type_may_be_times():
    schema = record(t="long")
    for unit, number in (("seconds", 86_400), ("millis", 86_400_000), ("micros", 86_400_000_000)):
        got = outcome(one_schema(schema, [zigzag(number)], columns(t="timestamp"), timestamps=unit))
        assert got == {0: {"t": datetime(1970, 1, 2, tzinfo=UTC)}}
