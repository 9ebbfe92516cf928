"""Converts columns of text to typed columns, whole columns at a time, accepting exactly what `_values` accepts.

A converter gives the typed column and marks the rows it does not take as NULL and hard: a hard row is not necessarily
wrong, it is only left to the record-by-record path, which decodes it or says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.formats._values import INTEGER_BOUNDS, TIMESTAMP_UNITS
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Converted = tuple[pa.Array, Mask | None]

_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_MINUS, _POINT, _ZERO = 45, 46, 48
_YEAR_1_US = -62_135_596_800_000_000
_DAY_US = 86_400_000_000


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
        return _dates
    if name == "timestamp":
        if timestamps == "iso":
            return _timestamps
        return lambda values: _epochs(values, TIMESTAMP_UNITS[timestamps])
    return None


def _layout(values: pa.Array) -> tuple[Bytes, npt.NDArray[np.int32]]:
    """The column's bytes, and where each row begins and the last one ends."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    data = values.buffers()[2]
    block = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return block[offsets[0] : offsets[-1]], offsets - offsets[0]


def _without(values: pa.Array, hard: Mask | None) -> pa.Array:
    return values if hard is None else pc.if_else(pa.array(~hard), values, None)


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _some(mask: Mask) -> Mask | None:
    return mask if mask.any() else None


def _bad_numbers(values: pa.Array, *, point: bool, digits_max: int) -> Mask | None:
    """Rows that are not plain JSON numbers (digits, a leading minus, with `point` one point) or are very long."""
    block, offsets = _layout(values)
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
    return _some(bad)


def _cast_numbers(values: pa.Array, hard: Mask | None, kind: pa.DataType) -> tuple[pa.Array, Mask | None]:
    try:
        return pc.cast(_without(values, hard), kind), hard
    except pa.ArrowInvalid:  # such as 1-5 or 1..5: rare, so only now is every row matched
        good = pc.match_substring_regex(values, _NUMBER).fill_null(True)
        hard = _either(hard, ~np.asarray(good))
        return pc.cast(_without(values, hard), kind), hard


def _integers(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=False, digits_max=18)
    column, hard = _cast_numbers(values, hard, pa.int64())
    if kind.name == "bigint":
        return column, hard
    bound = INTEGER_BOUNDS[kind.name]
    numbers = np.asarray(column.fill_null(0))
    hard = _either(hard, _some((numbers < -bound) | (numbers >= bound)))
    return pc.cast(_without(column, hard), to_arrow_type(kind)), hard


def _floats(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=True, digits_max=300)
    column, hard = _cast_numbers(values, hard, pa.float64())
    if kind.name == "float":
        column = pc.cast(column, pa.float32(), safe=False)
        hard = _either(hard, _some(np.isinf(np.asarray(column.fill_null(0)))))
    return column, hard


