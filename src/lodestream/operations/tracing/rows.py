"""Walks from a row of a row-level table, upstream table by upstream table, to its record in the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestream.errors import ConfigError
from lodestream.model.batch import SourceRange
from lodestream.model.steps import FlowPlan, LookUp, ReadSource
from lodestream.model.table import JOIN_META, META_COLUMNS, VALID_FROM, VALID_TO, Join, TableName
from lodestream.model.types import BIGINT, STRING
from lodestream.operations.tracing.findings import Hop, LookedUp, Record
from lodestream.operations.tracing.keys import equal
from lodestream.operations.tracing.origin import Origin
from lodestream.operations.tracing.plain import command, pairs
from lodestream.operations.tracing.view import View, at_version

_SPANS_MAX = 100_000


def walk(view: View, name: TableName, source: str, position: int) -> tuple[tuple[Hop, ...], Record]:
    """One hop for each table from `name` down to the one that reads the source, then the record itself."""
    hops = []
    while True:
        plan = view.flows[name]
        row = view.at(name, source, position) or _pair(view, plan, source, position)
        hops.append(hop(view, plan, row) if row else Hop(str(name), source, position))
        if isinstance(plan.steps[0], ReadSource):
            return tuple(hops), record(view, plan, source, position, row)
        assert plan.upstream is not None
        name = plan.upstream
        if plan.join is not None and source.startswith(prefix := f"{plan.join.join.table}/"):
            name, source = plan.join.join.table, source.removeprefix(prefix)
        elif plan.join is not None and row:
            source, position = row[JOIN_META[0]], row[JOIN_META[1]]


def hop(view: View, plan: FlowPlan, row: Mapping[str, Any]) -> Hop:
    """What made a row of a row-level table."""
    name = plan.table.name
    written = view.written(name, row["_batch"])
    history = view.entries(name, row["_source"], row["_position"])
    return Hop(
        str(name), row["_source"], row["_position"], row, written, _lookups(view, plan, row, written.pins), history
    )  # fmt: skip


def record(view: View, plan: FlowPlan, source: str, position: int, row: Mapping[str, Any] | None) -> Record:
    """The record that an ingest flow reads, or would read, at a position."""
    batches = [row["_batch"]] if row else []
    batches += [entry.batch for entry in view.entries(plan.table.name, source, position)]
    ranges = [found for batch in batches if (found := _range(view, plan, batch, source, position))]
    last = None if ranges or batches else view.consumed(plan.table.name).get(source)
    if last is not None and last.start <= position < last.end:
        ranges.append(last)
    elif last is not None and position < last.end:  # read, but the plan that did is not known without a row
        ranges.append(SourceRange(source, 0, last.end, {k: v for k, v in last.facts.items() if k == "started_us"}))
    return Origin(view, plan).record(source, position, ranges[0] if ranges else None, row)


def _range(view: View, plan: FlowPlan, batch: int, source: str, position: int) -> SourceRange | None:
    planned = view.planned(plan.table.name, batch)
    ranges = planned.ranges if planned else ()
    return next((r for r in ranges if r.unit == source and r.start <= position < r.end), None)


def _lookups(view: View, plan: FlowPlan, row: Mapping[str, Any], pins: Mapping[str, int]) -> tuple[LookedUp, ...]:
    """The rows that this one was joined with, where it still has the columns that it was joined by."""
    found = []
    if plan.join is not None:
        found.append(_partner(view, plan.join.join, row))
    for step in plan.steps:
        if not isinstance(step, LookUp) or str(step.lookup.table) not in pins:
            continue
        name, version = step.lookup.table, pins[str(step.lookup.table)]
        on = {here: row[here] for here, _ in step.lookup.on if here in row}
        table = view.table(name)
        if len(on) < len(step.lookup.on) or table is None:
            continue
        schema = table.snapshot.metadata.schema
        if any(value is None for value in on.values()):
            found.append(LookedUp(str(name), version, on, None))
            continue
        adds, note = at_version(table, version)
        try:
            tests = [equal(there, row[here], schema[there].type) for here, there in step.lookup.on]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError("lookup columns are of other types now", table=str(name)) from error
        when = step.lookup.as_of
        if when is not None and when not in row:
            continue
        _, rows = view.find(table, tests, adds=adds, limit=1 if when is None else _SPANS_MAX)
        there = next((one for one in rows if when is None or _held(one, row[when])), None)
        shown = {k: v for k, v in there.items() if k not in META_COLUMNS} if there else None
        found.append(LookedUp(str(name), version, on, shown, trace_of(view, name, there) if there else None, note))
    return tuple(found)


def _pair(view: View, plan: FlowPlan, source: str, position: int) -> dict[str, Any] | None:
    """A joined row that was made from a row of either side, by what that is known as in the joining table."""
    table = view.table(plan.table.name)
    if plan.join is None or table is None:
        return None
    prefix = f"{plan.join.join.table}/"
    columns = JOIN_META[2:] if source.startswith(prefix) else JOIN_META[:2]
    asked = zip(columns, (source.removeprefix(prefix), position), (STRING, BIGINT), strict=True)
    _, rows = view.find(table, [equal(column, value, kind) for column, value, kind in asked], limit=1)
    return rows[0] if rows else None


def _partner(view: View, join: Join, row: Mapping[str, Any]) -> LookedUp:
    """The row of the other stream that this one was joined with."""
    source, position = row[JOIN_META[2]], row[JOIN_META[3]]
    on = {here: row[here] for here, _ in join.on if here in row}
    table = view.table(join.table)
    version = table.snapshot.version if table is not None else -1
    there = view.at(join.table, source, position) if source is not None else None
    shown = {k: v for k, v in there.items() if k not in META_COLUMNS} if there else None
    return LookedUp(str(join.table), version, on, shown, trace_of(view, join.table, there) if there else None)


def _held(row: Mapping[str, Any], when: Any) -> bool:
    """Whether a row of a history held at a moment."""
    start, end = row[VALID_FROM], row[VALID_TO]
    return bool(when is not None and start <= when and (end is None or when < end))


def trace_of(view: View, name: TableName, row: Mapping[str, Any]) -> str:
    """What to type to trace a row of any table."""
    if row.get("_source") is not None and row.get("_position") is not None:
        return command(name, f"{row['_source']}:{row['_position']}")
    groups = [one.name for one in view.flows[name].table.group_by] if name in view.flows else []
    names = ["window_start", *groups] if "window_start" in row else [n for n in row if not n.startswith("_")]
    return command(name, pairs(row, names))
