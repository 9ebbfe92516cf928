"""Which types the parameters of a query have, as far as its text tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lodestream.model.types import Schema
from lodestream.query.guard import Statement

_CASTS = {
    "integer": "int", "int4": "int", "int": "int", "bigint": "bigint", "int8": "bigint", "smallint": "smallint",
    "int2": "smallint", "tinyint": "tinyint", "double": "double", "float8": "double", "float": "float", "real": "float",
    "float4": "float", "varchar": "string", "text": "string", "string": "string", "boolean": "boolean",
    "bool": "boolean", "date": "date", "timestamp": "timestamp", "timestamptz": "timestamp",
    "timestamp with time zone": "timestamp", "blob": "binary", "bytea": "binary",
}  # fmt: skip

_PATTERNS = frozenset({"~~", "~~*", "!~~", "!~~*", "like_escape", "starts_with"})


def parameter_types(statement: Statement, schemas: Mapping[str, Schema]) -> tuple[str | None, ...]:
    """Type of each parameter by Spark name: that of a cast, of what it is compared with, of a LIMIT; else None.

    Args:
        statement: the query.
        schemas: columns of each table it reads, as the caller sees them.
    """
    kinds: dict[str, set[str]] = {}
    for schema in schemas.values():
        for column in schema:
            kinds.setdefault(column.name.lower(), set()).add(str(column.type))
    found: dict[int, str] = {}
    for item, told in _walk(statement.tree["node"], None, kinds):
        if told is not None:
            found.setdefault(int(item["identifier"]), told)
    return tuple(found.get(place) for place in range(1, statement.parameters + 1))


def _walk(item: Any, told: str | None, kinds: Mapping[str, set[str]]) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Every parameter below `item`, with the type that its surroundings give it."""
    if isinstance(item, list):
        for each in item:
            yield from _walk(each, told, kinds)
    elif isinstance(item, dict):
        if item.get("class") == "PARAMETER":
            yield item, told
            return
        wraps = "class" not in item and "type" not in item  # an argument with its name
        for key, value in item.items():
            yield from _walk(value, told if wraps else _told(item, key, kinds), kinds)


def _told(item: Mapping[str, Any], key: str, kinds: Mapping[str, set[str]]) -> str | None:
    if key in ("limit", "offset") and str(item.get("type", "")).startswith("LIMIT"):
        return "bigint"
    kind = item.get("class")
    if kind == "CAST" and key == "child":
        return _CASTS.get(item["type_expr"].get("type_name", "").lower())
    if kind in ("COMPARISON", "BETWEEN") or item.get("type") in ("COMPARE_IN", "COMPARE_NOT_IN"):
        return _column(item, kinds)
    if kind == "FUNCTION" and item.get("function_name") in _PATTERNS:
        return "string"
    if kind == "FUNCTION" and item.get("function_name") in ("+", "-", "*", "/", "%"):
        return _column(item, kinds)
    return None


def _column(item: Mapping[str, Any], kinds: Mapping[str, set[str]]) -> str | None:
    """The type of the first plain column beside the parameter, when all tables agree on it."""
    beside = [item.get(name) for name in ("left", "right", "input", "lower", "upper")]
    beside += [each.get("expression", each) for each in (*item.get("children", ()), *item.get("arguments", ()))]
    for each in beside:
        if each and each.get("class") == "COLUMN_REF":
            types = kinds.get(each["column_names"][-1].lower(), set())
            if len(types) == 1:
                return next(iter(types))
    return None
