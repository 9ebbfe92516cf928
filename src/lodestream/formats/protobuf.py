"""Protobuf messages, with a schema id or bare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lodestream.errors import ConfigError
from lodestream.formats._lines import Ints, Lines, message_lines
from lodestream.formats._protobuf_records import ProtoRecords
from lodestream.formats._protobuf_schema import (
    BadProtobufError,
    ProtoMessage,
    ProtoSchema,
    message_schema,
    parse_protobuf,
)
from lodestream.formats._records import merged, rejected
from lodestream.formats._registered import (
    HEADER_BYTES,
    UnusableSchemaError,
    chunks,
    frequent,
    latest_of,
    read_headers,
    references_of,
    schema_with_references,
)
from lodestream.formats._wire_rows import in_order
from lodestream.model.types import Schema
from lodestream.ports.format import Part
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

_KNOWN_MAX = 1000
_PATHS_MAX = 64
_PATH_BYTES_MAX = 32


class ProtobufSettings(Settings):
    """How Protobuf is read."""

    framing: Literal["confluent", "none"] = "confluent"
    """What a message begins with: a zero byte, the id of its schema in a registry and which of the schema's messages it
    is; or nothing."""
    registry: str = "default"
    """The registry of framing `confluent`: its name under `registries:`, or a URL."""
    subject: str = ""
    """The registry's subject whose newest schema `plan` takes columns from; the topic's name and `-value` if empty."""
    schema_file: str = Field(default="", alias="schema")
    """A schema file (`.proto`) of the project, which imports nothing but the language's own files. Framing `none`
    needs it; with `confluent` it is used in place of all of the registry's."""
    message: str = ""
    """The name of the message type; the first of the schema if empty. With framing `confluent` messages say it, and
    this is only what `plan` takes columns from."""
    row_bytes_max: int = Field(default=16 << 20, ge=1024, le=64 << 20)
    """A longer message is quarantined (`parse:size`); its first 16 MiB are kept."""
    schemas_max: int = Field(default=1000, ge=1, le=100_000)
    """How many different schema ids one batch may have; messages of the rarest ones beyond are quarantined
    (`parse:schema_id:many`)."""

    @model_validator(mode="after")
    def _has_schema(self) -> ProtobufSettings:
        if self.framing == "none" and not self.schema_file:
            raise ValueError("framing none needs `schema:`, the file that messages are written with")
        return self


