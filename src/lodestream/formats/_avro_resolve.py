"""How an Avro type becomes a column's type: which parts are wanted, and what is done with their values."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.formats._avro_decode import run_program
from lodestream.formats._avro_program import Limits, Want, compile_program
from lodestream.formats._avro_schema import AvroField, AvroType
from lodestream.formats._values import INTEGER_BOUNDS
from lodestream.formats._wire_nested import Constant, arrays, branches, maps, structs
from lodestream.formats._wire_values import (
    Convert,
    byte_decimals,
    dates,
    floats,
    integers,
    mismatch,
    nothing,
    same,
    symbols,
    texts,
    timestamps,
    uuids,
    whole_decimals,
)
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import STRING, DataType

_NUMPY = {"int": np.int32, "long": np.int64, "float": np.float32, "double": np.float64}
_UNITS = {"millis": 1000, "micros": 1_000_000, "nanos": 1_000_000_000, "seconds": 1}


@dataclass(frozen=True, slots=True)
class Take:
    """What is read of a type, and how the array of it becomes a column."""

    want: Want
    convert: Convert


_LEAF = Want({})


class Resolver:
    """Matches writer types with column types; a reader type adds names, defaults and enum defaults.

    Args:
        timestamps: the unit since 1970 of int and long without logical type in timestamp columns, or `logical`.
    """

    def __init__(self, timestamps: str) -> None:
        self._timestamps = timestamps

    def take(self, writer: AvroType, reader: AvroType | None, kind: DataType) -> Take:
        """How the writer's type becomes a column's; where it cannot, no value of it fits."""
        if writer.kind == "null":
            return Take(_LEAF, nothing(kind))
        if writer.kind == "union":
            return self._union(writer, reader, kind)
        if reader is not None and reader.kind == "union":
            reader = _branch_like(reader, writer)
        if reader is not None and reader.kind != writer.kind:
            reader = None
        if writer.kind == "record" and kind.name == "struct":
            return self._struct(writer, reader, kind)
        if writer.kind in ("array", "map") and kind.name == writer.kind and kind.element:
            inner = self.take(writer.inner[0], reader.inner[0] if reader else None, kind.element)
            want = Want({0: inner.want})
            if kind.name == "array":
                return Take(want, arrays(kind, inner.convert))
            if kind.key == STRING:
                return Take(want, maps(kind, texts, inner.convert))
        convert = self._scalar(writer, reader, kind)
        return Take(_LEAF, convert or mismatch(kind))

    def _union(self, writer: AvroType, reader: AvroType | None, kind: DataType) -> Take:
        others = [i for i, branch in enumerate(writer.inner) if branch.kind != "null"]
        takes = {i: self.take(writer.inner[i], reader, kind) for i in others}
        want = Want({i: take.want for i, take in takes.items()})
        if len(others) == 1 and len(writer.inner) == 2:
            return Take(want, takes[others[0]].convert)
        return Take(want, branches(kind, [(i, take.convert) for i, take in takes.items()]))

    def _struct(self, writer: AvroType, reader: AvroType | None, kind: DataType) -> Take:
        parts: list[tuple[str, Convert] | Constant] = []
        want: dict[int, Want] = {}
        for field in kind.fields:
            known = find_field(reader, field.name)
            at = find_writer_field(writer, field.name, known)
            if at < 0:
                parts.append(self.default(known, field.type))
                continue
            taken = self.take(writer.fields[at].type, known.type if known else None, field.type)
            want[at] = taken.want
            parts.append((str(at), taken.convert))
        return Take(Want(want), structs(kind, parts))

    def default(self, field: AvroField | None, kind: DataType) -> Constant:
        """What a column has that the writer does not know: the reader's default, or NULL.

        Raises:
            ConfigError: the default is no value of the field's type or none of the column's.
        """
        made = to_arrow_type(kind)
        if field is None or not field.has_default:
            return lambda count: pa.nulls(count, made)
        around = AvroType("record", "default", fields=(AvroField("value", field.type),))
        taken = self.take(field.type, field.type, kind)
        try:
            data = encode_default(field.type, field.default)
            codes, array = run_program(
                compile_program(around, Want({0: taken.want})), np.frombuffer(data, np.uint8),
                np.zeros(1, np.int64), np.array([len(data)]), Limits(),
            )  # fmt: skip
            value, bad = taken.convert(array.field("0"))
        except (ValueError, TypeError, LookupError, AttributeError, struct.error, OverflowError) as error:
            raise _bad_default(field, kind) from error
        if codes[0] or bad:
            raise _bad_default(field, kind)
        return lambda count: value.take(pa.array(np.zeros(count, np.int64)))

    def _scalar(self, writer: AvroType, reader: AvroType | None, kind: DataType) -> Convert | None:
        if kind.name in ("string", "binary"):
            return _textual(writer, reader, kind)
        if writer.kind == "boolean" and kind.name == "boolean":
            return same
        if writer.kind in ("bytes", "fixed") and writer.logical == "decimal" and kind.name == "decimal":
            return byte_decimals(writer.scale, kind)
        if writer.kind not in _NUMPY:
            return None
        dtype, is_whole = _NUMPY[writer.kind], writer.kind in ("int", "long")
        if kind.name in ("float", "double"):
            return floats(dtype, kind)
        if not is_whole:
            return None
        if kind.name in INTEGER_BOUNDS:
            return integers(dtype, kind)
        if kind.name == "decimal" and not writer.logical:
            return whole_decimals(dtype, kind)
        if kind.name == "date" and writer.logical == "date":
            return dates
        if kind.name == "timestamp":
            logical = writer.logical.removeprefix("local-")
            unit = logical.removeprefix("timestamp-") if logical.startswith("timestamp-") else ""
            unit = unit or ("" if writer.logical else self._timestamps)
            return timestamps(dtype, _UNITS[unit]) if unit in _UNITS else None
        return None


def _textual(writer: AvroType, reader: AvroType | None, kind: DataType) -> Convert | None:
    """To string or binary."""
    if writer.kind == "enum" and kind.name == "string":
        names: list[str | None] = list(writer.symbols)
        if reader is not None:
            names = [name if name in reader.symbols else reader.default for name in names]
        return symbols(names)
    if writer.kind == "fixed" and kind.name == "string":
        return uuids if writer.logical == "uuid" else None
    if writer.kind not in ("string", "bytes", "fixed"):
        return None
    if kind.name == "binary":
        return same
    return texts if writer.kind == "string" or writer.logical != "decimal" else None


def _branch_like(reader: AvroType, writer: AvroType) -> AvroType | None:
    """The reader's branch for a writer's type: of the same kind and name, or else the only one of that kind."""
    alike = [branch for branch in reader.inner if branch.kind == writer.kind]
    named = [branch for branch in alike if branch.name == writer.name]
    return (named or alike)[0] if named or len(alike) == 1 else None


def find_field(record: AvroType | None, name: str) -> AvroField | None:
    """A record's field of that name."""
    return next((field for field in record.fields if field.name == name), None) if record else None


