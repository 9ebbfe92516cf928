"""Brings the catalog in line with what a project declares, and says beforehand what would differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lodestream.catalog import store
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.entries import POLICY_KINDS, declared
from lodestream.catalog.store import Entry
from lodestream.model.policy import Policies
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.planning.explain import column_origins
from lodestream.ports.authority import Event
from lodestream.project.policies import POLICY_FILE

ORIGIN = POLICY_FILE
FLOWS = "tables"
"""Origin of the entries that say what each table is computed from."""

_VIA = "file"
_WORDS = {
    "user": "user", "grant": "grant", "row_filter": "row filter", "mask": "mask", "tag": "tag",
    "tag_policy": "tag policy", "declassified": "declassified",
}  # fmt: skip


def declare(catalog: Catalog, policies: Policies, flows: Mapping[TableName, FlowPlan], *, door: str) -> list[str]:
    """Put what a project declares in the place of what it declared before; what others said at run time stays.

    Args:
        catalog: of the project's lake.
        policies: of `policies.yaml`, without mistakes.
        flows: compiled plans of all tables; tags follow them.
        door: where the program that declares was started, for the record.

    Returns:
        A line for each policy that differed.

    Raises:
        TransientError: the catalog cannot be written; nothing has changed.
    """
    _declare_flows(catalog, flows, door)
    new = declared(policies, origin=ORIGIN, who=ORIGIN, at_us=0)
    lines = differences(catalog.entries(*POLICY_KINDS), policies)
    event = Event(ORIGIN, _VIA, door, "declare", "allowed", (ORIGIN,), detail=MappingProxyType(_told(lines)))
    catalog.declare(ORIGIN, new, event)
    return lines


def differences(kept: Iterable[Entry], policies: Policies) -> list[str]:
    """What declaring policies would change in a catalog, a line each; new first, then changed, then gone."""
    old = {(e.kind, e.name): dict(e.body) for e in kept if e.origin == ORIGIN}
    new = {(e.kind, e.name): dict(e.body) for e in declared(policies, origin=ORIGIN, who=ORIGIN, at_us=0)}
    lines = [f"{_WORDS[kind]} {name}: new" for kind, name in new if (kind, name) not in old]
    for key, body in new.items():
        if key in old and old[key] != body:
            changed = [f"{what}: {_text(old[key].get(what))} → {_text(body[what])}" for what in body
                       if old[key].get(what) != body[what]]  # fmt: skip
            lines.append(f"{_WORDS[key[0]]} {key[1]}: {'; '.join(changed)}")
    return lines + [f"{_WORDS[kind]} {name}: gone" for kind, name in old if (kind, name) not in new]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def _told(lines: Sequence[str]) -> dict[str, str]:
    return {"changes": "; ".join(lines)[:4000]}


def _declare_flows(catalog: Catalog, flows: Mapping[TableName, FlowPlan], door: str) -> None:
    """Note what each table is computed from.

    Nothing is forgotten: older versions of a table hold what an older definition put into them, and a table that is no
    longer declared keeps its rows. So a column stays as closed as any of its definitions made it.
    """
    old = {entry.name: entry.body for entry in catalog.entries("flow")}
    changed = [e for e in _flow_entries(flows, old) if dict(old.get(e.name, {})) != dict(e.body)]
    if not changed:
        return
    event = Event(ORIGIN, _VIA, door, "declare", "allowed", tuple(e.name for e in changed))
    with catalog.changing(event) as (rows, at):
        for entry in changed:
            store.put(rows, Entry(entry.kind, entry.name, entry.body, FLOWS, FLOWS, at))


def _flow_entries(flows: Mapping[TableName, FlowPlan], old: Mapping[str, Mapping[str, Any]]) -> Iterator[Entry]:
    for name, plan in flows.items():
        before = old.get(str(name), {"columns": {}, "inputs": [], "gone": {}})
        earlier = {**before.get("gone", {}), **before["columns"]}
        columns = {}
        for column, origins in column_origins(plan).items():
            cells = {(str(table), source) for table, source in origins}
            cells |= {(table, source) for table, source in earlier.pop(column, ())}
            columns[column] = sorted([list(cell) for cell in cells])
        above = {str(table) for table in (*plan.streams, *plan.waits_for)}
        body = {"columns": columns, "inputs": sorted(above | set(before["inputs"])), "gone": earlier}
        yield Entry("flow", str(name), body, FLOWS)