class ProtobufFormat:
    """Decodes Protobuf messages to the declared columns by field name; there are no files of them.

    A field without presence that is absent has its zero value, any other absent one is NULL.
    """

    settings: ClassVar[type[Settings]] = ProtobufSettings
    framing: Literal["messages"] = "messages"
    head_lines = 0

    def __init__(self, settings: ProtobufSettings, reading: Reading) -> None:
        self.row_bytes_max = settings.row_bytes_max
        self._settings = settings
        self._reading = reading
        self._given = self._load(settings.schema_file) if settings.schema_file else None
        self._schemas: dict[int, ProtoSchema] = {}
        self._known: dict[tuple[int, tuple[int, ...]], ProtoRecords] = {}
        self._registry: SchemaRegistry | None = None

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: Ints) -> Decoded:
        """Messages to rows and rejects, each with its own schema and message type."""
        lines = message_lines(values, positions)
        if self._settings.framing == "none":
            ids = np.zeros(len(lines), np.int64)
        else:
            ids, _ = read_headers(lines)
        names, which = frequent(ids, self._settings.schemas_max)
        reasons = [self._reason(int(name)) for name in names]
        pieces = [self._chunk(lines, rows, which, names, reasons, unit) for rows in chunks(lines)]
        return merged(pieces) if pieces else rejected(self._reading, unit, [])

    def _chunk(self, lines: Lines, rows: Ints, which: Ints, names: Ints, reasons: Sequence[str], unit: str) -> Decoded:
        """Some messages, grouped by schema and message type."""
        long = (lines.ends[rows] - lines.starts[rows]) > self.row_bytes_max
        group = np.where(long, -2, which[rows])
        pieces = []
        for name in np.unique(group).tolist():
            some = lines.some(rows[group == name])
            reason = {-2: "parse:size", -1: "parse:schema_id:many"}.get(name) or reasons[name]
            pieces += [self._rejected(some, reason, unit)] if reason else self._by_path(some, int(names[name]), unit)
        return in_order(pieces)

    def _by_path(self, lines: Lines, name: int, unit: str) -> list[Decoded]:
        """Messages of one schema, grouped by the message indexes that follow the id."""
        if self._settings.framing == "none":
            return [self._records(name, ()).decode(lines, np.zeros(len(lines), np.int64), unit)]
        pieces: list[Decoded] = []
        todo = np.arange(len(lines))
        for _ in range(_PATHS_MAX):
            if not len(todo):
                return pieces
            first = int(lines.starts[todo[0]]) + HEADER_BYTES
            head = lines.block[first : min(int(lines.ends[todo[0]]), first + _PATH_BYTES_MAX)].tobytes()
            path, size = _read_path(head)
            if size < 0:
                pieces.append(self._rejected(lines.some(todo[:1]), "parse:protobuf:index", unit))
                todo = todo[1:]
                continue
            fits = lines.ends[todo] - lines.starts[todo] >= HEADER_BYTES + size
            at = np.where(fits, lines.starts[todo] + HEADER_BYTES, first)
            heads = lines.block[at[:, None] + np.arange(size)]
            same = fits & (heads == np.frombuffer(head[:size], np.uint8)).all(axis=1)
            mine = lines.some(todo[same])
            todo = todo[~same]
            try:
                records = self._records(name, path)
            except BadProtobufError:
                pieces.append(self._rejected(mine, "parse:protobuf:index", unit))
                continue
            pieces.append(records.decode(mine, np.full(len(mine), HEADER_BYTES + size), unit))
        return [*pieces, self._rejected(lines.some(todo), "parse:protobuf:index", unit)] if len(todo) else pieces

    def _rejected(self, lines: Lines, reason: str, unit: str) -> Decoded:
        found = zip(lines.positions.tolist(), lines.starts.tolist(), lines.ends.tolist(), strict=True)
        limit = self.row_bytes_max
        return rejected(
            self._reading, unit, [(at, [reason], lines.block[a : min(b, a + limit)].tobytes()) for at, a, b in found]
        )

    def _reason(self, name: int) -> str:
        """Why messages of a schema id are not read; empty when they are."""
        if self._settings.framing == "confluent" and name < 0:
            return "parse:magic"
        try:
            self._schema(name)
        except UnusableSchemaError as error:
            return str(error)
        return ""

    def _records(self, name: int, path: tuple[int, ...]) -> ProtoRecords:
        """How messages of a type are decoded. Raises BadProtobufError: the schema has none at this path."""
        if (name, path) not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.pop(next(iter(self._known)))
            self._known[name, path] = ProtoRecords(self._message(self._schema(name), path), self._reading)
        return self._known[name, path]

    def _message(self, schema: ProtoSchema, path: tuple[int, ...]) -> ProtoMessage:
        if path:
            return schema.at(path)
        return schema.named(self._settings.message) if self._settings.message else schema.at((0,))

    def _schema(self, name: int) -> ProtoSchema:
        """The schema of an id. Raises UnusableSchemaError."""
        if self._given:
            return self._given
        if name not in self._schemas:
            schema, references = schema_with_references(self._open_registry(), name, "PROTOBUF")
            try:
                made = parse_protobuf(schema.text, [(file, inner.text) for file, inner in references])
            except BadProtobufError:
                raise UnusableSchemaError("parse:schema_id:invalid") from None
            if len(self._schemas) >= _KNOWN_MAX:
                self._schemas.pop(next(iter(self._schemas)))
            self._schemas[name] = made
        return self._schemas[name]

    def _open_registry(self) -> SchemaRegistry:
        if self._registry is None:
            self._registry = self._reading.registry(self._settings.registry)
        return self._registry

    def _load(self, file: str) -> ProtoSchema:
        try:
            schema = parse_protobuf(Path(self._reading.root, file).read_text(encoding="utf-8"))
            self._message(schema, ())
        except OSError as error:
            raise ConfigError("cannot read the schema file", file=file, why=error.strerror) from error
        except ValueError as error:
            raise ConfigError("not a Protobuf schema with this message", file=file, why=str(error)) from error
        return schema

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Columns of the schema file or the subject's newest schema; without one, none.

        Raises:
            ConfigError: the subject's newest schema cannot be used.
        """
        if self._given is not None:
            return message_schema(self._message(self._given, ()))
        registry = self._open_registry()
        subject = self._settings.subject or f"{topic}-value"
        latest = latest_of(registry, subject, "PROTOBUF")
        if latest is None:
            return Schema()
        try:
            files = [(file, inner.text) for file, inner in references_of(registry, latest)]
            return message_schema(self._message(parse_protobuf(latest.text, files), ()))
        except (ValueError, LookupError) as error:
            raise ConfigError("the subject's newest schema cannot be used", subject=subject, why=str(error)) from error

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Not for messages."""
        raise ConfigError("protobuf is for messages; files are json, csv, avro or parquet")

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Not for messages."""
        raise ConfigError("protobuf is for messages; files are json, csv, avro or parquet")

    def parts(self, path: str) -> Sequence[Part]:
        """Not for messages."""
        raise ConfigError("protobuf is for messages; files are json, csv, avro or parquet")

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Not for messages."""
        raise ConfigError("protobuf is for messages; files are json, csv, avro or parquet")

    def infer_file(self, path: str) -> Schema:
        """Not for messages."""
        raise ConfigError("protobuf is for messages; files are json, csv, avro or parquet")


def _read_path(head: bytes) -> tuple[tuple[int, ...], int]:
    """The message indexes at the begin of these bytes, and how many bytes they take; -1 when they are none."""
    numbers: list[int] = []
    at = 0
    while not numbers or len(numbers) <= numbers[0]:
        value = shift = 0
        while True:
            if at >= len(head) or shift > 28:
                return (), -1
            value |= (head[at] & 127) << shift
            shift += 7
            at += 1
            if head[at - 1] < 128:
                break
        numbers.append((value >> 1) ^ -(value & 1))
        if numbers[0] < 0 or numbers[-1] < 0:
            return (), -1
    return tuple(numbers[1:]) or (0,), at


component = ProtobufFormat
