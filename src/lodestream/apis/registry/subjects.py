"""The registry's work: register, look up, compare and delete schemas, each in one transaction."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lodestream.apis.registry import problems, records, settings
from lodestream.apis.registry.database import Database, Rows
from lodestream.apis.registry.languages import LANGUAGES
from lodestream.apis.registry.languages.parsed import InvalidSchemaError, Parsed
from lodestream.apis.registry.records import Entry, Stored
from lodestream.apis.registry.submissions import Submission

_REFERRED_MAX = 500
_JUDGED_MAX = 5000
_SHOWN_MAX = 100
"""How many reasons an answer tells."""

_Texts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """All that a judgement needs, read in one transaction.

    Attributes:
        given: the schema as sent.
        texts: name and text of all that it builds on.
        live: the subject's versions, oldest first, each with what it builds on.
        level: the subject's level.
        normalize: whether the schema is normalised.
    """

    given: Submission
    texts: _Texts
    live: tuple[tuple[Entry, _Texts], ...]
    level: str
    normalize: bool


class Subjects:
    """Subjects and their versions in a database.

    Every method raises Problem for what the API refuses, and TransientError when the database does not answer.
    Schemas are read and compared before the writing transaction and found again in it, so that a large one holds
    nobody else up.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._judged: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def register(self, subject: str, given: Submission, *, normalize: bool) -> Entry:
        """The version of a schema under a subject; made now when there is none."""
        with self._database.read() as rows:
            loaded = _load(rows, subject, given, normalize)
        schema, parsed = _prepared(loaded)
        if given.id is None:
            self._differences(schema, parsed, loaded)
        with self._database.write() as rows:
            loaded = _load(rows, subject, given, normalize)
            schema, parsed = _prepared(loaded)
            fingerprint = schema.fingerprint
            stored = records.by_fingerprint(rows, fingerprint)
            same = _of((one for one, _ in loaded.live), stored)
            if same is not None and (given.id is None or given.id == same.stored.id):
                return same
            mode = settings.mode(rows, subject)
            if mode == "READONLY":
                raise problems.not_permitted(f"Subject {subject} is in read-only mode")
            if mode == "IMPORT":
                _check_import(rows, subject, schema, stored)
            elif given.id is not None:
                raise problems.not_permitted(f"Subject {subject} is not in import mode")
            else:
                if found := self._differences(schema, parsed, loaded):
                    raise problems.incompatible(subject, found)
                schema = replace(schema, version=None)
            schema_id = stored.id if stored is not None else records.add_schema(rows, schema, fingerprint)
            number = records.add_version(rows, subject, schema_id, schema.version)
            return Entry(subject, number, False, Stored(schema_id, fingerprint, schema))

    def lookup(self, subject: str, given: Submission, *, normalize: bool, deleted: bool) -> Entry:
        """The version that a schema has under a subject."""
        with self._database.read() as rows:
            there = records.versions(rows, subject, deleted=deleted)
            if not there:
                raise problems.no_subject(subject)
            loaded = _load(rows, subject, given, normalize)
        schema, _ = _prepared(loaded)
        with self._database.read() as rows:
            found = _of(there, records.by_fingerprint(rows, schema.fingerprint))
        if found is None:
            raise problems.no_schema()
        return found

    def compare(
        self, subject: str, given: Submission, version: int | None, *, every: bool, normalize: bool
    ) -> list[str]:
        """Why a schema would be refused under a subject.

        Args:
            subject: where it would be registered.
            given: the schema.
            version: the one to compare with; None is the newest.
            every: compare with those that the subject's level names instead.
            normalize: whether it is normalised first.
        """
        with self._database.read() as rows:
            loaded = _load(rows, subject, given, normalize)
        if not every:
            live = [one for one in loaded.live if version in (None, one[0].version)]
            if not live:
                raise problems.no_version(version) if loaded.live else problems.no_subject(subject)
            loaded = replace(loaded, live=tuple(live[-1:]))
        return self._differences(*_prepared(loaded), loaded)

    def delete_subject(self, subject: str, *, permanent: bool) -> list[int]:
        """Delete every version of a subject; those that were there before."""
        with self._database.write() as rows:
            _check_writable(rows, subject)
            there = records.versions(rows, subject, deleted=True)
            live = [one for one in there if not one.deleted]
            if not there:
                raise problems.no_subject(subject)
            if permanent and live:
                raise problems.subject_is_not_deleted(subject)
            if not permanent and not live:
                raise problems.subject_is_deleted(subject)
            gone = there if permanent else live
            for one in gone:
                _check_free(rows, one, permanent)
            records.delete(rows, gone, permanent=permanent)
            settings.forget(rows, subject, *(("level", "mode", "normalize") if permanent else ("mode",)))
            return [one.version for one in gone]

    def delete_version(self, subject: str, number: int | None, *, permanent: bool) -> int:
        """Delete one version of a subject."""
        with self._database.write() as rows:
            _check_writable(rows, subject)
            if not records.versions(rows, subject, deleted=True):
                raise problems.no_subject(subject)
            found = records.version(rows, subject, number, deleted=number is not None)
            if found is None:
                raise problems.no_version("latest" if number is None else number)
            if permanent and not found.deleted:
                raise problems.version_is_not_deleted(subject, found.version)
            if not permanent and found.deleted:
                raise problems.version_is_deleted(subject, found.version)
            _check_free(rows, found, permanent)
            records.delete(rows, [found], permanent=permanent)
            return found.version

    def text(self, stored: Stored, form: str | None) -> str:
        """A schema's text in a form that its language has, such as `serialized` for Protobuf."""
        if form is None:
            return stored.schema.text
        with self._database.read() as rows:
            texts = _texts(rows, stored.schema)
        return LANGUAGES[stored.schema.kind].form(_parsed(stored.schema, texts), form)

    def _differences(self, schema: Submission, parsed: Parsed, loaded: _Loaded) -> list[str]:
        """What the level finds wrong, in the form that clients of this API print."""
        level = loaded.level
        if level == "NONE" or not loaded.live:
            return []
        for one, texts in reversed(loaded.live if level.endswith("_TRANSITIVE") else loaded.live[-1:]):
            if one.stored.schema.kind != schema.kind:
                text = f"{one.stored.schema.kind} is not {schema.kind}"
                told: tuple[str, ...] = (f"{{errorType:'TYPE_CHANGED', description:'{text}'}}",)
            else:
                key = (schema.fingerprint, one.stored.fingerprint, level.removesuffix("_TRANSITIVE"))
                if (known := self._judged.get(key)) is None:
                    known = _pair(parsed, _parsed(one.stored.schema, texts), schema.kind, level)
                    if len(self._judged) >= _JUDGED_MAX:
                        self._judged.clear()
                    self._judged[key] = known
                told = known
            if told:
                return [*told, f"{{oldSchemaVersion: {one.version}}}", f"{{compatibility: '{level}'}}"]
        return []


