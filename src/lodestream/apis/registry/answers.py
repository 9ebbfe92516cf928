"""What each path of the registry answers, as JSON values."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from lodestream.apis.registry import problems, records, settings
from lodestream.apis.registry.asked import Asked
from lodestream.apis.registry.database import Database
from lodestream.apis.registry.records import Entry, Stored
from lodestream.apis.registry.subjects import Subjects
from lodestream.apis.registry.submissions import KINDS, parts_of, read_submission, subject_named
from lodestream.version import VERSION

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Answers:
    """The answers of one registry; each takes a request and raises Problem for what it refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subjects = Subjects(database)

    def types(self, _asked: Asked) -> Any:
        """GET /schemas/types."""
        return list(KINDS)

    def software(self, _asked: Asked) -> Any:
        """GET /v1/metadata/version."""
        return {"version": f"lodestream-{VERSION}", "commitId": ""}

    def schema(self, asked: Asked) -> Any:
        """GET /schemas/ids/{id}."""
        stored = self._stored(asked)
        return {**self._told(stored, asked), "guid": stored.guid}

    def schema_text(self, asked: Asked) -> Any:
        """GET /schemas/ids/{id}/schema."""
        return self._text(self._stored(asked), asked)

    def schema_subjects(self, asked: Asked) -> Any:
        """GET /schemas/ids/{id}/subjects."""
        return asked.page(list(dict.fromkeys(subject for subject, _ in self._uses(asked))))

    def schema_versions(self, asked: Asked) -> Any:
        """GET /schemas/ids/{id}/versions."""
        return asked.page([{"subject": subject, "version": number} for subject, number in self._uses(asked)])

    def guid(self, asked: Asked) -> Any:
        """GET /schemas/guids/{guid}."""
        stored = self._by_guid(asked)
        return {**self._told(stored, asked), "guid": stored.guid}

    def guid_ids(self, asked: Asked) -> Any:
        """GET /schemas/guids/{guid}/ids."""
        return [{"context": ".", "id": self._by_guid(asked).id}]

    def schemas(self, asked: Asked) -> Any:
        """GET /schemas."""
        with self._database.read() as rows:
            found = records.everything(rows, _prefix(asked), deleted=asked.flag("deleted"))
        if asked.flag("latestOnly"):
            found = list({one.subject: one for one in found}.values())
        return [self._entry(one, asked) for one in asked.page(found)]

    def subjects(self, asked: Asked) -> Any:
        """GET /subjects."""
        with self._database.read() as rows:
            found = records.subjects(rows)
        if asked.flag("deletedOnly"):
            chosen = [name for name, gone in found if gone]
        else:
            chosen = [name for name, gone in found if not gone or asked.flag("deleted")]
        return asked.page([name for name in chosen if name.startswith(_prefix(asked))])

    def lookup(self, asked: Asked) -> Any:
        """POST /subjects/{subject}."""
        entry = self._subjects.lookup(
            asked.subject, read_submission(asked.body), normalize=asked.flag("normalize"), deleted=asked.flag("deleted")
        )
        return self._entry(entry, asked)

    def register(self, asked: Asked) -> Any:
        """POST /subjects/{subject}/versions."""
        submission = read_submission(asked.body)
        entry = self._subjects.register(asked.subject, submission, normalize=asked.flag("normalize"))
        return {"id": entry.stored.id, "version": entry.version, "guid": entry.stored.guid}

    def versions(self, asked: Asked) -> Any:
        """GET /subjects/{subject}/versions."""
        with self._database.read() as rows:
            found = records.versions(rows, asked.subject, deleted=asked.flag("deleted") or asked.flag("deletedOnly"))
        if asked.flag("deletedOnly"):
            found = [one for one in found if one.deleted]
        if not found:
            raise problems.no_subject(asked.subject)
        return asked.page([one.version for one in found])

    def version(self, asked: Asked) -> Any:
        """GET /subjects/{subject}/versions/{version}."""
        return self._entry(self._version(asked), asked)

    def version_text(self, asked: Asked) -> Any:
        """GET /subjects/{subject}/versions/{version}/schema."""
        return self._text(self._version(asked).stored, asked)

    def referenced_by(self, asked: Asked) -> Any:
        """GET /subjects/{subject}/versions/{version}/referencedby."""
        entry = self._version(asked)
        with self._database.read() as rows:
            return asked.page(
                records.referred_by(rows, entry.subject, entry.version, deleted=asked.flag("deleted"))
            )  # fmt: skip

    def with_metadata(self, asked: Asked) -> Any:
        """GET /subjects/{subject}/metadata: the newest version whose properties have these values."""
        keys = [unquote(text) for name, text in asked.options if name == "key"]  # encoded once more by its clients
        wanted = dict(zip(keys, (unquote(text) for name, text in asked.options if name == "value"), strict=False))
        with self._database.read() as rows:
            there = records.versions(rows, asked.subject, deleted=asked.flag("deleted"))
        if not there:
            raise problems.no_subject(asked.subject)
        for one in reversed(there):
            held = (parts_of(one.stored.schema.parts).get("metadata") or {}).get("properties") or {}
            if all(held.get(key) == value for key, value in wanted.items()):
                return self._entry(one, asked)
        raise problems.no_schema()

    def delete_subject(self, asked: Asked) -> Any:
        """DELETE /subjects/{subject}."""
        return self._subjects.delete_subject(asked.subject, permanent=asked.flag("permanent"))

    def delete_version(self, asked: Asked) -> Any:
        """DELETE /subjects/{subject}/versions/{version}."""
        return self._subjects.delete_version(asked.subject, asked.version, permanent=asked.flag("permanent"))

    def compatible_with(self, asked: Asked) -> Any:
        """POST /compatibility/subjects/{subject}/versions/{version}."""
        return self._compared(asked, asked.version, every=False)

    def compatible_with_all(self, asked: Asked) -> Any:
        """POST /compatibility/subjects/{subject}/versions."""
        return self._compared(asked, None, every=True)

    def config(self, asked: Asked) -> Any:
        """GET /config[/{subject}]."""
        subject = _chosen(asked)
        with self._database.read() as rows:
            level = settings.own(rows, subject, "level")
            normalize = settings.own(rows, subject, "normalize")
            if subject != settings.GLOBAL and level is None and not asked.flag("defaultToGlobal"):
                if normalize is None:
                    raise problems.no_own_level(subject)
                return {"normalize": normalize == "true"}
            normalize = normalize or (settings.own(rows, settings.GLOBAL, "normalize"))
            found: dict[str, Any] = {"compatibilityLevel": settings.effective(rows, subject, "level")}
        return found if normalize is None else {**found, "normalize": normalize == "true"}

    def put_config(self, asked: Asked) -> Any:
        """PUT /config[/{subject}]."""
        subject, found = _chosen(asked), settings.read_config(asked.body)
        with self._database.write() as rows:
            if settings.mode(rows, subject) == "READONLY":
                raise problems.not_permitted(f"Subject {subject or 'null'} is in read-only mode")
            for name, value in found.items():
                settings.put(rows, subject, name, value)
        told: dict[str, Any] = {"compatibility": found["level"]} if "level" in found else {}
        return {**told, "normalize": found["normalize"] == "true"} if "normalize" in found else told

    def delete_config(self, asked: Asked) -> Any:
        """DELETE /config[/{subject}]: what held before."""
        subject = _chosen(asked)
        with self._database.write() as rows:
            if settings.mode(rows, subject) == "READONLY":
                raise problems.not_permitted(f"Subject {subject or 'null'} is in read-only mode")
            level = settings.own(rows, subject, "level")
            if level is None and subject != settings.GLOBAL and settings.own(rows, subject, "normalize") is None:
                raise problems.no_subject(subject)
            level = settings.effective(rows, subject, "level")
            settings.forget(rows, subject, "level", "normalize")
        return {"compatibilityLevel": level}

    def mode(self, asked: Asked) -> Any:
        """GET /mode[/{subject}]."""
        subject = _chosen(asked)
        with self._database.read() as rows:
            found = settings.own(rows, subject, "mode")
            if found is None and subject != settings.GLOBAL and not asked.flag("defaultToGlobal"):
                raise problems.no_own_mode(subject)
            return {"mode": found or settings.effective(rows, settings.GLOBAL, "mode")}

    def put_mode(self, asked: Asked) -> Any:
        """PUT /mode[/{subject}]."""
        subject, found = _chosen(asked), settings.read_mode(asked.body)
        with self._database.write() as rows:
            if found == "IMPORT" and not asked.flag("force"):
                there = records.subjects(rows) if subject == settings.GLOBAL else records.versions(rows, subject)
                if there:
                    raise problems.not_permitted("Cannot import since found existing subjects; force=true does it")
            settings.put(rows, subject, "mode", found)
        return {"mode": found}

    def delete_mode(self, asked: Asked) -> Any:
        """DELETE /mode[/{subject}]: what held before."""
        subject = _chosen(asked)
        with self._database.write() as rows:
            found = settings.own(rows, subject, "mode")
            if found is None and subject != settings.GLOBAL:
                raise problems.no_own_mode(subject)
            settings.forget(rows, subject, "mode")
            return {"mode": found or settings.effective(rows, settings.GLOBAL, "mode")}

    def _stored(self, asked: Asked) -> Stored:
        with self._database.read() as rows:
            found = records.by_id(rows, asked.id)
        if found is None:
            raise problems.no_schema(asked.id)
        return found

    def _by_guid(self, asked: Asked) -> Stored:
        guid = asked.path["guid"].lower()
        if not _GUID.fullmatch(guid):
            raise problems.no_schema(guid[:80])
        with self._database.read() as rows:
            found = records.by_guid(rows, guid)
        if found is None:
            raise problems.no_schema(guid)
        return found

    def _uses(self, asked: Asked) -> list[tuple[str, int]]:
        with self._database.read() as rows:
            if records.by_id(rows, asked.id) is None:
                raise problems.no_schema(asked.id)
            found = records.uses(rows, asked.id, deleted=asked.flag("deleted"))
        only = asked.query.get("subject")
        return [one for one in found if only in (None, one[0])]

    def _version(self, asked: Asked) -> Entry:
        with self._database.read() as rows:
            found = records.version(rows, asked.subject, asked.version, deleted=asked.flag("deleted"))
            if found is not None:
                return found
            if not records.versions(rows, asked.subject, deleted=asked.flag("deleted")):
                raise problems.no_subject(asked.subject)
        raise problems.no_version(asked.version)

    def _compared(self, asked: Asked, version: int | None, *, every: bool) -> Any:
        found = self._subjects.compare(
            asked.subject, read_submission(asked.body), version, every=every, normalize=asked.flag("normalize")
        )
        told: dict[str, Any] = {"is_compatible": not found}
        return {**told, "messages": found} if asked.flag("verbose") else told

    def _text(self, stored: Stored, asked: Asked) -> str:
        return self._subjects.text(stored, asked.query.get("format") or None)

    def _told(self, stored: Stored, asked: Asked) -> dict[str, Any]:
        """A schema as every answer shows it; Avro goes without saying, as clients expect."""
        schema = stored.schema
        told: dict[str, Any] = {} if schema.kind == "AVRO" else {"schemaType": schema.kind}
        told["schema"] = self._text(stored, asked)
        if schema.references:
            told["references"] = [
                {"name": r.name, "subject": r.subject, "version": r.version} for r in schema.references
            ]  # fmt: skip
        return {**told, **parts_of(schema.parts)}

    def _entry(self, entry: Entry, asked: Asked) -> dict[str, Any]:
        told = self._told(entry.stored, asked)
        gone = {"deleted": True} if entry.deleted else {}
        return {"subject": entry.subject, "version": entry.version, "id": entry.stored.id, "guid": entry.stored.guid,
                **told, **gone}  # fmt: skip


def _chosen(asked: Asked) -> str:
    """The subject in the path, or the sign of all."""
    return subject_named(asked.path["subject"]) if "subject" in asked.path else settings.GLOBAL


def _prefix(asked: Asked) -> str:
    text = asked.query.get("subjectPrefix", "")
    return "" if text in (":*:", ":.:") else text
