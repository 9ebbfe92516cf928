"""Makes rows and rejects of converted columns: nulls, misfits and drift become reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from lodestream.formats._drift import wider_column
from lodestream.formats._lines import Ints, Lines, slices
from lodestream.formats._records import Reject, rejects_table, rows_table
from lodestream.formats._wire_values import Misfit
from lodestream.model.types import Column, DataType, Schema
from lodestream.model.widening import unify_schemas
from lodestream.ports.source import Decoded, Reading


@dataclass(frozen=True, slots=True)
class Held:
    """A declared column of some records: its values, which of them do not fit, and the type of what was written."""

    array: pa.Array
    misfits: Sequence[Misfit] = ()
    seen: DataType | None = None


@dataclass(frozen=True, slots=True)
class Strange:
    """What the records have beyond the declared columns: reasons against all of them, columns found."""

    reasons: Sequence[str] = ()
    found: Schema = field(default_factory=Schema)


class Origin(Protocol):
    """Where n records came from: their `positions`, and their bytes."""

    @property
    def positions(self) -> Ints:
        """The n positions."""

    def raw_column(self, rows: Ints | None) -> pa.Array:
        """The bytes of these records (None: of all), for `_raw`."""

    def raw(self, row: int) -> bytes:
        """The bytes of one."""


@dataclass(frozen=True, slots=True)
class FromLines:
    """Records that are lines or messages."""

    lines: Lines

    @property
    def positions(self) -> Ints:
        """Those of the lines."""
        return self.lines.positions

    def raw_column(self, rows: Ints | None) -> pa.Array:
        """The whole lines."""
        lines = self.lines if rows is None else self.lines.some(rows)
        return slices(lines.block, lines.starts, lines.ends, pa.binary())

    def raw(self, row: int) -> bytes:
        """The whole line."""
        return self.lines.block[self.lines.starts[row] : self.lines.ends[row]].tobytes()


def decoded_rows(
    reading: Reading, unit: str, origin: Origin, good: Ints | None, columns: Sequence[Held], strange: Strange,
    faults: Mapping[int, str],
) -> Decoded:  # fmt: skip
    """Rows and rejects of n records.

    Args:
        reading: what the table wants.
        unit: becomes `_source`.
        origin: the n records.
        good: those that could be read, in order; None for all.
        columns: one for each declared column, of the good ones.
        strange: drift.
        faults: reasons of all others.
    """
    reasons: dict[int, list[str]] = {}
    found: list[Schema] = []
    for column, held in zip(reading.schema, columns, strict=True):
        wide = _column_reasons(reading, column, held, reasons)
        if wide:
            found.append(Schema((wide,)))
    found.append(strange.found)
    count = len(origin.positions) if good is None else len(good)
    if strange.reasons:
        for row in range(count):
            reasons.setdefault(row, []).extend(strange.reasons)
    taken = good
    arrays = [held.array for held in columns]
    if reasons:
        keep = np.ones(count, np.bool_)
        keep[list(reasons)] = False
        rows = np.flatnonzero(keep)
        arrays = [array.take(pa.array(rows)) for array in arrays]
        taken = rows if good is None else good[rows]
        if good is not None:
            reasons = {int(good[row]): why for row, why in reasons.items()}
    positions = origin.positions if taken is None else origin.positions[taken]
    raw = origin.raw_column(taken) if reading.keep_raw else None
    bad = reasons | {row: [why] for row, why in faults.items()}
    rejects: list[Reject] = [(int(origin.positions[row]), bad[row], origin.raw(row)) for row in sorted(bad)]
    rows_made = rows_table(reading, arrays, unit, positions, raw)
    return Decoded(rows_made, rejects_table(unit, rejects), unify_schemas([schema for schema in found if schema]))


def _column_reasons(reading: Reading, column: Column, held: Held, reasons: dict[int, list[str]]) -> Column | None:
    """Add a column's reasons to those of the rows; gives the column that drift would make of it."""
    wide: Column | None = None
    told: set[int] = set()
    for misfit in held.misfits:
        reason = f"parse:{column.name}{misfit.path}:{misfit.what}"
        if not misfit.path and misfit.what in ("type", "range", "precision"):
            made = wider_column(reading, column, held.seen)
            if made:
                wide, reason = made, f"drift:{column.name}"
        for row in misfit.rows.tolist():
            if row not in told:
                told.add(row)
                reasons.setdefault(row, []).append(reason)
    if not column.nullable and held.array.null_count:
        for row in np.flatnonzero(np.asarray(held.array.is_null())).tolist():
            if row not in told:
                reasons.setdefault(row, []).append(f"parse:{column.name}:null")
    return wide


def in_order(pieces: Sequence[Decoded]) -> Decoded:
    """Pieces whose positions lie among each other, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Decoded(
        _sorted(pa.concat_tables([piece.rows for piece in pieces])),
        _sorted(pa.concat_tables([piece.rejects for piece in pieces])),
        unify_schemas([piece.found for piece in pieces]),
    )


def _sorted(table: pa.Table) -> pa.Table:
    positions = table["_position"].to_numpy()
    if (positions[1:] > positions[:-1]).all():
        return table
    return table.take(pa.array(np.argsort(positions, kind="stable")))
