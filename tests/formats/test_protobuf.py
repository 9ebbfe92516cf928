"""Protobuf messages: equal to what the language's own library reads, bad ones rejected with their reason."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError, TransientError
from lodestream.formats import _protobuf_decode
from lodestream.formats._protobuf_schema import message_schema, parse_protobuf
from lodestream.formats.protobuf import ProtobufFormat, ProtobufSettings
from lodestream.model.types import Schema
from lodestream.ports.registry import Reference, RegisteredSchema
from tests.formats.avro_cases import LONG, TEXT, outcome, reading
from tests.formats.avro_values import columns
from tests.formats.registry import Registry, framed

ALL = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Order {
  int32 i32 = 1; int64 i64 = 2; uint32 u32 = 3; uint64 u64 = 4; sint32 s32 = 5; sint64 s64 = 6;
  fixed32 f32 = 7; fixed64 f64 = 8; sfixed32 sf32 = 9; sfixed64 sf64 = 10;
  bool flag = 11; double real = 12; float small = 13; string name = 14; bytes data = 15;
  enum State { NEW = 0; PAID = 1; LOST = -1; }
  State state = 16;
  optional int32 maybe = 17; optional string note = 18;
  repeated int32 packed = 19; repeated string tags = 20; repeated double reals = 21; repeated bool flags = 22;
  map<string, int64> counts = 23;
  message Item { string sku = 1; sint32 count = 2; repeated Item parts = 3; }
  Item main = 24; repeated Item items = 25;
  oneof either { string text = 26; int32 number = 27; Item item = 28; }
  google.protobuf.Int64Value boxed = 30;
  repeated sint64 plain = 31 [packed = false];
  map<string, Item> by_name = 32;
  repeated State states = 33;
}
message Other { message Inner { string a = 1; } int32 x = 1; }
"""
SCHEMA = parse_protobuf(ALL)
ORDER = SCHEMA.named("shop.Order")
COLUMNS = message_schema(ORDER)
ORDER_CLASS = GetMessageClass(SCHEMA.pool.FindMessageTypeByName("shop.Order"))
I32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-3, 3))
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
REAL = st.floats(allow_nan=False)
PARTS = st.fixed_dictionaries({}, optional={"sku": TEXT})
ITEMS = st.deferred(
    lambda: st.fixed_dictionaries(
        {},
        optional={
            "sku": TEXT,
            "count": I32,
            "parts": st.lists(st.fixed_dictionaries({}, optional={"sku": TEXT}), max_size=2),
        },
    )
)
VALUES = {
    "i32": I32, "i64": LONG, "u32": U32, "u64": U64, "s32": I32, "s64": LONG, "f32": U32, "f64": U64, "sf32": I32,
    "sf64": LONG, "flag": st.booleans(), "real": REAL, "small": st.floats(width=32, allow_nan=False), "name": TEXT,
    "data": st.binary(max_size=5), "state": st.sampled_from([0, 1, -1]), "maybe": I32, "note": TEXT,
    "packed": st.lists(I32, max_size=4), "tags": st.lists(TEXT, max_size=3), "reals": st.lists(REAL, max_size=3),
    "flags": st.lists(st.booleans(), max_size=3), "counts": st.dictionaries(TEXT, LONG, max_size=3), "main": ITEMS,
    "items": st.lists(ITEMS, max_size=3), "text": TEXT, "number": I32, "item": ITEMS, "boxed": LONG,
    "plain": st.lists(LONG, max_size=4), "by_name": st.dictionaries(TEXT, ITEMS, max_size=2),
    "states": st.lists(st.sampled_from([0, 1, -1]), max_size=3),
}  # fmt: skip
ORDERS = st.fixed_dictionaries({}, optional=VALUES)
RANDOMS = st.randoms(use_true_random=False)


