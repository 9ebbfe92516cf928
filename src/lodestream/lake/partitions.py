"""Partition values: rows to groups, values to Delta's text form and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.errors import ConfigError
from lodestream.model.types import INTEGERS, Schema

_ALLOWED = ("boolean", *INTEGERS, "string", "date", "timestamp", "decimal")


def check_partitions(schema: Schema, partitions: Sequence[str]) -> None:
    """Raise ConfigError unless the columns exist, can be partition columns, and others are left for the files."""
    for name in partitions:
        column = schema.get(name)
        if column is None:
            raise ConfigError("no such column to partition by", column=name, columns=list(schema.names))
        if column.type.name not in _ALLOWED:
            fix = f"use one of {', '.join(_ALLOWED)}"
            raise ConfigError("column cannot be partitioned by", column=name, type=str(column.type), fix=fix)
    if len(set(partitions)) != len(partitions) or len(partitions) >= len(schema):
        raise ConfigError(
            "partition columns must be distinct and leave a column for the files", columns=list(partitions)
        )


def without_empty_text(rows: pa.Table, partitions: Sequence[str]) -> pa.Table:
    """Replace empty strings in partition columns by NULL: Delta's text form cannot tell them apart."""
    for name in partitions:
        index = rows.schema.get_field_index(name)
        column = rows.column(index)
        if not pa.types.is_string(column.type):
            continue
        empty = pc.equal(column, "")
        if pc.any(empty).as_py():
            cleared = pc.if_else(empty, pa.scalar(None, column.type), column)
            rows = rows.set_column(index, rows.schema.field(index), cleared)
    return rows


def split(rows: pa.Table, partitions: Sequence[str]) -> list[tuple[tuple[str | None, ...], pa.Table]]:
    """Rows by partition, partitions in order of first appearance, rows in their order.

    Returns:
        (values, rows) for each partition; one entry with no values for no partition columns.
    """
    if not partitions or not rows.num_rows:
        return [((), rows)] if rows.num_rows else []
    codes = np.zeros(rows.num_rows, np.int64)
    texts: list[list[str | None]] = []
    for name in partitions:
        encoded = pc.dictionary_encode(rows.column(name).combine_chunks(), null_encoding="encode")
        values = to_text(encoded.dictionary)
        texts.append(values)
        codes = codes * len(values) + encoded.indices.to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    group = rank[inverse]
    order: npt.NDArray[np.int64] | None = None
    if np.any(group[1:] < group[:-1]):
        order = np.argsort(group, kind="stable")
        rows, group, codes = rows.take(pa.array(order)), group[order], codes[order]
    bounds = np.flatnonzero(np.diff(group, prepend=-1, append=len(first)))
    return [
        (_values(int(codes[start]), texts), rows.slice(start, end - start))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _values(code: int, texts: list[list[str | None]]) -> tuple[str | None, ...]:
    found = []
    for values in reversed(texts):
        code, index = divmod(code, len(values))
        found.append(values[index])
    return tuple(reversed(found))


def to_text(values: pa.Array) -> list[str | None]:
    """Each value in Delta's text form; timestamps in UTC without a zone."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us"))
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    return texts


def from_text(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """The value of a partition from its text form; raises pyarrow.ArrowInvalid when it is not of that type."""
    if text is None or text == "":
        return pa.scalar(None, kind)
    value = pa.array([text], pa.string())
    if pa.types.is_timestamp(kind) and not text.endswith("Z"):
        return value.cast(pa.timestamp("us")).cast(kind)[0]
    return value.cast(kind)[0]


def constant(text: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    """A column that holds the value of a partition `rows` times."""
    return pa.repeat(from_text(text, kind), rows)


def values_of(columns: Sequence[str], values: Sequence[str | None]) -> Mapping[str, str | None]:
    """`partitionValues` of an add."""
    return dict(zip(columns, values, strict=True))
