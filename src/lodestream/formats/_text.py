"""Converts columns of text to typed columns, whole columns at a time, accepting exactly what `_values` accepts.

A converter gives the typed column and marks the rows it does not take as NULL and hard: a hard row is not necessarily
wrong, it is only left to the record-by-record path, which decodes it or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.formats._text_times import (
    Converted,
    Mask,
    blanked,
    layout,
    micros_column,
    read_dates,
    read_timestamps,
    some,
)
from lodestream.formats._values import INTEGER_BOUNDS, TIMESTAMP_UNITS
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType

_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_MINUS, _POINT, _ZERO = 45, 46, 48


def text_converter(kind: DataType, timestamps: str = "iso") -> Callable[[pa.Array], Converted] | None:
    """A function from a string column to (column of `kind`, hard rows or None); None when there is no fast way."""
    name = kind.name
    if name == "string":
        return lambda values: (values, None)
    if name in INTEGER_BOUNDS:
        return lambda values: _integers(values, kind)
    if name in ("double", "float"):
        return lambda values: _floats(values, kind)
    if name == "decimal":
        return lambda values: _decimals(values, kind)
    if name == "boolean":
        return _booleans
    if name == "date":
        return read_dates
    if name == "timestamp":
        if timestamps == "iso":
            return read_timestamps
        return lambda values: _epochs(values, TIMESTAMP_UNITS[timestamps])
    return None


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _bad_numbers(values: pa.Array, *, point: bool, digits_max: int) -> Mask | None:
    """Rows that are not plain JSON numbers (digits, a leading minus, with `point` one point) or are very long."""
    block, offsets = layout(values)
    if not len(block):
        return None
    lengths = np.diff(offsets)
    padded = np.concatenate([block, np.zeros(2, np.uint8)])
    begin = offsets[:-1]
    first = padded[begin]
    negative = first == _MINUS
    if negative.any():
        begin = begin + negative
        first = padded[begin]
        whole = lengths - negative
    else:
        whole = lengths
    bad = (first - np.uint8(_ZERO)) > 9
    zero = first == _ZERO
    if zero.any():
        second = padded[begin + 1]
        bad |= zero & (whole > 1) & ((second != _POINT) if point else np.True_)
        if point:
            bad |= negative & zero & (whole == 1)  # -0 is a whole number, which has no sign
    bad |= whole > digits_max
    last = padded[np.maximum(offsets[1:], 1) - 1]
    bad |= (last - np.uint8(_ZERO)) > 9
    odd = (block - np.uint8(_ZERO)) > 9
    if point:
        odd &= block != _POINT
    if int(np.count_nonzero(odd)) > int(np.count_nonzero(negative)):
        rows = np.searchsorted(offsets, np.flatnonzero(odd & (block != _MINUS)), "right") - 1
        bad[rows] = True
    bad &= lengths > 0
    if values.null_count:
        bad &= np.asarray(values.is_valid())
    return some(bad)


def _cast_numbers(values: pa.Array, hard: Mask | None, kind: pa.DataType) -> tuple[pa.Array, Mask | None]:
    try:
        return pc.cast(blanked(values, hard), kind), hard
    except pa.ArrowInvalid:  # such as 1-5 or 1..5: rare, so only now is every row matched
        good = pc.match_substring_regex(values, _NUMBER).fill_null(True)
        hard = _either(hard, ~np.asarray(good))
        return pc.cast(blanked(values, hard), kind), hard


def _integers(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=False, digits_max=18)
    column, hard = _cast_numbers(values, hard, pa.int64())
    if kind.name == "bigint":
        return column, hard
    bound = INTEGER_BOUNDS[kind.name]
    numbers = np.asarray(column.fill_null(0))
    hard = _either(hard, some((numbers < -bound) | (numbers >= bound)))
    return pc.cast(blanked(column, hard), to_arrow_type(kind)), hard


def _floats(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=True, digits_max=300)
    column, hard = _cast_numbers(values, hard, pa.float64())
    if kind.name == "float":
        column = pc.cast(column, pa.float32(), safe=False)
        hard = _either(hard, some(np.isinf(np.asarray(column.fill_null(0)))))
    return column, hard


def _decimals(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=True, digits_max=18)
    hard = _either(hard, some(np.asarray(pc.count_substring(values, ".").fill_null(0)) > 1))
    point = np.asarray(pc.find_substring(values, ".").fill_null(-1))
    lengths = np.asarray(pc.binary_length(values).fill_null(0))
    fraction = np.where(point >= 0, lengths - 1 - point, 0)
    hard = _either(hard, some(fraction > kind.scale))
    digits = pc.replace_substring(values, ".", "", max_replacements=1) if (point >= 0).any() else values
    column, hard = _cast_numbers(digits, hard, pa.int64())
    unscaled = np.asarray(column.fill_null(0))
    missing = kind.scale - np.minimum(fraction, kind.scale)
    room = 10 ** min(kind.precision, 18)
    powers = 10 ** np.minimum(missing, 18).astype(np.int64)
    too_long = (np.abs(unscaled) >= room // powers) & (unscaled != 0) | (missing > 18)
    hard = _either(hard, some(too_long & np.asarray(values.is_valid())))
    scaled = np.where(hard, 0, unscaled * powers) if hard is not None else unscaled * powers
    words = np.empty((len(scaled), 2), np.int64)
    words[:, 0] = scaled
    words[:, 1] = scaled >> 63
    made = pa.Array.from_buffers(to_arrow_type(kind), len(scaled), [None, pa.py_buffer(words)])
    if values.null_count or hard is not None:
        null = ~np.asarray(values.is_valid())
        made = blanked(made, null if hard is None else null | hard)
    return made, hard


def _booleans(values: pa.Array) -> Converted:
    true = pc.equal(values, "true")
    known = np.asarray(pc.or_(true, pc.equal(values, "false")).fill_null(True))
    hard = some(~known)
    return blanked(true, hard), hard


def _epochs(values: pa.Array, unit_us: int) -> Converted:
    hard = _bad_numbers(values, point=False, digits_max=18)
    column, hard = _cast_numbers(values, hard, pa.int64())
    numbers = np.asarray(column.fill_null(0))
    low, high = -(62_135_596_800_000_000 // unit_us), 253_402_300_799_999_999 // unit_us
    hard = _either(hard, some((numbers < low) | (numbers > high)))
    return micros_column(np.where((numbers < low) | (numbers > high), 0, numbers) * unit_us, values, hard), hard
