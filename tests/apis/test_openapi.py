"""The OpenAPI document is valid, names every stream, and its record schemas say what is accepted."""

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from lodestream.apis.ingest.openapi import schema_of
from lodestream.model.types import Column, Schema, parse_type
from tests.apis.conftest import serving

EVERY = """\
source: {http: {stream: every}}
columns:
  a: boolean
  b: tinyint
  c: bigint
  d: double
  e: decimal(12,2)
  f: string
  g: binary
  h: date
  i: timestamp
  j: array<int>
  k: map<string,double>
  l: struct<x:int,y:array<struct<z:string>>>
"""
RECORD = {
    "a": True, "b": 1, "c": 2, "d": 1.5, "e": "1.25", "f": "x", "g": "aGk=", "h": "2024-05-01",
    "i": "2024-05-01T12:00:00Z", "j": [1, None], "k": {"x": 1.0}, "l": {"x": 1, "y": [{"z": "q"}]},
}  # fmt: skip


def test_the_document_is_valid_and_says_what_is_accepted(project):
    with serving(project(tables={"every": EVERY})) as served:
        told = served.client.get("/openapi.json").json()
        validate(told, cls=OpenAPIV31SpecValidator)
        assert [path for path in told["paths"] if path.startswith("/ingest")] == ["/ingest/every"]
        schema = jsonschema_rs.validator_for(told["components"]["schemas"]["every_record"])
        cases = [RECORD, {}, dict.fromkeys(RECORD)]
        cases += [RECORD | {"b": 200}, RECORD | {"f": 1}, RECORD | {"j": ["x"]}, RECORD | {"a": "true"}]
        answers = [served.client.post("/ingest/every", json=record).status_code == 200 for record in cases]
        assert (
            [schema.is_valid(record) for record in cases] == answers == [True, True, True, False, False, False, False]
        )
        accepted = served.client.post("/ingest/every", json=RECORD).json()
        jsonschema_rs.validate(told["components"]["schemas"]["Accepted"], accepted)
        refused = served.client.post("/ingest/every", json={"b": 200}).json()
        jsonschema_rs.validate(told["components"]["schemas"]["Problem"], refused)
        operation = told["paths"]["/ingest/every"]["post"]
        kinds = operation["requestBody"]["content"].keys()
        for kind in kinds:
            answer = served.client.post("/ingest/every", content=b"", headers={"content-type": kind})
            assert answer.status_code != 415, kind
            assert str(answer.status_code) in operation["responses"]


def test_columns_that_must_be_there_and_times_as_numbers():
    schema = Schema(
        (Column("at", parse_type("timestamp"), nullable=False), Column("x", parse_type("int"), comment="c"))
    )
    told = schema_of(schema, "millis")
    assert told["required"] == ["at"]
    assert told["properties"]["at"]["type"] == "integer"
    assert told["properties"]["x"]["type"] == ["integer", "null"]
    assert told["properties"]["x"]["description"] == "c"


def test_a_document_that_is_not_valid_is_seen():
    with pytest.raises(Exception, match="openapi"):
        validate({"info": {}}, cls=OpenAPIV31SpecValidator)