def fill(message, values):
    for name, value in values.items():
        if name == "boxed":
            message.boxed.value = value
        elif name == "counts":
            message.counts.update(value)
        elif name == "by_name":
            for key, inner in value.items():
                fill(message.by_name[key], inner)
                message.by_name[key].SetInParent()
        elif isinstance(value, dict):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for each in value:
                fill(getattr(message, name).add(), each)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def as_column(message, name, kind):
    """What the library says of a field, as Arrow says it."""
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if kind.name == "map":
        return sorted((key, as_value(value[key], kind.element)) for key in value)
    if kind.name == "array":
        return [as_value(each, kind.element, field) for each in value]
    if field.has_presence and not message.HasField(name):
        return None
    if name == "boxed":
        return value.value
    return as_value(value, kind, field)


def as_value(value, kind, field=None):
    if kind.name == "struct":
        return {f.name: as_column(value, f.name, f.type) for f in kind.fields}
    if field is not None and field.enum_type:
        return field.enum_type.values_by_number[value].name
    return Decimal(value) if kind.name == "decimal" else value


def decode(bodies, wanted=COLUMNS, few=8, drift="quarantine", schema=ALL, header=b"\0"):
    registry = Registry()
    number = registry.add(schema, kind="PROTOBUF")
    made = ProtobufFormat(ProtobufSettings(), reading(wanted, registry, drift=drift))
    made._schemas[number] = SCHEMA if schema is ALL else parse_protobuf(schema)  # compiling takes long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_protobuf_decode, "FEW", few)
        messages = pa.array([framed(number, header + body) for body in bodies], pa.binary())
        return made.decode_messages(messages, "t-0", np.arange(len(bodies)) * 3 + 5)


def rows_of(bodies, **given_):
    got = outcome(decode(bodies, **given_))
    for row in got.values():
        for name in ("counts", "by_name") if isinstance(row, dict) else ():
            if name in row:
                row[name] = sorted(row[name])
    return got


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=14),
    st.sampled_from([0, 8, 1000]),
    st.randoms(use_true_random=False),
)
def test_rows_equal_what_the_library_reads(values, few, rng):
    messages = [fill(ORDER_CLASS(), value) for value in values]
    bodies = [message.SerializeToString() for message in messages]
    assert rows_of(bodies, few=few) == {i: as_value(m, struct_of(COLUMNS)) for i, m in enumerate(messages)}
    # Two messages one behind the other are one: later values stand, lists grow, messages merge.
    pairs = [rng.choice(bodies) + body for body in bodies]
    read = [ORDER_CLASS.FromString(pair) for pair in pairs]
    wanted = Schema(tuple(c for c in COLUMNS if c.name not in ("counts", "by_name", "text", "number", "item")))
    got = rows_of(pairs, few=few, wanted=wanted, drift="add")
    assert got == {i: as_value(m, struct_of(wanted)) for i, m in enumerate(read)}


def struct_of(schema):
    return type(schema.columns[0].type)("struct", fields=schema.columns)


def some_order(rng):
    def text():
        return rng.choice(["", "a", "é", "xyz"])

    def number():
        return rng.choice([0, 1, -1, 3, 200, -2000])

    def item():
        parts = [{"sku": text()} for _ in range(rng.randrange(3))]
        whole = {"sku": text(), "count": number(), "parts": parts}
        return {name: value for name, value in whole.items() if rng.random() < 0.6}

    makers = {
        "i32": number, "i64": number, "u32": lambda: abs(number()), "s32": number, "f32": lambda: 7, "sf64": number,
        "flag": lambda: True, "real": lambda: 1.5, "small": lambda: 2.0, "name": text, "data": lambda: b"z",
        "state": lambda: -1, "maybe": number, "note": text, "packed": lambda: [number() for _ in range(3)],
        "tags": lambda: [text(), text()], "reals": lambda: [1.0, 2.0], "flags": lambda: [True, False],
        "counts": lambda: {text(): number()}, "main": item, "items": lambda: [item() for _ in range(rng.randrange(3))],
        "text": text, "number": number, "item": item, "boxed": number, "plain": lambda: [number(), number()],
        "by_name": lambda: {text(): item()}, "states": lambda: [0, 1, -1],
    }  # fmt: skip
    return fill(ORDER_CLASS(), {name: makers[name]() for name in rng.sample(sorted(makers), rng.randrange(12))})


