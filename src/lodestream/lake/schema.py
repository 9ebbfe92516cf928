"""Delta's JSON form of a schema, to and from ours."""

from __future__ import annotations

import json
from typing import Any

from lodestream.errors import ConfigError
from lodestream.model.types import PRIMITIVES, Column, DataType, Schema, parse_type

_TO_DELTA = {"tinyint": "byte", "smallint": "short", "int": "integer", "bigint": "long"}
_FROM_DELTA = {there: here for here, there in _TO_DELTA.items()}


def schema_to_json(schema: Schema) -> str:
    """The `schemaString` of Delta metadata."""
    return json.dumps(_struct(schema.columns), separators=(",", ":"))


def schema_from_json(text: str) -> Schema:
    """Read a `schemaString`.

    Raises:
        ConfigError: a column has a type that this platform does not store.
        ValueError: the text is not a schema.
    """
    return Schema(tuple(_column(field) for field in json.loads(text)["fields"]))


def _struct(columns: tuple[Column, ...]) -> dict[str, Any]:
    fields = [
        {
            "name": c.name,
            "type": _type(c.type),
            "nullable": c.nullable,
            "metadata": {"comment": c.comment} if c.comment else {},
        }
        for c in columns
    ]
    return {"type": "struct", "fields": fields}


def _type(kind: DataType) -> Any:
    if kind.name == "array":
        assert kind.element
        return {"type": "array", "elementType": _type(kind.element), "containsNull": True}
    if kind.name == "map":
        assert kind.key
        assert kind.element
        return {
            "type": "map",
            "keyType": _type(kind.key),
            "valueType": _type(kind.element),
            "valueContainsNull": True,
        }
    if kind.name == "struct":
        return _struct(kind.fields)
    return _TO_DELTA.get(kind.name, str(kind))


def _column(field: dict[str, Any]) -> Column:
    facts = field.get("metadata") or {}
    return Column(field["name"], _parsed(field["type"]), bool(field.get("nullable", True)), facts.get("comment", ""))


def _parsed(kind: Any) -> DataType:
    if isinstance(kind, str):
        name = _FROM_DELTA.get(kind, kind)
        if name in PRIMITIVES or name.startswith("decimal"):
            return parse_type(name)
        raise ConfigError("table has a column type that cannot be read here", type=kind)
    if kind["type"] == "array":
        return DataType("array", element=_parsed(kind["elementType"]))
    if kind["type"] == "map":
        return DataType("map", key=_parsed(kind["keyType"]), element=_parsed(kind["valueType"]))
    if kind["type"] == "struct":
        return DataType("struct", fields=tuple(_column(field) for field in kind["fields"]))
    raise ConfigError("table has a column type that cannot be read here", type=str(kind))
