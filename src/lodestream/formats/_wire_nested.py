"""Puts converted columns together: structs, arrays, maps and values of several types."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from lodestream.formats._wire_values import Convert, Converted, Misfit, numbers_of, offsets_of, plain, valid_of
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType

Constant = Callable[[int], pa.Array]
"""That many times the same value."""


def structs(kind: DataType, parts: Sequence[tuple[str, Convert] | Constant]) -> Convert:
    """Structs to structs: each field from one of that name, or a constant."""
    made = to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        valid = valid_of(array)
        columns: list[pa.Array] = []
        bad: list[Misfit] = []
        for field, part in zip(kind.fields, parts, strict=True):
            if not isinstance(part, tuple):
                columns.append(part(len(array)))
                continue
            column, found = part[1](array.field(part[0]))
            columns.append(column)
            for misfit in found:
                rows = misfit.rows if valid is None else misfit.rows[valid[misfit.rows]]
                if len(rows):
                    bad.append(Misfit(rows, misfit.what, f".{field.name}{misfit.path}"))
        return pa.Array.from_buffers(made, len(array), [array.buffers()[0]], children=columns), bad

    return convert


def arrays(kind: DataType, element: Convert) -> Convert:
    """Lists to lists."""
    made = to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        items, found = element(array.values)
        return _list(made, array, items), _of_rows(array, found)

    return convert


def maps(kind: DataType, key: Convert, value: Convert) -> Convert:
    """Lists of structs of two fields, `0` and `1`, to maps; a key that comes twice does not fit."""
    made = to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        entries = plain(array.values)
        keys, bad_keys = key(entries.field("0"))
        values, bad_values = value(entries.field("1"))
        pair = pa.struct([made.key_field, made.item_field])
        both = pa.Array.from_buffers(pair, len(keys), [None], children=[keys, values])
        bad = _of_rows(array, [*bad_keys, *bad_values])
        if not bad_keys:
            bad += _doubles(array, keys)
        return _list(made, array, both), bad

    return convert


def _list(made: pa.DataType, array: pa.Array, items: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(made, len(array), array.buffers()[:2], children=[items])


def _of_rows(array: pa.Array, found: Sequence[Misfit]) -> list[Misfit]:
    """Misfits of items as misfits of the lists that they are in."""
    offsets = offsets_of(array)
    bad = []
    for misfit in found:
        inside = misfit.rows[(misfit.rows >= offsets[0]) & (misfit.rows < offsets[-1])]
        rows = np.unique(np.searchsorted(offsets, inside, "right") - 1)
        if len(rows):
            bad.append(Misfit(rows, misfit.what, misfit.path))
    return bad


def _doubles(array: pa.Array, keys: pa.Array) -> list[Misfit]:
    if not len(keys):
        return []
    offsets = offsets_of(array).astype(np.int64)
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    codes = keys.dictionary_encode()
    numbers = np.asarray(codes.indices)[offsets[0] : offsets[-1]]
    pairs = np.sort(rows * (len(codes.dictionary) + 1) + numbers)
    again = pairs[1:][pairs[1:] == pairs[:-1]]
    return [Misfit(np.unique(again // (len(codes.dictionary) + 1)), "duplicate_key")] if len(again) else []


def branches(kind: DataType, parts: Sequence[tuple[int, Convert]]) -> Convert:
    """Structs of a field `branch` and one field per branch to the value of each row's branch."""
    made = to_arrow_type(kind)

    def convert(array: pa.Array) -> Converted:
        array = plain(array)
        branch = numbers_of(plain(array.field("branch")), np.int32)
        if array.field("branch").null_count:
            branch = np.where(np.asarray(array.field("branch").is_valid()), branch, -1)
        columns: list[pa.Array] = []
        bad: list[Misfit] = []
        at = np.full(len(array), -1, np.int64)
        for number, convert_branch in parts:
            mine = branch == number
            column, found = convert_branch(array.field(str(number)))
            at[mine] = len(columns) * len(array) + np.flatnonzero(mine)
            columns.append(column)
            for misfit in found:
                rows = misfit.rows[mine[misfit.rows]]
                if len(rows):
                    bad.append(Misfit(rows, misfit.what, misfit.path))
        if not columns:
            return pa.nulls(len(array), made), bad
        return pa.concat_arrays(columns).take(pa.array(at, mask=at < 0)), bad

    return convert
