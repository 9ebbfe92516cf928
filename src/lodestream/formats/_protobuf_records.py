"""Messages of one Protobuf type to rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from lodestream.formats._avro_program import Op, Program
from lodestream.formats._drift import drift_error, unknown_fields
from lodestream.formats._lines import Ints, Lines, compact
from lodestream.formats._protobuf_decode import FAULTS, Layout, Slot, read_messages
from lodestream.formats._protobuf_schema import TIME, WRAPPERS, ProtoField, ProtoMessage, field_types
from lodestream.formats._values import INTEGER_BOUNDS
from lodestream.formats._wire_nested import Constant, arrays, maps, structs
from lodestream.formats._wire_rows import FromLines, Held, Strange, decoded_rows
from lodestream.formats._wire_values import (
    TIMES_US,
    Convert,
    Converted,
    floats,
    integers,
    misfits,
    mismatch,
    numbers_of,
    offsets_of,
    plain,
    same,
    symbols_by_number,
    texts,
    unsigned,
    valid_of,
    whole_decimals,
    with_values,
)
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import STRING, Column, DataType
from lodestream.ports.source import Decoded, Reading

_CODES = {"double": "double", "float": "float", "bool": "boolean", "string": "bytes", "bytes": "bytes", "enum": "int",
          "int32": "int", "sfixed32": "int"}  # fmt: skip
_ZEROS: Mapping[str, float | bool | bytes] = {"double": 0.0, "float": 0.0, "bool": False, "string": b"", "bytes": b""}
_UNSIGNED = ("uint64", "fixed64")


class ProtoRecords:
    """Decodes messages of one type.

    Args:
        message: their type.
        reading: the table's columns and drift.
    """

    def __init__(self, message: ProtoMessage, reading: Reading) -> None:
        self._reading = reading
        self.message = message
        shape = _Shape()
        kinds = field_types(message)
        places = {field.name: i for i, field in enumerate(message.fields)}
        self._layout, self._parts, self._settle = shape.record(message, reading.schema.columns)
        self._program: Program = tuple(op for op in shape.ops if op)
        self._seen = [kinds[places[c.name]] if c.name in places else None for c in reading.schema]
        self._unknown = [(f.name, kinds[i]) for i, f in enumerate(message.fields) if f.name not in reading.schema]

    def decode(self, lines: Lines, skip: Ints, unit: str) -> Decoded:
        """Rows and rejects of messages in position order, whose first `skip` bytes are not of the record.

        Raises:
            ConfigError: drift is `stop` and there is some.
        """
        strange = Strange(*unknown_fields(self._reading, self._unknown))
        block, starts, ends = compact(lines)
        read = read_messages(self._program, self._layout, block, starts + skip, ends)
        faults = {int(row): f"parse:protobuf:{FAULTS[read.codes[row]]}" for row in np.flatnonzero(read.codes)}
        for number, rows in sorted(read.strange.items()):
            if self._reading.drift == "stop":
                raise drift_error(f"#{number}", "the schema has no field of this number")
            if self._reading.drift == "quarantine":
                for row in rows.tolist():
                    faults.setdefault(row, f"drift:#{number}")
        good = None
        array = read.array
        if faults:
            good = np.delete(np.arange(len(lines)), list(faults))
            array = array.take(pa.array(good))
        array = self._settle(array)
        held = []
        for part, seen in zip(self._parts, self._seen, strict=True):
            if isinstance(part, tuple):
                held.append(Held(*part[1](array.field(part[0])), seen))
            else:
                held.append(Held(part(len(array))))
        return decoded_rows(self._reading, unit, FromLines(lines), good, held, strange, faults)


Parts = Sequence[tuple[str, Convert] | Constant]
Settle = Callable[[pa.StructArray], pa.StructArray]


class _Shape:
    """Builds the ops that values are collected by, the layouts that fields are found by, and the conversions."""

    def __init__(self) -> None:
        self.ops: list[Op | None] = []

    def record(self, message: ProtoMessage, columns: Sequence[Column]) -> tuple[Layout, Parts, Settle]:
        """For a message whose fields become these columns."""
        at = self._new()
        fields = {field.name: field for field in message.fields}
        parts: list[tuple[str, Convert] | Constant] = []
        slots: dict[int, Slot] = {}
        children: list[int] = []
        members: dict[int, list[tuple[int, int]]] = {}  # oneof: (place, number) of wanted members
        for column in columns:
            field = fields.get(column.name)
            if field is None:
                parts.append(_nulls(column.type))
                continue
            slot, convert = self._field(field, column.type)
            parts.append((str(len(children)), convert))
            if field.oneof >= 0:
                members.setdefault(field.oneof, []).append((len(children), field.number))
            slots[field.number] = slot
            children.append(slot.many if slot.many >= 0 else slot.op)
        oneofs: dict[int, int] = {}
        settled: list[tuple[int, list[tuple[int, int]]]] = []
        for oneof, wanted in members.items():
            op = self._new(Op("int", wanted=True))
            settled.append((len(children), wanted))
            children.append(op)
            oneofs |= {field.number: op for field in message.fields if field.oneof == oneof}
        self.ops[at] = Op("record", True, tuple(children))
        known = frozenset(field.number for field in message.fields)
        return Layout(at, slots, oneofs, known), parts, _settler(settled)

    def _new(self, op: Op | None = None) -> int:
        self.ops.append(op)
        return len(self.ops) - 1

    def _field(self, field: ProtoField, kind: DataType) -> tuple[Slot, Convert]:
        if not field.is_repeated:
            slot, convert = self._value(field, kind)
            return slot, convert if field.has_presence else _filled(_ZEROS.get(field.kind, 0), convert)
        many = self._new()
        if field.is_map and field.message and kind.name == "map" and kind.element and kind.key == STRING:
            slot, convert = self._map(field.message, kind)
        elif kind.name == "array" and kind.element and not field.is_map:
            slot, inner = self._value(field, kind.element)
            convert = arrays(kind, inner)
        else:
            slot, _ = self._value(field, STRING)
            convert = mismatch(kind)
            self.ops[many] = Op("array", True, (slot.op,), size=-1)
            slot.many = many
            return slot, lambda array: convert(_null_when_empty(array))
        self.ops[many] = Op("array", True, (slot.op,), size=-1)
        slot.many = many
        return slot, convert

    def _map(self, entry: ProtoMessage, kind: DataType) -> tuple[Slot, Convert]:
        key, value = entry.fields
        assert kind.element
        columns = (Column("key", STRING), Column("value", kind.element))
        layout, parts, _ = self.record(entry, columns)
        (_, to_key), (_, to_value) = [part for part in parts if isinstance(part, tuple)]
        if key.kind != "string":
            to_key = mismatch(STRING)
        if value.message is not None and value.message.name not in WRAPPERS:
            to_value = _present(to_value)
        return Slot("message", layout.op, inner=layout), maps(kind, _filled(b"", to_key), to_value)

    def _value(self, field: ProtoField, kind: DataType) -> tuple[Slot, Convert]:
        """One value of a field: of a message, or plain."""
        message = field.message
        if message is None or field.kind == "group":
            op = self._new(Op(_CODES.get(field.kind, "long"), wanted=True))
            return Slot(field.kind, op), _plain_value(field, kind)
        if message.name == TIME and kind.name == "timestamp":
            layout, _, _ = self.record(
                message, (Column("seconds", DataType("bigint")), Column("nanos", DataType("int")))
            )
            return Slot("message", layout.op, inner=layout), _timestamps
        if message.name in WRAPPERS and kind.name not in ("struct", "map", "array"):
            layout, parts, _ = self.record(message, (Column("value", kind),))
            return Slot("message", layout.op, inner=layout), _unwrapped(parts[0])
        if kind.name != "struct":
            layout, _, _ = self.record(message, ())
            return Slot("message", layout.op, inner=layout), mismatch(kind)
        layout, parts, settle = self.record(message, kind.fields)
        convert = structs(kind, parts)
        return Slot("message", layout.op, inner=layout), lambda array: convert(settle(array))


def _plain_value(field: ProtoField, kind: DataType) -> Convert:
    name, written = kind.name, field.kind
    if written == "string" and name in ("string", "binary"):
        return texts if name == "string" else same
    if written == "bytes" and name in ("binary", "string"):
        return same if name == "binary" else texts
    if written == "bool" and name == "boolean":
        return same
    if written == "enum" and name == "string":
        return symbols_by_number(field.enum or {})
    if written in ("double", "float") and name in ("double", "float"):
        return floats(np.float64 if written == "double" else np.float32, kind)
    if written in ("string", "bytes", "bool", "double", "float", "group"):
        return mismatch(kind)
    if written in _UNSIGNED:
        return unsigned(kind) if name in (*INTEGER_BOUNDS, "decimal") else mismatch(kind)
    dtype = np.int32 if _CODES.get(written) == "int" else np.int64
    if name in INTEGER_BOUNDS:
        return integers(dtype, kind)
    if name == "decimal" and written != "enum":
        return whole_decimals(dtype, kind)
    return floats(dtype, kind) if name in ("double", "float") and written != "enum" else mismatch(kind)


def _nulls(kind: DataType) -> Constant:
    made = to_arrow_type(kind)
    return lambda count: pa.nulls(count, made)


def _filled(zero: float | bool | bytes, convert: Convert) -> Convert:
    """A field without presence: where it is absent it has its zero value."""
    return lambda array: convert(array.fill_null(zero) if array.null_count else array)


def _present(convert: Convert) -> Convert:
    """A message that is a map's value: where it is absent it is an empty one."""

    def converted(array: pa.Array) -> Converted:
        array = plain(array)
        inner = [array.field(i) for i in range(array.type.num_fields)]
        return convert(pa.Array.from_buffers(array.type, len(array), [None], children=inner))

    return converted


