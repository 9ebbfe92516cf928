"""Avro compatibility: held to the checker of the Avro project, and to what fastavro can read."""

import contextlib
import io
import json

import avro.compatibility
import avro.errors
import avro.schema
import fastavro
import fastavro.utils
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lodestream.apis.registry.languages import LANGUAGES, avro_resolution
from lodestream.apis.registry.languages.parsed import InvalidSchemaError

AVRO = LANGUAGES["AVRO"]
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def rules(reader, writer):
    found = AVRO.differences(AVRO.parse(json.dumps(reader)), AVRO.parse(json.dumps(writer)))
    return [one.rule for one in found]


def record(*fields, name="A", **more):
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name, kind, **more):
    return {"name": name, "type": kind, **more}


@pytest.mark.parametrize("writer", PRIMITIVES)
@pytest.mark.parametrize("reader", PRIMITIVES)
def test_primitives_are_promoted_as_the_avro_project_does(reader, writer):
    assert (rules(reader, writer) == []) is theirs(reader, writer)


LIST = record(field("next", ["null", "A"]), field("x", "int"))


@pytest.mark.parametrize(
    ("reader", "writer", "wanted"),
    [
        (record(field("a", "int", default=0)), record(), []),
        (record(field("a", "int")), record(), ["READER_FIELD_MISSING_DEFAULT_VALUE"]),
        (record(), record(field("a", "int")), []),
        (record(field("b", "int", aliases=["a"])), record(field("a", "int")), []),
        (record(name="B"), record(), ["NAME_MISMATCH"]),
        (record(name="x.A"), record(name="y.A"), []),
        (record(name="B", aliases=["A"]), record(), []),
        (record(name="x.B", aliases=["A"]), record(name="x.A"), []),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, {"type": "enum", "name": "E", "symbols": ["A"]}, []),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "enum", "name": "E", "symbols": ["A", "B"]},
         ["MISSING_ENUM_SYMBOLS"]),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "A"},
         {"type": "enum", "name": "E", "symbols": ["A", "B"]}, []),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 5},
         ["FIXED_SIZE_MISMATCH"]),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, []),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, ["TYPE_MISMATCH"]),
        (["null", "string"], "string", []),
        ("string", ["null", "string"], ["TYPE_MISMATCH"]),
        (["null", "long"], ["null", "int"], []),
        (["null", "int"], ["null", "string"], ["MISSING_UNION_BRANCH"]),
        ([record(field("a", "int"))], record(), ["MISSING_UNION_BRANCH"]),
        (LIST, LIST, []),
        (record(field("next", ["null", "A"]), field("x", "string")), LIST, ["TYPE_MISMATCH"]),
    ],
)  # fmt: skip
def test_known_cases(reader, writer, wanted):
    assert sorted(set(rules(reader, writer))) == sorted(wanted) or rules(reader, writer)[-1:] == wanted


def test_the_message_says_where():
    found = AVRO.differences(
        AVRO.parse(json.dumps(record(field("a", record(field("b", "int"), name="B"))))),
        AVRO.parse(json.dumps(record(field("a", record(field("b", "string"), name="B"))))),
    )
    assert found[0].text == "string is not read as int at /fields/0/type/fields/0/type"


