"""Builds the tables of a `Decoded`: rows with provenance, rejects with reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.model.widening import unify_schemas
from lodestream.ports.format import RAW_BYTES_MAX, REJECTS, row_schema
from lodestream.ports.source import Decoded, Reading

Reject = tuple[int, Sequence[str], bytes]
"""Position, reasons, bytes as they arrived."""


def constant(text: str, count: int) -> pa.Array:
    """`count` times the same string."""
    return pa.repeat(pa.scalar(text, pa.string()), count)


def rows_table(
    reading: Reading, columns: Sequence[pa.Array], unit: str, positions: npt.NDArray[np.int64], raw: pa.Array | None
) -> pa.Table:
    """Rows from one array per declared column, the unit they came from, their positions and (`keep_raw`) bytes."""
    arrays: list[Any] = [*columns, constant(unit, len(positions)), pa.array(positions, pa.int64())]
    if reading.keep_raw:
        arrays.append(raw)
    return pa.Table.from_arrays(arrays, schema=row_schema(reading))


def rejects_table(unit: str, rejects: Iterable[Reject]) -> pa.Table:
    """Rejects as a table; of each, at most `RAW_BYTES_MAX` bytes are kept."""
    found = list(rejects)
    return pa.Table.from_arrays(
        [
            constant(unit, len(found)),
            pa.array([position for position, _, _ in found], pa.int64()),
            pa.array([list(reasons) for _, reasons, _ in found], pa.list_(pa.string())),
            pa.array([raw[:RAW_BYTES_MAX] for _, _, raw in found], pa.binary()),
            pa.nulls(len(found), pa.string()),
        ],
        schema=REJECTS,
    )


def rejected(reading: Reading, unit: str, rejects: Iterable[Reject]) -> Decoded:
    """A `Decoded` that has rejects only."""
    return Decoded(row_schema(reading).empty_table(), rejects_table(unit, rejects))


def merged(pieces: Sequence[Decoded]) -> Decoded:
    """Several pieces, in position order, as one; columns found in several are unified."""
    if len(pieces) == 1:
        return pieces[0]
    return Decoded(
        pa.concat_tables([piece.rows for piece in pieces]),
        pa.concat_tables([piece.rejects for piece in pieces]),
        unify_schemas([piece.found for piece in pieces]),
    )
