"""Columns of an answer as PostgreSQL writes their values, in text and in binary form, a whole batch at a time.

Every function takes an Arrow array and gives a binary (or string) array of the same length whose nulls are its nulls.
No Python runs per row, but for JSON of nested values.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.apis.postgres.numbers import numeric_binary
from lodestream.apis.postgres.types import is_array, pg_type

_EPOCH_DAYS = 10_957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype="<u2")
_PLAIN_ITEM = r'^[^\s\v{},"\\]+$'


def plain(column: pa.Array) -> pa.Array:
    """A column without dictionaries, extension types, views and 64-bit offsets."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return column.storage
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    wanted = {
        pa.large_string(): pa.string(), pa.string_view(): pa.string(), pa.large_binary(): pa.binary(),
        pa.binary_view(): pa.binary(), pa.float16(): pa.float32(), pa.date64(): pa.date32(),
        pa.uint8(): pa.int16(), pa.int8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint64(): pa.decimal128(20, 0),
        pa.null(): pa.string(),
    }.get(kind)  # fmt: skip
    if pa.types.is_decimal(kind) and not pa.types.is_decimal128(kind):
        wanted = pa.decimal128(38, kind.scale)
    if pa.types.is_timestamp(kind):
        wanted = pa.timestamp("us")
    if pa.types.is_time(kind):
        wanted = pa.time64("us")
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        wanted = pa.list_(kind.value_type)
    return column if wanted is None or wanted == kind else pc.cast(column, wanted, safe=False)


# ---- text ----