@pytest.mark.parametrize(
    "schema",
    [
        "nosuch", 3, None, {}, {"type": "record", "name": "A"}, record(name="1"), record(field("a b", "int")),
        record(field("a", "int"), field("a", "int")), ["int", "int"], [["int"]], {"type": "array"},
        {"type": "enum", "name": "E", "symbols": ["A", "A"]}, {"type": "enum", "name": "E", "symbols": ["a-b"]},
        {"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, {"type": "fixed", "name": "F"},
        {"type": "fixed", "name": "F", "size": -1}, record(field("a", "int", default="x")),
        record(field("a", "int", default=1 << 31)), record(field("a", ["null", "int"], default="x")),
        record(field("a", record(name="A"))), {"type": "bytes", "logicalType": "decimal", "precision": 0},
        record(field("a", "int", order="up")), record(field("a", "bytes", default="\u0100")),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(schema):
    with pytest.raises(InvalidSchemaError):
        AVRO.parse(json.dumps(schema))


DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 2,
    "float": 1.5,
    "double": 2.5,
    "bytes": "x",
    "string": "y",
}


@st.composite
def schemas(draw, depth=2, names=None):
    """A schema whose types are named A to D, each once."""
    names = [*"ABCD"] if names is None else names
    kinds = [*PRIMITIVES, "enum", "fixed"] + (["record", "record", "array", "map", "union"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind in ("record", "enum", "fixed") and not names:
        kind = "int"
    if kind == "enum":
        more = {"default": "X"} if draw(st.booleans()) else {}
        symbols = draw(st.lists(st.sampled_from("YZW"), max_size=2, unique=True))
        return {"type": "enum", "name": names.pop(0), "symbols": ["X", *symbols], **more}
    if kind == "fixed":
        return {"type": "fixed", "name": names.pop(0), "size": draw(st.integers(1, 2))}
    if kind == "array":
        return {"type": "array", "items": draw(schemas(depth - 1, names))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(depth - 1, names))}
    if kind == "union":
        return draw(st.lists(st.sampled_from(PRIMITIVES), min_size=1, max_size=3, unique=True))
    if kind == "record":
        name, fields = names.pop(0), []
        for one in draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True)):
            inner = draw(schemas(depth - 1, names))
            first = inner[0] if isinstance(inner, list) else inner
            has = isinstance(first, str) and draw(st.booleans())
            fields.append(field(one, inner, **({"default": DEFAULTS[first]} if has else {})))
        return record(*fields, name=name)
    return kind


def theirs(reader, writer):
    """Whether the Avro project finds them compatible."""
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()
    found = checker.get_compatibility(*(avro.schema.parse(json.dumps(one)) for one in (reader, writer)))
    return found.compatibility is avro.compatibility.SchemaCompatibilityType.compatible


def agree(reader, writer):
    assert (rules(reader, writer) == []) is theirs(reader, writer)


CHANGES = [
    ('"int"', '"long"'), ('"long"', '"int"'), ('"X"', '"Q"'), ('"a"', '"b"'), ('"string"', '"bytes"'),
    ('"size": 1', '"size": 2'), ('"A"', '"D"'),
]  # fmt: skip


@st.composite
def pairs(draw):
    """Two schemas, often near each other."""
    writer = draw(schemas())
    if draw(st.booleans()):
        return draw(schemas()), writer
    text = json.dumps(writer)
    for _ in range(draw(st.integers(0, 2))):
        old, new = draw(st.sampled_from(CHANGES))
        text = text.replace(old, new, 1)
    reader = json.loads(text)
    try:
        AVRO.parse(text)
        avro.schema.parse(text)
    except (InvalidSchemaError, avro.errors.AvroException):
        assume(False)
    return reader, writer


FAR = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@FAR
@given(pairs())
def test_any_pair_is_judged_as_the_avro_project_does(pair):
    agree(*pair)


@FAR
@given(pairs())
def test_what_is_found_compatible_is_read_by_fastavro(pair):
    reader, writer = pair
    if rules(reader, writer):
        return
    wrote, reads = fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    for value in fastavro.utils.generate_many(wrote, 3):
        data = io.BytesIO()
        fastavro.schemaless_writer(data, wrote, value)
        with contextlib.suppress(UnicodeDecodeError):  # bytes may be read as a string, when they are one
            fastavro.schemaless_reader(io.BytesIO(data.getvalue()), wrote, reads)


@pytest.mark.parametrize(
    "bug",
    [
        lambda patch: patch.setattr(avro_resolution, "_PROMOTIONS", {("long", "int")}),
        lambda patch: patch.setattr(avro_resolution, "_same_name", lambda *_: True),
        lambda patch: patch.setattr(avro_resolution._Comparison, "_field", lambda *_: []),
        lambda patch: patch.setattr(avro_resolution._Comparison, "_from_union", lambda *_: []),
    ],
    ids=["promotions turned around", "names ignored", "fields ignored", "unions ignored"],
)
def test_planted_bugs_are_seen(monkeypatch, bug):
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        FAR(given(pairs())(agree_with_pair))()


def agree_with_pair(pair):
    agree(*pair)