def _null_when_empty(array: pa.Array) -> pa.Array:
    """Lists for a column that takes none: NULL where nothing was read."""
    array = plain(array)
    validity = pa.py_buffer(np.packbits(np.diff(offsets_of(array)) > 0, bitorder="little"))
    return pa.Array.from_buffers(array.type, len(array), [validity, array.buffers()[1]], children=[array.values])


def _settler(oneofs: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> Settle:
    """Makes members of a oneof NULL where another one came later."""

    def settle(array: pa.StructArray) -> pa.StructArray:
        if not oneofs:
            return array
        array = plain(array)
        children = [array.field(i) for i in range(array.type.num_fields)]
        for which, members in oneofs:
            last = np.asarray(children[which].fill_null(0))
            for place, number in members:
                stays = np.flatnonzero(last == number)
                at = pa.array(np.arange(len(array)), mask=last != number)
                if len(stays) < len(array):
                    children[place] = children[place].take(at)
        return pa.Array.from_buffers(array.type, len(array), [array.buffers()[0]], children=children)

    return settle


def _unwrapped(part: tuple[str, Convert] | Constant) -> Convert:
    """A wrapper message: its value, or NULL where the message is absent."""
    assert isinstance(part, tuple)
    name, inner = part

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        valid = valid_of(array)
        made, bad = inner(array.field(name))
        if valid is not None:
            made = made.take(pa.array(np.arange(len(array)), mask=~valid))
        return made, bad

    return convert


def _timestamps(array: pa.Array) -> Converted:
    """Seconds and nanoseconds since 1970 to microseconds."""
    array = plain(array)
    seconds = numbers_of(plain(array.field("0").fill_null(0)), np.int64)
    nanos = numbers_of(plain(array.field("1").fill_null(0)), np.int32).astype(np.int64)
    low, high = -(-TIMES_US[0] // 1_000_000), TIMES_US[1] // 1_000_000
    outside = (seconds < low) | (seconds > high) | (nanos < 0) | (nanos > 999_999_999)
    micros = np.where(outside, 0, seconds) * 1_000_000 + nanos // 1000
    bad = [*misfits(array, outside, "range"), *misfits(array, ~outside & (nanos % 1000 != 0), "precision")]
    return with_values(array, pa.timestamp("us", tz="UTC"), micros), bad
