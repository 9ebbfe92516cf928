"""The OpenAPI 3.1 document of HTTP ingest, made from its streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lodestream.apis.ingest.records import CONTENT_TYPES
from lodestream.apis.ingest.stream import Stream
from lodestream.apis.problems import PROBLEM_TYPE, TITLES
from lodestream.model.types import DataType, Schema
from lodestream.version import VERSION

_INTEGERS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
_PROBLEMS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "on_error", "in": "query", "required": False,
        "description": "quarantine accepts the body and sets bad records aside; refuse (the default) takes nothing.",
        "schema": {"type": "string", "enum": ["refuse", "quarantine"], "default": "refuse"},
    },
    {
        "name": "Idempotency-Key", "in": "header", "required": False,
        "description": "The same key gives the same answer and writes nothing; for retries.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    {
        "name": "Content-Encoding", "in": "header", "required": False,
        "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
    },
]  # fmt: skip
_ACCEPTED: dict[str, Any] = {
    "type": "object", "required": ["accepted", "first", "last"], "additionalProperties": False,
    "properties": {
        "accepted": {"type": "integer", "minimum": 0, "description": "Records taken in."},
        "first": {"type": ["integer", "null"], "description": "Position of the first one in the stream."},
        "last": {"type": ["integer", "null"], "description": "Position of the last one."},
    },
}  # fmt: skip
_PROBLEM: dict[str, Any] = {
    "type": "object", "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object", "required": ["record", "reasons"],
                "properties": {
                    "record": {"type": "integer", "description": "Index in the body, from 0."},
                    "reasons": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}  # fmt: skip


def document(streams: Iterable[Stream], server: str, title: str) -> dict[str, Any]:
    """The document.

    Args:
        streams: those that are served.
        server: URL of the server.
        title: of the project.
    """
    found = sorted(streams, key=lambda stream: stream.name)
    schemas = {f"{stream.name}_record": record_schema(stream) for stream in found}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{title}: Lodestream", "version": VERSION},
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": {f"/ingest/{stream.name}": {"post": _operation(stream)} for stream in found} | _STATUS,
        "components": {
            "schemas": {**schemas, "Accepted": _ACCEPTED, "Problem": _PROBLEM},
            "responses": {f"Problem{code}": _problem(code) for code in _PROBLEMS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "ls_<env>_<id>_<secret>"}},
        },
    }


def _problem(code: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": TITLES[code],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if code in (429, 503):
        told["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return told


def _operation(stream: Stream) -> dict[str, Any]:
    record = {"$ref": f"#/components/schemas/{stream.name}_record"}
    bodies: dict[str, Any] = dict.fromkeys(CONTENT_TYPES, _BINARY)
    bodies["application/json"] = {"schema": {"anyOf": [record, {"type": "array", "items": record}]}}
    for text in ("application/x-ndjson", "application/jsonl", "text/csv"):
        bodies[text] = {"schema": {"type": "string"}}
    accepted = {"schema": {"$ref": "#/components/schemas/Accepted"}}
    return {
        "operationId": f"ingest_{stream.name}",
        "summary": f"Append records to {stream.table.name}.",
        "description": stream.table.comment or f"Records of the stream {stream.name}.",
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": bodies},
        "responses": {
            "200": {"description": "The records are durable.", "content": {"application/json": accepted}},
            **{str(code): {"$ref": f"#/components/responses/Problem{code}"} for code in _PROBLEMS},
        },
    }


def _plain(summary: str, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "object" if kind.endswith("json") else "string"}}}
    return {"get": {
        "summary": summary, "security": [], "responses": {"200": {"description": "it", "content": content}},
    }}  # fmt: skip


_STATUS: dict[str, Any] = {
    "/healthz": _plain("Whether the server takes records.", "application/json"),
    "/metrics": _plain("Counts in the Prometheus text format.", "text/plain"),
    "/openapi.json": _plain("This document.", "application/json"),
}


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
