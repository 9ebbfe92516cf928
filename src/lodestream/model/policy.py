"""Who there is and what each may see, as declared: users, grants, row filters, masks, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lodestream.model.access import Principal, Privilege
from lodestream.model.table import TableName

GROUP = "group:"
"""Begins the name of a group where a grant or an exception could also name a user."""


@dataclass(frozen=True, slots=True)
class User:
    """A local user or service account.

    Attributes:
        name: as their keys name them.
        kind: a person, or a program.
        groups: those that they are in.
        attributes: facts that row filters may ask for.
        disabled: whether they are refused everywhere.
    """

    name: str
    kind: Literal["user", "service"] = "user"
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege to one user or `group:name`, on a table, a layer, or `*`."""

    to: str
    privilege: Privilege
    on: str


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Hides the rows of tables for which a condition is not true.

    Attributes:
        name: as the audit log names it.
        on: the tables.
        where: condition in Spark SQL.
        exempt: users and `group:…` whom it does not bind.
    """

    name: str
    on: tuple[TableName, ...]
    where: str
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mask:
    """Shows something else in place of columns.

    Attributes:
        name: as the audit log names it.
        on: the columns.
        shown: expression in Spark SQL over the table's columns.
        exempt: users and `group:…` whom it does not bind.
    """

    name: str
    on: tuple[tuple[TableName, str], ...]
    shown: str
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tag on a column; without a column, on every column of the table."""

    tag: str
    table: TableName
    column: str | None = None

    @property
    def object(self) -> str:
        """What is tagged, as it is written."""
        return _written(self.table, self.column)


@dataclass(frozen=True, slots=True)
class Declassified:
    """A column that has not the tag of what it is computed from, such as a count; without a column, a whole table."""

    tag: str
    table: TableName
    column: str | None = None

    @property
    def object(self) -> str:
        """What is declassified, as it is written."""
        return _written(self.table, self.column)


@dataclass(frozen=True, slots=True)
class TagPolicy:
    """Masks every column that has a tag, wherever it is; its name is the tag's."""

    tag: str
    shown: str
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything that one file declares."""

    users: tuple[User, ...] = ()
    grants: tuple[Grant, ...] = ()
    row_filters: tuple[RowFilter, ...] = ()
    masks: tuple[Mask, ...] = ()
    tags: tuple[Tagged, ...] = ()
    declassified: tuple[Declassified, ...] = ()
    tag_policies: tuple[TagPolicy, ...] = ()


def _written(table: TableName, column: str | None) -> str:
    return str(table) if column is None else f"{table}.{column}"


def is_one_of(principal: Principal, names: tuple[str, ...]) -> bool:
    """Whether a principal is among users and `group:…`."""
    return any(
        name.removeprefix(GROUP) in principal.groups if name.startswith(GROUP) else name == principal.name
        for name in names
    )


def parse_column(text: str) -> tuple[TableName, str]:
    """Read `layer.table.column`. Raises ValueError otherwise."""
    table, _, column = text.rpartition(".")
    if not table or not column:
        raise ValueError(f"not a column: {text!r}, write layer.table.column")
    return TableName.parse(table), column
