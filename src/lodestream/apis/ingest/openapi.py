"""How HTTP ingest stands in the table of endpoints: what a stream takes, and the JSON Schema of its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lodestream.apis.ingest.records import CONTENT_TYPES
from lodestream.apis.ingest.stream import Stream
from lodestream.apis.routing import Body, Component, Endpoint, Handler, Parameter, Reply, Shape
from lodestream.model.access import Principal
from lodestream.model.types import DataType, Schema

_INTEGERS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
_PROBLEMS = (404, 409, 422, 503)
_PARAMETERS = (
    Parameter(
        "on_error", description="quarantine accepts the body and sets bad records aside; refuse takes nothing.",
        schema={"type": "string", "enum": ["refuse", "quarantine"], "default": "refuse"},
    ),
    Parameter(
        "Idempotency-Key", "header", "The same key gives the same answer and writes nothing; for retries.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
    Parameter("Content-Encoding", "header", schema={"type": "string", "enum": ["identity", "gzip", "zstd"]}),
)  # fmt: skip
_ACCEPTED = Component("Accepted", {
    "type": "object", "required": ["accepted", "first", "last"], "additionalProperties": False,
    "properties": {
        "accepted": {"type": "integer", "minimum": 0, "description": "Records taken in."},
        "first": {"type": ["integer", "null"], "description": "Position of the first one in the stream."},
        "last": {"type": ["integer", "null"], "description": "Position of the last one."},
    },
})  # fmt: skip
_DURABLE = {200: Reply("The records are durable.", {"application/json": _ACCEPTED})}
_TAG = "ingest"


def endpoint(handler: Handler, stands_for: Callable[[Principal], Iterable[Endpoint]] | None = None) -> Endpoint:
    """The endpoint of all streams; in the document the streams that somebody may send to stand for it."""
    return Endpoint(
        "POST", "/ingest/{stream}", handler, "ingest:{stream}", "Append records to a stream.", _PARAMETERS,
        Body(dict.fromkeys(CONTENT_TYPES)), _DURABLE, _PROBLEMS, _TAG, stands_for=stands_for,
    )  # fmt: skip


def stream_endpoint(stream: Stream, handler: Handler) -> Endpoint:
    """The endpoint of one stream."""
    record = Component(f"{stream.name}_record", record_schema(stream))
    bodies: dict[str, Shape | None] = dict.fromkeys(CONTENT_TYPES)
    bodies["application/json"] = {"anyOf": [record, {"type": "array", "items": record}]}
    for text in ("application/x-ndjson", "application/jsonl", "text/csv"):
        bodies[text] = {"type": "string"}
    return Endpoint(
        "POST", f"/ingest/{stream.name}", handler, f"ingest:{stream.name}", f"Append records to {stream.table.name}.",
        _PARAMETERS, Body(bodies), _DURABLE, _PROBLEMS, _TAG,
        stream.table.comment or f"Records of the stream {stream.name}.",
    )  # fmt: skip


def record_schema(stream: Stream) -> dict[str, Any]:
    """The JSON Schema of a record."""
    timestamps = str(stream.checker.format_settings.get("timestamps", "iso"))
    return schema_of(stream.checker.schema, timestamps)


def schema_of(schema: Schema, timestamps: str = "iso") -> dict[str, Any]:
    """The JSON Schema of an object with these columns."""
    properties: dict[str, Any] = {}
    for column in schema:
        told = _shape(column.type, timestamps)
        if column.nullable:
            told = _or_null(told)
        properties[column.name] = told | ({"description": column.comment} if column.comment else {})
    needed = [column.name for column in schema if not column.nullable]
    return {"type": "object", "properties": properties} | ({"required": needed} if needed else {})


def _or_null(told: Mapping[str, Any]) -> dict[str, Any]:
    kinds = told["type"] if isinstance(told["type"], list) else [told["type"]]
    return {**told, "type": [*kinds, "null"]}


def _shape(kind: DataType, timestamps: str) -> dict[str, Any]:
    if kind.name in _INTEGERS:
        bits = _INTEGERS[kind.name]
        return {"type": "integer", "minimum": -(1 << bits - 1), "maximum": (1 << bits - 1) - 1}
    if kind.name == "decimal":
        return {"type": ["number", "string"], "description": str(kind)}
    if kind.name == "timestamp":
        if timestamps != "iso":
            return {"type": "integer", "description": f"{timestamps} since 1970"}
        return {"type": "string", "format": "date-time"}
    if kind.name == "array":
        assert kind.element
        return {"type": "array", "items": _or_null(_shape(kind.element, timestamps))}
    if kind.name == "map":
        assert kind.element
        return {"type": "object", "additionalProperties": _or_null(_shape(kind.element, timestamps))}
    if kind.name == "struct":
        return schema_of(Schema(tuple(kind.fields)), timestamps)
    plain = {"boolean": "boolean", "float": "number", "double": "number"}
    told: dict[str, Any] = {"type": plain.get(kind.name, "string")}
    if kind.name == "date":
        told["format"] = "date"
    if kind.name == "binary":
        told["contentEncoding"] = "base64"
    return told
