"""Avro schemas: parsed from JSON into types, with their fingerprints and the table types that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lodestream.model.types import (
    BIGINT,
    BINARY,
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    STRING,
    TIMESTAMP,
    Column,
    DataType,
    Schema,
)
from lodestream.model.widening import unify_schemas

SIMPLE = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_LOGICAL = {
    "decimal": ("bytes", "fixed"), "uuid": ("string", "fixed"), "date": ("int",), "time-millis": ("int",),
    "time-micros": ("long",), "timestamp-millis": ("long",), "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",), "local-timestamp-millis": ("long",), "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",), "duration": ("fixed",),
}  # fmt: skip
TEXT_CHARS_MAX = 4 << 20
TYPES_MAX = 20_000
COLUMN_TYPES_MAX = 5_000
DEPTH_MAX = 64
FIXED_BYTES_MAX = 16 << 20


class BadSchemaError(ValueError):
    """The text is no Avro schema; the message says why."""


@dataclass(eq=False, slots=True)
class AvroField:
    """A field of a record. `default` is as in the JSON; `has_default` tells none from null."""

    name: str
    type: AvroType
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


@dataclass(eq=False, slots=True)
class AvroType:
    """One type of a schema; named types that are used again are the same object, so a recursive schema is a cycle.

    Attributes:
        kind: one of `SIMPLE`, or `fixed`, `enum`, `record`, `array`, `map`, `union`.
        name: full name of a fixed, enum or record.
        logical: its logical type; empty when it has none or one that its kind cannot have.
        precision: digits of a decimal.
        scale: digits after the point of a decimal.
        size: bytes of a fixed.
        symbols: an enum's symbols.
        default: an enum's default symbol.
        fields: a record's fields.
        inner: the item type of an array, the value type of a map, or the branches of a union.
    """

    kind: str
    name: str = ""
    logical: str = ""
    precision: int = 0
    scale: int = 0
    size: int = 0
    symbols: tuple[str, ...] = ()
    default: str | None = None
    fields: tuple[AvroField, ...] = ()
    inner: tuple[AvroType, ...] = ()


def parse_schema(text: str, references: Iterable[str] = ()) -> AvroType:
    """The type that a schema's JSON describes; the named types of `references` may be used in it.

    Raises:
        BadSchemaError: it is none, is too large or nests too deep.
    """
    reader = _Reader()
    for reference in references:
        reader.read(_json(reference), "", 0)
    return reader.read(_json(text), "", 0)


def _json(text: str) -> Any:
    if len(text) > TEXT_CHARS_MAX:
        raise BadSchemaError("longer than 4 Mi characters")
    stripped = text.strip()
    if stripped in SIMPLE:
        return stripped  # a registry may hold a bare name without quotes
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError) as error:
        raise BadSchemaError("not JSON") from error


class _Reader:
    def __init__(self) -> None:
        self._named: dict[str, AvroType] = {}
        self._count = 0

    def read(self, node: Any, space: str, depth: int) -> AvroType:
        self._count += 1
        if self._count > TYPES_MAX or depth > DEPTH_MAX:
            raise BadSchemaError(f"more than {TYPES_MAX} types, or nested deeper than {DEPTH_MAX}")
        if isinstance(node, str):
            return self._by_name(node, space)
        if isinstance(node, list):
            return self._union(node, space, depth)
        if not isinstance(node, dict):
            raise BadSchemaError("a type is a name, an object or a list")
        kind = node.get("type")
        if not isinstance(kind, str):
            return self.read(kind, space, depth + 1)
        if kind in ("record", "error"):
            return self._record(node, space, depth)
        if kind in ("fixed", "enum"):
            return self._fixed_or_enum(node, kind, space)
        if kind in ("array", "map"):
            inner = node.get("items" if kind == "array" else "values")
            return AvroType(kind, inner=(self.read(inner, space, depth + 1),))
        if kind in SIMPLE:
            return _with_logical(AvroType(kind), node)
        return self._by_name(kind, space)

    def _by_name(self, name: str, space: str) -> AvroType:
        if name in SIMPLE:
            return AvroType(name)
        full = name if "." in name or not space else f"{space}.{name}"
        found = self._named.get(full) or self._named.get(name)
        if found is None:
            raise BadSchemaError(f"unknown type {name!r}")
        return found

    def _union(self, node: list[Any], space: str, depth: int) -> AvroType:
        branches = tuple(self.read(branch, space, depth + 1) for branch in node)
        names = [branch.name or branch.kind for branch in branches]
        if not branches or len(set(names)) != len(names) or "union" in names:
            raise BadSchemaError("a union has each type once, at least one, and no union")
        return AvroType("union", inner=branches)

    def _define(self, node: Mapping[str, Any], made: AvroType, space: str) -> str:
        """Register a named type; gives the namespace for what is inside it."""
        name, given = node.get("name"), node.get("namespace")
        if not isinstance(name, str) or not name or not isinstance(given, str | None):
            raise BadSchemaError(f"a {made.kind} without a name")
        if "." not in name:
            around = space if given is None else given
            name = f"{around}.{name}" if around else name
        if name in self._named or name in SIMPLE:
            raise BadSchemaError(f"type {name!r} is defined twice")
        made.name = name
        self._named[name] = made
        return name.rpartition(".")[0]

    def _record(self, node: Mapping[str, Any], space: str, depth: int) -> AvroType:
        made = AvroType("record")
        space = self._define(node, made, space)
        listed = node.get("fields")
        if not isinstance(listed, list):
            raise BadSchemaError(f"record {made.name!r} has no list of fields")
        fields = []
        for item in listed:
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise BadSchemaError(f"record {made.name!r} has a field without a name")
            kind = self.read(item.get("type"), space, depth + 1)
            fields.append(AvroField(item["name"], kind, _names(item), "default" in item, item.get("default")))
        if len({field.name for field in fields}) != len(fields):
            raise BadSchemaError(f"record {made.name!r} has a field twice")
        made.fields = tuple(fields)
        return made

    def _fixed_or_enum(self, node: Mapping[str, Any], kind: str, space: str) -> AvroType:
        made = AvroType(kind)
        self._define(node, made, space)
        if kind == "fixed":
            size = node.get("size")
            if type(size) is not int or not 0 <= size <= FIXED_BYTES_MAX:
                raise BadSchemaError(f"fixed {made.name!r} has no size from 0 to {FIXED_BYTES_MAX}")
            made.size = size
            return _with_logical(made, node)
        symbols = node.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise BadSchemaError(f"enum {made.name!r} has no list of symbols")
        if len(set(symbols)) != len(symbols):
            raise BadSchemaError(f"enum {made.name!r} has a symbol twice")
        made.symbols = tuple(symbols)
        made.default = node["default"] if node.get("default") in symbols else None
        return made


def _names(item: Mapping[str, Any]) -> tuple[str, ...]:
    aliases = item.get("aliases", ())
    return tuple(alias for alias in aliases if isinstance(alias, str)) if isinstance(aliases, list) else ()


def _with_logical(made: AvroType, node: Mapping[str, Any]) -> AvroType:
    """Take over a logical type that is valid; the specification says to ignore any other."""
    logical = node.get("logicalType")
    if not isinstance(logical, str) or made.kind not in _LOGICAL.get(logical, ()):
        return made
    if logical == "decimal":
        precision, scale = node.get("precision"), node.get("scale", 0)
        if type(precision) is not int or type(scale) is not int or precision < 1 or not 0 <= scale <= precision:
            return made
        made.precision, made.scale = precision, scale
    if (logical == "uuid" and made.kind == "fixed" and made.size != 16) or (logical == "duration" and made.size != 12):
        return made
    made.logical = logical
    return made


def field_types(kind: AvroType) -> list[DataType | None]:
    """The table type that holds every value of each field; None when there is none (a duration, mixed unions)."""
    return _Columns().fields(kind)


def record_schema(kind: AvroType) -> Schema:
    """The columns that hold a record's fields; those that no column can hold are left out."""
    return _Columns().record(kind)


