"""Closed windows as rows of other windows: what a table that streams from a window table takes in."""

from __future__ import annotations

from lodestream.model.table import WINDOW_TIME, TableName
from lodestream.semantics.lookups import Row
from lodestream.semantics.stages import Outcome, Spec


def windows_of(name: TableName, spec: Spec, outcome: Outcome) -> list[Row]:
    """The windows that one batch closed, in the form in which a table below takes them.

    Their event time is their last microsecond. Their position is the window's start, in the unit of its group.

    Args:
        name: the window table.
        spec: its meaning, with `emit: final`.
        outcome: of the batch.
    """
    rows: list[Row] = []
    for key in sorted(outcome.closed, key=repr):
        row = {name: value for name, value in outcome.after.table[key].items() if not name.startswith("_")}
        unit = "/".join([str(name), *(_text(row[group]) for group in spec.group_by)])
        rows.append({**row, WINDOW_TIME: row["window_end"] - 1, "_source": unit, "_position": row["window_start"]})
    return rows


def _text(value: object) -> str:
    return "\\N" if value is None else str(value).replace("\\", "\\\\").replace("/", "\\/")
