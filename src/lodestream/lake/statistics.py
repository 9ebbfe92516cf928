"""Delta's statistics of a data file: smallest and largest value and number of NULLs of each column, or none of it.

All columns that can have them or none: `deltalake`'s dataset reader takes a column without bounds beside others for
one without rows and leaves the file out.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_TEXT_MAX = 32
_HIGHEST = "\U0010ffff"
_EXACT_DIGITS = 15
"""A decimal of so many digits comes back from a reader that takes it for a binary floating-point number."""


def statistics(rows: pa.Table) -> str:
    """The `stats` of a file with these rows: complete, or the number of rows alone where a value has no JSON form."""
    told: dict[str, Any] = {"numRecords": rows.num_rows}
    lowest: dict[str, Any] = {}
    highest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        kind = column.type
        if not pa.types.is_struct(kind):
            nulls[name] = column.null_count
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or column.null_count == len(column):
            continue
        if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column)).as_py():
            return json.dumps(told)
        bounds = pc.min_max(column).as_py()
        if pa.types.is_decimal(kind) and any(_digits(value) > _EXACT_DIGITS for value in bounds.values()):
            return json.dumps(told)
        lowest[name], highest[name] = _low(bounds["min"]), _high(bounds["max"])
    return json.dumps({**told, "minValues": lowest, "maxValues": highest, "nullCount": nulls})


def _digits(value: Decimal) -> int:
    return len(value.as_tuple().digits)


def _low(value: Any) -> Any:
    return value[:_TEXT_MAX] if isinstance(value, str) else _json(value)


def _high(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_MAX else value[:_TEXT_MAX] + _HIGHEST
    return _json(value)


def _json(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float):
        assert math.isfinite(value)
    return value