class _Columns:
    """Counts the types it makes, for a short schema can stand for very many; a type inside itself has no column."""

    def __init__(self) -> None:
        self._count = 0
        self._within: set[int] = set()

    def type(self, kind: AvroType) -> DataType | None:
        self._count += 1
        if self._count > COLUMN_TYPES_MAX or id(kind) in self._within:
            return None
        if kind.logical:
            return _logical_type(kind)
        if kind.kind == "union":
            branches = [branch for branch in kind.inner if branch.kind != "null"]
            return self.type(branches[0]) if len(branches) == 1 else None
        if kind.kind == "array":
            element = self.type(kind.inner[0])
            return DataType("array", element=element) if element else None
        if kind.kind == "map":
            element = self.type(kind.inner[0])
            return DataType("map", key=STRING, element=element) if element else None
        if kind.kind == "record":
            fields = self.record(kind).columns
            return DataType("struct", fields=fields) if fields else None
        return _PLAIN.get(kind.kind)

    def fields(self, kind: AvroType) -> list[DataType | None]:
        self._within.add(id(kind))
        kinds = [self.type(field.type) for field in kind.fields]
        self._within.discard(id(kind))
        return kinds

    def record(self, kind: AvroType) -> Schema:
        named = zip(kind.fields, self.fields(kind), strict=True)
        return unify_schemas([Schema((Column(field.name, found),)) for field, found in named if found])


_PLAIN = {
    "boolean": BOOLEAN, "int": INT, "long": BIGINT, "float": DataType("float"), "double": DOUBLE,
    "bytes": BINARY, "fixed": BINARY, "string": STRING, "enum": STRING,
}  # fmt: skip


def _logical_type(kind: AvroType) -> DataType | None:
    if kind.logical == "decimal":
        return DataType("decimal", kind.precision, kind.scale) if kind.precision <= 38 else BINARY
    if "timestamp" in kind.logical:
        return TIMESTAMP
    return {"uuid": STRING, "date": DATE, "time-millis": INT, "time-micros": BIGINT}.get(kind.logical)


_EMPTY = 0xC15D213AA4D7A795


def fingerprint(kind: AvroType) -> bytes:
    """CRC-64-AVRO of the schema's Parsing Canonical Form, 8 bytes little endian (Avro 1.12, "Schema Fingerprints")."""
    value = _EMPTY
    for byte in canonical(kind).encode():
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]
    return value.to_bytes(8, "little")


def canonical(kind: AvroType) -> str:
    """The schema's Parsing Canonical Form."""
    return json.dumps(_canonical(kind, set()), separators=(",", ":"), ensure_ascii=False)


def _canonical(kind: AvroType, seen: set[str]) -> Any:
    if kind.kind == "union":
        return [_canonical(branch, seen) for branch in kind.inner]
    if kind.kind in ("array", "map"):
        return {"type": kind.kind, "items" if kind.kind == "array" else "values": _canonical(kind.inner[0], seen)}
    if not kind.name:
        return kind.kind
    if kind.name in seen:
        return kind.name
    seen.add(kind.name)
    form: dict[str, Any] = {"name": kind.name, "type": kind.kind}
    if kind.kind == "fixed":
        form["size"] = kind.size
    elif kind.kind == "enum":
        form["symbols"] = list(kind.symbols)
    else:
        form["fields"] = [{"name": field.name, "type": _canonical(field.type, seen)} for field in kind.fields]
    return form


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()
