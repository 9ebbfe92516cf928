"""Where the catalog is kept: one database of the lake, in which everything that it holds is an entry of some kind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lodestream.drivers import database
from lodestream.drivers.database import Database, Row, Rows

__all__ = ["Database", "Entry", "Row", "Rows", "bump", "drop", "entries", "number", "open_store", "put"]

_LOCK = 0x10DECA7A

TABLES = (
    """CREATE TABLE IF NOT EXISTS catalog_entries (
        kind TEXT NOT NULL, name TEXT NOT NULL, origin TEXT NOT NULL, body TEXT NOT NULL, who TEXT NOT NULL,
        at_us BIGINT NOT NULL, PRIMARY KEY (kind, name, origin))""",
    "CREATE TABLE IF NOT EXISTS catalog_changes (name TEXT PRIMARY KEY, number BIGINT NOT NULL)",
    "INSERT INTO catalog_changes VALUES ('entries', 0) ON CONFLICT DO NOTHING",
)
"""`origin` is the file that declares an entry, empty for what was said at run time; `body` is JSON."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that the catalog knows.

    Attributes:
        kind: `user`, `grant`, `row_filter`, `mask`, `tag`, `tag_policy`, `comment`, `owner`, `query` or `flow`.
        name: distinct within a kind and origin.
        body: what it says, as JSON values.
        origin: the file that declares it; empty when it was said at run time.
        who: who said so.
        at_us: when, microseconds since 1970 UTC.
    """

    kind: str
    name: str
    body: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    origin: str = ""
    who: str = ""
    at_us: int = 0


def open_store(store: str, tables: Iterable[str] = ()) -> Database:
    """The catalog's database: SQLite in the file `store`, or PostgreSQL at `postgresql://…`.

    Args:
        store: file or URL.
        tables: statements that make the tables of others who keep theirs beside the entries.

    Raises:
        ConfigError: it cannot be opened.
        TransientError: it does not answer.
        MissingDriverError: PostgreSQL needs a package.
    """
    return database.open_database(store, (*TABLES, *tables), lock=_LOCK, extra="catalog")


def number(rows: Rows) -> int:
    """Number of the last change to the entries."""
    return int(rows.all("SELECT number FROM catalog_changes WHERE name = 'entries'")[0][0])


def bump(rows: Rows) -> int:
    """Count a change; in the transaction that makes it."""
    rows.all("UPDATE catalog_changes SET number = number + 1 WHERE name = 'entries'")
    return number(rows)


def entries(rows: Rows, *kinds: str) -> list[Entry]:
    """Entries of some kinds, all of them when none is named; by kind, name and origin."""
    marks = ", ".join("?" for _ in kinds)
    where = f" WHERE kind IN ({marks})" if kinds else ""
    found = rows.all(f"SELECT kind, name, body, origin, who, at_us FROM catalog_entries{where}", *kinds)
    read = [Entry(kind, name, json.loads(body), origin, who, at) for kind, name, body, origin, who, at in found]
    return sorted(read, key=lambda entry: (entry.kind, entry.name, entry.origin))


def put(rows: Rows, entry: Entry) -> None:
    """Keep an entry in the place of its namesake of the same origin."""
    drop(rows, entry.kind, entry.name, entry.origin)
    body = json.dumps(dict(entry.body), sort_keys=True, ensure_ascii=False)
    rows.all(
        "INSERT INTO catalog_entries (kind, name, origin, body, who, at_us) VALUES (?, ?, ?, ?, ?, ?)",
        entry.kind, entry.name, entry.origin, body, entry.who, entry.at_us,
    )  # fmt: skip


def drop(rows: Rows, kind: str, name: str, origin: str = "") -> bool:
    """Forget an entry; whether there was one."""
    where = "WHERE kind = ? AND name = ? AND origin = ?"
    found = rows.all(f"SELECT 1 FROM catalog_entries {where}", kind, name, origin)
    rows.all(f"DELETE FROM catalog_entries {where}", kind, name, origin)
    return bool(found)
