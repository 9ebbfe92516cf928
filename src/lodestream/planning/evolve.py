"""Which changes of a table's columns its stored rows can follow, so that nothing has to be taken in again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lodestream.model.steps import (
    Aggregation,
    ApplyChanges,
    Dedupe,
    FlowPlan,
    JoinStreams,
    ReadSource,
    ReadTable,
    RunPython,
)
from lodestream.model.types import Schema
from lodestream.model.widening import widens


@dataclass(frozen=True, slots=True)
class Evolution:
    """How stored columns become the declared ones.

    Attributes:
        renamed: old name by new one.
        widened: columns whose type holds all that the old one held.
        dropped: columns that go, with what they hold.
        added: columns that are NULL in the rows there are.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    widened: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def rewrites(self) -> bool:
        """Whether files have to be written again; columns that are only added need none."""
        return bool(self.renamed or self.widened or self.dropped)

    def lines(self, old: Schema, new: Schema) -> list[str]:
        """What differs, old → new, a line a column."""
        found = [f"column {now}: renamed from {was}" for now, was in self.renamed.items()]
        found += [f"column {name}: {old[name].type} → {new[name].type}, stored rows are cast" for name in self.widened]
        found += [f"column {name}: gone with what it holds, was {old[name].type}" for name in self.dropped]
        return found + [f"column {name}: new, {new[name].type}" for name in self.added]


def evolution(plan: FlowPlan, stored: Schema) -> Evolution | None:
    """How the stored columns become those of the plan; None when rows must be taken in again for it.

    That is so for windows, changes, joins and functions, whose state or result hangs on the columns; for a column that
    is made here; for a type that does not hold all values of the old one; and for a new column that may not be NULL.
    """
    first = plan.steps[0]
    kinds = (Aggregation, ApplyChanges, JoinStreams, RunPython)
    if not isinstance(first, ReadSource | ReadTable) or any(isinstance(step, kinds) for step in plan.steps):
        return None
    new = plan.schema
    renamed = {
        column.name: column.renamed_from
        for column in new
        if column.renamed_from in stored and column.renamed_from not in new and column.name not in stored
    }
    kept = {renamed.get(column.name, column.name): column for column in new}
    widened = []
    for column in stored:
        now = kept.get(column.name)
        if now is not None and now.type != column.type:
            if not widens(column.type, now.type):
                return None
            widened.append(now.name)
    dropped = tuple(column.name for column in stored if column.name not in kept)
    added = tuple(column.name for column in new if column.name not in stored and column.name not in renamed)
    if any(not new[name].nullable for name in added):
        return None
    dedup = plan.step(Dedupe)
    if dedup is not None and set(dedup.dedup.keys) & {*widened, *renamed}:
        return None
    passed_on = first.schema
    if any(name not in passed_on or passed_on[name].type != new[name].type for name in (*renamed, *widened, *added)):
        return None
    if any(name.startswith("_") for name in (*renamed, *widened, *dropped, *added)):
        return None
    if {*dropped, *renamed.values()} & set(plan.partition_columns):
        return None
    return Evolution(renamed, tuple(widened), dropped, added)
