"""Schemas made to take for ever are refused after a bounded number of steps."""

import json

import pytest

from lodestream.apis.registry.languages import LANGUAGES
from lodestream.apis.registry.languages.parsed import InvalidSchemaError


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"x": value}
    return value


def either(name, *kinds):
    return {"type": "record", "name": name, "fields": [{"name": "x", "type": list(kinds)}]}


PAIR = either("A", "A", either("B", "A", "B"))
BRANCHING = {
    "type": "record", "name": "R",
    "fields": [{"name": "a", "type": ["null", PAIR]}, {"name": "y", "type": "A", "default": nested(45)}],
}  # fmt: skip
CROSSED = [{"anyOf": [{"enum": [*range(300), i * sign]} for i in range(1000, 1200)]} for sign in (1, -1)]
CHAIN = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(40)}
CHAINED = {"$defs": {**CHAIN, "d40": {"type": "string"}}, "allOf": [{"$ref": "#/$defs/d0"}] * 3000}
PATTERNED = [
    {"properties": {f"{n}{i}": {} for i in range(2000)}, "patternProperties": {f"^{n}{i}$": {} for i in range(500)}}
    for n in "pq"
]
DEEP = {"type": "string"}
for _depth in range(40):
    DEEP = {"properties": {"a": DEEP}, "anyOf": [{"minProperties": _depth}, {"maxProperties": 9}]}


def test_a_default_that_fits_in_2_to_the_45_ways_is_not_tried_in_all():
    with pytest.raises(InvalidSchemaError, match="too large"):
        LANGUAGES["AVRO"].parse(json.dumps(BRANCHING))


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (*CROSSED,),
        (CHAINED, {**CHAINED, "title": "other"}),
        (*PATTERNED,),
        (DEEP, json.loads(json.dumps(DEEP).replace("string", "integer"))),
    ],
    ids=["crossed enums", "chained references", "patterns", "deep alternatives"],
)
def test_a_comparison_ends(reader, writer):
    rules = LANGUAGES["JSON"]
    with pytest.raises(InvalidSchemaError, match="too large"):
        rules.differences(rules.parse(json.dumps(reader)), rules.parse(json.dumps(writer)))


def test_wide_schemas_are_no_bombs():
    avro = LANGUAGES["AVRO"]
    wide = {"type": "record", "name": "A", "fields": [{"name": f"f{i}", "type": "int"} for i in range(5000)]}
    parsed = avro.parse(json.dumps(wide))
    assert avro.differences(parsed, avro.parse(json.dumps(wide))) == []
    protobuf = LANGUAGES["PROTOBUF"]
    many = protobuf.parse('syntax = "proto3";' + "".join(f"message A{i} {{ A0 x = 1; }}" for i in range(3000)))
    assert protobuf.differences(many, many) == []
    with pytest.raises(InvalidSchemaError):
        protobuf.parse("message A {" * 5000)


def test_an_answer_tells_a_hundred_reasons_at_most(http, subject):
    for kind in ("long", "string"):
        fields = [{"name": f"f{i}", "type": kind} for i in range(1000)]
        answer = http.post(
            f"/subjects/{subject}/versions",
            json={"schema": json.dumps({"type": "record", "name": "A", "fields": fields})},
        )
    assert answer.status_code == 409
    assert answer.json()["message"].count("TYPE_MISMATCH") == 100
