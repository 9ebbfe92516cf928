"""Reads the blocks of a table that name columns of other blocks: event time, dedup, lookups, windows."""

from __future__ import annotations

from lodestream.model.project import Path
from lodestream.model.table import Changes, Component, Dedup, EventTime, Lookup, Session, Window
from lodestream.ports import plugins
from lodestream.project.components import read_component
from lodestream.project.fields import Fields, column_name, texts, wrong_kind
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node


def read_event_time(node: Node, mistakes: Mistakes) -> EventTime | None:
    """`{column: ordered_at, delay: 30 seconds}`."""
    fields = Fields(node, ("column", "delay"), mistakes, "event_time")
    complete = fields.need("column", "delay")
    column, delay = fields.text("column"), fields.duration("delay", zero=True)
    return EventTime(column, delay) if complete and column is not None and delay is not None else None


def read_dedup(node: Node, mistakes: Mistakes) -> Dedup | None:
    """`{keys: [order_id], within: 1 hour}`."""
    fields = Fields(node, ("keys", "within"), mistakes, "dedup")
    complete = fields.need("keys")
    keys, within = distinct(fields.strings("keys"), mistakes, "dedup keys"), fields.duration("within")
    if "keys" in fields and isinstance(fields.nodes["keys"].value, list) and not fields.nodes["keys"].value:
        mistakes.add(fields.place("keys"), "D104", "keys must be a list of at least one column")
    return Dedup(keys, within) if complete and keys else None


def read_changes(node: Node, mistakes: Mistakes) -> Changes | None:
    """`{keys: [customer_id], sequence_by: changed_at, delete_when: op = 'd', type: 1}`."""
    fields = Fields(node, ("keys", "sequence_by", "delete_when", "type"), mistakes, "changes")
    complete = fields.need("keys", "sequence_by")
    keys = distinct(fields.strings("keys"), mistakes, "changes keys")
    if "keys" in fields and isinstance(fields.nodes["keys"].value, list) and not fields.nodes["keys"].value:
        mistakes.add(fields.place("keys"), "D104", "keys must be a list of at least one column")
    sequence = fields.nodes.get("sequence_by")
    by: tuple[str, ...] = ()
    if sequence is not None and isinstance(sequence.value, str):
        by = (sequence.value,)
    elif sequence is not None and isinstance(sequence.value, list) and sequence.value:
        by = distinct(list(texts(mistakes, sequence.value, "sequence_by")), mistakes, "sequence_by")
    elif sequence is not None:
        wrong_kind(mistakes, sequence, "sequence_by", "a column or a list of columns")
    delete_when = fields.expression("delete_when")
    written = fields.nodes.get("type")
    if written is not None and written.text not in ("1", "2"):
        fix = "write 1 for one row per key, 2 for its history"
        mistakes.add(written.place, "D106", "type must be 1 or 2", key="type", value=written.text or None, fix=fix)
        complete = False
    history = written is not None and written.text == "2"
    if history and len(by) > 1:
        fix = "name one column: valid_from and valid_to hold its values"
        mistakes.add(fields.place("sequence_by"), "D106", "history is kept by one column", key="sequence_by", fix=fix)
        return None
    if "delete_when" in fields and delete_when is None:
        return None
    return Changes(keys, by, delete_when, history) if complete and keys and by else None


def read_window(node: Node, mistakes: Mistakes) -> Window | Session | None:
    """`{every: 1 minute, slide: 10 seconds}` or `{gap: 30 minutes}`."""
    fields = Fields(node, ("every", "slide", "gap"), mistakes, "window")
    if "gap" in fields:
        gap = fields.duration("gap")
        for key in ("every", "slide"):
            if key in fields:
                fix = f"keep gap: for sessions, as long as their rows make them, or {key}: for windows of one length"
                mistakes.add(fields.place(key), "D207", f"{key} together with gap", key=key, fix=fix)
                return None
        return None if gap is None else Session(gap)
    fields.need("every")
    every, slide = fields.duration("every"), fields.duration("slide")
    if every is not None and slide is not None and slide > every:
        fix = "rows between two windows would be lost: let slide be at most every"
        mistakes.add(fields.place("slide"), "D106", "slide is longer than every", key="slide", fix=fix)
        return None
    return None if every is None else Window(every, None if slide == every else slide)


