"""Users, grants and policies to entries of the catalog's store, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from lodestream.catalog.store import Entry
from lodestream.model.policy import (
    Declassified,
    Grant,
    Mask,
    Policies,
    RowFilter,
    Tagged,
    TagPolicy,
    User,
    parse_column,
)
from lodestream.model.table import TableName

POLICY_KINDS = ("user", "grant", "row_filter", "mask", "tag", "declassified", "tag_policy")
"""Kinds of entries that a file of policies declares."""

Policy = User | Grant | RowFilter | Mask | Tagged | Declassified | TagPolicy


def entry(policy: Policy, *, origin: str = "", who: str = "", at_us: int = 0) -> Entry:
    """The entry that keeps a policy."""
    kind, name, body = _PLAIN[type(policy)](policy)
    return Entry(kind, name, MappingProxyType(body), origin, who, at_us)


def policy(kept: Entry) -> Policy:
    """What `entry` was made of."""
    return _READ[kept.kind](kept.name, kept.body)


def declared(policies: Policies, *, origin: str, who: str, at_us: int) -> list[Entry]:
    """The entries of everything that a file declares."""
    every: tuple[Policy, ...] = (
        *policies.users, *policies.grants, *policies.row_filters, *policies.masks, *policies.tags,
        *policies.declassified, *policies.tag_policies,
    )  # fmt: skip
    return [entry(one, origin=origin, who=who, at_us=at_us) for one in every]


def _user(one: User) -> tuple[str, str, dict[str, Any]]:
    body = {"kind": one.kind, "groups": sorted(one.groups), "attributes": dict(sorted(one.attributes.items()))}
    return "user", one.name, body | {"disabled": one.disabled}


def _read_user(name: str, body: Mapping[str, Any]) -> User:
    attributes = MappingProxyType(dict(body["attributes"]))
    return User(name, body["kind"], frozenset(body["groups"]), attributes, bool(body["disabled"]))


def _policy(shown: str, exempt: tuple[str, ...]) -> dict[str, Any]:
    return {"shown": shown, "except": list(exempt)}


_PLAIN: dict[type, Callable[..., tuple[str, str, dict[str, Any]]]] = {
    User: _user,
    Grant: lambda one: ("grant", f"{one.privilege} on {one.on} to {one.to}",
                        {"to": one.to, "privilege": one.privilege, "on": one.on}),
    RowFilter: lambda one: ("row_filter", one.name,
                            {"on": [str(table) for table in one.on], "where": one.where, "except": list(one.exempt)}),
    Mask: lambda one: ("mask", one.name,
                       {"on": [f"{table}.{column}" for table, column in one.on]} | _policy(one.shown, one.exempt)),
    Tagged: lambda one: ("tag", f"{one.tag} on {one.object}",
                         {"tag": one.tag, "table": str(one.table), "column": one.column}),
    Declassified: lambda one: ("declassified", f"{one.tag} on {one.object}",
                               {"tag": one.tag, "table": str(one.table), "column": one.column}),
    TagPolicy: lambda one: ("tag_policy", one.tag, _policy(one.shown, one.exempt)),
}  # fmt: skip

_READ: dict[str, Callable[[str, Mapping[str, Any]], Policy]] = {
    "user": _read_user,
    "grant": lambda _, body: Grant(body["to"], body["privilege"], body["on"]),
    "row_filter": lambda name, body: RowFilter(
        name, tuple(TableName.parse(table) for table in body["on"]), body["where"], tuple(body["except"])
    ),
    "mask": lambda name, body: Mask(
        name, tuple(parse_column(column) for column in body["on"]), body["shown"], tuple(body["except"])
    ),
    "tag": lambda _, body: Tagged(body["tag"], TableName.parse(body["table"]), body["column"]),
    "declassified": lambda _, body: Declassified(body["tag"], TableName.parse(body["table"]), body["column"]),
    "tag_policy": lambda name, body: TagPolicy(name, body["shown"], tuple(body["except"])),
}
