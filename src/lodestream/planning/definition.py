"""The canonical form of a table's definition: what the lake remembers of it, and the hash that says it changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lodestream.model.expression import Aggregate, Expression
from lodestream.model.maintenance import MaintenancePolicy
from lodestream.model.steps import Aggregation, ApplyChanges, Derive, Expect, RunQuery, Step
from lodestream.model.table import Component, Table
from lodestream.model.types import Schema
from lodestream.project.components import component_class

UNDECIDING = ("comment", "maintain", "retention", "schedule", "engine", "sink")
"""Keys that decide no row."""


def declaration(table: Table, steps: Sequence[Step], schema: Schema) -> dict[str, Any]:
    """The table as plain JSON values, defaults left out, expressions in their canonical text.

    `schema` are the columns that others see; a table whose source may drift has only its declared ones in here.
    """
    texts = _texts(steps)
    found: dict[str, Any] = {"comment": table.comment, "retention": table.retention_us, "engine": table.engine}
    if table.source is not None:
        found |= {"source": _component("sources", table.source)}
        found |= {"format": _component("formats", table.format) if table.format else None}
        found |= {"keep_raw": table.keep_raw, "drift": None if table.drift == "quarantine" else table.drift}
    if table.columns is not None:
        found["columns"] = [[c.name, str(c.type)] for c in table.columns]
        found["comments"] = {c.name: c.comment for c in table.columns if c.comment}
    found["from"] = str(table.from_) if table.from_ else None
    found["select"] = list(table.select)
    for key, named in (("derive", table.derive), ("group_by", table.group_by), ("measures", table.measures)):
        found[key] = [[one.name, texts.get((key, one.name), one.text)] for one in named]
    found["expect"] = [[r.name, texts.get(("expect", r.name), r.that), r.otherwise] for r in table.expect]
    if table.event_time is not None:
        found["event_time"] = {"column": table.event_time.column, "delay": table.event_time.delay_us}
    if table.dedup is not None:
        found["dedup"] = {"keys": list(table.dedup.keys), "within": table.dedup.within_us}
    found["enrich"] = [
        {
            "table": str(one.table),
            "on": [list(pair) for pair in one.on],
            "columns": [list(pair) for pair in one.columns],
            **({"as_of": one.as_of} if one.as_of is not None else {}),
        }
        for one in table.lookups
    ] + [_component("enrichers", one) for one in table.enrichers]
    if table.join is not None:
        found["join"] = {
            "table": str(table.join.table), "kind": table.join.kind, "on": [list(pair) for pair in table.join.on],
            "event_time": {"column": table.join.event_time.column, "delay": table.join.event_time.delay_us},
            "within": [table.join.low_us, table.join.high_us],
            "columns": [list(pair) for pair in table.join.columns],
        }  # fmt: skip
    found["python"] = table.python.function if table.python else None
    if table.window is not None:
        sizes = asdict(table.window).items()
        found["window"] = {key.removesuffix("_us"): value for key, value in sizes}
        found["emit"] = table.emit
        found["completeness"] = table.completeness
        found["late"] = None if table.late == "quarantine" else table.late
    if table.changes is not None:
        found["changes"] = {
            "keys": list(table.changes.keys),
            "sequence_by": list(table.changes.sequence_by),
            "delete_when": texts.get(("changes", "delete_when"), table.changes.delete_when),
            "type": 2 if table.changes.history else 1,
        }
    found["sql"] = texts.get(("sql", ""), table.sql)
    found["schedule"] = table.schedule
    found["partition_by"] = list(table.partition_by)
    found["maintain"] = _maintain(table)
    found["sink"] = [_component("sinks", sink) for sink in table.sinks]
    if table.source is None or (table.columns is None and table.drift in ("quarantine", "stop")):
        found["schema"] = [[c.name, str(c.type)] for c in schema]
    if table.engine == "any":
        del found["engine"]
    return {key: value for key, value in found.items() if value not in (None, "", [], {}, False)}


def _maintain(table: Table) -> dict[str, Any]:
    """What differs from the defaults."""
    plain = asdict(MaintenancePolicy())
    told = {key: value for key, value in asdict(table.maintenance).items() if value != plain[key]}
    return {key.removesuffix("_us"): list(value) if isinstance(value, tuple) else value for key, value in told.items()}


def canonical(values: Mapping[str, Any]) -> str:
    """One line of JSON, keys sorted."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest(values: Mapping[str, Any]) -> str:
    """16 hex digits over all of a declaration that decides rows."""
    deciding = {key: value for key, value in values.items() if key not in (*UNDECIDING, "comments")}
    return hashlib.sha256(canonical(deciding).encode()).hexdigest()[:16]


def _component(room: str, component: Component) -> dict[str, Any]:
    """A component with those of its settings that decide rows; addresses and logins do not, and are not stored."""
    known = component_class(room, component.name)
    undeciding = getattr(known.settings, "undeciding", ()) if known is not None else ()
    return {component.name: {key: value for key, value in component.settings.items() if key not in undeciding}}


def _texts(steps: Sequence[Step]) -> dict[tuple[str, str], str]:
    """Canonical texts of the compiled expressions by (key, name)."""
    found: dict[tuple[str, str], str] = {}

    def note(key: str, pairs: Sequence[tuple[str, Expression | Aggregate]]) -> None:
        found.update({(key, name): compiled.text for name, compiled in pairs})

    for step in steps:
        if isinstance(step, Derive):
            note("derive", step.columns)
        elif isinstance(step, Expect):
            note("expect", [(rule.name, rule.condition) for rule in step.rules])
        elif isinstance(step, Aggregation):
            note("group_by", step.group_by)
            note("measures", step.measures)
        elif isinstance(step, ApplyChanges) and step.delete_when is not None:
            note("changes", [("delete_when", step.delete_when)])
        elif isinstance(step, RunQuery):
            found["sql", ""] = step.text
    return found
