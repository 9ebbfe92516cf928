"""JSON Schema compatibility: laws held by a validator that others wrote, and the cases everybody knows."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.apis.registry.languages import LANGUAGES
from lodestream.apis.registry.languages.parsed import InvalidSchemaError

JSON = LANGUAGES["JSON"]
CLOSED = {"additionalProperties": False}


def rules(reader, writer):
    found = JSON.differences(JSON.parse(json.dumps(reader)), JSON.parse(json.dumps(writer)))
    return sorted({one.rule for one in found})


def thing(**properties):
    return {"type": "object", "properties": properties}


NUMBER, TEXT = {"type": "number"}, {"type": "string"}


@pytest.mark.parametrize(
    ("reader", "writer", "wanted"),
    [
        pytest.param(NUMBER, {"type": "integer"}, [], id="integer is a number"),
        pytest.param({"type": "integer"}, NUMBER, ["TYPE_NARROWED"], id="a number is no integer"),
        pytest.param({"type": ["string", "null"]}, TEXT, [], id="null is added"),
        pytest.param(TEXT, {"type": ["string", "null"]}, ["TYPE_NARROWED"], id="null is taken away"),
        pytest.param({**thing(a=TEXT, b=TEXT), **CLOSED}, {**thing(a=TEXT), **CLOSED}, [], id="closed grows"),
        pytest.param(
            {**thing(a=TEXT), **CLOSED}, {**thing(a=TEXT, b=TEXT), **CLOSED},
            ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"], id="closed shrinks",
        ),
        pytest.param(thing(a=TEXT, b=TEXT), thing(a=TEXT), ["PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"], id="open grows"),
        pytest.param(thing(a=TEXT, b={}), thing(a=TEXT), [], id="open grows by anything"),
        pytest.param(thing(a=TEXT), thing(a=TEXT, b=TEXT), [], id="open shrinks"),
        pytest.param(
            {**thing(a=TEXT), "required": ["a"]}, thing(a=TEXT), ["REQUIRED_ATTRIBUTE_ADDED"], id="becomes required",
        ),
        pytest.param(
            {**thing(a={**TEXT, "default": ""}), "required": ["a"]}, thing(a=TEXT), [], id="required with a default",
        ),
        pytest.param(
            {**thing(), **CLOSED}, thing(), ["ADDITIONAL_PROPERTIES_NARROWED"], id="closes",
        ),
        pytest.param({"enum": ["a", "b"]}, {"enum": ["a"]}, [], id="enum grows"),
        pytest.param({"enum": ["a"]}, {"enum": ["a", "b"]}, ["ENUM_ARRAY_NARROWED"], id="enum shrinks"),
        pytest.param({"const": 1}, {"type": "integer"}, ["ENUM_ARRAY_NARROWED"], id="const is added"),
        pytest.param({**TEXT, "maxLength": 5}, {**TEXT, "maxLength": 3}, [], id="longer texts"),
        pytest.param({**TEXT, "maxLength": 3}, TEXT, ["MAX_LENGTH_NARROWED"], id="shorter texts"),
        pytest.param({**TEXT, "minLength": 1}, TEXT, ["MIN_LENGTH_NARROWED"], id="no empty text"),
        pytest.param({**TEXT, "pattern": "a"}, TEXT, ["PATTERN_NARROWED"], id="pattern is added"),
        pytest.param({**NUMBER, "maximum": 5}, {**NUMBER, "exclusiveMaximum": 5}, [], id="up to, and with"),
        pytest.param(
            {**NUMBER, "exclusiveMaximum": 5}, {**NUMBER, "maximum": 5}, ["MAXIMUM_NARROWED"], id="no more with",
        ),
        pytest.param({**NUMBER, "multipleOf": 2}, {**NUMBER, "multipleOf": 4}, [], id="finer steps"),
        pytest.param({**NUMBER, "multipleOf": 4}, {**NUMBER, "multipleOf": 2}, ["MULTIPLE_OF_NARROWED"], id="coarser"),
        pytest.param({"anyOf": [TEXT, NUMBER]}, {"anyOf": [TEXT]}, [], id="anyOf grows"),
        pytest.param({"anyOf": [TEXT]}, {"anyOf": [TEXT, NUMBER]}, ["SUM_TYPE_NARROWED"], id="anyOf shrinks"),
        pytest.param({"allOf": [{"minLength": 1}]}, {**TEXT, "minLength": 1}, [], id="allOf that holds"),
        pytest.param(
            {"allOf": [{"minLength": 1}, {"maxLength": 2}]}, {"allOf": [{**TEXT, "minLength": 1}]},
            ["MAX_LENGTH_NARROWED"], id="allOf grows",
        ),
        pytest.param({"not": NUMBER}, {"not": NUMBER}, [], id="the same not"),
        pytest.param({"not": NUMBER}, TEXT, ["NOT_TYPE_EXTENDED"], id="not is added"),
        pytest.param(
            {"type": "array", "items": NUMBER}, {"type": "array", "items": {"type": "integer"}}, [], id="items",
        ),
        pytest.param({"type": "array", "items": TEXT}, {"type": "array"}, ["TYPE_NARROWED"], id="items are added"),
        pytest.param(
            {"type": "array", "uniqueItems": True}, {"type": "array"}, ["UNIQUE_ITEMS_ADDED"], id="unique",
        ),
        pytest.param({"if": TEXT, "then": {"minLength": 1}}, {}, ["KEYWORD_CHANGED"], id="what is not compared"),
    ],
)  # fmt: skip
def test_known_cases(reader, writer, wanted):
    assert rules(reader, writer) == wanted


LINKED = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    "$ref": "#/$defs/node",
}


def test_recursive_schemas_end():
    assert rules(LINKED, LINKED) == []
    other = json.loads(json.dumps(LINKED).replace('"type": "object"', '"type": "object", "maxProperties": 2'))
    assert rules(other, LINKED) == ["MAX_PROPERTIES_NARROWED"]


def test_a_pattern_that_would_take_for_ever_does_not():
    name = "a" * 5000 + "!"
    evil = {**thing(**{name: NUMBER}), "patternProperties": {"(a+)+$": TEXT}, **CLOSED}
    assert rules({**thing(), "patternProperties": {"(a+)+$": TEXT}}, evil) == []
    with pytest.raises(InvalidSchemaError, match="bounded time"):
        rules({**thing(a=TEXT), **CLOSED}, {**thing(), "patternProperties": {"(?=a)": TEXT}})


def test_a_schema_that_takes_too_long_is_refused():
    wide = {"anyOf": [thing(a={"$ref": "#"}, b={"type": "string", "maxLength": i}) for i in range(1, 400)]}
    other = {"anyOf": [*reversed(wide["anyOf"]), {"const": 1}]}
    with pytest.raises(InvalidSchemaError, match="too large"):
        rules(wide, other)


def test_references_are_looked_up_and_never_fetched():
    text = json.dumps(thing(price={"$ref": "money.json"}))
    JSON.parse(text, [("money.json", json.dumps(NUMBER))])
    for schema in (text, json.dumps({"$ref": "http://127.0.0.1:1/x"}), json.dumps({"$ref": "#/$defs/x"})):
        with pytest.raises(InvalidSchemaError, match="no such reference"):
            JSON.parse(schema)
    assert JSON.parse('{"$schema": "http://127.0.0.1:1/draft"}')


@pytest.mark.parametrize("text", ['{"type": "objec"}', "[]", "3", "{", '{"maxLength": "x"}', '{"$ref": "#"}'])
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(InvalidSchemaError):
        JSON.parse(text)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from(["", "a", "ab", "abc"]),
                   st.sampled_from([0.5, 2.5]))  # fmt: skip
DOCUMENTS = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=6
)
SMALL = st.integers(0, 4)
TYPES = st.sampled_from(["string", "integer", "number", "null", "boolean", "object", "array"])
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True), "maxLength": SMALL, "minLength": SMALL,
        "maximum": SMALL, "minimum": SMALL, "exclusiveMaximum": SMALL, "multipleOf": st.sampled_from([1, 2, 0.5]),
        "enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=json.dumps), "maxItems": SMALL,
        "minProperties": SMALL, "required": st.lists(st.sampled_from("ab"), unique=True), "uniqueItems": st.booleans(),
    },
)  # fmt: skip
SCHEMAS = st.recursive(
    st.booleans() | PLAIN,
    lambda inner: st.builds(
        lambda plain, more: {**plain, **more},
        PLAIN,
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("ab"), inner), "additionalProperties": inner,
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
                "items": inner, "anyOf": st.lists(inner, min_size=1, max_size=2), "not": inner,
                "allOf": st.lists(inner, min_size=1, max_size=2), "oneOf": st.lists(inner, min_size=1, max_size=1),
            },
        ),
    ),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(SCHEMAS)
def test_a_schema_reads_what_it_wrote(schema):
    assert rules(schema, schema) == []


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, SCHEMAS, st.lists(DOCUMENTS, min_size=3, max_size=10))
def test_what_is_found_compatible_is_read(reader, writer, documents):
    if rules(reader, writer) == []:
        told, wrote = (jsonschema_rs.Draft7Validator(one) for one in (reader, writer))
        for document in documents:
            assert not wrote.is_valid(document) or told.is_valid(document)
