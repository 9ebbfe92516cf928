"""All grants and policies at one change of the catalog, arranged by what a decision asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestream.catalog.entries import POLICY_KINDS, policy
from lodestream.catalog.store import Entry
from lodestream.model.access import Privilege
from lodestream.model.policy import Declassified, Grant, Mask, RowFilter, Tagged, TagPolicy, User
from lodestream.model.table import TableName

STATE_KINDS = (*POLICY_KINDS, "flow")
"""Kinds of entries that decisions depend on."""

Cell = tuple[TableName, str]
"""A column of a table."""


@dataclass(frozen=True)
class State:
    """Grants and policies as they stood at one change.

    Attributes:
        version: number of that change.
        users: local users by name.
        disabled: names that are refused everywhere.
        grants: what a user or `group:name` has: pairs of a privilege and a table, a layer or `*`.
        filters: row filters by table.
        masks: masks by table and column.
        tags: tags by table and column; of a whole table under the column None.
        inherited: tags that columns have because of the columns that they are computed from.
        tag_policies: by tag.
        above: for each table all those whose rows went into it.
        within: columns by table and by column of the same table that is computed from them.
        known: the columns of a table as it is defined now; no item where nobody has said.
    """

    version: int = 0
    users: Mapping[str, User] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    grants: Mapping[str, frozenset[tuple[Privilege, str]]] = field(default_factory=dict)
    filters: Mapping[TableName, tuple[RowFilter, ...]] = field(default_factory=dict)
    masks: Mapping[TableName, Mapping[str, tuple[Mask, ...]]] = field(default_factory=dict)
    tags: Mapping[TableName, Mapping[str | None, frozenset[str]]] = field(default_factory=dict)
    inherited: Mapping[TableName, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    tag_policies: Mapping[str, tuple[TagPolicy, ...]] = field(default_factory=dict)
    above: Mapping[TableName, frozenset[TableName]] = field(default_factory=dict)
    within: Mapping[TableName, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    known: Mapping[TableName, frozenset[str]] = field(default_factory=dict)

    def tags_of(self, table: TableName, column: str) -> frozenset[str]:
        """The tags of a column, its table's and inherited ones included."""
        own, inherited = self.tags.get(table, {}), self.inherited.get(table, {})
        return own.get(column, frozenset()) | own.get(None, frozenset()) | inherited.get(column, frozenset())

    def tagged(self, table: TableName) -> frozenset[str]:
        """The tags of any column of a table."""
        found: frozenset[str] = frozenset().union(*self.tags.get(table, {}).values())
        return found.union(*self.inherited.get(table, {}).values())


def arrange(version: int, kept: Iterable[Entry]) -> State:
    """The state that entries of `STATE_KINDS` make up.

    Where a file and a person name the same user, the file says who they are, and either may disable them.
    """
    users: dict[str, User] = {}
    disabled: set[str] = set()
    grants: dict[str, set[tuple[Privilege, str]]] = {}
    filters: dict[TableName, list[RowFilter]] = {}
    masks: dict[TableName, dict[str, list[Mask]]] = {}
    tags: dict[TableName, dict[str | None, set[str]]] = {}
    cleared: dict[tuple[TableName, str | None], set[str]] = {}
    tag_policies: dict[str, list[TagPolicy]] = {}
    flows: dict[TableName, Mapping[str, Any]] = {}
    for one in sorted(kept, key=lambda found: found.origin):  # what is declared comes last and so wins
        if one.kind == "flow":
            flows[TableName.parse(one.name)] = one.body
            continue
        found = policy(one)
        if isinstance(found, User):
            users[found.name] = found
            disabled |= {found.name} if found.disabled else set()
        elif isinstance(found, Grant):
            grants.setdefault(found.to, set()).add((found.privilege, found.on))
        elif isinstance(found, RowFilter):
            for table in found.on:
                filters.setdefault(table, []).append(found)
        elif isinstance(found, Mask):
            for table, column in found.on:
                masks.setdefault(table, {}).setdefault(column, []).append(found)
        elif isinstance(found, Tagged):
            tags.setdefault(found.table, {}).setdefault(found.column, set()).add(found.tag)
        elif isinstance(found, Declassified):
            cleared.setdefault((found.table, found.column), set()).add(found.tag)
        else:
            tag_policies.setdefault(found.tag, []).append(found)
    plain = {table: {column: frozenset(names) for column, names in by.items()} for table, by in tags.items()}
    return State(
        version=version,
        users=users,
        disabled=frozenset(disabled),
        grants={to: frozenset(given) for to, given in grants.items()},
        filters={table: tuple(some) for table, some in filters.items()},
        masks={table: {column: tuple(some) for column, some in by.items()} for table, by in masks.items()},
        tags=plain,
        inherited=_inherited(plain, flows, cleared),
        tag_policies={tag: tuple(some) for tag, some in tag_policies.items()},
        above=_above(flows),
        within={table: _within(table, body) for table, body in flows.items()},
        known={table: frozenset(body["columns"]) for table, body in flows.items()},
    )


def _inherited(
    tags: Mapping[TableName, Mapping[str | None, frozenset[str]]],
    flows: Mapping[TableName, Mapping[str, Any]],
    cleared: Mapping[tuple[TableName, str | None], set[str]],
) -> dict[TableName, dict[str, frozenset[str]]]:
    """Tags carried from the columns that values come from, until nothing new comes; not into what is declassified."""
    origins: dict[Cell, list[Cell]] = {}
    for table, body in flows.items():
        for column, cells in body["columns"].items():
            origins[table, column] = [(TableName.parse(name), source) for name, source in cells]
    found: dict[Cell, frozenset[str]] = dict.fromkeys(origins, frozenset())

    def of(cell: Cell) -> frozenset[str]:
        own = tags.get(cell[0], {})
        return own.get(cell[1], frozenset()) | own.get(None, frozenset()) | found.get(cell, frozenset())

    changed = True
    while changed:
        changed = False
        for cell, cells in origins.items():
            wider = found[cell].union(*(of(one) for one in cells))
            wider -= cleared.get(cell, set()) | cleared.get((cell[0], None), set())
            changed |= wider != found[cell]
            found[cell] = wider
    arranged: dict[TableName, dict[str, frozenset[str]]] = {}
    for (table, column), names in found.items():
        if names:
            arranged.setdefault(table, {})[column] = names
    return arranged


def _within(table: TableName, body: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """For each column the others of its table that it is computed from."""
    found = {}
    for column, cells in body["columns"].items():
        own = frozenset(source for name, source in cells if name == str(table)) - {column}
        if own:
            found[column] = own
    return found


def _above(flows: Mapping[TableName, Mapping[str, Any]]) -> dict[TableName, frozenset[TableName]]:
    """All tables whose rows went into each one, through others too."""
    direct = {table: {TableName.parse(name) for name in body["inputs"]} for table, body in flows.items()}
    found: dict[TableName, frozenset[TableName]] = {}
    for table in direct:
        seen: set[TableName] = set()
        waiting = set(direct[table])
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting |= direct.get(one, set())
        found[table] = frozenset(seen)
    return found
