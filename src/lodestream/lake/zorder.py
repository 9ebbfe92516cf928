"""Z-order: rows that are close in several columns at once come to lie close together, so that files can be skipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_BITS = 63
_BITS_MAX = 16


def z_values(rows: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The Morton code of each row: the bits of its ranks in the columns, interleaved, the first column's first.

    A rank is the share of rows with a smaller value, in up to 16 bits (63 divided by the number of columns), so a
    skewed column is divided as evenly as any other. Equal values have equal ranks; NULL is above every value.

    Args:
        rows: n rows.
        columns: 1 to 63 columns of simple types.

    Returns:
        n codes.
    """
    bits = min(_BITS_MAX, _BITS // len(columns))
    codes = np.zeros(rows.num_rows, np.uint64)
    if not rows.num_rows:
        return codes
    ranks = [_ranks(rows.column(name).combine_chunks(), bits) for name in columns]
    for bit in reversed(range(bits)):
        for rank in ranks:
            codes = (codes << np.uint64(1)) | ((rank >> np.uint64(bit)) & np.uint64(1))
    return codes


def z_order(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows along the Z-curve through `columns`; rows with equal codes keep their order."""
    return rows.take(pa.array(np.argsort(z_values(rows, columns), kind="stable")))


def _ranks(column: pa.Array, bits: int) -> npt.NDArray[np.uint64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    places = pc.rank(column, sort_keys="ascending", tiebreaker="min")
    ranks: npt.NDArray[np.uint64] = places.to_numpy().astype(np.uint64) - np.uint64(1)
    return ranks * np.uint64(1 << bits) // np.uint64(len(column))
