"""Reads `join`: another stream, its event time, which rows meet and what comes over."""

from __future__ import annotations

from lodestream.model.table import Join
from lodestream.project.fields import Fields, column_name
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node
from lodestream.project.steps import pairs, read_event_time

KINDS = ("inner", "left")


def read_join(node: Node, mistakes: Mistakes) -> tuple[Join | None, set[str]]:
    """The join, or None for a broken one; and the columns that it was meant to add.

    `{from: stream(silver.payments), on: order_id, event_time: {…}, within: {after: 1 hour}, columns: [amount]}`.
    """
    needed = ("from", "on", "event_time", "within", "columns")
    fields = Fields(node, ("kind", *needed), mistakes, "join")
    complete = fields.need(*needed)
    table, kind = fields.stream("from"), fields.choice("kind", KINDS)
    on, columns = pairs(fields, "on", mistakes), pairs(fields, "columns", mistakes)
    good = [column_name(mistakes, fields.place("columns"), here, strict=False) for _, here in columns]
    time = read_event_time(fields.nodes["event_time"], mistakes) if "event_time" in fields else None
    span = _span(fields.nodes["within"], mistakes) if "within" in fields else None
    broken = ("kind" in fields and kind is None) or not (complete and all(good) and on and columns)
    if broken or table is None or time is None or span is None:
        return None, {here for _, here in columns}
    return Join(table, "left" if kind == "left" else "inner", on, time, *span, columns), set()


def _span(node: Node, mistakes: Mistakes) -> tuple[int, int] | None:
    """`{before: 5 minutes, after: 1 hour}` as least and greatest difference in microseconds; one of them may lack."""
    fields = Fields(node, ("before", "after"), mistakes, "within")
    before, after = fields.duration("before", zero=True), fields.duration("after", zero=True)
    if any(key in fields and found is None for key, found in (("before", before), ("after", after))):
        return None
    if before is None and after is None:
        if isinstance(node.value, dict) and not fields.meant:
            fix = "say how long before and after a row its partner may be: within: {before: 5 minutes, after: 1 hour}"
            mistakes.add(node.place, "D105", "missing key in within", key="after", fix=fix)
        return None
    return -(before or 0), after or 0
