"""JSON Schemas of what REST answers."""

from __future__ import annotations

from typing import Any

from lodestream.apis.routing import Component, Parameter, Shape
from lodestream.apis.rows import WRITERS

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
AS_OF = Parameter("as_of", description="A version, or a time: what the table held then.")
TABLE = Parameter("table", "path", "`layer.name`, such as `gold.orders`.")
COLUMNS: Shape = {
    "type": "array",
    "items": {
        "type": "object", "required": ["name", "type"],
        "properties": {"name": {"type": "string"}, "type": {"type": "string"}},
    },
}  # fmt: skip
ROWS = Component("Rows", {
    "type": "object", "required": ["columns", "rows", "versions", "truncated"],
    "properties": {
        "columns": COLUMNS, "rows": {"type": "array", "items": {"type": "array"}},
        "versions": {"type": "object", "additionalProperties": {"type": "integer"}},
        "truncated": {"type": "boolean", "description": "Whether rows were left out."},
    },
})  # fmt: skip
VERSIONS_HEADER = {"Lodestream-Versions": "The version of each table that was read."}


def contents(rows: Shape) -> dict[str, Shape | None]:
    """Every format of an answer; `rows` is the shape of the one in JSON."""
    found: dict[str, Shape | None] = {writer.media_type: None for writer in WRITERS.values()}
    texts: dict[str, Shape | None] = {"application/x-ndjson": {"type": "string"}, "text/csv": {"type": "string"}}
    return found | texts | {"application/json": rows}


def in_json(shape: Shape) -> dict[str, Shape | None]:
    """An answer that is JSON only."""
    return {"application/json": shape}


PAGE = Component("Page", {
    "type": "object", "required": ["columns", "rows", "version", "next"],
    "properties": {
        "columns": COLUMNS, "rows": {"type": "array", "items": {"type": "array"}}, "version": NUMBER,
        "next": {"type": ["string", "null"], "description": "Cursor of the next page."},
    },
})  # fmt: skip
LISTED: dict[str, Any] = {
    "type": "object", "required": ["tables"],
    "properties": {"tables": {"type": "array", "items": {
        "type": "object", "required": ["table", "layer", "name", "privileges"],
        "properties": {
            "table": TEXT, "layer": TEXT, "name": TEXT, "privileges": {"type": "array", "items": TEXT},
        },
    }}},
}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["table", "version", "columns", "partition_by"],
    "properties": {
        "table": TEXT, "version": NUMBER, "partition_by": {"type": "array", "items": TEXT},
        "columns": {"type": "array", "items": {
            "type": "object", "required": ["name", "type", "nullable", "masked"],
            "properties": {
                "name": TEXT, "type": TEXT, "nullable": {"type": "boolean"}, "masked": {"type": "boolean"},
                "comment": {"type": ["string", "null"]},
            },
        }},
    },
}  # fmt: skip
HISTORY: dict[str, Any] = {
    "type": "object", "required": ["table", "versions"],
    "properties": {
        "table": TEXT,
        "versions": {"type": "array", "items": {
            "type": "object", "required": ["version", "time", "operation"],
            "properties": {
                "version": NUMBER, "time": {"type": "string", "format": "date-time"}, "operation": TEXT,
                "rows_added": NUMBER, "files_added": NUMBER, "files_removed": NUMBER, "bytes_added": NUMBER,
            },
        }},
    },
}  # fmt: skip
STATS: dict[str, Any] = {
    "type": "object", "required": ["table", "version", "rows", "columns"],
    "properties": {
        "table": TEXT, "version": NUMBER, "rows": NUMBER, "files": NUMBER, "size_bytes": NUMBER,
        "columns": {"type": "array", "items": {
            "type": "object", "required": ["name", "type", "nulls"],
            "properties": {"name": TEXT, "type": TEXT, "nulls": NUMBER, "distinct": NUMBER, "min": {}, "max": {}},
        }},
    },
}  # fmt: skip
