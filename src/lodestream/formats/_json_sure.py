"""What a JSON Schema says of columns: rows that are surely valid, found with no Python object per row.

A row that is not sure is not bad: it is checked alone, as it was written, by a validator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.formats._lines import Mask
from lodestream.model.types import Schema

_SAYS_NOTHING = frozenset(
    ["title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly", "format",
     "$schema", "$id", "id", "definitions", "$defs"]
)  # fmt: skip
"""Keywords that refuse nothing by themselves."""
_EXACT = 1 << 53

Sure = Callable[[pa.ChunkedArray], Mask]
"""Which values of a column are surely valid, NULLs among them."""


class NotSureError(ValueError):
    """Columns cannot answer this schema."""


def sure_rows(schema: Any, columns: Schema, *, iso: bool, is_closed: bool) -> Callable[[pa.Table], Mask] | None:
    """A function from decoded rows to those that are surely valid; None when columns cannot say it of any.

    Args:
        schema: the JSON Schema.
        columns: what is decoded.
        iso: timestamps are text; else they are numbers.
        is_closed: a row has no fields but the columns.
    """
    try:
        checks = _record(schema, columns, iso, is_closed)
    except NotSureError:
        return None

    def check(rows: pa.Table) -> Mask:
        good = np.ones(len(rows), np.bool_)
        for name, sure in checks:
            good &= sure(rows[name])
        return good

    return check


def _record(schema: Any, columns: Schema, iso: bool, is_closed: bool) -> list[tuple[str, Sure]]:
    if not isinstance(schema, Mapping):
        raise NotSureError
    known = {"type", "properties", "required", "additionalProperties"}
    if set(schema) - known - _SAYS_NOTHING or schema.get("type", "object") not in ("object", ["object"]):
        raise NotSureError
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise NotSureError
    if not is_closed and set(properties) - set(columns.names):
        raise NotSureError
    if set(required) - set(columns.names):
        raise NotSureError
    extra = schema.get("additionalProperties", True)
    if extra is not True and (not is_closed or set(columns.names) - set(properties)):
        raise NotSureError
    checks: list[tuple[str, Sure]] = []
    for column in columns:
        must = column.name in required
        if column.name in properties:
            checks.append((column.name, _property(properties[column.name], column.type.name, must, iso)))
        elif must:
            checks.append((column.name, lambda values: np.asarray(values.is_valid())))
    return checks


def _property(schema: Any, kind: str, must: bool, iso: bool) -> Sure:
    if schema is True:
        schema = {}
    inner, may_be_null = _without_null(schema)
    if set(inner) - {"type", *_LIMITS, *_LENGTHS, "enum", "const"} - _SAYS_NOTHING:
        raise NotSureError
    written = _written(kind, iso)
    types = inner.get("type", [written])
    types = types if isinstance(types, list) else [types]
    may_be_null |= "null" in types or ("type" not in inner and "enum" not in inner and "const" not in inner)
    if written not in types and not (written == "integer" and "number" in types):
        raise NotSureError
    if "enum" in inner or "const" in inner:
        values = [inner["const"]] if "const" in inner else inner["enum"]
        may_be_null = may_be_null and None in values
    tests = [*_limits(inner, written), *_lengths(inner, kind), *_choices(inner, kind)]
    null_is_sure = may_be_null and not must

    def sure(column: pa.ChunkedArray) -> Mask:
        fits: Mask = np.asarray(column.is_valid())
        good: Mask = ~fits & null_is_sure
        for test in tests:
            fits &= np.asarray(pc.fill_null(test(column), False))
        return good | fits

    return sure


def _without_null(schema: Any) -> tuple[Mapping[str, Any], bool]:
    """The schema of values that are not null, and whether null is one; of one choice of two when the other is null."""
    if not isinstance(schema, Mapping):
        raise NotSureError
    for choice in ("oneOf", "anyOf"):
        if choice in schema and not set(schema) - {choice} - _SAYS_NOTHING:
            options = schema[choice]
            others = [o for o in options if o != {"type": "null"}] if isinstance(options, list) else []
            if len(options) == 2 and len(others) == 1 and isinstance(others[0], Mapping) and "type" in others[0]:
                if "null" in others[0]["type"]:
                    raise NotSureError
                return others[0], True
    return schema, False


def _written(kind: str, iso: bool) -> str:
    """The JSON type that a column's values are written in."""
    if kind in ("tinyint", "smallint", "int", "bigint"):
        return "integer"
    if kind in ("double", "float"):
        return "number"
    if kind == "timestamp":
        return "string" if iso else "integer"
    if kind in ("string", "date", "binary"):
        return "string"
    if kind == "boolean":
        return "boolean"
    raise NotSureError


Test = Callable[[pa.ChunkedArray], pa.ChunkedArray]
_LIMITS: Mapping[str, Callable[[Any, Any], Any]] = {
    "minimum": pc.greater_equal, "maximum": pc.less_equal, "exclusiveMinimum": pc.greater, "exclusiveMaximum": pc.less,
}  # fmt: skip
_LENGTHS: Mapping[str, Callable[[Any, Any], Any]] = {"minLength": pc.greater_equal, "maxLength": pc.less_equal}


def _limits(schema: Mapping[str, Any], written: str) -> list[Test]:
    found: list[Test] = []
    for keyword in _LIMITS.keys() & schema.keys():
        limit: Any = schema[keyword]
        if type(limit) not in (int, float) or abs(limit) > _EXACT:
            raise NotSureError
        if written == "integer":
            kind = pa.int64() if type(limit) is int else pa.float64()
        elif written == "number":
            kind = pa.float64()
        else:
            continue
        found.append(_limit(_LIMITS[keyword], pa.scalar(limit, kind)))
    return found


def _limit(compare: Callable[[Any, Any], Any], limit: pa.Scalar) -> Test:
    return lambda column: compare(pc.cast(column, limit.type, safe=False), limit)


def _lengths(schema: Mapping[str, Any], kind: str) -> list[Test]:
    found: list[Test] = []
    for keyword in _LENGTHS.keys() & schema.keys():
        limit: Any = schema[keyword]
        if kind in ("string", "date", "timestamp", "binary"):
            if kind != "string" or type(limit) is not int or not 0 <= limit < 1 << 31:
                raise NotSureError
            found.append(_length(_LENGTHS[keyword], limit))
    return found


def _length(compare: Callable[[Any, Any], Any], limit: int) -> Test:
    return lambda column: compare(pc.utf8_length(column), limit)


def _choices(schema: Mapping[str, Any], kind: str) -> list[Test]:
    found: list[Test] = []
    for keyword in ("enum", "const"):
        if keyword not in schema:
            continue
        values: Sequence[Any] = [schema[keyword]] if keyword == "const" else schema[keyword]
        wanted = {"string": str, "boolean": bool, "tinyint": int, "smallint": int, "int": int, "bigint": int}.get(kind)
        if wanted is None or not isinstance(values, list):
            raise NotSureError
        alike: list[Any] = [value for value in values if type(value) is wanted]
        if wanted is int:
            alike = [value for value in alike if -(1 << 63) <= value < 1 << 63]
        arrow = {str: pa.string(), bool: pa.bool_(), int: pa.int64()}[wanted]
        found.append(_choice(pa.array(alike, arrow)))
    return found


def _choice(values: pa.Array) -> Test:
    return lambda column: pc.is_in(pc.cast(column, values.type), values)
