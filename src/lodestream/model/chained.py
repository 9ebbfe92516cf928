"""How the windows of a table are known to the windows that are made of them: their time and their positions."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.model.table import WINDOW_END, WINDOW_START, WINDOW_TIME, TableName

_NULL = "\\N"


def as_rows(windows: pa.Table, name: TableName, groups: Sequence[str]) -> pa.Table:
    """The windows as input rows: with `window_time`, `_source` and `_position` after their columns.

    A window's time is its last microsecond, as Spark's `window_time` has it. Its source is the table and its group,
    such as `gold.per_minute/DE`, its position its start in microseconds since 1970: together they name it.

    Args:
        windows: n rows of a window table, with its bounds and its groups.
        name: that table.
        groups: its group columns.
    """
    start = windows.column(WINDOW_START).cast(pa.int64())
    end = windows.column(WINDOW_END).cast(pa.int64())
    time = pc.subtract(end, 1).cast(windows.schema.field(WINDOW_END).type)
    rows = windows.append_column(WINDOW_TIME, time)
    rows = rows.append_column("_source", unit_of(name, [windows.column(group) for group in groups], len(windows)))
    return rows.append_column("_position", start)


def unit_of(name: TableName, groups: Sequence[pa.ChunkedArray], count: int) -> pa.Array:
    r"""`layer.table/value/value` of `count` rows; `\N` is NULL, and a backslash stands before `/` and itself."""
    texts = [pa.repeat(pa.scalar(str(name)), count)]
    for values in groups:
        escaped = pc.replace_substring(pc.replace_substring(_text(values), "\\", "\\\\"), "/", "\\/")
        texts.append(pc.fill_null(escaped, _NULL))
    if len(texts) == 1:
        return texts[0]
    joined = pc.binary_join_element_wise(*texts, "/")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    if pa.types.is_binary(values.type):
        return pa.chunked_array([pa.array([v and v.hex() for v in values.to_pylist()], pa.string())])
    return values.cast(pa.string())
