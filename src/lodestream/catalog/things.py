"""Everything that a lake's catalog knows of, as search finds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from lodestream.catalog.audit import AuditLog
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.lineage import Lineage, Reader, Sees
from lodestream.catalog.queries import saved_queries
from lodestream.catalog.search import Index, Item
from lodestream.catalog.sql_reads import Reads, reads
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.ports.authority import Authority
from lodestream.project.dashboards import read_dashboards
from lodestream.project.queries import read_queries

_KEPT_S = 2.0


class Known:
    """The lineage of a project and the index of its catalog, kept for a moment. From any thread.

    Args:
        flows: the project's plans.
        root: folder of the project.
        catalog: of its lake.
        audit: of its lake.
    """

    def __init__(self, flows: Mapping[TableName, FlowPlan], root: str, catalog: Catalog, audit: AuditLog) -> None:
        self.flows = flows
        self.schemas = {name: plan.schema for name, plan in flows.items()}
        self._root, self._catalog, self._audit = root, catalog, audit
        self._bare = Lineage(flows)
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, float], Lineage] | None = None
        self._indexed: tuple[tuple[int, float], Index] | None = None

    def lineage(self) -> Lineage:
        """What comes from what, and who reads it."""
        with self._lock:
            if self._kept is None or self._old(self._kept[0]):
                declared = declared_readers(self._catalog, self._root, self.schemas)
                found = self._bare.read_by([*declared, *self._audit.readers(self.schemas)])
                self._kept = self._now(), found
            return self._kept[1]

    def index(self) -> Index:
        """Tables, columns, saved queries and dashboards, to be searched."""
        with self._lock:
            if self._indexed is None or self._old(self._indexed[0]):
                declared = declared_readers(self._catalog, self._root, self.schemas)
                comments = {name: plan.table.comment for name, plan in self.flows.items()}
                self._indexed = self._now(), Index(things(self._catalog, self.schemas, comments, declared))
            return self._indexed[1]

    def sees(self, principal: Principal) -> Sees:
        """The tables and columns that somebody may know of."""
        return seen_by(self._catalog, principal, self.schemas)

    def _now(self) -> tuple[int, float]:
        return self._catalog.version(), time.monotonic()

    def _old(self, made: tuple[int, float]) -> bool:
        version, at = made
        return version != self._catalog.version() or time.monotonic() - at > _KEPT_S


def seen_by(authority: Authority, principal: Principal, schemas: Mapping[TableName, Schema]) -> Sees:
    """What somebody may know of: the tables that are visible to them, and of these the columns that they may read."""
    known: dict[TableName, frozenset[str] | None] = {}

    def sees(table: TableName) -> frozenset[str] | None:
        if table not in known:
            known[table] = _columns(authority, principal, table, schemas.get(table))
        return known[table]

    return sees


def declared_readers(catalog: Catalog, root: str, schemas: Mapping[TableName, Schema]) -> list[Reader]:
    """The saved queries and dashboards of a project, by the text of their SQL.

    Args:
        catalog: keeps the queries that were saved at run time.
        root: folder of the project, with its queries and dashboards.
        schemas: the tables.
    """
    found = []
    for name, query in saved_queries(catalog, read_queries(root)[0]).items():
        comment = " ".join(text for text in (query.title, query.description) if text)
        found.append(Reader("saved_query", name, reads(query.sql, schemas), comment=comment))
    for name, board in read_dashboards(root)[0].items():
        shown = _together(reads(panel.sql, schemas) for panel in board.panels if panel.sql)
        found.append(Reader("dashboard", name, shown, comment=board.comment))
    return found


def _together(every: Iterable[Reads]) -> Reads:
    found: dict[TableName, frozenset[str] | None] = {}
    for one in every:
        for table, columns in one.items():
            known = found.get(table, frozenset())
            found[table] = None if columns is None or known is None else known | columns
    return found


def things(
    catalog: Catalog, schemas: Mapping[TableName, Schema], comments: Mapping[TableName, str], readers: Iterable[Reader]
) -> Iterator[Item]:
    """Tables, columns, saved queries and dashboards with what is said of them.

    Args:
        catalog: comments, tags and owners that were said at run time or declared.
        schemas: the tables.
        comments: what tables are for, by their declarations.
        readers: queries and dashboards; those of which nobody can tell what they read are not among the things.
    """
    notes = {(entry.kind, entry.name): entry.body for entry in catalog.entries("comment", "owner")}
    state = catalog.state

    def said(on: str) -> str:
        return str(notes.get(("comment", on), {}).get("text", ""))

    for table, schema in schemas.items():
        owned = notes.get(("owner", str(table))) or notes.get(("owner", table.layer)) or {}
        owner = str(owned.get("owner", ""))
        whole = tuple(sorted(state.tags.get(table, {}).get(None, frozenset())))
        comment = said(str(table)) or comments.get(table, "")
        yield Item("table", str(table), (table,), comment=comment, tags=whole, owner=owner)
        for column in schema:
            name = f"{table}.{column.name}"
            tags = tuple(sorted(state.tags_of(table, column.name)))
            yield Item("column", name, (table,), column.name, said(name) or column.comment, tags)
    for reader in readers:
        if reader.kind in ("saved_query", "dashboard") and reader.reads:
            yield Item(reader.kind, reader.name, tuple(sorted(reader.reads)), comment=reader.comment)


def _columns(
    authority: Authority, principal: Principal, table: TableName, schema: Schema | None
) -> frozenset[str] | None:
    if not authority.visible(principal, [table]):
        return None
    try:
        return (
            frozenset()
            if schema is None
            else frozenset(n for n, _ in authority.access(principal, table, schema).columns)
        )
    except AccessError:  # they may know of it, and read nothing
        return frozenset()
