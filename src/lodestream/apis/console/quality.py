"""How rows did by each rule of a table: counts, and how they went over time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lodestream.apis.console.sight import Sight
from lodestream.engines.embedded.history import Batch
from lodestream.model.live import FATES, TableLive
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName

_STEPS = 60
_KEPT = 64
_RULE = "rule:"


class History:
    """The batches of tables, read again when a table has moved on. Safe from any thread.

    Args:
        read: the newest batches of a table.
    """

    def __init__(self, read: Callable[[TableName], Sequence[Batch]]) -> None:
        self._read = read
        self._kept: OrderedDict[TableName, tuple[int, Sequence[Batch]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, one: TableLive) -> Sequence[Batch]:
        """The batches of a table at its version."""
        with self._lock:
            kept = self._kept.get(one.table)
        if kept is not None and kept[0] == one.version:
            return kept[1]
        found = self._read(one.table)
        with self._lock:
            self._kept[one.table] = one.version, found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def summary(flows: Mapping[TableName, FlowPlan], tables: Mapping[TableName, TableLive], sight: Sight) -> dict[str, Any]:
    """One line for each table that takes rows in."""
    lines = []
    for name in sight.tables:
        plan, one = flows.get(name), tables.get(name)
        if one is None or (plan is not None and plan.table.sql is not None):
            continue
        counts = one.counts if name in sight.counted else {}
        failed = {kind[len(_RULE) :]: rows for kind, rows in counts.items() if kind.startswith(_RULE)}
        lines.append({
            "table": str(name), "filtered": name not in sight.counted,
            "rules": len(plan.table.expect) if plan is not None else 0, "failed": failed if counts else None,
            "counts": {kind: counts[kind] for kind in ("input", *FATES) if kind in counts},
            "quarantine_open": one.quarantine_open if name in sight.counted else None,
            "quarantine_visible": name in sight.quarantine,
        })  # fmt: skip
    return {"tables": lines}


def details(plan: FlowPlan | None, one: TableLive, batches: Sequence[Batch]) -> dict[str, Any]:
    """The rules of one table, and steps of time with the rows that broke each."""
    declared = {rule.name: rule for rule in plan.table.expect} if plan is not None else {}
    seen = [kind[len(_RULE) :] for kind in one.counts if kind.startswith(_RULE)]
    given = one.counts.get("input", 0)
    rules = []
    for name in dict.fromkeys([*declared, *seen]):
        rule, failed = declared.get(name), one.counts.get(_RULE + name, 0)
        rules.append({
            "name": name, "that": rule.that if rule else None, "otherwise": rule.otherwise if rule else None,
            "failed": failed, "passed": max(0, given - failed),
        })  # fmt: skip
    counts = {kind: one.counts[kind] for kind in ("input", *FATES, "late_window") if kind in one.counts}
    names = list(dict.fromkeys([*declared, *seen]))
    return {
        "table": str(one.table), "filtered": False, "rules": rules, "counts": counts, "accounted": one.accounted,
        "counted_from": one.counted_from, "series": _series(names, batches),
    }  # fmt: skip


def withheld(plan: FlowPlan | None, name: TableName) -> dict[str, Any]:
    """What somebody may know of a table whose figures they may not see: its rules."""
    declared = plan.table.expect if plan is not None else ()
    rules = [
        {"name": rule.name, "that": rule.that, "otherwise": rule.otherwise, "failed": None, "passed": None}
        for rule in declared
    ]
    return {
        "table": str(name), "filtered": True, "rules": rules, "counts": {}, "accounted": None, "counted_from": None,
        "series": {"t_us": [], "input": [], "rules": {}},
    }  # fmt: skip


def _series(rules: Sequence[str], batches: Sequence[Batch]) -> dict[str, Any]:
    """Counts of the batches in at most sixty steps of equal length."""
    if not batches:
        return {"t_us": [], "input": [], "rules": {rule: [] for rule in rules}}
    first, last = batches[0].time_us, max(batch.time_us for batch in batches)
    step = max(1_000_000, -(-(last - first + 1) // _STEPS))
    number = (last - first) // step + 1
    given = [0] * number
    broken = {rule: [0] * number for rule in rules}
    for batch in batches:
        at = max(0, batch.time_us - first) // step
        given[at] += int(batch.counts.get("input", 0))
        for rule, rows in broken.items():
            rows[at] += int(batch.counts.get(_RULE + rule, 0))
    return {"t_us": [first + i * step for i in range(number)], "input": given, "rules": broken}
