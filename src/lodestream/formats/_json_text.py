"""Rows as JSON objects, column by column; the `json` format reads them back as they were."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TO_ESCAPE = r'["\\\x00-\x1f]'


def json_objects(rows: pa.Table) -> list[bytes]:
    """One JSON object per row, without line end.

    Decimals are numbers with all their digits, times ISO 8601 in UTC, bytes Base64; NaN and infinities, which JSON
    does not have, are text.
    """
    if not rows.num_columns:
        return [b"{}"] * len(rows)
    parts: list[pa.Array | str] = []
    lead = "{"
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        parts += [f"{lead}{json.dumps(name, ensure_ascii=False)}:", json_values(column)]
        lead = ","
    joined = pc.binary_join_element_wise(*parts, "}", "")
    found: list[bytes] = joined.cast(pa.binary()).to_pylist()
    return found


def json_values(column: pa.ChunkedArray) -> pa.Array:
    """Each value as JSON text."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.fill_null(_text(values), "null")


def texts(column: pa.ChunkedArray) -> list[str | bytes | None]:
    """Each value as text without quotes, bytes as they are, NULL as None."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        found: list[str | bytes | None] = column.to_pylist()
        return found
    bare = json_values(column).to_pylist()
    return [None if one == "null" else one.strip('"') for one in bare]


def _text(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        text = column.cast(pa.string())
        return pc.if_else(pc.is_finite(column), text, _quoted(text))
    if pa.types.is_string(kind):
        if pc.any(pc.match_substring_regex(column, _TO_ESCAPE)).as_py():
            escaped = [None if one is None else json.dumps(one, ensure_ascii=False) for one in column.to_pylist()]
            return pa.array(escaped, pa.string())
        return _quoted(column)
    if pa.types.is_timestamp(kind):
        return _quoted(_moment(column))
    if pa.types.is_date32(kind):
        return _quoted(column.cast(pa.string()))
    return pa.array([_dumped(one) for one in column.to_pylist()], pa.string())


def _quoted(text: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', text, '"', "")


def _moment(column: pa.Array) -> pa.Array:
    """ISO 8601 in UTC, without a fraction that is zero."""
    text = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.string())
    return pc.replace_substring(pc.replace_substring_regex(text, r"\.000000Z$", "Z"), " ", "T")


def _dumped(value: Any) -> str | None:
    return None if value is None else _nested(value)


def _nested(value: Any) -> str:
    """A value of a nested type, or bytes; `json` alone cannot keep a decimal's digits."""
    if isinstance(value, dict):
        items = (f"{json.dumps(str(key), ensure_ascii=False)}:{_nested(item)}" for key, item in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if value and all(isinstance(item, tuple) for item in value):  # a map
            return _nested(dict(value))
        return "[" + ",".join(_nested(item) for item in value) + "]"
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return f'"{base64.b64encode(value).decode()}"'
    if isinstance(value, dt.datetime):
        text = value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return f'"{text.replace(".000000Z", "Z")}"'
    if isinstance(value, dt.date):
        return f'"{value.isoformat()}"'
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'"{value}"'
    return json.dumps(value, ensure_ascii=False)
