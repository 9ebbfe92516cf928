"""Finds the session that each row belongs to: one that the table holds, or one that is still open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lodestream.model.table import WINDOW_END, WINDOW_START


def begun(rows: pa.Table, stored: pa.Table, groups: Sequence[str], gap_us: int) -> pa.Table:
    """`rows` with `_start` set to the start of their sessions.

    Args:
        rows: input rows with `_event` (microseconds), `_start` and their groups.
        stored: sessions of the table: bounds and groups. A row is in the one that it lies in, up to the gap before
            its end; rows that lie in none make sessions by themselves.
        groups: names of the group columns.
        gap_us: the declared gap.
    """
    sessions: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
    bounds = [stored.column(name).cast(pa.int64()).to_pylist() for name in (WINDOW_START, WINDOW_END)]
    for label, start, end in zip(_labels(stored, groups), *bounds, strict=True):
        sessions[label].append((start, end - gap_us))
    starts = np.empty(len(rows), np.int64)
    last: dict[tuple[object, ...], tuple[int, int]] = {}
    events, labels = rows.column("_event").to_pylist(), _labels(rows, groups)
    for i in sorted(range(len(rows)), key=events.__getitem__):
        event, label = events[i], labels[i]
        found = next((start for start, latest in sessions[label] if start <= event <= latest), None)
        if found is None:
            start, latest = last.get(label, (event, event))
            found = start if event - latest <= gap_us else event
            last[label] = (found, event)
        starts[i] = found
    return rows.set_column(rows.schema.get_field_index("_start"), "_start", pa.array(starts, pa.int64()))


def _labels(rows: pa.Table, groups: Sequence[str]) -> list[tuple[object, ...]]:
    columns = [rows.column(name).to_pylist() for name in groups]
    return list(zip(*columns, strict=True)) if columns else [()] * len(rows)
