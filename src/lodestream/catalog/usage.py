"""Who asked for which tables and columns, added up from the audit log whenever somebody wants to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lodestream.catalog.audit_table import after
from lodestream.catalog.chain import Record
from lodestream.catalog.lineage import Reader, ReaderKind
from lodestream.catalog.sql_reads import Reads, reads
from lodestream.drivers.database import Database, Rows
from lodestream.model.table import TableName
from lodestream.model.types import Schema

TABLES = (
    """CREATE TABLE IF NOT EXISTS audit_reads (
        kind TEXT NOT NULL, reader TEXT NOT NULL, read_table TEXT NOT NULL, read_column TEXT NOT NULL,
        last_us BIGINT NOT NULL, PRIMARY KEY (kind, reader, read_table, read_column))""",
    "CREATE TABLE IF NOT EXISTS audit_reads_to (name TEXT PRIMARY KEY, seq BIGINT NOT NULL)",
    "INSERT INTO audit_reads_to VALUES ('reads', 0) ON CONFLICT DO NOTHING",
)
"""What was read by whom, up to a record of the log; the column is empty for a table that was read as a whole."""

_NOTE = """INSERT INTO audit_reads VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, reader, read_table, read_column)
    DO UPDATE SET last_us = excluded.last_us"""
_ASKED = frozenset(["query", "read", "changes"])
_KINDS: tuple[ReaderKind, ...] = ("dashboard", "saved_query")
_RECORDS_MAX = 200_000
_PAGE = 5_000
_WHOLE = ""


def readers(
    database: Database, schemas: Mapping[TableName, Schema], *, records_max: int = _RECORDS_MAX
) -> list[Reader]:
    """Everybody who read tables, by the audit log.

    Args:
        database: that of the audit log.
        schemas: columns of the tables that are known.
        records_max: so many records are added up at most; the next call goes on with the others.

    Raises:
        TransientError: the database does not answer.
    """
    while records_max > 0 and (taken := _add_up(database, schemas)):
        records_max -= taken
    with database.read() as rows:
        found = rows.all("SELECT kind, reader, read_table, read_column, last_us FROM audit_reads ORDER BY 1, 2, 3, 4")
    whole: dict[tuple[ReaderKind, str], dict[TableName, set[str] | None]] = {}
    last: dict[tuple[ReaderKind, str], int] = {}
    for kind, name, table_text, column, last_us in found:
        tables = whole.setdefault((kind, name), {})
        table = TableName.parse(table_text)
        columns = tables.setdefault(table, set())
        if column == _WHOLE:
            tables[table] = None
        elif columns is not None:
            columns.add(column)
        last[kind, name] = max(last.get((kind, name), 0), last_us)
    return [
        Reader(
            kind, name, {table: None if c is None else frozenset(c) for table, c in tables.items()}, last[kind, name]
        )
        for (kind, name), tables in whole.items()
    ]


def _add_up(database: Database, schemas: Mapping[TableName, Schema]) -> int:
    """Take the next records of the log in; how many there were."""
    with database.read() as rows:
        begin = _taken_to(rows)
    page = after(database, begin, _PAGE)
    if not page:
        return 0
    last: dict[tuple[str, str, str, str], int] = {}
    for record in page:
        for kind, name, table, columns in _asked(record, schemas):
            for column in [_WHOLE] if columns is None else sorted(columns):
                last[kind, name, str(table), column] = record.time_us
    with database.write() as rows:
        if _taken_to(rows) == begin:  # else another process was first
            rows.all("UPDATE audit_reads_to SET seq = ? WHERE name = 'reads'", page[-1].seq)
            for key, last_us in last.items():
                rows.all(_NOTE, *key, last_us)
    return len(page)


def _taken_to(rows: Rows) -> int:
    return int(rows.all("SELECT seq FROM audit_reads_to WHERE name = 'reads'")[0][0])


def _asked(
    record: Record, schemas: Mapping[TableName, Schema]
) -> list[tuple[ReaderKind, str, TableName, frozenset[str] | None]]:
    """Who read what, by one record; nothing for what was refused or failed."""
    if record.action not in _ASKED or record.decision != "allowed":
        return []
    told: dict[str, Any] = json.loads(record.told)
    detail = told["detail"]
    if "reason" in detail:
        return []
    text = detail.get("sql")
    named: Reads = reads(text, schemas) if isinstance(text, str) else {}
    who: list[tuple[ReaderKind, str]] = [("principal", record.principal)]
    who += [(kind, str(detail[kind])) for kind in _KINDS if kind in detail]
    found: list[tuple[ReaderKind, str, TableName, frozenset[str] | None]] = []
    for one in told["objects"]:
        try:
            table = TableName.parse(str(one).partition("@")[0])
        except ValueError:
            continue
        found += [(kind, name, table, named.get(table)) for kind, name in who]
    return found
