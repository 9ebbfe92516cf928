"""What would change in the lake: declared plans against deployed tables, in lines that a person accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lodestream.model.maintenance import FOREVER
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.planning.compile import Plans
from lodestream.planning.evolve import Evolution, evolution
from lodestream.planning.words import duration_text

Kind = Literal["create", "alter_metadata", "alter_forward", "rewrite", "refresh", "rebuild", "drop"]
_RANK: tuple[Kind, ...] = ("alter_metadata", "alter_forward", "rewrite", "refresh", "rebuild")
_METADATA = ("comment", "comments", "maintain", "retention", "sink")
_FORWARD = ("expect", "format", "schedule", "drift", "engine")
_FOLLOWED: frozenset[Kind] = frozenset({"alter_metadata", "alter_forward"})
_NAMED = ("derive", "expect", "group_by", "measures", "columns")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A table as it stands in the lake.

    Attributes:
        definition_json: `FlowPlan.declaration` of the plan that made it, `{}` when not known.
        schema: stored columns.
        hash: `FlowPlan.definition` of that plan.
        epoch: its rebuild generation.
        version: its Delta version.
    """

    definition_json: str
    schema: Schema
    hash: str
    epoch: int = 1
    version: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one table.

    Attributes:
        table: which.
        kind: `create`; `alter_metadata` (no row is touched); `alter_forward` (new rows only); `rewrite` (columns are
            renamed, widened or dropped, and the files written again); `refresh` (the query runs again); `rebuild` (a
            new epoch takes all rows in again); `drop` (no longer declared; never done by itself).
        lines: what differs, old → new.
        definition: hash of the plan that it leads to; empty for a drop.
        evolution: of a `rewrite`, how the columns change.
    """

    table: TableName
    kind: Kind
    lines: tuple[str, ...]
    definition: str = ""
    evolution: Evolution | None = None

    @property
    def must_be_accepted(self) -> bool:
        """Whether somebody has to agree: all rows are taken in again, or a column goes with what it holds."""
        return self.kind == "rebuild" or (self.evolution is not None and bool(self.evolution.dropped))


def diff(plans: Plans, lake: Mapping[TableName, Deployed]) -> list[Change]:
    """The changes from `lake` to `plans`, inputs before their readers, drops last; no change gives no item."""
    found: list[Change] = []
    rebuilt: set[TableName] = set()
    for name, plan in plans.flows.items():
        deployed = lake.get(name)
        if deployed is None:
            found.append(Change(name, "create", (_summary(plan),), plan.definition))
            continue
        kind, lines, evolved = _compare(plan, deployed)
        if plan.upstream in rebuilt:
            kind = "rebuild"
            lines = (*lines, f"from: {plan.upstream} is rebuilt")
        if kind is None:
            continue
        if kind == "rebuild":
            rebuilt.add(name)
        found.append(Change(name, kind, lines, plan.definition, evolved if kind == "rewrite" else None))
    found += [
        Change(name, "drop", ("no longer declared; its files stay until somebody drops the table",))
        for name in sorted(lake)
        if name not in plans.flows
    ]
    return found


def accept_hash(changes: Iterable[Change]) -> str:
    """12 hex digits over all changes; the same changes give the same hash on every machine."""
    told = [[str(c.table), c.kind, list(c.lines), c.definition] for c in changes]
    return hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()[:12]


def _summary(plan: FlowPlan) -> str:
    first = plan.steps[0]
    if plan.upstream is not None:
        origin = f"from {plan.upstream}"
    elif isinstance(first, ReadSource):
        origin = f"from source {first.source.name}"
    else:
        origin = "from a query over " + (", ".join(str(name) for name in plan.waits_for) or "nothing")
    out = "".join(f", published to {sink.name.sink}" for sink in plan.sinks)
    return f"new table {origin}, {len(plan.schema)} columns{out}"


def _compare(plan: FlowPlan, deployed: Deployed) -> tuple[Kind | None, tuple[str, ...], Evolution | None]:
    old: dict[str, Any] = json.loads(deployed.definition_json)
    new: dict[str, Any] = json.loads(plan.declaration)
    columns, grown_only = _columns(deployed.schema, plan.schema)
    if not old:
        if deployed.hash == plan.definition and not columns:
            return None, (), None
        return "rebuild", ("the lake does not say what made this table", *columns), None
    lines: list[str] = []
    kinds: set[Kind] = set()
    differing = [key for key in sorted({*old, *new} - {"schema"}) if old.get(key) != new.get(key)]
    evolved = evolution(plan, deployed.schema) if columns else None
    if evolved is not None and all(key == "columns" or _kind(key, old, new) in _FOLLOWED for key in differing):
        lines = [line for key in differing if key != "columns" for line in _lines(key, old.get(key), new.get(key))]
        lines += evolved.lines(deployed.schema, plan.schema)
        return ("rewrite" if evolved.rewrites else "alter_forward"), tuple(lines), evolved
    for key in differing:
        kinds.add(_kind(key, old, new))
        lines += _lines(key, old.get(key), new.get(key))
    if columns:
        lines += columns
        if "sql" in new and "sql" in old:
            kinds.add("refresh")
        elif grown_only and not kinds - {"alter_metadata", "alter_forward"}:
            kinds.add("alter_forward")  # the source of the table above has drifted: older rows have NULL
        else:
            kinds.add("rebuild")
    return max(kinds, key=_RANK.index, default=None), tuple(lines), None


def _kind(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Kind:
    if key in _METADATA:
        return "alter_metadata"
    if key in _FORWARD:
        return "alter_forward"
    if key == "source" and key in old and key in new and old[key].keys() == new[key].keys():
        return "alter_forward"
    return "refresh" if key == "sql" and key in old and key in new else "rebuild"


def _lines(key: str, old: Any, new: Any) -> list[str]:
    """What differs under one key."""
    if key in _NAMED:
        before, after = _by_name(old), _by_name(new)
        if list(before) != list(after) and before == after:
            return [f"{key}: in another order"]
        names = list(dict.fromkeys((*before, *after)))
        return [_line(f"{key}.{n}", before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]
    if key == "comments":
        return ["columns: comments differ"]
    if key == "source" and old is not None and new is not None and old.keys() == new.keys():
        ((name, before),), (after,) = old.items(), new.values()
        names = list(dict.fromkeys((*before, *after)))
        return [
            _line(f"source.{name}.{n}", before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)
        ]
    if key == "sink":
        was, now = ([_text(sink) for sink in sinks or ()] for sinks in (old, new))
        added = [_line("sink", None, sink) for sink in now if sink not in was]
        return added + [_line("sink", sink, None) for sink in was if sink not in now]
    if key == "retention":
        return [_line(key, *(_kept(value) for value in (old, new)))]
    if key == "maintain":
        before, after = old or {}, new or {}
        names = [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]
        return [_line(f"maintain.{n}", _timed(n, before.get(n)), _timed(n, after.get(n))) for n in names]
    if key in ("event_time", "dedup", "window") and old is not None and new is not None:
        names = [n for n in dict.fromkeys((*old, *new)) if old.get(n) != new.get(n)]
        return [_line(f"{key}.{n}", _timed(n, old.get(n)), _timed(n, new.get(n))) for n in names]
    return [_line(key, old, new)]


def _kept(retention_us: int | None) -> str | None:
    if retention_us is None:
        return None
    return "forever" if retention_us == FOREVER else duration_text(retention_us)


def _by_name(value: Sequence[Sequence[str]] | None) -> dict[str, str]:
    return {row[0]: " else ".join(row[1:]) for row in value or ()}


def _timed(name: str, value: Any) -> Any:
    if name == "quarantine_retention":
        return _kept(value)
    timed = ("delay", "within", "every", "slide", "log_retention", "deleted_file_retention")
    return duration_text(value) if name in timed and value is not None else value


def _line(what: str, old: Any, new: Any) -> str:
    if old is None:
        return f"{what}: new, {_text(new)}"
    if new is None:
        return f"{what}: gone, was {_text(old)}"
    return f"{what}: {_text(old)} → {_text(new)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _columns(old: Schema, new: Schema) -> tuple[list[str], bool]:
    """Lines for columns that differ in name or type, and whether columns were only added."""
    lines: list[str] = []
    grown_only = True
    for column in old:
        now = new.get(column.name)
        if now is None:
            lines.append(f"column {column.name}: gone, was {column.type}")
            grown_only = False
        elif now.type != column.type:
            lines.append(f"column {column.name}: {column.type} → {now.type}")
            grown_only = False
    lines += [f"column {column.name}: new, {column.type}" for column in new if column.name not in old]
    return lines, grown_only
