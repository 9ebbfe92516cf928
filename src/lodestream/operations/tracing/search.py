"""Looks for a row by its values where it may be instead: in quarantines, and in the tables upstream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.rejects import decode_rows
from lodestream.lake.layout import quarantine_name
from lodestream.model.steps import FlowPlan, ReadSource, ReadTable
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.operations.tracing.absence import set_aside, why
from lodestream.operations.tracing.findings import Absence, Hop, Record
from lodestream.operations.tracing.keys import Test, all_of
from lodestream.operations.tracing.plain import command, number, safe
from lodestream.operations.tracing.rows import trace_of, walk
from lodestream.operations.tracing.view import View

_FOUND_MAX = 10
_COLUMNS = ("_source", "_position", "kind", "row", "raw")


@dataclass(frozen=True)
class Missing:
    """What became of a row that a key names and a table does not have.

    Attributes:
        absence: why.
        hops: where it was found on the way, if it was.
        record: its record in the source, likewise.
        others: what to type for further candidates.
    """

    absence: Absence
    hops: tuple[Hop, ...] = ()
    record: Record | None = None
    others: tuple[str, ...] = ()


def input_schema(plan: FlowPlan) -> Schema:
    """Columns of a flow's input rows."""
    first = plan.steps[0]
    return first.schema if isinstance(first, ReadSource | ReadTable) else Schema()


def input_tests(plan: FlowPlan, tests: Sequence[Test]) -> tuple[list[Test], list[str]]:
    """The tests on columns that come unchanged from the flow's input, and the names of the others."""
    schema = input_schema(plan)
    made = {one.name for one in plan.table.derive} | {here for one in plan.table.lookups for _, here in one.columns}
    taken, lost = list[Test](), list[str]()
    for test in tests:
        column = schema.get(test.column)
        same = test.retyped(column.type) if column and test.column not in made and plan.table.python is None else None
        if same is not None:
            taken.append(same)
        else:
            lost.append(test.column)
    return taken, lost


def set_aside_like(view: View, plan: FlowPlan, tests: Sequence[Test]) -> list[tuple[str, int]]:
    """Positions in a table's quarantine whose input row has these values, or whose raw record has their texts in it."""
    table = view.table(quarantine_name(plan.table.name))
    if table is None or not tests:
        return []
    schema = input_schema(plan)
    words = [re.compile(rf"(?<!\w){re.escape(t.text)}(?!\w)".encode()) for t in tests if t.until is None and t.text]
    found: dict[tuple[str, int], None] = {}
    for add in table.files():
        rows = table.read([add], columns=_COLUMNS)
        decoded = rows.filter(pc.is_valid(rows.column("row")))
        values = decode_rows(decoded.column("row").to_pylist(), schema)
        hits = decoded.filter(all_of(tests, values))
        raw = rows.filter(pc.is_valid(rows.column("raw")))
        if words:
            flags = [all(word.search(data) for word in words) for data in raw.column("raw").to_pylist()]
            hits = pa.concat_tables([hits, raw.filter(pa.array(flags, pa.bool_()))])
        keys = zip(hits.column("_source").to_pylist(), hits.column("_position").to_pylist(), strict=True)
        found.update(dict.fromkeys(keys))
        if len(found) >= _FOUND_MAX:
            break
    return list(found)[:_FOUND_MAX]


def missing(view: View, name: TableName, tests: Sequence[Test]) -> Missing:
    """Why a row-level table has no row with these values, as far as quarantines and upstream tables tell."""
    asked, plan, lost, inside = tests, view.flows[name], list[str](), list[str]()
    while True:
        tests, unknown = input_tests(plan, tests)
        lost += unknown
        if not tests:
            return Missing(_unfollowed(name, plan, asked, lost))
        positions = set_aside_like(view, plan, tests)
        if plan.upstream is not None:
            positions += _upstream(view, plan.upstream, tests)
        for at, (source, position) in enumerate(dict.fromkeys(positions)):
            if row := view.at(name, source, position):
                inside.append(f"{trace_of(view, name, row)}  # has other values")
                continue
            found = _explained(view, name, list(dict.fromkeys(positions))[at:], lost)
            return replace(found, others=(*inside, *found.others))
        if plan.upstream is None:
            return Missing(_nowhere(name, plan, asked, lost, inside), others=tuple(inside))
        plan = view.flows[plan.upstream]


def _upstream(view: View, name: TableName, tests: Sequence[Test]) -> list[tuple[str, int]]:
    table = view.table(name)
    rows = view.find(table, tests, limit=_FOUND_MAX)[1] if table else []
    return [(row["_source"], row["_position"]) for row in rows]


def _explained(view: View, name: TableName, positions: list[tuple[str, int]], lost: list[str]) -> Missing:
    (source, position), *rest = positions
    hops, record = walk(view, name, source, position)
    absence = why(view, hops, record, name)
    words = f"{source}:{position} may be it. " if not lost else f"{source}:{position} may be it ({_lost(lost)}). "
    others = tuple(command(name, f"{one}:{at}") for one, at in rest)
    return Missing(replace(absence, message=words + absence.message), hops, record, others)


def explained_aside(view: View, plan: FlowPlan, positions: Sequence[tuple[str, int]]) -> Absence | None:
    """The reason of the first of these positions that has a standing quarantine entry."""
    for source, position in positions:
        entries = view.entries(plan.table.name, source, position)
        if any(entry.state in ("open", "not committed") for entry in entries):
            return set_aside(view, plan, entries)
    return None


def _lost(lost: Sequence[str]) -> str:
    return f"{', '.join(dict.fromkeys(lost))} cannot be followed: made on the way"


def _written(tests: Sequence[Test]) -> str:
    return ", ".join(f"{test.column}={safe(test.text)}" for test in tests)


def _unfollowed(name: TableName, plan: FlowPlan, asked: Sequence[Test], lost: Sequence[str]) -> Absence:
    message = (
        f"{name} has no row with {_written(asked)}, and {plan.table.name} makes {', '.join(dict.fromkeys(lost))} itself"
    )
    steps = (f"lodestream trace {name} SOURCE:POSITION  # of a row that should have become it",)
    return Absence(str(name), "no_such_row", message, next=steps)


def _nowhere(
    name: TableName, plan: FlowPlan, asked: Sequence[Test], lost: Sequence[str], inside: Sequence[str]
) -> Absence:
    message = f"{name} has no row with {_written(asked)}"
    if inside:
        message += f"; {number(len(inside), 'row')} with the same input values came out with other values"
    else:
        message += ", and neither has any table or quarantine upstream"
    message += f" ({_lost(lost)})" if lost else ""
    steps = (f"lodestream trace {plan.table.name} SOURCE:POSITION  # asks the source itself",)
    return Absence(str(name), "no_such_row", message, next=() if inside else steps)
