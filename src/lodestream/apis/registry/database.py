"""What the registry keeps in its database, and how it is opened."""

from __future__ import annotations

from lodestream.drivers import database
from lodestream.drivers.database import Database, Row, Rows

__all__ = ["TABLES", "Database", "Row", "Rows", "open_database"]

_LOCK = 0x10DE57E4

TABLES = (
    """CREATE TABLE IF NOT EXISTS schemas (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, text TEXT NOT NULL,
        parts TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS versions (
        subject TEXT NOT NULL, version INTEGER NOT NULL, id INTEGER NOT NULL REFERENCES schemas (id),
        deleted INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (subject, version))""",
    "CREATE UNIQUE INDEX IF NOT EXISTS versions_live ON versions (subject, id) WHERE deleted = 0",
    "CREATE INDEX IF NOT EXISTS versions_id ON versions (id)",
    """CREATE TABLE IF NOT EXISTS links (
        id INTEGER NOT NULL REFERENCES schemas (id), subject TEXT NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (id, subject, version))""",
    "CREATE INDEX IF NOT EXISTS links_to ON links (subject, version)",
    "CREATE TABLE IF NOT EXISTS settings (subject TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, "
    "PRIMARY KEY (subject, name))",
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT INTO counters VALUES ('id', 0) ON CONFLICT DO NOTHING",
)
"""`parts` is JSON: references, metadata, rules. `links` says which versions a schema builds on."""


def open_database(store: str) -> Database:
    """SQLite in the file `store`, or PostgreSQL at `postgresql://…`; see `drivers.database.open_database`."""
    return database.open_database(store, TABLES, lock=_LOCK, extra="registry")
