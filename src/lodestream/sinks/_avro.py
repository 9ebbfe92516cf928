"""Rows as Avro records: the schema that a table's columns make, and their binary form.

The encoding is that of the Avro 1.12 specification, "Binary Encoding"; every field is a union with null.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa

from lodestream.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NULL, _PRESENT = b"\x00", b"\x02"
Write = Callable[[Any], bytes]


def avro_schema(columns: pa.Schema, name: str, namespace: str) -> str:
    """The Avro schema of a record with these columns, as canonical JSON.

    Args:
        columns: names and types.
        name: of the record.
        namespace: of the record and of those within.

    Raises:
        ConfigError: a column has a name or a type that Avro does not.
    """
    record = {"type": "record", "name": name, "namespace": namespace, "fields": _fields(columns, name)}
    return json.dumps(record, separators=(",", ":"))


def avro_records(rows: pa.Table) -> list[bytes]:
    """The binary form of each row, in the order of columns."""
    columns = []
    for column in rows.columns:
        write = _writer(column.type)
        values = column.cast(_plain(column.type)).to_pylist()
        columns.append([_NULL if value is None else _PRESENT + write(value) for value in values])
    return [b"".join(row) for row in zip(*columns, strict=True)] if columns else [b""] * len(rows)


def _fields(columns: Any, inside: str) -> list[dict[str, Any]]:
    found = []
    for field in columns:
        if not _NAME.fullmatch(field.name):
            fix = "publish other columns, or value: json"
            raise ConfigError("Avro does not know such a name", column=field.name, fix=fix)
        kind = _type(field.type, f"{inside}_{field.name}")
        found.append({"name": field.name, "type": ["null", kind], "default": None})
    return found


def _type(kind: pa.DataType, name: str) -> Any:
    for is_kind, avro in _SIMPLE:
        if is_kind(kind):
            return avro
    if pa.types.is_decimal(kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if pa.types.is_list(kind):
        return {"type": "array", "items": ["null", _type(kind.value_type, name)]}
    if pa.types.is_struct(kind):
        return {"type": "record", "name": name, "fields": _fields(kind, name)}
    if pa.types.is_map(kind) and pa.types.is_string(kind.key_type):
        return {"type": "map", "values": ["null", _type(kind.item_type, name)]}
    raise ConfigError("Avro does not know such a type", column=name, type=str(kind), fix="use value: json")


_SIMPLE: list[tuple[Callable[[pa.DataType], bool], Any]] = [
    (pa.types.is_boolean, "boolean"),
    (lambda kind: pa.types.is_integer(kind) and kind.bit_width <= 32, "int"),
    (pa.types.is_integer, "long"),
    (pa.types.is_float32, "float"),
    (pa.types.is_floating, "double"),
    (pa.types.is_string, "string"),
    (pa.types.is_binary, "bytes"),
    (pa.types.is_date32, {"type": "int", "logicalType": "date"}),
    (pa.types.is_timestamp, {"type": "long", "logicalType": "timestamp-micros"}),
]


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with times and dates as the numbers that they are."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_date32(kind):
        return pa.int32()
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _plain(kind.item_type))
    return kind


def _writer(kind: pa.DataType) -> Write:
    if pa.types.is_boolean(kind):
        return lambda value: b"\x01" if value else b"\x00"
    if pa.types.is_integer(kind) or pa.types.is_date32(kind) or pa.types.is_timestamp(kind):
        return number
    if pa.types.is_float32(kind):
        return struct.Struct("<f").pack
    if pa.types.is_floating(kind):
        return struct.Struct("<d").pack
    if pa.types.is_string(kind):
        return _text
    if pa.types.is_decimal(kind):
        scale = kind.scale
        return lambda value: _sized(_unscaled(value, scale))
    if pa.types.is_list(kind):
        return _list_writer(_writer(kind.value_type))
    if pa.types.is_struct(kind):
        return _struct_writer([(field.name, _writer(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return _map_writer(_writer(kind.item_type))
    return _sized


def number(value: int) -> bytes:
    """A whole number, zigzag and variable length."""
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x80:
        return bytes((rest,))
    found = bytearray()
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def _sized(data: bytes) -> bytes:
    return number(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _unscaled(value: Decimal, scale: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    whole: int = int("".join(map(str, digits))) * 10 ** (scale + exponent)
    whole = -whole if sign else whole
    return whole.to_bytes((whole.bit_length() + 8) // 8, "big", signed=True)


def _optional(write: Write, value: Any) -> bytes:
    return _NULL if value is None else _PRESENT + write(value)


def _list_writer(item: Write) -> Write:
    def write(values: list[Any]) -> bytes:
        body = b"".join(_optional(item, value) for value in values)
        return number(len(values)) + body + b"\x00" if values else b"\x00"

    return write


def _map_writer(item: Write) -> Write:
    def write(pairs: list[tuple[str, Any]]) -> bytes:
        body = b"".join(_sized(key.encode()) + _optional(item, value) for key, value in pairs)
        return number(len(pairs)) + body + b"\x00" if pairs else b"\x00"

    return write


def _struct_writer(fields: list[tuple[str, Write]]) -> Write:
    def write_fields(value: dict[str, Any]) -> bytes:
        return b"".join(_optional(write, value[name]) for name, write in fields)

    return write_fields
