"""What the registry holds: reads and writes of schemas and versions inside one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.apis.registry.database import Rows
from lodestream.apis.registry.submissions import Submission
from lodestream.ports.registry import Reference

_COLUMNS = "s.id, s.fingerprint, s.kind, s.text, s.parts"


@dataclass(frozen=True, slots=True)
class Stored:
    """A schema with its id.

    Attributes:
        id: never another schema's, also not after it was deleted.
        fingerprint: SHA-256 in hex; its first half is the GUID.
        schema: kind, canonical text, references, parts.
    """

    id: int
    fingerprint: str
    schema: Submission

    @property
    def guid(self) -> str:
        """An id that is the same in every registry."""
        f = self.fingerprint
        return f"{f[:8]}-{f[8:12]}-{f[12:16]}-{f[16:20]}-{f[20:32]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of a subject."""

    subject: str
    version: int
    deleted: bool
    stored: Stored


def by_id(rows: Rows, schema_id: int) -> Stored | None:
    """The schema of an id that some version has, deleted softly or not."""
    found = rows.all(
        f"SELECT {_COLUMNS} FROM schemas s WHERE s.id = ? AND EXISTS (SELECT 1 FROM versions v WHERE v.id = s.id)",
        schema_id,
    )
    return _stored(found[0]) if found else None


def by_guid(rows: Rows, guid: str) -> Stored | None:
    """The schema of a GUID."""
    start = guid.replace("-", "")
    found = rows.all(
        f"SELECT {_COLUMNS} FROM schemas s WHERE s.fingerprint >= ? AND s.fingerprint < ? "
        "AND EXISTS (SELECT 1 FROM versions v WHERE v.id = s.id)",
        start, start + "g",
    )  # fmt: skip
    return _stored(found[0]) if found else None


def by_fingerprint(rows: Rows, fingerprint: str) -> Stored | None:
    """The schema that was once stored with this fingerprint, also when no version has it any more."""
    found = rows.all(f"SELECT {_COLUMNS} FROM schemas s WHERE s.fingerprint = ?", fingerprint)
    return _stored(found[0]) if found else None


def versions(rows: Rows, subject: str, *, deleted: bool = False) -> list[Entry]:
    """Every version of a subject, oldest first."""
    found = rows.all(
        f"SELECT v.subject, v.version, v.deleted, {_COLUMNS} FROM versions v JOIN schemas s ON s.id = v.id "
        "WHERE v.subject = ? AND v.deleted <= ? ORDER BY v.version",
        subject, int(deleted),
    )  # fmt: skip
    return [_entry(row) for row in found]


def version(rows: Rows, subject: str, number: int | None, *, deleted: bool = False) -> Entry | None:
    """One version of a subject; None is the newest."""
    wanted = "" if number is None else "AND v.version = ? "
    found = rows.all(
        f"SELECT v.subject, v.version, v.deleted, {_COLUMNS} FROM versions v JOIN schemas s ON s.id = v.id "
        f"WHERE v.subject = ? AND v.deleted <= ? {wanted}ORDER BY v.version DESC LIMIT 1",
        subject, int(deleted), *([] if number is None else [number]),
    )  # fmt: skip
    return _entry(found[0]) if found else None


def everything(rows: Rows, prefix: str, *, deleted: bool = False) -> list[Entry]:
    """Every version of the subjects that begin with `prefix`."""
    found = rows.all(
        f"SELECT v.subject, v.version, v.deleted, {_COLUMNS} FROM versions v JOIN schemas s ON s.id = v.id "
        "WHERE v.deleted <= ? ORDER BY v.subject, v.version",
        int(deleted),
    )
    return [_entry(row) for row in found if str(row[0]).startswith(prefix)]


def subjects(rows: Rows) -> list[tuple[str, bool]]:
    """(name, whether all of its versions are deleted) of every subject, sorted by name."""
    found = rows.all("SELECT subject, MIN(deleted) FROM versions GROUP BY subject")
    return sorted((str(name), bool(gone)) for name, gone in found)


def uses(rows: Rows, schema_id: int, *, deleted: bool = False) -> list[tuple[str, int]]:
    """(subject, version) wherever a schema is."""
    found = rows.all("SELECT subject, version FROM versions WHERE id = ? AND deleted <= ?", schema_id, int(deleted))
    return sorted((str(subject), int(number)) for subject, number in found)


def referred_by(rows: Rows, subject: str, number: int | None = None, *, deleted: bool = False) -> list[int]:
    """Ids of the schemas that build on a version (None: on any version) of a subject."""
    found = rows.all(
        "SELECT DISTINCT l.id, l.version FROM links l JOIN versions v ON v.id = l.id "
        "WHERE l.subject = ? AND v.deleted <= ?",
        subject, int(deleted),
    )  # fmt: skip
    return sorted({int(one) for one, to in found if number in (None, to)})


def add_schema(rows: Rows, schema: Submission, fingerprint: str) -> int:
    """Store a schema that is not there yet, under the next id or the one it asks for."""
    if schema.id is None:
        counted = rows.all(
            "UPDATE counters SET value = 1 + "
            "(SELECT MAX(n) FROM (SELECT value AS n FROM counters UNION ALL SELECT MAX(id) FROM schemas) AS both_) "
            "WHERE name = 'id' RETURNING value"
        )
        new = int(counted[0][0])
    else:
        new = schema.id
    parts = json.dumps(
        {"references": [[r.name, r.subject, r.version] for r in schema.references], "parts": schema.parts}
    )
    rows.all("INSERT INTO schemas VALUES (?, ?, ?, ?, ?)", new, fingerprint, schema.kind, schema.text, parts)
    for subject, number in {(r.subject, r.version) for r in schema.references}:
        rows.all("INSERT INTO links VALUES (?, ?, ?)", new, subject, number)
    return new


def add_version(rows: Rows, subject: str, schema_id: int, number: int | None) -> int:
    """Give a subject its next version, or the one of that number."""
    if number is None:
        found = rows.all("SELECT MAX(version) FROM versions WHERE subject = ?", subject)
        number = int(found[0][0] or 0) + 1
    rows.all("INSERT INTO versions (subject, version, id) VALUES (?, ?, ?)", subject, number, schema_id)
    return number


def delete(rows: Rows, entries: Sequence[Entry], *, permanent: bool) -> None:
    """Mark versions as deleted, or take them out; their schemas keep their ids."""
    for one in entries:
        if permanent:
            rows.all("DELETE FROM versions WHERE subject = ? AND version = ?", one.subject, one.version)
        else:
            rows.all("UPDATE versions SET deleted = 1 WHERE subject = ? AND version = ?", one.subject, one.version)


def _stored(row: Sequence[Any]) -> Stored:
    told = json.loads(row[4])
    references = tuple(Reference(*one) for one in told["references"])
    return Stored(int(row[0]), str(row[1]), Submission(row[2], str(row[3]), references, told["parts"]))


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(str(row[0]), int(row[1]), bool(row[2]), _stored(row[3:]))
