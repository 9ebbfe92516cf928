"""A few rows as protocol messages, value by value: each of Arrow's functions takes longer to be called than that."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from lodestream.apis.postgres import encode

ROWS_MAX = 8
_EPOCH = dt.date(2000, 1, 1).toordinal()
_ZERO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_US = dt.timedelta(microseconds=1)
_INT2, _INT4, _INT8, _FLOAT4, _FLOAT8 = (struct.Struct(form).pack for form in (">h", ">i", ">q", ">f", ">d"))

Write = Callable[[Any], bytes]


def data_rows(batch: pa.RecordBatch, formats: Sequence[int]) -> bytes | None:
    """One DataRow message per row, as `rows.data_rows` makes them; None when a value has no form in Python."""
    try:
        columns = [_column(column, form) for column, form in zip(batch.columns, formats, strict=True)]
    except (ValueError, OverflowError):  # times after the year 9999
        return None
    count = batch.num_columns.to_bytes(2, "big")
    made = []
    for row in range(batch.num_rows):
        body = count + b"".join([column[row] for column in columns])
        made.append(b"D" + (len(body) + 4).to_bytes(4, "big") + body)
    return b"".join(made)


def _column(column: pa.Array, form: int) -> list[bytes]:
    """Values with their lengths before them."""
    values = column.to_pylist()
    write = (_binary if form else _text)(column.type)
    if write is None or (not form and pa.types.is_floating(column.type) and not all(map(_is_plain, values))):
        values = (encode.binary if form else encode.text)(column).to_pylist()
        write = _octets
    return [b"\xff\xff\xff\xff" if value is None else _sized(write(value)) for value in values]


def _sized(octets: bytes) -> bytes:
    return len(octets).to_bytes(4, "big") + octets


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(kind: pa.DataType) -> Write | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return str.encode
    if pa.types.is_boolean(kind):
        return lambda value: b"t" if value else b"f"
    if pa.types.is_integer(kind):
        return lambda value: b"%d" % value
    if pa.types.is_float64(kind):
        return lambda value: repr(value).removesuffix(".0").encode()
    if pa.types.is_decimal(kind):
        return lambda value: f"{value:f}".encode()
    if pa.types.is_date32(kind):
        return lambda value: value.isoformat().encode()
    return _moment if pa.types.is_timestamp(kind) and kind.unit == "us" else None


def _binary(kind: pa.DataType) -> Write | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return _octets
    if pa.types.is_boolean(kind):
        return lambda value: b"\x01" if value else b"\x00"
    if pa.types.is_signed_integer(kind):
        return {8: _INT2, 16: _INT2, 32: _INT4, 64: _INT8}[kind.bit_width]
    if pa.types.is_float64(kind):
        return _FLOAT8
    if pa.types.is_float32(kind):
        return _FLOAT4
    if pa.types.is_date32(kind):
        return lambda value: _INT4(value.toordinal() - _EPOCH)
    if pa.types.is_timestamp(kind) and kind.unit == "us":
        return lambda value: _INT8(((value if value.tzinfo else value.replace(tzinfo=dt.UTC)) - _ZERO) // _US)
    return None


def _is_plain(value: float | None) -> bool:
    """Whether Python writes it as Arrow does."""
    return value is None or value == 0.0 or 1e-3 < abs(value) < 1e9


def _moment(value: dt.datetime) -> bytes:
    text = (value.astimezone(dt.UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat(" ")
    return ((text.rstrip("0") if value.microsecond else text) + "+00").encode()