def read_lookups(node: Node, mistakes: Mistakes) -> list[tuple[Lookup | None, set[str], Path]]:
    """The lookups of `enrich`, each with the columns it was meant to add and its path; None for a broken one."""
    found: list[tuple[Lookup | None, set[str], Path]] = []
    for block, path in _enrich_blocks(node):
        fields = Fields(block, ("lookup", *plugins.names("enrichers")), mistakes, "enrich")
        if not fields.nodes and not fields.meant:
            fields.need("lookup")
        inner = fields.nodes.get("lookup")
        if inner is None:
            continue
        if isinstance(inner.value, list):
            found += [(*_lookup(item, mistakes), (*path, "lookup", i)) for i, item in enumerate(inner.value)]
        else:
            found.append((*_lookup(inner, mistakes), (*path, "lookup")))
    return found


def _enrich_blocks(node: Node) -> list[tuple[Node, Path]]:
    if isinstance(node.value, list):
        return [(item, ("enrich", i)) for i, item in enumerate(node.value)]
    return [(node, ("enrich",))]


def read_enrichers(node: Node, mistakes: Mistakes) -> list[tuple[Component | None, Path]]:
    """The other enrichers of `enrich`, in the order they are written, each with its path; None for a broken one."""
    known = plugins.names("enrichers")
    return [
        (read_component(Node(block.place, {name: inner}, keys={name: block.keys[name]}), "enrichers", mistakes), path)
        for block, path in _enrich_blocks(node)
        if isinstance(block.value, dict)
        for name, inner in block.value.items()
        if name in known
    ]


def _lookup(node: Node, mistakes: Mistakes) -> tuple[Lookup | None, set[str]]:
    keys = ("table", "on", "columns")
    fields = Fields(node, (*keys, "as_of"), mistakes, "lookup")
    complete = fields.need(*keys)
    table, as_of = fields.table("table"), fields.text("as_of")
    complete = complete and ("as_of" not in fields or as_of is not None)
    on = pairs(fields, "on", mistakes)
    columns = pairs(fields, "columns", mistakes)
    good = [column_name(mistakes, fields.place("columns"), here, strict=False) for _, here in columns]
    made = complete and table is not None and on and columns and all(good)
    return (Lookup(table, on, columns, as_of) if made and table else None), {here for _, here in columns}


def pairs(fields: Fields, key: str, mistakes: Mistakes) -> tuple[tuple[str, str], ...]:
    """`a`, `[a, b]` or `{a: x}` as pairs."""
    node = fields.nodes.get(key)
    if node is None:
        return ()
    if isinstance(node.value, str):
        return ((node.value, node.value),)
    if isinstance(node.value, list) and node.value:
        return tuple((name, name) for name in distinct(list(texts(mistakes, node.value, key)), mistakes, key))
    if isinstance(node.value, dict) and node.value:
        found = []
        for left, right in node.value.items():
            if isinstance(right.value, str):
                found.append((left, right.value))
            else:
                wrong_kind(mistakes, right, f"{key}.{left}", "text")
        return tuple(found)
    wrong_kind(mistakes, node, key, "a column, a list of columns, or {one: other}")
    return ()


def distinct(items: list[tuple[str, Node]], mistakes: Mistakes, what: str) -> tuple[str, ...]:
    """The names, each once; repeated ones are noted."""
    seen: dict[str, None] = {}
    for name, node in items:
        if name in seen:
            mistakes.add(node.place, "D113", f"column twice in {what}", column=name)
        seen[name] = None
    return tuple(seen)
