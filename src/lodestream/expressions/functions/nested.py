"""Types of arrays and maps, and what stands at a key."""

from __future__ import annotations

import re

from lodestream.expressions.coercion import widen
from lodestream.expressions.registry import Call
from lodestream.expressions.typed import VOID, Typed, strict, unless_null
from lodestream.model.types import DataType

EACH, AT = '"→x"', '"→i"'
"""DuckDB parameters of an element and its place beside text of the user's: no column has such a name."""

_PATH = re.compile(r"(?:(?:[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)\.)*(?:([A-Za-z_][A-Za-z0-9_]*)|`([^`]+)`)\Z")


def array_of(kind: DataType) -> DataType:
    """The type of an array of such elements."""
    return DataType("array", element=kind)


def element(value: Typed) -> DataType:
    """The type of an array's elements."""
    assert value.type.element
    return value.type.element


def map_of(key: DataType, value: DataType) -> DataType:
    """The type of a map."""
    return DataType("map", key=key, element=value)


def parts(kind: DataType) -> tuple[DataType, DataType]:
    """Types of a map's keys and values."""
    assert kind.key
    assert kind.element
    return kind.key, kind.element


def keyed(call: Call) -> tuple[Typed, Typed]:
    """A map and one of its keys. Raises P111."""
    value, key = call.map(0), call[1]
    kind = parts(value.type)[0]
    if key.type not in (kind, VOID):
        raise call.error(f"cannot look for {key.type} in {value.type}", nearest=f"cast(… as {kind})")
    return value, widen(key, kind)


def looked_up(call: Call, spark: str) -> Typed:
    """The value of a key; NULL when it is absent."""
    value, key = keyed(call)
    duckdb = unless_null((value, key), lambda m, k: f"map_extract_value({m}, {k})")
    return strict(parts(value.type)[1], duckdb, spark, (value, key), nullable=True)


def column_name(value: Typed) -> str | None:
    """The name that Spark gives a column, a field or a parameter; None for anything else."""
    found = None if value.is_literal else _PATH.match(value.spark)
    return (found[1] or found[2]) if found else None
