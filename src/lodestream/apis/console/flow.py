"""The graph that rows flow through, from sources to sinks, as far as somebody may know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lodestream.apis.console.overview import Frame
from lodestream.apis.console.sight import Sight
from lodestream.model.steps import FlowPlan, LookUp, ReadSource, RunQuery
from lodestream.model.table import TableName

_SAID = ("topic", "stream", "path", "subject")
"""Settings of a component that tell one from another and are no secret."""


def graph(flows: Mapping[TableName, FlowPlan], sight: Sight, seen: Frame) -> dict[str, Any]:
    """Nodes and edges.

    Args:
        flows: the compiled flows.
        sight: what somebody may know.
        seen: how the tables stand for them.
    """
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []

    def edge(start: str, end: str, kind: str, rate: Any) -> None:
        edges.append({"from": start, "to": end, "kind": kind, "rate_per_s": rate})

    for name in sight.tables:
        entry = seen.tables.get(str(name))
        if entry is None:
            continue
        nodes.append(_node(str(name), "table", name, str(name), entry))
        plan = flows.get(name)
        if plan is None:
            continue
        rate = entry["rate_per_s"]
        for start, kind in _inputs(plan):
            if start in sight.tables:
                edge(str(start), str(name), kind, rate if kind == "stream" else None)
        first = plan.steps[0]
        if isinstance(first, ReadSource):
            label = _label(first.source.name, first.source.settings)
            nodes.append(_node(f"source:{name}", "source", name, label, entry, quarantine=False))
            edge(f"source:{name}", str(name), "source", rate)
        for sink in plan.sinks:
            label = _label(sink.sink.name, sink.sink.settings)
            nodes.append(_node(f"sink:{sink.name}", "sink", name, label, entry, quarantine=False))
            edge(str(name), f"sink:{sink.name}", "sink", None)
    return {"nodes": nodes, "edges": edges}


def _inputs(plan: FlowPlan) -> list[tuple[TableName, str]]:
    found: list[tuple[TableName, str]] = []
    found += [(table, "stream") for table in plan.streams]
    first = plan.steps[0]
    if isinstance(first, RunQuery):
        found += [(name, "query") for name in first.inputs]
    found += [(step.lookup.table, "lookup") for step in plan.steps if isinstance(step, LookUp)]
    return list(dict.fromkeys(found))


def _node(
    identity: str, kind: str, name: TableName, label: str, entry: Mapping[str, Any], *, quarantine: bool = True
) -> dict[str, Any]:
    return {
        "id": identity, "kind": kind, "layer": name.layer, "table": str(name), "label": label, "state": entry["state"],
        "rate_per_s": entry["rate_per_s"], "freshness_s": entry["freshness_s"],
        "quarantine_open": entry["quarantine_open"] if quarantine else None,
        "backlog": entry["backlog"] if quarantine else None,
    }  # fmt: skip


def _label(component: str, settings: Mapping[str, object]) -> str:
    """`kafka orders`: what it is and which one."""
    said = next((str(settings[key]) for key in _SAID if isinstance(settings.get(key), str)), "")
    return f"{component} {said}".strip() if "${" not in said else component
