"""Converts columns of ISO 8601 text to dates and timestamps, whole columns at a time."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Converted = tuple[pa.Array, Mask | None]
"""A typed column, and which rows were not taken (they are NULL in it); None for all taken."""

_MINUS, _ZERO = 45, 48
_YEAR_1_US = -62_135_596_800_000_000
_DAY_US = 86_400_000_000
_SHAPES_MAX = 4


def layout(values: pa.Array) -> tuple[Bytes, npt.NDArray[np.int32]]:
    """The column's bytes, and where each row begins and the last one ends."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    data = values.buffers()[2]
    block = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return block[offsets[0] : offsets[-1]], offsets - offsets[0]


def some(mask: Mask) -> Mask | None:
    """The mask, or None when it marks nothing."""
    return mask if mask.any() else None


def blanked(values: pa.Array, blank: Mask | None) -> pa.Array:
    """The column with NULL in the marked rows; shares all memory but the validity bits."""
    if blank is None:
        return values
    valid = ~blank if not values.null_count else np.asarray(values.is_valid()) & ~blank
    if values.offset:
        return pc.if_else(pa.array(valid), values, pa.scalar(None, values.type))
    bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(values.type, len(values), [bits, *values.buffers()[1:]])


def micros_column(micros: Ints, values: pa.Array, hard: Mask | None) -> pa.Array:
    """Microseconds as a timestamp column that is NULL where `values` is and where a row is hard."""
    made = pa.array(micros, pa.timestamp("us", tz="UTC"))
    if not values.null_count and hard is None:
        return made
    null = ~np.asarray(values.is_valid())
    return blanked(made, null if hard is None else null | hard)


def _by_length(values: pa.Array, lengths_taken: range) -> tuple[Ints, Mask, list[tuple[Ints, Bytes]]]:
    """Groups rows of one length as byte matrices: (zeros for results, rows left out, [(rows, matrix)])."""
    block, offsets = layout(values)
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
        else:
            left[rows] = True
    return out, left, groups


def read_dates(values: pa.Array) -> Converted:
    """Rows of the form YYYY-MM-DD."""
    out, left, groups = _by_length(values, range(10, 11))
    for rows, text in groups:
        good = _fits(text, b"0000-00-00").all(axis=1)
        days, valid = _days(text)
        out[rows] = np.where(good & valid, days, 0)
        left[rows] |= ~(good & valid)
    left &= np.asarray(values.is_valid())
    hard = some(left)
    made = pa.array(out.astype(np.int32), pa.date32())
    if values.null_count or hard is not None:
        made = blanked(made, ~np.asarray(values.is_valid()) | left)
    return made, hard


_SHAPE = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.(\d{1,6}))?(Z|[+-]\d\d:?\d\d)?")


def read_timestamps(values: pa.Array) -> Converted:
    """Rows of the forms of `_times.parse_timestamp`, with at most six digits after the point."""
    uniform = _uniform_timestamps(values)
    if uniform is not None:
        return uniform
    out, left, groups = _by_length(values, range(19, 33))
    for rows, text in groups:
        todo = np.arange(len(rows))
        for _ in range(_SHAPES_MAX):
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
    left &= np.asarray(values.is_valid())
    hard = some(left)
    return micros_column(out, values, hard), hard


def _uniform_timestamps(values: pa.Array) -> Converted | None:
    """Rows of one length and, but for a few, of one shape, the usual case, are read by Arrow; None for any other."""
    block, offsets = layout(values)
    if not len(values) or values.null_count:
        return None
    length = int(offsets[1])
    if not length or len(block) != length * len(values) or not (np.diff(offsets) == length).all():
        return None
    text = block.reshape(len(values), length)
    shape = next((s for row in text[:_SHAPES_MAX] if (s := _SHAPE.fullmatch(row.tobytes()))), None)
    if shape is None:
        return None
    odd = np.flatnonzero(~_fits(text, shape[0]))
    hard: Mask | None = None
    if len(odd):
        hard = np.zeros(len(values), np.bool_)
        hard[odd // length] = True
        if np.count_nonzero(hard) * 16 > len(values):
            return None
        values = blanked(values, hard)
    try:
        made = pc.cast(values, pa.timestamp("us", tz="UTC") if shape[2] else pa.timestamp("us"))
    except pa.ArrowInvalid:  # the shape is right, but it is no such time
        return None
    made = made.cast(pa.timestamp("us", tz="UTC"))
    first = pc.min(made.view(pa.int64())).as_py()
    return None if first is not None and first < _YEAR_1_US else (made, hard)


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
