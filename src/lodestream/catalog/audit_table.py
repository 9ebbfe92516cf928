"""The audit log's table: how it is made, appended to and asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.catalog.chain import START, Record
from lodestream.drivers.database import Database, Rows

_PAGE = 5_000
_INSERT = (256, 16, 1)
_COLUMNS = "seq, time_us, principal, action, decision, told, previous, digest"


def tables(store: str) -> tuple[str, ...]:
    """Statements that make the log's table in a database, and have it refuse changes."""
    table = """CREATE TABLE IF NOT EXISTS audit_log (
        seq {} PRIMARY KEY, time_us BIGINT NOT NULL, principal TEXT NOT NULL, action TEXT NOT NULL,
        decision TEXT NOT NULL, told TEXT NOT NULL, previous TEXT NOT NULL, digest TEXT NOT NULL)"""
    if store.startswith(("postgresql://", "postgres://")):
        return (
            table.format("BIGINT"),
            """CREATE OR REPLACE FUNCTION audit_log_refuses() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$""",
            """CREATE OR REPLACE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
                FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuses()""",
        )
    refuses = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    return (
        table.format("INTEGER"),
        f"CREATE TRIGGER IF NOT EXISTS audit_log_kept BEFORE UPDATE ON audit_log {refuses}",
        f"CREATE TRIGGER IF NOT EXISTS audit_log_whole BEFORE DELETE ON audit_log {refuses}",
        "CREATE TRIGGER IF NOT EXISTS audit_log_ordered BEFORE INSERT ON audit_log "  # REPLACE would delete
        f"WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit_log) {refuses}",
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are asked for; None is any.

    Attributes:
        principal: whose.
        action: of which kind.
        table: that concern a table (or a column of it), as `layer.name`.
        decision: `allowed` or `refused`.
        since_us: not older.
        limit: so many of the newest.
    """

    principal: str | None = None
    action: str | None = None
    table: str | None = None
    decision: str | None = None
    since_us: int | None = None
    limit: int = 100


def insert(rows: Rows, records: Sequence[Record]) -> None:
    """Append records, many with one statement."""
    at = 0
    for size in _INSERT:
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * size)
        while len(records) - at >= size:
            values = [value for record in records[at : at + size] for value in _values(record)]
            rows.all(f"INSERT INTO audit_log ({_COLUMNS}) VALUES {marks}", *values)
            at += size


def head(rows: Rows) -> tuple[int, str]:
    """Place and digest of the last record; zero and `START` when there is none."""
    found = rows.all("SELECT seq, digest FROM audit_log ORDER BY seq DESC LIMIT 1")
    return (int(found[0][0]), str(found[0][1])) if found else (0, START)


def stands(rows: Rows, seq: int, digest: str) -> bool:
    """Whether a record stands at a place."""
    return rows.all("SELECT digest FROM audit_log WHERE seq = ?", seq) == [(digest,)]


def first(rows: Rows) -> str | None:
    """Digest of the first record, if there is one."""
    found = rows.all("SELECT digest FROM audit_log WHERE seq = 1")
    return str(found[0][0]) if found else None


def place_of(database: Database, digest: str) -> int | None:
    """Where the record with a digest stands."""
    with database.read() as rows:
        found = rows.all("SELECT min(seq) FROM audit_log WHERE digest = ?", digest)
    return int(found[0][0]) if found[0][0] is not None else None


def after(database: Database, seq: int, limit: int = _PAGE) -> list[Record]:
    """The records behind one, oldest first; at most `limit`."""
    with database.read() as rows:
        sql = f"SELECT {_COLUMNS} FROM audit_log WHERE seq > ? ORDER BY seq LIMIT {int(limit)}"
        return [_record(row) for row in rows.all(sql, seq)]


def every(database: Database) -> Iterator[Record]:
    """All records, oldest first."""
    seq = 0
    while page := after(database, seq):
        yield from page
        seq = page[-1].seq


def wanted_records(database: Database, wanted: Wanted) -> list[Record]:
    """Records that are wanted, newest first."""
    conditions, values = _conditions(wanted)
    size = _PAGE if wanted.table is not None else min(_PAGE, wanted.limit)
    sql = f"SELECT {_COLUMNS} FROM audit_log WHERE seq < ?{conditions} ORDER BY seq DESC LIMIT {int(size)}"
    found: list[Record] = []
    before = 1 << 62
    while len(found) < wanted.limit:
        with database.read() as rows:
            page = [_record(row) for row in rows.all(sql, before, *values)]
        found += [record for record in page if _concerns(record, wanted.table)]
        if len(page) < size:
            break
        before = page[-1].seq
    return found[: wanted.limit]


def facts(record: Record) -> dict[str, Any]:
    """A record as plain JSON values."""
    first = {"seq": record.seq, "time_us": record.time_us, "principal": record.principal, "action": record.action}
    told: dict[str, Any] = json.loads(record.told)
    return {**first, "decision": record.decision, **told, "digest": record.digest}


def _values(record: Record) -> tuple[object, ...]:
    told, before = record.told, record.previous
    return (
        record.seq, record.time_us, record.principal, record.action, record.decision, told, before, record.digest,
    )  # fmt: skip


def _record(row: Sequence[Any]) -> Record:
    seq, time_us, *texts = row
    return Record(int(seq), int(time_us), *(str(text) for text in texts))


def _conditions(wanted: Wanted) -> tuple[str, list[object]]:
    told = f'%"{_like(wanted.table)}%' if wanted.table is not None else None
    tests = (
        ("principal = ?", wanted.principal),
        ("action = ?", wanted.action),
        ("decision = ?", wanted.decision),
        ("time_us >= ?", wanted.since_us),
        ("told LIKE ? ESCAPE '!'", told),
    )
    given = [(text, value) for text, value in tests if value is not None]
    return "".join(f" AND {text}" for text, _ in given), [value for _, value in given]


def _like(text: str) -> str:
    quoted = json.dumps(text)[1:-1]
    return "".join(f"!{char}" if char in "!%_" else char for char in quoted)


def _concerns(record: Record, table: str | None) -> bool:
    if table is None:
        return True
    objects: list[str] = json.loads(record.told)["objects"]
    return any(one == table or one.startswith((f"{table}.", f"{table}@")) for one in objects)