def find_writer_field(writer: AvroType, name: str, known: AvroField | None) -> int:
    """The place of the writer's field for a column: of its name, or of an alias that the reader's field has; or -1."""
    places = {field.name: i for i, field in enumerate(writer.fields)}
    names = (name, *(known.aliases if known else ()))
    return next((places[each] for each in names if each in places), -1)


def _bad_default(field: AvroField, kind: DataType) -> ConfigError:
    return ConfigError(
        "the reader schema's default does not fit; mend the default or the column's type",
        field=field.name,
        default=json.dumps(field.default),
        column=str(kind),
    )


def encode_default(kind: AvroType, value: Any) -> bytes:
    """A default as in a schema's JSON, in Avro's binary form (Avro 1.12, "Complex Types", field default values).

    Raises:
        ValueError, TypeError, LookupError, AttributeError, struct.error: it is no value of the type.
    """
    if kind.kind == "union":  # a default is of the first branch; later versions of the format allow any
        for i, branch in enumerate(kind.inner):
            if _looks_like(branch, value):
                return zigzag(i) + encode_default(branch, value)
        raise ValueError("no branch")
    if kind.kind == "record":
        return b"".join(
            encode_default(f.type, value[f.name] if f.name in value or not f.has_default else f.default)
            for f in kind.fields
        )
    if kind.kind == "array":
        items = b"".join(encode_default(kind.inner[0], item) for item in value)
        return (zigzag(len(value)) + items if value else b"") + b"\0"
    if kind.kind == "map":
        items = b"".join(_sized(k.encode()) + encode_default(kind.inner[0], item) for k, item in value.items())
        return (zigzag(len(value)) + items if value else b"") + b"\0"
    return _SCALARS[kind.kind](kind, value)


def _looks_like(kind: AvroType, value: Any) -> bool:
    expected: Mapping[str, tuple[type, ...]] = {
        "null": (type(None),), "boolean": (bool,), "int": (int,), "long": (int,), "float": (int, float),
        "double": (int, float), "array": (list,), "map": (dict,), "record": (dict,),
    }  # fmt: skip
    return type(value) in expected.get(kind.kind, (str,))


def zigzag(number: int) -> bytes:
    """A number as a zigzag varint."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return zigzag(len(data)) + data


def _whole(kind: AvroType, value: Any) -> bytes:
    bits = 31 if kind.kind == "int" else 63
    if type(value) is not int or not -(1 << bits) <= value < 1 << bits:
        raise ValueError("not a whole number that fits")
    return zigzag(value)


_SCALARS: Mapping[str, Callable[[AvroType, Any], bytes]] = {
    "null": lambda _, value: b"",
    "boolean": lambda _, value: b"\1" if value else b"\0",
    "int": _whole,
    "long": _whole,
    "float": lambda _, value: struct.pack("<f", value),
    "double": lambda _, value: struct.pack("<d", value),
    "string": lambda _, value: _sized(value.encode()),
    "bytes": lambda _, value: _sized(value.encode("latin-1")),
    "fixed": lambda _, value: value.encode("latin-1"),
    "enum": lambda kind, value: zigzag(kind.symbols.index(value)),
}
