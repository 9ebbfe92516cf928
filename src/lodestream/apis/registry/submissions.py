"""Schemas as clients send them: checked, with the fingerprint that makes two of them the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestream.apis.registry.languages.parsed import write_json
from lodestream.apis.registry.problems import Problem, invalid_schema, invalid_subject, invalid_version, unreadable
from lodestream.ports.registry import Reference, SchemaKind

KINDS: tuple[SchemaKind, ...] = ("JSON", "PROTOBUF", "AVRO")
NUMBER_MAX = (1 << 31) - 1
TEXT_MAX = 1 << 20
_REFERENCES_MAX = 200
_NAME_MAX = 512
_PARTS = ("metadata", "ruleSet")


@dataclass(frozen=True, slots=True)
class Submission:
    """A schema in a request.

    Attributes:
        kind: its language.
        text: as sent, or canonical.
        references: what it builds on.
        parts: `metadata` and `ruleSet` as sent, when they were.
        id: the id it shall have (import only).
        version: the version it shall have (import only).
        identity: stands for the text in the fingerprint, without its layout.
    """

    kind: SchemaKind
    text: str
    references: tuple[Reference, ...] = ()
    parts: str = "{}"
    id: int | None = None
    version: int | None = None
    identity: str | None = field(default=None, compare=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that makes a schema what it is; equal fingerprints have one id."""
        told = [
            self.kind,
            self.text if self.identity is None else self.identity,
            [[r.name, r.subject, r.version] for r in self.references],
            self.parts,
        ]
        return hashlib.sha256(write_json(told).encode()).hexdigest()


def read_submission(body: Any) -> Submission:
    """The schema in a request's JSON. Raises Problem."""
    if not isinstance(body, dict):
        raise unreadable("the body is a JSON object with a field 'schema'")
    text, kind = body.get("schema"), body.get("schemaType") or "AVRO"
    if not isinstance(text, str) or not text.strip():
        raise invalid_schema("the field 'schema' holds the schema's text")
    if len(text) > TEXT_MAX:
        raise invalid_schema(f"larger than {TEXT_MAX} characters")
    if kind not in KINDS:
        raise unreadable(f"schemaType is one of {', '.join(KINDS)}")
    references = body.get("references") or []
    if not isinstance(references, list) or len(references) > _REFERENCES_MAX:
        raise unreadable(f"references are a list of at most {_REFERENCES_MAX}")
    parts = {key: body[key] for key in _PARTS if body.get(key) is not None}
    if not all(isinstance(one, dict) for one in parts.values()):
        raise unreadable("metadata and ruleSet are JSON objects")
    return Submission(
        kind, text, tuple(map(_reference, references)), write_json(parts, sort=True),
        _number(body.get("id"), "id"), _number(body.get("version"), "version"),
    )  # fmt: skip


def _reference(value: Any) -> Reference:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise unreadable("a reference is an object with name, subject and version")
    if len(value["name"]) > _NAME_MAX:
        raise unreadable(f"a reference's name has at most {_NAME_MAX} characters")
    version = value.get("version")
    if not isinstance(version, int) or not _is_number(version):
        raise invalid_version(version)
    return Reference(value["name"], subject_named(value.get("subject")), version)


def _number(value: Any, what: str) -> int | None:
    """A number of an import; clients send -1 for none."""
    if value is None or (value == -1 and not isinstance(value, bool)):
        return None
    if not _is_number(value):
        raise invalid_version(value) if what == "version" else unreadable(f"{what} is a whole number from 1")
    found: int = value
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= NUMBER_MAX


def subject_named(value: Any) -> str:
    """A subject's name. Raises Problem when it cannot be one."""
    if not isinstance(value, str) or not value or len(value) > _NAME_MAX or not value.isprintable():
        raise invalid_subject(value if not isinstance(value, str) else value[:80])
    return value


def version_named(text: str) -> int | None:
    """A version's number; None is the latest. Raises Problem."""
    if text in ("latest", "-1"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= NUMBER_MAX):
        raise invalid_version(text[:80])
    return int(text)


def id_named(text: str) -> int:
    """A schema id in a path. Raises Problem."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= NUMBER_MAX):
        raise Problem(40403, f"Schema {text[:80]} not found")
    return int(text)


def parts_of(text: str) -> Mapping[str, Any]:
    """`metadata` and `ruleSet` from what is stored."""
    found: dict[str, Any] = json.loads(text)
    return found
