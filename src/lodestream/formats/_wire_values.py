"""Turns arrays of what a wire format holds into columns of a table type, exactly; says which values do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._lines import Ints, Mask
from lodestream.formats._values import INTEGER_BOUNDS
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType

TIMES_US = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""First and last microsecond of the years 1 to 9999."""
DATES = (-719_162, 2_932_896)
"""First and last day of the years 1 to 9999."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Rows whose value does not fit: `what` is wrong (as in JSON), `path` is where inside the column (`.a.b`)."""

    rows: Ints
    what: str
    path: str = ""


Converted = tuple[pa.Array, Sequence[Misfit]]
Convert = Callable[[pa.Array], Converted]
"""From an array as it was read to one of the column's type; where a value does not fit the new array holds anything."""


def same(array: pa.Array) -> Converted:
    """Nothing to do."""
    return array, ()


def plain(array: pa.Array) -> pa.Array:
    """The same array, beginning at the begin of its buffers."""
    return array if not array.offset else array.take(pa.array(np.arange(len(array))))


def numbers_of(array: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The values of a plain array of fixed width; anything where it is NULL."""
    return np.frombuffer(array.buffers()[1] or b"", dtype)[: len(array)]


def valid_of(array: pa.Array) -> Mask | None:
    """Which rows have a value; None when all have."""
    return np.asarray(array.is_valid()) if array.null_count else None


def offsets_of(array: pa.Array) -> npt.NDArray[np.int32]:
    """Offsets of a plain binary, string, list or map array; one more than rows."""
    found = np.frombuffer(array.buffers()[1] or b"", np.int32)[: len(array) + 1]
    return found if len(found) else np.zeros(len(array) + 1, np.int32)


def with_values(array: pa.Array, kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """An array of other values of fixed width that is NULL where `array` is."""
    return pa.Array.from_buffers(kind, len(array), [array.buffers()[0], pa.py_buffer(np.ascontiguousarray(values))])


def misfits(array: pa.Array, bad: Mask, what: str) -> list[Misfit]:
    """Rows that are bad and not NULL, if any."""
    if not bad.any():
        return []
    valid = valid_of(array)
    rows = np.flatnonzero(bad if valid is None else bad & valid)
    return [Misfit(rows, what)] if len(rows) else []


def nothing(kind: DataType) -> Convert:
    """NULL in every row."""
    made = to_arrow_type(kind)
    return lambda array: (pa.nulls(len(array), made), ())


def mismatch(kind: DataType) -> Convert:
    """No value fits."""
    made = to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        return pa.nulls(len(array), made), misfits(array, np.ones(len(array), np.bool_), "type")

    return convert


def integers(source: npt.DTypeLike, kind: DataType) -> Convert:
    """Whole numbers to a type of whole numbers."""
    bound, made = INTEGER_BOUNDS[kind.name], to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        if array.type == made:
            return array, ()
        values = numbers_of(array, source)
        narrow = values.astype(made.to_pandas_dtype())
        if narrow.itemsize >= values.itemsize:
            return with_values(array, made, narrow), ()
        return with_values(array, made, narrow), misfits(array, (values < -bound) | (values >= bound), "range")

    return convert


def floats(source: npt.DTypeLike, kind: DataType) -> Convert:
    """Numbers to float or double, when nothing is lost."""
    made = to_arrow_type(kind)
    dtype = made.to_pandas_dtype()

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        if array.type == made:
            return array, ()
        values = numbers_of(array, source)
        with np.errstate(over="ignore", invalid="ignore"):
            near = values.astype(dtype)
            if np.issubdtype(values.dtype, np.floating):
                endless = np.isinf(near) & ~np.isinf(values)
                lost = (near.astype(values.dtype) != values) & ~np.isnan(values) & ~endless
            else:
                endless = np.zeros(len(values), np.bool_)
                top = near >= dtype(2.0 ** (8 * values.itemsize - 1))
                lost = np.where(top, 0, near).astype(values.dtype) != values
                lost |= top
        return with_values(array, made, near), [*misfits(array, endless, "range"), *misfits(array, lost, "precision")]

    return convert


def timestamps(source: npt.DTypeLike, units_per_s: int) -> Convert:
    """Whole numbers since 1970 to microseconds; finer values do not fit, nor do years outside 1 to 9999."""
    made = pa.timestamp("us", tz="UTC")
    up, down = max(1_000_000 // units_per_s, 1), max(units_per_s // 1_000_000, 1)
    low, high = -(-TIMES_US[0] // up) * down, TIMES_US[1] // up * down + down - 1

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        values = numbers_of(array, source).astype(np.int64, copy=False)
        outside = (values < low) | (values > high)
        bad = misfits(array, outside, "range")
        if down > 1:
            bad += misfits(array, (values % down != 0) & ~outside, "precision")
            return with_values(array, made, values // down), bad
        return with_values(array, made, values if up == 1 else np.where(outside, 0, values) * up), bad

    return convert


def dates(array: pa.Array) -> Converted:
    """Days since 1970."""
    array = plain(array)
    values = numbers_of(array, np.int32)
    return with_values(array, pa.date32(), values), misfits(array, (values < DATES[0]) | (values > DATES[1]), "range")


def texts(array: pa.Array) -> Converted:
    """Bytes that are UTF-8."""
    array = plain(array)
    text = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        bad = np.fromiter((not _is_utf8(value) for value in array.to_pylist()), np.bool_, len(array))
        return text, misfits(array, bad, "utf8")
    return text, ()


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def symbols(names: Sequence[str | None]) -> Convert:
    """Indices of names; a name that is None does not fit (`enum`)."""
    known = pa.array([name or "" for name in names], pa.string())
    bad_names = np.array([name is None for name in names], np.bool_)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        made = known.take(array)
        if not bad_names.any():
            return made, ()
        values = np.asarray(array.fill_null(0))
        return made, misfits(array, bad_names[values], "enum")

    return convert


def symbols_by_number(names: Mapping[int, str]) -> Convert:
    """Numbers that have names; one that has none does not fit (`enum`)."""
    numbers = np.array(sorted(names), np.int64)
    known = pa.array([names[number] for number in numbers.tolist()], pa.string())

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        values = numbers_of(array, np.int32)
        at = np.minimum(np.searchsorted(numbers, values), len(numbers) - 1)
        valid = valid_of(array)
        null = np.zeros(len(array), np.bool_) if valid is None else ~valid
        return known.take(pa.array(at, mask=null)), misfits(array, numbers[at] != values, "enum")

    return convert


_HEX = np.array([[ord(c) for c in f"{value:02x}"] for value in range(256)], np.uint8)
_DASHED = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])


def uuids(array: pa.Array) -> Converted:
    """16 bytes to text such as `00112233-4455-6677-8899-aabbccddeeff`."""
    array = plain(array)
    valid = valid_of(array)
    offsets = offsets_of(array)
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]].reshape(-1, 16)
    text = np.full((len(data), 36), ord("-"), np.uint8)
    text[:, _DASHED] = _HEX[data].reshape(-1, 32)
    lengths = np.full(len(array), 36) if valid is None else np.where(valid, 36, 0)
    made = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=made[1:])
    buffers = [array.buffers()[0], pa.py_buffer(made), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(array), buffers), ()


def whole_decimals(source: npt.DTypeLike, kind: DataType) -> Convert:
    """Whole numbers to decimals."""

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        low = numbers_of(array, source).astype(np.int64)
        return _decimals(array, low, low >> 63, 0, kind, lambda i: int(low[i]))

    return convert


def unsigned(kind: DataType) -> Convert:
    """Whole numbers of 64 bits without sign, kept as signed ones, to whole numbers or decimals."""

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        low = numbers_of(array, np.int64)
        if kind.name == "decimal":
            return _decimals(array, low, np.zeros(len(low), np.int64), 0, kind, lambda i: int(low[i]) % (1 << 64))
        made, bad = integers(np.int64, kind)(array)
        negative = misfits(array, low < 0, "range")
        return made, [*bad, *negative]

    return convert


def byte_decimals(scale: int, kind: DataType) -> Convert:
    """Two's complement, big endian, of any length from 1, to decimals."""

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        offsets = offsets_of(array).astype(np.int64)
        data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
        begins, ends = offsets[:-1], offsets[1:]
        lengths = ends - begins
        padded = np.append(data, np.uint8(0))
        fill = np.where(padded[np.minimum(begins, len(data))] > 127, 255, 0).astype(np.uint8)
        words = np.repeat(fill[:, None], 16, axis=1)
        for j in range(min(int(lengths.max(initial=0)), 16)):
            words[:, j] = np.where(j < lengths, padded[np.maximum(ends - 1 - j, 0)], fill)
        low, high = words.view("<i8").T
        empty = misfits(array, lengths == 0, "format")
        high = np.where(lengths > 16, ~(low >> 63), high)  # so that longer ones are looked at one by one

        def exact(i: int) -> int:
            return int.from_bytes(data[begins[i] : ends[i]].tobytes(), "big", signed=True)

        made, bad = _decimals(array, low, high, scale, kind, exact)
        return made, [*empty, *bad]

    return convert


def _decimals(
    array: pa.Array, low: Ints, high: Ints, scale: int, kind: DataType, exact: Callable[[int], int]
) -> Converted:
    """Decimals from unscaled numbers of 128 bits in two words; `exact` gives the number of a row that is too large."""
    shift = kind.scale - scale
    up, down = 10 ** max(shift, 0), 10 ** max(-shift, 0)
    limit = min(10**kind.precision - 1, (1 << 63) - 1) // up
    fast = high == low >> 63
    if up < 1 << 63 and down < 1 << 63:
        bound = min(limit * down, (1 << 63) - 1)
        fast &= (low >= -bound) & (low <= bound)
        if down > 1:
            fast &= low % down == 0
        scaled = np.where(fast, low, 0) * up // down
    else:
        fast &= low == 0
        scaled = np.zeros(len(low), np.int64)
    words = np.empty((len(low), 2), np.int64)
    words[:, 0] = scaled
    words[:, 1] = scaled >> 63
    valid = valid_of(array)
    hard = np.flatnonzero(~fast if valid is None else ~fast & valid)
    bad = []
    for i in hard.tolist():
        number, rest = divmod(exact(i) * up, down)
        if rest or abs(number) >= 10**kind.precision:
            bad.append(i)
        else:
            words[i] = np.frombuffer(number.to_bytes(16, "little", signed=True), np.int64)
    rows = [Misfit(np.array(bad, np.int64), "range")] if bad else []
    return with_values(array, to_arrow_type(kind), words), rows
