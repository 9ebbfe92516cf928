"""Walks from a row to the source rows, definition and software that made it, or says why it is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from lodestream.errors import ConfigError
from lodestream.model.steps import Aggregation, FlowPlan, RunQuery
from lodestream.model.table import TableName
from lodestream.operations.tracing.absence import why
from lodestream.operations.tracing.findings import Absence, Hop, Record
from lodestream.operations.tracing.keys import PositionKey, parse_key
from lodestream.operations.tracing.plain import number, plain, safe
from lodestream.operations.tracing.queries import Asked
from lodestream.operations.tracing.query_trace import behind
from lodestream.operations.tracing.rows import trace_of, walk
from lodestream.operations.tracing.search import missing
from lodestream.operations.tracing.view import Opened, View
from lodestream.operations.tracing.window_trace import Answer, by_position, by_values
from lodestream.operations.tracing.windows import Covered

_FOUND_MAX = 10


@dataclass(frozen=True)
class Trace:
    """What is known about one row.

    Attributes:
        table: the table asked.
        key: the key as it was written.
        kind: `rows`, `windows` or `query`: what the table's rows are.
        found: whether the row is in the table.
        matches: how many rows have the key; the first of them is followed.
        hops: the tables on the way, from the one asked down to the one that reads the source.
        windows: windows and what they cover.
        query: the query behind a row of a `sql:` table, and the input rows.
        record: the record in the source.
        absence: why the row, or one of its windows, is not there.
        others: what to type to trace the other rows that have the key.
    """

    table: str
    key: str
    kind: str
    found: bool
    matches: int = 0
    hops: tuple[Hop, ...] = ()
    windows: tuple[Covered, ...] = ()
    query: Asked | None = None
    record: Record | None = None
    absence: Absence | None = None
    others: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The trace as JSON values; `windows` also say whether they agree with what was counted again."""
        told = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        for window, one in zip(self.windows, told["windows"], strict=True):
            one["agrees"] = window.agrees
        return told

    def lines(self) -> list[str]:
        """The trace in lines for people."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        what = "in the table" if self.found else "NOT in the table"
        more = f", {number(self.matches, 'row')} have this key; the first:" if self.matches > 1 else ""
        yield f"{self.table} {safe(self.key)}: {what}{more}"
        if self.absence is not None:
            yield from self.absence.lines()
        for part in self.windows if not self.hops or self.hops[0].row is None else ():
            yield from part.lines()
        for place, one in enumerate(self.hops):
            first, *rest = one.lines()
            yield ("" if place == 0 else "← ") + first
            yield from rest
            if one.row is not None and place == 0:
                for window in self.windows:
                    yield from (f"  {line}" for line in window.lines())
        if self.query is not None:
            yield from self.query.lines()
        if self.record is not None:
            first, *rest = self.record.lines()
            yield "← " + first
            yield from rest
        if self.others:
            yield "others:"
            yield from (f"  {one}" for one in self.others)


def trace(app: Opened, table: str | TableName, key: str) -> Trace:
    """Follow one row, or say why it is not there.

    Args:
        app: an opened project.
        table: `layer.name` of a declared table.
        key: `SOURCE:POSITION` (also of a row that should have come into a window), or `column=value[,column=value…]`.

    Raises:
        ConfigError: no such table or column, or a key of another form.
        CorruptionError: a log, a state or a data file on the way is damaged.
    """
    view = View(app)
    plan = _plan(view, str(table))
    name, stored = plan.table.name, view.table(plan.table.name)
    parsed = parse_key(key, stored.snapshot.metadata.schema if stored else plan.schema, str(name))
    kind = "query" if _is_query(plan) else "windows" if _is_windowed(plan) else "rows"
    if isinstance(parsed, PositionKey):
        if kind == "query":
            fix = f"take values of its columns: {', '.join(plan.schema.names)}"
            raise ConfigError("rows of a sql: table have no positions; write column=value", table=str(name), fix=fix)
        if kind == "windows":
            answer = by_position(view, plan, parsed.source, parsed.position)
            found = any(h.row is not None and h.table == str(name) for h in answer.hops)
            return _windows(
                name, key, answer, matches=sum(w.stored_rows is not None for w in answer.windows) if found else 0
            )
        return _row(view, plan, key, parsed)
    count, rows = view.find(stored, parsed.tests, limit=_FOUND_MAX) if stored else (0, [])
    if kind == "windows":
        return _windows(name, key, by_values(view, plan, parsed.tests, rows), matches=count)
    if kind == "query":
        told = behind(view, plan, parsed.tests, rows[0] if rows else None)
        return Trace(
            str(name), key, kind, bool(rows), count, told.hops, query=told.query, record=told.record,
            absence=told.absence, others=tuple(trace_of(view, name, row) for row in rows[1:]),
        )  # fmt: skip
    if not rows:
        gone = missing(view, name, parsed.tests)
        if gone.absence is not None and gone.absence.reason == "erased":
            return Trace(str(name), key, kind, found=False, absence=gone.absence)
        return Trace(
            str(name), key, kind, found=False, hops=gone.hops, record=gone.record, absence=gone.absence,
            others=gone.others,
        )  # fmt: skip
    followed = _row(view, plan, key, PositionKey(rows[0]["_source"], rows[0]["_position"]))
    others = tuple(trace_of(view, name, row) for row in rows[1:])
    return Trace(
        str(name), key, kind, found=True, matches=count, hops=followed.hops, record=followed.record, others=others
    )  # fmt: skip


def _plan(view: View, text: str) -> FlowPlan:
    names = {str(name): plan for name, plan in view.flows.items()}
    if text in names:
        return names[text]
    near = difflib.get_close_matches(text, names, 1, 0.4)
    fix = "lodestream status lists tables"
    raise ConfigError("no such table", table=text, nearest=near[0] if near else None, fix=fix)


def _is_query(plan: FlowPlan) -> bool:
    return isinstance(plan.steps[0], RunQuery)


def _is_windowed(plan: FlowPlan) -> bool:
    return any(isinstance(step, Aggregation) for step in plan.steps)


def _row(view: View, plan: FlowPlan, key: str, at: PositionKey) -> Trace:
    """A position in a row-level table."""
    name = plan.table.name
    hops, record = walk(view, name, at.source, at.position)
    found = hops[0].row is not None
    absence = None if found else why(view, hops, record, name)
    if absence is not None and absence.reason == "erased":
        return Trace(str(name), key, "rows", found=False, absence=absence)
    return Trace(str(name), key, "rows", found, int(found), hops, record=record, absence=absence)


def _windows(name: TableName, key: str, answer: Answer, *, matches: int) -> Trace:
    if not matches and answer.absence is not None and answer.absence.reason == "erased":
        return Trace(str(name), key, "windows", found=False, absence=answer.absence)
    return Trace(
        str(name), key, "windows", matches > 0, matches, answer.hops, answer.windows, record=answer.record,
        absence=answer.absence, others=answer.others,
    )  # fmt: skip
