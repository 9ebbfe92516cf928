"""Who asks, and what they may see: principals, privileges and the shape in which a table is shown to somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lodestream.model.types import Schema

Kind = Literal["owner", "user", "service"]
Privilege = Literal["select", "quarantine", "replay", "manage"]
PRIVILEGES: tuple[Privilege, ...] = ("select", "quarantine", "replay", "manage")
"""What may be granted on a table, a layer or the whole catalog.

`select` reads rows; `quarantine` reads rows that were set aside, raw payload included; `replay` repairs and replays
them; `manage` changes comments, tags, owners, grants and policies. None includes another.
"""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks, however they proved it.

    Attributes:
        name: unique and stable; of a token of an identity provider `<tenant>/<object id>`.
        kind: `owner` holds the storage itself, so no grant or policy binds them.
        groups: names of groups, as grants and policies call them.
        attributes: facts about them that row filters compare with, such as `region`.
        scopes: what the credential they used may do at most, such as `query:*`; None is all that they may do.
        via: the credential, as the audit log names it: `key:3fa1…`, `oidc:<issuer>`, `certificate:<serial>`, `cli`.
        expires_us: when the credential ends, microseconds since 1970 UTC; None for never.
    """

    name: str
    kind: Kind = "user"
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scopes: tuple[str, ...] | None = None
    via: str = ""
    expires_us: int | None = None

    @property
    def is_owner(self) -> bool:
        """Whether no grant or policy binds them."""
        return self.kind == "owner"

    def may(self, scope: str) -> bool:
        """Whether their credential has a scope such as `ingest:orders`, itself or by `ingest:*`."""
        return self.scopes is None or scope in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes


@dataclass(frozen=True, slots=True)
class TableAccess:
    """How one principal sees one table.

    Attributes:
        columns: name and DuckDB expression over the stored columns, in the table's order; None is the stored value.
        filters: DuckDB conditions over the stored columns; a row is seen when all of them are true.
        policies: names of the policies that made it, for the audit log.
        version: number of the change to the catalog that it was read at.
    """

    columns: tuple[tuple[str, str | None], ...]
    filters: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    version: int = 0

    @property
    def whole(self) -> bool:
        """Whether every row is seen as it is stored; columns may still be missing."""
        return not self.filters and all(masked is None for _, masked in self.columns)

    def schema(self, stored: Schema) -> Schema:
        """Those of the stored columns that are seen."""
        if len(self.columns) == len(stored):
            return stored
        return Schema(tuple(stored[name] for name, _ in self.columns))