@pytest.mark.parametrize("seed", range(60))
def test_vectors_give_what_one_by_one_gives_on_damaged_bytes(seed):
    rng = random.Random(seed)
    bodies = [some_order(rng).SerializeToString() for _ in range(14)]
    broken = [damaged(rng, body) if rng.random() < 0.6 else body for body in bodies]
    singly = outcome(decode(broken, few=1000))
    assert repr(outcome(decode(broken, few=0))) == repr(singly)
    assert repr(outcome(decode(broken, few=3))) == repr(singly)
    assert repr(outcome(decode(broken[:1], few=0))[0]) == repr(singly[0])


def damaged(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice([1, 1, 3])):
        what, at = rng.randrange(4), rng.randrange(len(data) + 1)
        if what == 0:
            del data[at:]
        elif what == 1:
            data[at:at] = rng.choice(
                [b"\xff" * 11, b"\x80" * 9 + b"\x01", b"\x08\x01", b"\x9a\x01\x02\x80\x80", rng.randbytes(3)]
            )
        elif at < len(data):
            data[at] = rng.randrange(256) if what == 2 else data[at] ^ 1 << rng.randrange(8)
    return bytes(data)


TIMES = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message T { google.protobuf.Timestamp at = 1; int64 id = 2; }
"""
SMALL = """
syntax = "proto3";
message T { int64 id = 1; string name = 2; enum E { A = 0; } E e = 3; repeated T kids = 4; }
"""
BAD = [
    (b"\x08", "parse:protobuf:truncated"),
    (b"\x08\xff", "parse:protobuf:truncated"),
    (b"\x12\x05abc", "parse:protobuf:truncated"),
    (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "parse:protobuf:truncated"),
    (b"\x22\x02\x08\x80", "parse:protobuf:truncated"),
    (b"\x08" + b"\xff" * 10 + b"\1", "parse:protobuf:varint"),
    (b"\x00\x01", "parse:protobuf:tag"),
    (b"\xff\xff\xff\xff\xff\x01\x00", "parse:protobuf:tag"),
    (b"\x0b\x0c", "parse:protobuf:group"),
    (b"\x0f", "parse:protobuf:wire"),
    (b"\x0a\x00", "parse:protobuf:wire"),
    (b"\x12\x01\xff", "parse:name:utf8"),
    (b"\x18\x09", "parse:e:enum"),
    (b"\x38\x01", "drift:#7"),
]


def test_numbers_that_are_torn_do_not_reach_into_the_next_message():
    text = 'syntax = "proto3"; message L { repeated int32 a = 1; }'
    torn, good = b"\x0a\x03\x01\x80\x80", b"\x0a\x0a" + b"\xff" * 9 + b"\x01"
    got = outcome(decode([torn, good] * 10, columns(a="array<int>"), schema=text))
    assert got == {i: {"a": [-1]} if i % 2 else ["parse:protobuf:truncated"] for i in range(20)}


@pytest.mark.parametrize("around", [1, 20])
def test_a_bad_message_has_its_reason_and_touches_no_other(around):
    wanted = columns(id="bigint", name="string", e="string", kids="array<struct<id:bigint>>")
    bodies, expected = [], {}
    for bad, reason in BAD:
        for body, becomes in [
            *[(b"\x08\x05\x12\x01x", {"id": 5, "name": "x", "e": "A", "kids": []})] * around,
            (bad, [reason]),
        ]:
            expected[len(bodies)] = becomes
            bodies.append(body)
    assert outcome(decode(bodies, wanted, schema=SMALL)) == expected


def test_a_number_of_thousands_of_levels_is_not_looked_into():
    deep = b""
    for _ in range(5000):
        deep = b"\x22" + varint(len(deep)) + deep
    wanted = columns(id="bigint", kids="array<struct<id:bigint>>", name="string", e="string")
    got = outcome(decode([deep] * 20, wanted, schema=SMALL))
    assert got == {i: {"id": 0, "kids": [{"id": 0}], "name": "", "e": "A"} for i in range(20)}
    assert message_schema(parse_protobuf(SMALL).at((0,))) == columns(id="bigint", name="string", e="string")


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def test_times_are_exact_or_rejected():
    wanted = columns(at="timestamp", id="bigint")
    kind = parse_protobuf(TIMES)
    made = GetMessageClass(kind.pool.FindMessageTypeByName("T"))
    cases = [
        ((0, 1000), datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
        ((-1, 999_999_000), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        ((253_402_300_799, 0), datetime(9999, 12, 31, 23, 59, 59, 0, UTC)),
        ((253_402_300_800, 0), "range"),
        ((-62_135_596_800, 0), datetime(1, 1, 1, tzinfo=UTC)),
        ((-62_135_596_801, 0), "range"),
        ((0, 1), "precision"),
        ((0, -1), "range"),
        ((2**62, 0), "range"),
        (None, None),
    ]
    bodies = []
    for value, _ in cases:
        message = made(id=1)
        if value:
            message.at.seconds, message.at.nanos = value
        bodies.append(message.SerializeToString())
    got = outcome(decode(bodies, wanted, schema=TIMES))
    assert got == {
        i: [f"parse:at:{want}"] if isinstance(want, str) else {"at": want, "id": 1} for i, (_, want) in enumerate(cases)
    }


def test_columns_take_what_fits_and_drift_follows_the_policy():
    wanted = columns(id="tinyint", name="binary", e="int", kids="string")
    bodies = [b"\x08\x7f", b"\x08\x80\x01", b"\x22\x00", b"\x12\x01x"]
    got = outcome(decode(bodies, wanted, schema=SMALL, drift="widen"))
    assert got == {
        0: {"id": 127, "name": b"", "e": 0, "kids": None}, 1: ["drift:id"], 2: ["parse:kids:type"],
        3: {"id": 0, "name": b"x", "e": 0, "kids": None},
    }  # fmt: skip
    added = decode([b"\x08\x01\x38\x01"], columns(id="bigint"), schema=SMALL, drift="add")
    assert outcome(added) == {0: {"id": 1}}
    assert added.found == columns(name="string", e="string")
    assert outcome(decode([b"\x08\x01"], columns(id="bigint"), schema=SMALL)) == {
        0: ["drift:name", "drift:e", "drift:kids"]
    }
    with pytest.raises(ConfigError, match="drift is stop"):
        decode(
            [b"\x38\x01"], columns(id="bigint", name="string", e="string", kids="string"), schema=SMALL, drift="stop"
        )
    big = 'syntax = "proto3"; message U { uint64 a = 1; }'
    body = b"\x08" + b"\xff" * 9 + b"\x01"
    assert outcome(decode([body], columns(a="bigint"), schema=big)) == {0: ["parse:a:range"]}
    assert outcome(decode([body], columns(a="decimal(20,0)"), schema=big)) == {0: {"a": Decimal(2**64 - 1)}}


def test_message_indexes_say_which_message_it_is():
    registry = Registry()
    number = registry.add(ALL, kind="PROTOBUF")
    registry.add("{", kind="PROTOBUF")
    registry.add('"int"')
    made = ProtobufFormat(ProtobufSettings(), reading(columns(a="string"), registry, drift="add", keep_raw=True))
    heads = [b"\x04\x02\x00", b"\x02\x04", b"\x01", b"\x80", b"", b"\xff\xff\xff\xff\xff\x0f", b"\x06\x02\x00\x02"]
    messages = [framed(number, head + b"\x0a\x01x") for head in heads[:3]] + [
        framed(number, head) for head in heads[3:]
    ]
    messages += [framed(77, b"\0"), framed(2, b"\0"), framed(3, b"\0"), b"\1", messages[0]]
    decoded = made.decode_messages(pa.array(messages, pa.binary()), "t-0", np.arange(len(messages)) * 3 + 5)
    bad, index = "parse:schema_id:", ["parse:protobuf:index"]
    got = outcome(decoded)
    assert got == {0: {"a": "x"}, **dict.fromkeys(range(1, 7), index), 7: [bad + "unknown"], 8: [bad + "invalid"],
                   9: [bad + "kind"], 10: ["parse:magic"], 11: {"a": "x"}}  # fmt: skip
    assert decoded.rejects["_raw"].to_pylist() == messages[1:11]
    registry.down = True
    with pytest.raises(TransientError):
        made.decode_messages(pa.array([framed(99, b"\0")], pa.binary()), "u", np.arange(1))


def test_bare_messages_need_a_file(tmp_path):
    (tmp_path / "t.proto").write_text(SMALL)
    wanted = columns(id="bigint")
    made = ProtobufFormat(
        ProtobufSettings(framing="none", schema="t.proto"), reading(wanted, drift="add", root=tmp_path)
    )
    got = made.decode_messages(pa.array([b"\x08\x02", b"", b"\x08"], pa.binary()), "t-0", np.arange(3) * 3 + 5)
    assert outcome(got) == {0: {"id": 2}, 1: {"id": 0}, 2: ["parse:protobuf:truncated"]}
    assert made.infer_messages([], "t") == columns(id="bigint", name="string", e="string")
    with pytest.raises(ValueError, match="framing none needs"):
        ProtobufSettings(framing="none")
    for text, name in (("{", ""), (SMALL, "Nope"), ('syntax = "proto3";', "")):
        (tmp_path / "t.proto").write_text(text)
        with pytest.raises(ConfigError, match="not a Protobuf schema"):
            ProtobufFormat(ProtobufSettings(schema="t.proto", message=name), reading(wanted, root=tmp_path))
    with pytest.raises(ConfigError, match="files are json"):
        made.parts("x")


def test_confluent_serializers_and_references_are_read():
    client = SchemaRegistryClient.new_client({"url": "mock://protobuf"})
    serialize = ProtobufSerializer(ORDER_CLASS, client, {"use.deprecated.format": False, "skip.known.types": True})
    values = [{"i64": i, "name": str(i), "tags": ["a"] * (i % 3)} for i in range(60)]
    sent = [serialize(fill(ORDER_CLASS(), v), SerializationContext("t", MessageField.VALUE)) for v in values]
    schema_id = int.from_bytes(sent[0][1:5], "big")
    registry = Registry()
    registry.schemas[schema_id] = RegisteredSchema(schema_id, "PROTOBUF", client.get_schema(schema_id).schema_str)
    wanted = columns(i64="bigint", name="string", tags="array<string>")
    made = ProtobufFormat(ProtobufSettings(), reading(wanted, registry, drift="add"))
    got = made.decode_messages(pa.array(sent, pa.binary()), "t-0", np.arange(60) * 3 + 5)
    assert outcome(got) == dict(enumerate(values))
    registry = Registry()
    registry.add('syntax = "proto3"; package p; message In { int32 n = 1; }', "PROTOBUF", subject="in")
    text = 'syntax = "proto3"; import "in/in.proto"; message Out { p.In x = 1; }'
    number = registry.add(text, "PROTOBUF", subject="t-value", references=[Reference("in/in.proto", "in", 1)])
    made = ProtobufFormat(ProtobufSettings(), reading(columns(x="struct<n:int>"), registry))
    got = made.decode_messages(pa.array([framed(number, b"\0\x0a\x02\x08\x05")], pa.binary()), "t-0", np.array([5]))
    assert outcome(got) == {0: {"x": {"n": 5}}}
    assert made.infer_messages([], "t") == columns(x="struct<n:int>")