def text(column: pa.Array) -> pa.Array:
    """Values in text form; a binary or string array."""
    uuids = column.type == pa.uuid()
    column = plain(column)
    kind = column.type
    if uuids:
        return _uuid_text(column)
    if pa.types.is_string(kind):
        return column
    if pa.types.is_boolean(kind):
        return pc.if_else(column, "t", "f")
    if pa.types.is_integer(kind) or pa.types.is_date(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_floating(kind):
        return _float_text(column)
    if pa.types.is_decimal(kind):
        return _decimal_text(column)
    if pa.types.is_timestamp(kind):
        cut = _fraction_cut(pc.cast(column, pa.string()))
        return pc.binary_join_element_wise(cut, "+00", "")
    if pa.types.is_time(kind):
        return _fraction_cut(pc.cast(column, pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _bytes_text(pc.cast(column, pa.binary()))
    if is_array(kind):
        return _array_text(column)
    if pa.types.is_interval(kind):
        return pa.array([None if one is None else _interval_text(one) for one in column.to_pylist()], pa.string())
    return _json(column)


def _float_text(column: pa.Array) -> pa.Array:
    shown = pc.cast(column, pa.string())
    if pc.any(pc.invert(pc.is_finite(column))).as_py():
        for found, told in (("inf", "Infinity"), ("-inf", "-Infinity"), ("nan", "NaN"), ("-nan", "NaN")):
            shown = pc.if_else(pc.equal(shown, found), told, shown)
    if pc.any(pc.match_substring(shown, "e")).as_py():  # an exponent has two digits at least
        shown = pc.replace_substring_regex(shown, r"e([+-])(\d)$", r"e\10\2")
    return shown


def _decimal_text(column: pa.Array) -> pa.Array:
    shown = pc.cast(column, pa.string())
    short = pc.match_substring(shown, "E")
    if not pc.any(short).as_py():
        return shown
    values = pc.unique(pc.filter(column, short)).to_pylist()
    written = pa.array([f"{value:f}" for value in values], pa.string())
    places = pc.index_in(column, value_set=pa.array(values, column.type))
    return pc.coalesce(pc.take(written, places), shown)


def _fraction_cut(shown: pa.Array) -> pa.Array:
    """Times without the zeros that end their fraction."""
    return pc.ascii_rtrim(pc.ascii_rtrim(shown, "0"), ".")


def _bytes_text(column: pa.Array) -> pa.Array:
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    data = column.buffers()[2]
    octets = (
        np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.empty(0, np.uint8)
    )
    doubled = pa.py_buffer((2 * (offsets - offsets[0])).astype(np.int32))
    shown = pa.Array.from_buffers(pa.string(), len(column), [None, doubled, pa.py_buffer(_HEX[octets])])
    marked = pc.binary_join_element_wise("\\x", shown, "")
    return pc.if_else(column.is_valid(), marked, pa.scalar(None, pa.string())) if column.null_count else marked


def _uuid_text(column: pa.Array) -> pa.Array:
    octets = _fixed(column, 16)
    digits = _HEX[octets].view(np.uint8).reshape(len(column), 32)
    dash = np.full((len(column), 1), ord("-"), dtype=np.uint8)
    parts = [digits[:, :8], dash, digits[:, 8:12], dash, digits[:, 12:16], dash, digits[:, 16:20], dash, digits[:, 20:]]
    return _from_fixed(np.concatenate(parts, axis=1), column, pa.string())


def _array_text(column: pa.Array) -> pa.Array:
    items = text(column.flatten())
    if not pa.types.is_string(items.type):
        items = pc.cast(items, pa.string())
    bare = pc.and_(pc.match_substring_regex(items, _PLAIN_ITEM), pc.not_equal(pc.utf8_lower(items), "null"))
    if not pc.all(bare).as_py():
        escaped = pc.replace_substring_regex(items, r'(["\\])', r"\\\1")
        items = pc.if_else(bare, items, pc.binary_join_element_wise('"', escaped, '"', ""))
    lists = _relisted(column, pc.fill_null(items, "NULL"))
    return pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", "")


def _interval_text(value: Any) -> str:
    years, months = divmod(abs(value.months), 12)
    sign = "-" if value.months < 0 else ""
    parts = [f"{sign}{n} {word}{'' if n == 1 else 's'}" for n, word in ((years, "year"), (months, "mon")) if n]
    if value.days:
        parts.append(f"{value.days} day{'' if value.days == 1 else 's'}")
    us = value.nanoseconds // 1000
    if us or not parts:
        seconds, fraction = divmod(abs(us), 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        parts.append(f"{'-' if us < 0 else ''}{clock}" + (f".{fraction:06}".rstrip("0") if fraction else ""))
    return " ".join(parts)


def _json(column: pa.Array) -> pa.Array:
    wrap = _jsoner(column.type)
    made = [None if one is None else json.dumps(wrap(one), ensure_ascii=False) for one in column.to_pylist()]
    return pa.array(made, pa.string())


def _jsoner(kind: pa.DataType) -> Callable[[Any], Any]:
    """What makes a Python value of an Arrow type one that JSON has."""
    if pa.types.is_map(kind):
        key, item = _jsoner(kind.key_type), _jsoner(kind.item_type)
        return lambda found: {_key(key(k)): None if v is None else item(v) for k, v in found}
    if pa.types.is_struct(kind):
        fields = [(field.name, _jsoner(field.type)) for field in kind]
        return lambda found: {name: None if found[name] is None else make(found[name]) for name, make in fields}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        item = _jsoner(kind.value_type)
        return lambda found: [None if one is None else item(one) for one in found]
    return _json_value


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ---- binary ----


def binary(column: pa.Array) -> pa.Array:
    """Values in binary form; a binary or string array."""
    column = plain(column)
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if (made := fixed(column)) is not None:
        return _from_fixed(made, column, pa.binary())
    if pa.types.is_decimal(kind):
        return numeric_binary(column)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pc.cast(column, pa.binary())
    if is_array(kind):
        return _array_binary(column)
    return _json(column)


def fixed(column: pa.Array) -> np.ndarray | None:
    """A plain column's values in binary form as rows of equally many bytes, whatever stands in the place of nulls.

    None when the values of this type differ in length.
    """
    kind = column.type
    if pa.types.is_boolean(kind):
        return np.asarray(pc.cast(pc.fill_null(column, False), pa.uint8())).reshape(-1, 1)
    if pa.types.is_integer(kind):
        return _big(_values(column, pa.int64() if kind.bit_width == 64 else kind), kind.bit_width // 8, signed=True)
    if pa.types.is_floating(kind):
        values = _values(column, kind)
        return values.astype(f">f{kind.bit_width // 8}").view(np.uint8).reshape(len(column), -1)
    if pa.types.is_date(kind):
        return _big(_values(column, pa.int32()) - np.int32(_EPOCH_DAYS), 4, signed=True)
    if pa.types.is_timestamp(kind):
        return _big(_values(column, pa.int64()) - np.int64(_EPOCH_US), 8, signed=True)
    if pa.types.is_time(kind):
        return _big(_values(column, pa.int64()), 8, signed=True)
    if pa.types.is_interval(kind):
        words = np.frombuffer(column.buffers()[1], dtype="<i4").reshape(-1, 4)[column.offset :][: len(column)]
        us = np.ascontiguousarray(words[:, 2:]).view("<i8")[:, 0] // 1000
        days, months = _big(words[:, 1], 4, signed=True), _big(words[:, 0], 4, signed=True)
        return np.concatenate([_big(us, 8, signed=True), days, months], axis=1)
    return None


def _values(column: pa.Array, kind: pa.DataType) -> np.ndarray:
    """The buffer of a column of fixed width as numbers, nulls included as whatever stands there."""
    buffer = column.buffers()[1]
    assert buffer is not None
    found = np.frombuffer(buffer, dtype=kind.to_pandas_dtype())
    return found[column.offset : column.offset + len(column)]


def _big(values: np.ndarray, width: int, *, signed: bool) -> np.ndarray:
    return values.astype(f">{'i' if signed else 'u'}{width}").view(np.uint8).reshape(len(values), width)


def _fixed(column: pa.Array, width: int) -> np.ndarray:
    octets = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    return octets[width * column.offset : width * (column.offset + len(column))].reshape(len(column), width)


def _from_fixed(rows: np.ndarray, like: pa.Array, kind: pa.DataType) -> pa.Array:
    """A binary or string array of equally long values, null where `like` is."""
    count, width = rows.shape
    offsets = pa.py_buffer(
        np.arange(0, (count + 1) * width, width, dtype=np.int32) if width else np.zeros(count + 1, np.int32)
    )
    made = pa.Array.from_buffers(kind, count, [None, offsets, pa.py_buffer(np.ascontiguousarray(rows))])
    return pc.if_else(like.is_valid(), made, pa.scalar(None, kind)) if like.null_count else made


def _array_binary(column: pa.Array) -> pa.Array:
    items = column.flatten()
    written = binary(items)
    sizes = pc.fill_null(pc.binary_length(written), -1)
    lengths = _from_fixed(_big(np.asarray(sizes), 4, signed=True), sizes, pa.binary())
    pieces = pc.binary_join_element_wise(lengths, pc.fill_null(pc.cast(written, pa.binary()), b""), b"")
    joined = pc.binary_join(_relisted(column, pieces), b"")
    counts = pc.fill_null(pc.list_value_length(column), 0)
    dimensions = _big((np.asarray(counts) > 0).astype(np.int32), 4, signed=True)
    flag = np.zeros((len(column), 4), dtype=np.uint8)
    flag[:, 3] = 1 if items.null_count else 0
    element = np.broadcast_to(_big(np.array([pg_type(items.type).oid]), 4, signed=False), (len(column), 4))
    head = np.concatenate([dimensions, flag, element], axis=1)
    bounds = np.concatenate(
        [_big(np.asarray(counts), 4, signed=True), np.tile(np.array([0, 0, 0, 1], np.uint8), (len(column), 1))], axis=1
    )
    shape = pc.if_else(pc.greater(counts, 0), _from_fixed(bounds, counts, pa.binary()), pa.scalar(b"", pa.binary()))
    return pc.binary_join_element_wise(_from_fixed(head, counts, pa.binary()), shape, joined, b"")


def _relisted(column: pa.Array, items: pa.Array) -> pa.Array:
    """`items` in the lists that `column` has its own in, null where it is null."""
    counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
    offsets = np.zeros(len(column) + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    mask = pc.is_null(column) if column.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), items, mask=mask)
