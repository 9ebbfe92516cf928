"""The Arrow form of our types: the one currency between rooms."""

from __future__ import annotations

import pyarrow as pa

from lodestream.model.types import Column, DataType, Schema

_TO_ARROW = {
    "boolean": pa.bool_(), "tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(),
    "bigint": pa.int64(), "float": pa.float32(), "double": pa.float64(), "string": pa.string(),
    "binary": pa.binary(), "date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC"),
}  # fmt: skip
_FROM_ARROW = {kind: name for name, kind in _TO_ARROW.items()} | {
    pa.large_string(): "string", pa.string_view(): "string", pa.large_binary(): "binary",
    pa.binary_view(): "binary", pa.uint8(): "smallint", pa.uint16(): "int", pa.uint32(): "bigint",
    pa.date64(): "date", pa.float16(): "float",
}  # fmt: skip


def to_arrow_type(kind: DataType) -> pa.DataType:
    """The Arrow type that stores `kind`; timestamps are microseconds in UTC."""
    if kind.name == "decimal":
        return pa.decimal128(kind.precision, kind.scale)
    if kind.name == "array":
        assert kind.element
        return pa.list_(to_arrow_type(kind.element))
    if kind.name == "map":
        assert kind.key
        assert kind.element
        return pa.map_(to_arrow_type(kind.key), to_arrow_type(kind.element))
    if kind.name == "struct":
        return pa.struct([pa.field(f.name, to_arrow_type(f.type)) for f in kind.fields])
    return _TO_ARROW[kind.name]


def from_arrow_type(kind: pa.DataType) -> DataType:
    """The Spark type of an Arrow type.

    Raises:
        ValueError: Delta tables cannot store it.
    """
    if kind in _FROM_ARROW:
        return DataType(_FROM_ARROW[kind])
    if pa.types.is_timestamp(kind):
        return DataType("timestamp")
    if pa.types.is_decimal(kind) and kind.precision <= 38 and kind.scale >= 0:
        return DataType("decimal", precision=kind.precision, scale=kind.scale)
    if pa.types.is_dictionary(kind):
        return from_arrow_type(kind.value_type)
    if pa.types.is_fixed_size_binary(kind):
        return DataType("binary")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return DataType("array", element=from_arrow_type(kind.value_type))
    if pa.types.is_map(kind):
        return DataType("map", key=from_arrow_type(kind.key_type), element=from_arrow_type(kind.item_type))
    if pa.types.is_struct(kind):
        return DataType("struct", fields=tuple(Column(f.name, from_arrow_type(f.type)) for f in kind))
    raise ValueError(f"no table can store this type: {kind}")


def to_arrow(schema: Schema, *, nullable: bool = False) -> pa.Schema:
    """The Arrow schema of `schema`; with `nullable` any column may be NULL, whatever `schema` says."""
    return pa.schema([pa.field(c.name, to_arrow_type(c.type), nullable or c.nullable) for c in schema])


def from_arrow(schema: pa.Schema) -> Schema:
    """The schema of an Arrow schema; types that no table can store raise ValueError."""
    return Schema(tuple(Column(f.name, from_arrow_type(f.type), f.nullable) for f in schema))
