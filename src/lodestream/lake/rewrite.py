"""Files of a table written again with some of their rows changed or left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.table import DeltaTable

Mask = npt.NDArray[np.bool_]


def without_rows(rows: pa.Table, hit: Mask) -> pa.Table:
    """The rows that are not hit."""
    return rows.filter(pa.array(~hit))


def rewrite(
    table: DeltaTable,
    hit: Callable[[pa.Table], Mask],
    columns: Sequence[str],
    name: str,
    left: Callable[[pa.Table, Mask], pa.Table] = without_rows,
    *,
    hot: bool = True,
) -> tuple[list[AddFile], list[RemoveFile]]:
    """Stage the live files that hold a row that is hit once more, with what `left` makes of them.

    What is added is marked as no change of data, for its rows were there already; what is removed is marked as one.

    Args:
        table: the table, as its handle knows it.
        hit: flags for n rows of `columns`.
        columns: what `hit` looks at.
        name: part of the new files' names, unique per attempt.
        left: the rows that stay, of all rows of a file and their flags.
        hot: whether files of open windows and of changing rows are looked at too.

    Returns:
        (adds, removes) for one commit; a file of which nothing stays is only removed.
    """
    adds: list[AddFile] = []
    removes: list[RemoveFile] = []
    for number, old in enumerate(table.files()):
        if not hot and old.hot:
            continue
        flags = hit(table.read([old], columns=columns))
        if not flags.any():
            continue
        removes.append(RemoveFile.of(old))
        rows = left(table.read([old]), flags)
        if len(rows):
            staged = table.stage(rows, name=f"{name}-{number}", hot=old.hot)
            adds += [replace(add, data_change=False) for add in staged.adds]
    return adds, removes
