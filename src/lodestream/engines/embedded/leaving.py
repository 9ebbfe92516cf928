"""What an erasing batch takes out of a table and its quarantine, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.lake.rewrite import Mask, without_rows

Key = tuple[str, int]
"""Source and position of a row."""


class Positions:
    """A set of positions, asked a table at a time."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = frozenset(keys)
        listed: dict[str, list[int]] = {}
        for source, position in self.keys:
            listed.setdefault(source, []).append(position)
        self._places: Mapping[str, npt.NDArray[np.int64]] = {s: np.array(p, np.int64) for s, p in listed.items()}

    def __bool__(self) -> bool:
        return bool(self.keys)

    def among(self, rows: pa.Table, source: str = "_source", position: str = "_position") -> Mask:
        """Which of n rows have a position of the set, in these two columns; NULL has none."""
        found = np.zeros(len(rows), np.bool_)
        if not self.keys or not len(rows):
            return found
        names = rows.column(source).combine_chunks()
        coded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
        places = pc.fill_null(rows.column(position), -1).to_numpy()
        for number, name in enumerate(coded.dictionary.to_pylist()):
            if name in self._places:
                found |= (codes == number) & np.isin(places, self._places[name])
        return found


@dataclass
class Erased:
    """What an erasing batch does to files.

    Attributes:
        hit: which rows of the table change, of its columns `columns`.
        left: what stays of a file with such rows.
        aside: which rows of the quarantine leave.
        hot: the new content of the file of open windows, when it changes.
        closed: windows that are over by it.
    """

    hit: Callable[[pa.Table], Mask]
    columns: tuple[str, ...] = ("_source", "_position")
    left: Callable[[pa.Table, Mask], pa.Table] = field(default=without_rows)
    aside: Positions = field(default_factory=lambda: Positions(()))
    hot: pa.Table | None = None
    closed: pa.Table | None = None
