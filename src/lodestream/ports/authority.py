"""What the read path asks of whoever knows the grants and policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from lodestream.model.access import Principal, Privilege, TableAccess
from lodestream.model.table import TableName
from lodestream.model.types import Schema


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log.

    Attributes:
        principal: name of whoever did it.
        via: their credential.
        door: where they came in: `rest`, `postgres`, `sharing`, `console`, `cli`.
        action: what they did, such as `query`, `grant`, `replay`.
        decision: whether they were let.
        objects: tables or others it concerned.
        policies: row filters and masks that were applied.
        catalog_version: number of the change to the catalog that the decision was made at.
        detail: further facts: digest of the query's text, rows and bytes of the answer, reason of a refusal.
    """

    principal: str
    via: str
    door: str
    action: str
    decision: Literal["allowed", "refused"]
    objects: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    catalog_version: int = 0
    detail: Mapping[str, str | int | float | None] = field(default_factory=lambda: MappingProxyType({}))


class Authority(Protocol):
    """Grants, policies and the audit log of one lake. Every method may be called from any thread."""

    def version(self) -> int:
        """Number of the last change to principals, grants or policies; cheap enough to ask for every query."""

    def privileges(self, principal: Principal, table: TableName) -> frozenset[Privilege]:
        """What a principal may do with a table."""

    def access(self, principal: Principal, table: TableName, schema: Schema) -> TableAccess:
        """How a principal sees a table whose version has these columns.

        Raises:
            AccessError: they may not read it, or a policy names a column that this version does not have.
        """

    def filtered(self, principal: Principal, table: TableName) -> bool:
        """Whether a row filter binds a principal on a table, or on one whose rows went into it, granted or not."""

    def visible(self, principal: Principal, tables: Iterable[TableName]) -> list[TableName]:
        """Those of the tables that a principal may know of."""

    def record(self, event: Event) -> None:
        """Append to the audit log; durable soon, and at once for whatever changes something.

        Raises:
            TransientError: it cannot be written, so what was asked must not be done.
        """
