"""Checks what window rows say of themselves: whether they are final, and which positions they cover by source."""

from __future__ import annotations

from functools import reduce
from operator import xor

import pyarrow as pa

COLUMNS = ("window_start", "window_end", "_rows", "_digest", "_final", "_covers")


def check_completeness(rows: pa.Table, watermark_us: int) -> list[str]:
    """What is wrong: a window that is called final although it is open, or one whose sources do not add up.

    Args:
        rows: the columns `COLUMNS` of all rows of a window table.
        watermark_us: the watermark of the flow's last batch.
    """
    ends = rows.column("window_end").cast(pa.int64()).to_pylist()
    wrong: dict[str, list[object]] = {"window is final and still open, or the other way round": []}
    wrong["sources of a window do not add up to it"] = []
    early, uneven = wrong.values()
    for row, end_us in zip(rows.to_pylist(), ends, strict=True):
        covers = row["_covers"] or []
        if row["_final"] is not (end_us <= watermark_us):
            early.append(row["window_start"])
        sources = {one["source"] for one in covers}
        counted = sum(one["rows"] for one in covers), reduce(xor, (one["digest"] for one in covers), 0)
        spread = all(one["last"] - one["first"] + 1 >= one["rows"] for one in covers)
        if counted != (row["_rows"], row["_digest"]) or len(sources) < len(covers) or not spread:
            uneven.append(row["window_start"])
    return [f"{what}: {len(found)} windows, such as window_start={found[0]}" for what, found in wrong.items() if found]