def _load(rows: Rows, subject: str, given: Submission, normalize: bool) -> _Loaded:
    live = records.versions(rows, subject)
    level = settings.effective(rows, subject, "level")
    chosen = normalize or settings.effective(rows, subject, "normalize") == "true"
    return _Loaded(
        given, _texts(rows, given), tuple((one, _texts(rows, one.stored.schema)) for one in live), level, chosen
    )


def _prepared(loaded: _Loaded) -> tuple[Submission, Parsed]:
    """A schema with its canonical or normal text."""
    given = loaded.given
    parsed = _parsed(given, loaded.texts)
    if loaded.normalize:
        return replace(given, text=LANGUAGES[given.kind].normal(parsed)), parsed
    return replace(given, text=parsed.text, identity=parsed.identity), parsed


def _parsed(schema: Submission, texts: _Texts) -> Parsed:
    try:
        return _read(schema.kind, schema.text, texts)
    except InvalidSchemaError as error:
        raise problems.invalid_schema(error) from error


@functools.lru_cache(maxsize=128)
def _read(kind: str, text: str, references: _Texts) -> Parsed:
    return LANGUAGES[kind].parse(text, references)


def _texts(rows: Rows, schema: Submission) -> _Texts:
    """(name, text) of all that a schema builds on, what they build on first."""
    found: dict[tuple[str, int], tuple[str, str]] = {}
    open_: set[tuple[str, int]] = set()

    def take(one: Submission, depth: int) -> None:
        for reference in one.references:
            key = (reference.subject, reference.version)
            if key in found:
                continue
            if key in open_ or depth > 50 or len(found) >= _REFERRED_MAX:
                raise problems.invalid_schema("its references go round in a circle, or are too many")
            entry = records.version(rows, *key, deleted=one is not schema)
            if entry is None:
                raise problems.invalid_schema(
                    f"no such reference. name='{reference.name}' subject='{key[0]}' version={key[1]}"
                )
            if entry.stored.schema.kind != schema.kind:
                raise problems.invalid_schema(f"reference is of another language: {reference.name}")
            open_.add(key)
            take(entry.stored.schema, depth + 1)
            found[key] = (reference.name, entry.stored.schema.text)

    take(schema, 0)
    return tuple(found.values())


def _of(entries: Iterable[Entry], stored: Stored | None) -> Entry | None:
    """The newest version that is this schema."""
    if stored is None:
        return None
    return next((one for one in reversed([*entries]) if one.stored.id == stored.id), None)


def _pair(new: Parsed, old: Parsed, kind: str, level: str) -> tuple[str, ...]:
    compare = LANGUAGES[kind].differences
    found = []
    try:
        if not level.startswith("FORWARD"):
            found += [(one, "the new schema cannot read the old one's data") for one in compare(new, old)]
        if not level.startswith("BACKWARD"):
            found += [(one, "the old schema cannot read the new one's data") for one in compare(old, new)]
    except InvalidSchemaError as error:
        raise problems.invalid_schema(error) from error
    return tuple(f"{{errorType:'{one.rule}', description:'{one.text}: {who}'}}" for one, who in found[:_SHOWN_MAX])


def _check_import(rows: Rows, subject: str, schema: Submission, stored: Stored | None) -> None:
    """Raises Problem when an import would give an id or a version a second meaning."""
    if schema.id is not None:
        if stored is not None and stored.id != schema.id:
            raise problems.not_permitted(f"Schema is there with another id {stored.id}, not {schema.id}")
        there = rows.all("SELECT fingerprint FROM schemas WHERE id = ?", schema.id)
        if there and there[0][0] != schema.fingerprint:
            raise problems.not_permitted(f"Overwrite new schema with id {schema.id} is not permitted.")
    if schema.version is not None and records.version(rows, subject, schema.version, deleted=True) is not None:
        raise problems.not_permitted(f"Overwrite version {schema.version} of subject {subject} is not permitted.")


def _check_writable(rows: Rows, subject: str) -> None:
    if settings.mode(rows, subject) == "READONLY":
        raise problems.not_permitted(f"Subject {subject} is in read-only mode")


def _check_free(rows: Rows, one: Entry, permanent: bool) -> None:
    """Raises Problem when another schema builds on this version."""
    if records.referred_by(rows, one.subject, one.version, deleted=permanent):
        raise problems.is_referred_to(f"{{subject={one.subject},version={one.version}}}")
