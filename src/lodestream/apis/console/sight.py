"""What of the lake's tables somebody may know: names, figures, rows that were set aside."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lodestream.errors import AccessError
from lodestream.lake.layout import quarantine_name
from lodestream.model.access import Principal
from lodestream.model.live import LiveLake, TableLive
from lodestream.model.steps import FlowPlan, RunQuery
from lodestream.model.table import TableName
from lodestream.ports.authority import Authority

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Sight:
    """What one principal may know; equal for all who may know the same.

    Attributes:
        tables: those that they know of, in the order of their names.
        counted: those of them whose figures they may see. Figures of a table are made from all of its rows, so they
            are withheld where a row filter binds, on the table or on one that it is computed from.
        whole: those of which they see every value.
        quarantine: those whose rows that were set aside they may see.
    """

    tables: tuple[TableName, ...] = ()
    counted: frozenset[TableName] = frozenset()
    whole: frozenset[TableName] = frozenset()
    quarantine: frozenset[TableName] = frozenset()


class Sights:
    """Finds out what principals may know, once for each change of the catalog and of the tables. From any thread.

    Args:
        authority: who may see what.
        live: the tables.
        flows: what each is computed from.
    """

    def __init__(self, authority: Authority, live: LiveLake, flows: Mapping[TableName, FlowPlan]) -> None:
        self._authority, self._live = authority, live
        self._inputs = {name: _inputs(plan) for name, plan in flows.items()}
        self._found: OrderedDict[object, tuple[object, Sight]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, principal: Principal) -> Sight:
        """What somebody may know now."""
        tables = self._live.tables()
        who = (
            principal.name, principal.kind, principal.groups, tuple(sorted(principal.attributes.items())),
            principal.scopes,
        )  # fmt: skip
        mark = self._authority.version(), tuple((name, one.schema) for name, one in tables.items())
        with self._lock:
            found = self._found.get(who)
            if found is not None and found[0] == mark:
                self._found.move_to_end(who)
                return found[1]
        sight = self._look(principal, tables)
        with self._lock:
            self._found[who] = mark, sight
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return sight

    def _look(self, principal: Principal, tables: Mapping[TableName, TableLive]) -> Sight:
        visible = self._authority.visible(principal, tables)
        unfiltered, whole, readable = set(), set(), set()
        for name, one in tables.items():
            try:
                access = self._authority.access(principal, name, one.schema)
            except AccessError:
                continue
            readable.add(name)
            if not access.filters:
                unfiltered.add(name)
            if access.whole and len(access.columns) == len(one.schema):
                whole.add(name)
        filtered = readable - unfiltered
        counted = {
            name
            for name in visible
            if name in unfiltered and not filtered & self._upstream(name)
            and not self._authority.filtered(principal, name)
        }  # fmt: skip
        aside = [quarantine_name(name) for name in tables]
        seen = set(self._authority.visible(principal, aside))
        return Sight(
            tuple(sorted(visible)), frozenset(counted), frozenset(whole & set(visible)),
            frozenset(name for name in visible if quarantine_name(name) in seen and self._aside(principal, name)),
        )  # fmt: skip

    def _aside(self, principal: Principal, name: TableName) -> bool:
        return "quarantine" in self._authority.privileges(principal, name)

    def _upstream(self, name: TableName) -> set[TableName]:
        """All tables that one is computed from."""
        found: set[TableName] = set()
        waiting = [name]
        while waiting:
            for one in self._inputs.get(waiting.pop(), ()):
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        return found


def _inputs(plan: FlowPlan) -> tuple[TableName, ...]:
    first = plan.steps[0]
    read: Iterable[TableName] = first.inputs if isinstance(first, RunQuery) else ()
    return (*read, *plan.streams)