def _decimals(values: pa.Array, kind: DataType) -> Converted:
    hard = _bad_numbers(values, point=True, digits_max=18)
    point = np.asarray(pc.find_substring(values, ".").fill_null(-1))
    lengths = np.asarray(pc.binary_length(values).fill_null(0))
    fraction = np.where(point >= 0, lengths - 1 - point, 0)
    hard = _either(hard, _some(fraction > kind.scale))
    digits = pc.replace_substring(values, ".", "", max_replacements=1) if (point >= 0).any() else values
    column, hard = _cast_numbers(digits, hard, pa.int64())
    unscaled = np.asarray(column.fill_null(0))
    missing = kind.scale - np.minimum(fraction, kind.scale)
    room = 10 ** min(kind.precision, 18)
    powers = 10 ** np.minimum(missing, 18).astype(np.int64)
    hard = _either(hard, _some((np.abs(unscaled) >= room // powers) & (unscaled != 0) | (missing > 18)))
    scaled = np.where(hard, 0, unscaled * powers) if hard is not None else unscaled * powers
    words = np.empty((len(scaled), 2), np.int64)
    words[:, 0] = scaled
    words[:, 1] = scaled >> 63
    made = pa.Array.from_buffers(to_arrow_type(kind), len(scaled), [None, pa.py_buffer(words)])
    if values.null_count or hard is not None:
        keep = np.asarray(values.is_valid())
        made = pc.if_else(pa.array(keep if hard is None else keep & ~hard), made, None)
    return made, hard


def _booleans(values: pa.Array) -> Converted:
    true = pc.equal(values, "true")
    known = np.asarray(pc.or_(true, pc.equal(values, "false")).fill_null(True))
    hard = _some(~known)
    return _without(true, hard), hard


def _epochs(values: pa.Array, unit_us: int) -> Converted:
    hard = _bad_numbers(values, point=False, digits_max=18)
    column, hard = _cast_numbers(values, hard, pa.int64())
    numbers = np.asarray(column.fill_null(0))
    low, high = -(62_135_596_800_000_000 // unit_us), 253_402_300_799_999_999 // unit_us
    hard = _either(hard, _some((numbers < low) | (numbers > high)))
    return _micros(np.where((numbers < low) | (numbers > high), 0, numbers) * unit_us, values, hard), hard


def _micros(micros: Ints, values: pa.Array, hard: Mask | None) -> pa.Array:
    made = pa.array(micros, pa.timestamp("us", tz="UTC"))
    if not values.null_count and hard is None:
        return made
    keep = np.asarray(values.is_valid())
    return pc.if_else(pa.array(keep if hard is None else keep & ~hard), made, None)


def _by_length(values: pa.Array, lengths_taken: range) -> tuple[Ints, Mask, list[tuple[Ints, Bytes]]]:
    """Groups rows of one length as byte matrices: (zeros for results, rows left out, [(rows, matrix)])."""
    block, offsets = _layout(values)
    lengths = np.diff(offsets)
    out = np.zeros(len(values), np.int64)
    left = np.zeros(len(values), np.bool_)
    groups: list[tuple[Ints, Bytes]] = []
    if len(lengths) and (lengths == lengths[0]).all() and lengths[0] in lengths_taken:
        return out, left, [(np.arange(len(values)), block.reshape(len(values), int(lengths[0])))]
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        if length in lengths_taken:
            groups.append((rows, block[offsets[rows][:, None] + np.arange(length)]))
        elif length:
            left[rows] = True
        else:
            left[rows] = np.asarray(values.is_valid())[rows] if values.null_count else True
    return out, left, groups


def _dates(values: pa.Array) -> Converted:
    out, left, groups = _by_length(values, range(10, 11))
    for rows, text in groups:
        good = _fits(text, b"0000-00-00").all(axis=1)
        days, valid = _days(text)
        out[rows] = np.where(good & valid, days, 0)
        left[rows] |= ~(good & valid)
    hard = _some(left)
    made = pa.array(out.astype(np.int32), pa.date32())
    if values.null_count or hard is not None:
        made = pc.if_else(pa.array(np.asarray(values.is_valid()) & ~left), made, None)
    return made, hard


_SHAPE = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z|[+-]\d\d:?\d\d)?")


def _timestamps(values: pa.Array) -> Converted:
    fast = _uniform_timestamps(values)
    if fast is not None:
        return fast, None
    out, left, groups = _by_length(values, range(19, 33))
    for rows, text in groups:
        todo = np.arange(len(rows))
        for _ in range(4):
            if not len(todo):
                break
            shape = _SHAPE.fullmatch(text[todo[0]].tobytes())
            if not shape:
                left[rows[todo[0]]] = True
                todo = todo[1:]
                continue
            like = _fits(text[todo], shape[0]).all(axis=1)
            micros, valid = _read_timestamps(text[todo[like]], len(shape[1] or b""), len(shape[2] or b""))
            out[rows[todo[like]]] = np.where(valid, micros, 0)
            left[rows[todo[like]]] |= ~valid
            todo = todo[~like]
        left[rows[todo]] = True
    hard = _some(left)
    return _micros(out, values, hard), hard


def _uniform_timestamps(values: pa.Array) -> pa.Array | None:
    """All rows in one shape and all valid, the usual case: Arrow reads them; None otherwise."""
    block, offsets = _layout(values)
    if not len(values) or values.null_count:
        return None
    length = int(offsets[1])
    if len(block) != length * len(values) or not (np.diff(offsets) == length).all():
        return None
    shape = _SHAPE.fullmatch(block[:length].tobytes())
    text = block.reshape(len(values), length)
    if not shape or not _fits(text, shape[0]).all():
        return None
    try:
        made = pc.cast(values, pa.timestamp("us", tz="UTC") if shape[2] else pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None
    made = made.cast(pa.timestamp("us", tz="UTC"))
    if pc.min(made.view(pa.int64())).as_py() < _YEAR_1_US:
        return None
    return made


def _fits(text: Bytes, like: bytes) -> Mask:
    """Byte for byte: whether there is a digit wherever `like` has one, and its very byte elsewhere."""
    digit = np.frombuffer(like, np.uint8) - np.uint8(_ZERO) <= 9
    low = np.where(digit, np.uint8(_ZERO), np.frombuffer(like, np.uint8)).astype(np.uint8)
    span = np.where(digit, 9, 0).astype(np.uint8)
    fits: Mask = (text - low) <= span
    return fits


def _number(text: Bytes, start: int, end: int) -> Ints:
    value = text[:, start].astype(np.int64) - _ZERO
    for i in range(start + 1, end):
        value = value * 10 + (text[:, i].astype(np.int64) - _ZERO)
    return value


def _days(text: Bytes) -> tuple[Ints, Mask]:
    """Days since 1970 of rows that start with YYYY-MM-DD, and which of them are dates of the years 1 to 9999."""
    year, month, day = _number(text, 0, 4), _number(text, 5, 7), _number(text, 8, 10)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    longest = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[np.clip(month, 0, 12)]
    valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= longest + (leap & (month == 2)))
    # Count from March, so that the leap day is a year's last; 719,468 days lie between 0000-03-01 and 1970.
    march_year = year - (month <= 2)
    era = march_year // 400
    year_of_era = march_year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468, valid


def _read_timestamps(text: Bytes, fraction: int, zone: int) -> tuple[Ints, Mask]:
    """Microseconds since 1970 UTC of rows of one shape: `fraction` digits after the point, `zone` bytes at the end."""
    days, valid = _days(text)
    hour, minute, second = _number(text, 11, 13), _number(text, 14, 16), _number(text, 17, 19)
    valid &= (hour < 24) & (minute < 60) & (second < 60)
    micros = days * _DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000
    if fraction:
        micros += _number(text, 20, 20 + fraction) * 10 ** (6 - fraction)
    if zone > 1:
        at = text.shape[1] - zone
        hours, minutes = _number(text, at + 1, at + 3), _number(text, text.shape[1] - 2, text.shape[1])
        valid &= (hours < 24) & (minutes < 60)
        sign = np.where(text[:, at] == _MINUS, -1, 1)
        micros -= sign * (hours * 3600 + minutes * 60) * 1_000_000
    return micros, valid
