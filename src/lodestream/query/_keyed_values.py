"""What a value of a condition is in a column's type, so that it can be compared with what is stored."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_EXACT = decimal.Context(prec=100)
_WHOLE_MAX = 1 << 53


class UnclearError(Exception):
    """The value is not of the column's kind; what it then equals is for the query engine to say."""


def stored_as(value: object, kind: pa.DataType) -> pa.Array | None:
    """The one stored value that a value equals, as an array of one; None when nothing does.

    Equal is what it is in SQL: NULL equals nothing, NaN equals NaN, times are instants (naive ones are UTC).

    Args:
        value: a Python value.
        kind: the column's Arrow type.

    Raises:
        UnclearError: it is of another kind than the column, or the column's type has no plain equality.
    """
    if value is None:
        return None
    found = _stored_as(value, kind)
    try:
        return None if found is None else pa.array([found], kind)
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise UnclearError from error


def _stored_as(value: object, kind: pa.DataType) -> object:
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        return value
    if pa.types.is_integer(kind) and isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value + (value < 0)) < 1 << (kind.bit_width - 1) else None
    if pa.types.is_floating(kind) and isinstance(value, float | int) and not isinstance(value, bool):
        return _float(value, kind)
    if pa.types.is_decimal(kind) and isinstance(value, Decimal | int) and not isinstance(value, bool):
        return _decimal(value, kind)
    if pa.types.is_string(kind) and isinstance(value, str):
        return value
    if pa.types.is_binary(kind) and isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if pa.types.is_date(kind) and isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    if pa.types.is_timestamp(kind) and isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    raise UnclearError


def _float(value: float, kind: pa.DataType) -> float:
    if isinstance(value, int) and abs(value) > _WHOLE_MAX:
        raise UnclearError
    value = float(value)
    if kind == pa.float32() and math.isfinite(value):
        with np.errstate(over="ignore"):
            if float(np.float32(value)) != value:
                raise UnclearError  # whether it is compared as float or as double is for the engine to say
    return value


def _decimal(value: Decimal | int, kind: pa.DataType) -> Decimal | None:
    found = Decimal(value)
    if not found.is_finite():
        raise UnclearError
    scaled = found.scaleb(kind.scale, _EXACT)
    if scaled != scaled.to_integral_value(context=_EXACT) or abs(scaled) >= 10**kind.precision:
        return None
    return scaled.to_integral_value(context=_EXACT).scaleb(-kind.scale, _EXACT)


def where_equal(batch: pa.RecordBatch, values: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The rows in which every named column has its value, an array of one."""
    if len(batch) == 1:  # comparing arrays is much faster than calling a function on them
        return (
            batch if all(_is_same(batch.column(name), value) for name, value in values.items()) else batch.slice(0, 0)
        )
    mask = None
    for name, value in values.items():
        column = batch.column(name)
        same = pc.is_nan(column) if _is_nan(value) else pc.equal(column, value[0])
        mask = same if mask is None else pc.and_(mask, same)
    if mask is None:
        return batch
    kept = mask.true_count
    return batch if kept == len(batch) else batch.slice(0, 0) if not kept else batch.filter(mask)


def _is_same(column: pa.Array, value: pa.Array) -> bool:
    same: bool = column.equals(value)
    return same or (_is_nan(value) and _is_nan(column))


def _is_nan(value: pa.Array) -> bool:
    return pa.types.is_floating(value.type) and value[0].is_valid and math.isnan(value[0].as_py())
