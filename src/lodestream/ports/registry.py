"""A schema registry as the formats see it: schemas by id and by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lodestream.errors import ConfigError

SchemaKind = Literal["AVRO", "JSON", "PROTOBUF"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Another schema that a schema builds on: `name` as its text says it, `subject` and `version` where it is."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as it was registered; an id never changes its meaning.

    Attributes:
        id: the number that framed messages carry.
        kind: its language.
        text: the schema itself.
        references: what it builds on.
    """

    id: int
    kind: SchemaKind
    text: str
    references: tuple[Reference, ...] = ()


class UnknownSchemaError(LookupError):
    """The registry answers, and has no such schema."""


class SchemaRefusedError(ConfigError):
    """The registry answers, and does not take the schema: it is none, or breaks the subject's rule."""


class SchemaRegistry(Protocol):
    """What is asked of a registry. Every method raises TransientError when it does not answer.

    What was learnt of an id or a version stays known, so that an outage only holds up what is new.
    """

    def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema of an id. Raises UnknownSchemaError when there is none."""

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """One version of a subject. Raises UnknownSchemaError when there is none."""

    def latest(self, subject: str) -> RegisteredSchema | None:
        """The newest schema of a subject, or None."""

    def register(self, subject: str, kind: SchemaKind, text: str, references: Sequence[Reference] = ()) -> int:
        """The id of a schema under a subject, registered now if it was not. Raises SchemaRefusedError."""

    def differences(
        self, subject: str, kind: SchemaKind, text: str, references: Sequence[Reference] = ()
    ) -> tuple[str, ...]:
        """Why the schema would be refused, by the subject's rule or because it is none; empty when it would not."""
