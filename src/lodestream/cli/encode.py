"""Arrow rows as lines of JSON and CSV, column by column: millions of rows in seconds."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.cli.output import EXACT_DIGITS, plain

_TO_ESCAPE = r'["\\\x00-\x1f]'


def json_lines(batch: pa.RecordBatch) -> str:
    """One JSON object a line; values as `lodestream.cli.output.plain` has them."""
    if not batch.num_rows:
        return ""
    parts: list[pa.Array | str] = []
    lead = "{"
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parts += [f"{lead}{json.dumps(name, ensure_ascii=False)}: ", _json(column)]
        lead = ", "
    lines = pc.binary_join_element_wise(*parts, "}\n", "")
    return "".join(lines.to_pylist())


def _json(column: pa.Array) -> pa.Array:
    """Each value as JSON text."""
    kind = column.type
    if pa.types.is_null(kind):
        return pa.array(["null"] * len(column), pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        text = column.cast(pa.string())
    elif pa.types.is_floating(kind):
        text = column.cast(pa.string())
        text = pc.if_else(pc.is_finite(column), text, _quoted(text))
    elif pa.types.is_decimal(kind):
        text = column.cast(pa.string())
        if kind.scale and kind.precision > EXACT_DIGITS:
            digits = pc.utf8_length(pc.replace_substring_regex(text, "[-.]", ""))
            text = pc.if_else(pc.less_equal(digits, EXACT_DIGITS), text, _quoted(text))
    elif pa.types.is_string(kind):
        text = _escaped(column)
    elif pa.types.is_timestamp(kind):
        text = _quoted(_moment(column))
    elif pa.types.is_date32(kind):
        text = _quoted(column.cast(pa.string()))
    else:
        return _one_by_one(column)
    return pc.fill_null(text, "null")


def _quoted(text: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', text, '"', "")


def _escaped(column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, _TO_ESCAPE)).as_py():
        return pa.array([None if one is None else json.dumps(one, ensure_ascii=False) for one in column.to_pylist()])
    return _quoted(column)


def _moment(column: pa.Array) -> pa.Array:
    """ISO 8601 in UTC, without a fraction that is zero."""
    text = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.string())
    return pc.replace_substring(pc.replace_substring_regex(text, r"\.000000Z$", "Z"), " ", "T")


def _one_by_one(column: pa.Array) -> pa.Array:
    return pa.array([json.dumps(plain(one), ensure_ascii=False) for one in column.to_pylist()], pa.string())


def csv_schema(schema: pa.Schema) -> pa.Schema:
    """What `csv_columns` makes of `schema`."""
    return pa.schema([field if _is_plain(field.type) else field.with_type(pa.string()) for field in schema])


def csv_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in columns that Arrow's CSV writer knows; times in ISO 8601, bytes in hex, nested values as JSON."""
    columns = [column if _is_plain(column.type) else _csv(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=csv_schema(batch.schema))


def _is_plain(kind: pa.DataType) -> bool:
    known = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_string)
    return any(is_kind(kind) for is_kind in known) or bool(pa.types.is_date32(kind))


def _csv(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return _moment(column)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_binary(column.type):
        return pa.array([None if one is None else one.hex() for one in column.to_pylist()], pa.string())
    return pc.if_else(pc.is_valid(column), _one_by_one(column), pa.scalar(None, pa.string()))
