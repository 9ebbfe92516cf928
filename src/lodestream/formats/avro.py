"""Avro: messages with a schema id, with a fingerprint or bare, and object container files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lodestream.errors import ConfigError
from lodestream.formats._avro_files import AvroFile, NotAvroError
from lodestream.formats._avro_native import interpreter
from lodestream.formats._avro_program import Limits, RunProgram
from lodestream.formats._avro_records import AvroRecords
from lodestream.formats._avro_schema import AvroType, BadSchemaError, fingerprint, parse_schema, record_schema
from lodestream.formats._lines import Ints, Lines, message_lines
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
from lodestream.model.widening import unify_schemas
from lodestream.ports.format import Part
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

_KEPT_BYTES = 64 << 10
_KNOWN_MAX = 1000
_SINGLE = b"\xc3\x01"
_SINGLE_BYTES = 10


class AvroSettings(Settings):
    """How Avro is read."""

    framing: Literal["confluent", "none", "single_object"] = "confluent"
    """What a message begins with: a zero byte and the id of its schema in a registry; nothing; or two marker bytes and
    the fingerprint of its schema (Avro's single-object encoding). Files say themselves what is in them."""
    registry: str = "default"
    """The registry of framing `confluent`: its name under `registries:`, or a URL."""
    subject: str = ""
    """The registry's subject whose newest schema `plan` takes columns from; the topic's name and `-value` if empty."""
    schema_file: str = Field(default="", alias="schema")
    """A schema file (`.avsc`) of the project. With framing `none` messages are written with it. Otherwise it is the
    reader's schema, which adds aliases of fields and defaults for what a message's schema does not have; with
    `single_object` messages may be written with it too."""
    writers: tuple[str, ...] = ()
    """Further schema files that messages of framing `single_object` may be written with."""
    timestamps: Literal["logical", "seconds", "millis", "micros"] = "logical"
    """What whole numbers without logical type in timestamp columns count since 1970; `logical` refuses them."""
    row_bytes_max: int = Field(default=16 << 20, ge=1024, le=64 << 20)
    """A longer message is quarantined (`parse:size`); its first 16 MiB are kept."""
    depth_max: int = Field(default=64, ge=1, le=128)
    """How deep records, arrays and maps may nest (a map counts twice); beyond, `parse:avro:depth`."""
    items_max: int = Field(default=1_000_000, ge=1, le=100_000_000)
    """How many items all arrays and maps of one record may have (`parse:avro:items`)."""
    schemas_max: int = Field(default=1000, ge=1, le=100_000)
    """How many different schema ids one batch may have; messages of the rarest ones beyond are quarantined
    (`parse:schema_id:many`)."""
    block_bytes_max: int = Field(default=64 << 20, ge=1 << 16, le=1 << 30)
    """How large a block of a file may be after decompression; rows of a larger one are quarantined (`parse:file`)."""

    @model_validator(mode="after")
    def _has_schema(self) -> AvroSettings:
        if self.framing == "none" and not self.schema_file:
            raise ValueError("framing none needs `schema:`, the file that messages are written with")
        return self


class AvroFormat:
    """Decodes Avro to the declared columns by field name; a field that a message's schema does not have is NULL.

    The schema registry is asked when the first message needs it. A message of an id that the registry does not know is
    a reject that a replay can take again once it does.
    """

    settings: ClassVar[type[Settings]] = AvroSettings
    framing: Literal["file"] = "file"
    head_lines = 0

    def __init__(self, settings: AvroSettings, reading: Reading, *, run: RunProgram | None = None) -> None:
        self.row_bytes_max = settings.row_bytes_max
        self._settings = settings
        self._reading = reading
        self._run = run or interpreter()
        self._limits = Limits(settings.depth_max, settings.items_max)
        self._given = self._load(settings.schema_file) if settings.schema_file else None
        self._reader = None if settings.framing == "none" else self._given
        self._known: dict[int, AvroRecords] = {}  # what was learnt of ids, which never change
        self._registry: SchemaRegistry | None = None
        self._fingerprints = {
            int.from_bytes(fingerprint(kind), "little", signed=True): kind
            for kind in [*([self._given] if self._given else []), *(self._load(file) for file in settings.writers)]
        }

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: Ints) -> Decoded:
        """Messages to rows and rejects, each with its own schema."""
        lines = message_lines(values, positions)
        ids, skip = self._ids(lines)
        names, which = frequent(ids, self._settings.schemas_max)
        records = [self._records(int(name)) for name in names]
        pieces = [self._chunk(lines, rows, which, records, skip, unit) for rows in chunks(lines)]
        return merged(pieces) if pieces else rejected(self._reading, unit, [])

    def _ids(self, lines: Lines) -> tuple[Ints, int]:
        """What says which schema each message has, and how many bytes stand before the record."""
        if self._settings.framing == "none":
            return np.zeros(len(lines), np.int64), 0
        if self._settings.framing == "confluent":
            return read_headers(lines)[0], HEADER_BYTES
        return _read_fingerprints(lines), _SINGLE_BYTES

    def _chunk(
        self, lines: Lines, rows: Ints, which: Ints, records: Sequence[AvroRecords | str], skip: int, unit: str
    ) -> Decoded:
        """Some messages, grouped by schema."""
        long = (lines.ends[rows] - lines.starts[rows]) > self.row_bytes_max
        group = np.where(long, -2, which[rows])
        pieces = []
        for name in [int(group[0])] if (group == group[0]).all() else np.unique(group).tolist():
            some = lines.some(rows[group == name])
            record = {-2: "parse:size", -1: "parse:schema_id:many"}.get(name) or records[name]
            if isinstance(record, str):
                pieces.append(self._rejected(some, record, unit))
            else:
                pieces.append(record.decode(some, skip, unit))
        return in_order(pieces)

    def _rejected(self, lines: Lines, reason: str, unit: str) -> Decoded:
        found = zip(lines.positions.tolist(), lines.starts.tolist(), lines.ends.tolist(), strict=True)
        limit = self.row_bytes_max
        return rejected(
            self._reading, unit, [(at, [reason], lines.block[a : min(b, a + limit)].tobytes()) for at, a, b in found]
        )

    def _records(self, name: int) -> AvroRecords | str:
        """How records of a schema id or fingerprint are decoded, or the reason why they are not."""
        if name in self._known:
            return self._known[name]
        try:
            made = self._made(self._writer(name))
        except UnusableSchemaError as error:
            return str(error)
        if len(self._known) >= _KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[name] = made
        return made

    def _made(self, writer: AvroType) -> AvroRecords:
        return AvroRecords(writer, self._reader, self._reading, self._settings.timestamps, self._limits, self._run)

    def _writer(self, name: int) -> AvroType:
        """The schema of an id or fingerprint. Raises UnusableSchemaError."""
        if self._settings.framing == "none":
            assert self._given
            return self._given
        if self._settings.framing == "single_object":
            if name not in self._fingerprints:
                raise UnusableSchemaError("parse:magic" if name == _NO_FINGERPRINT else "parse:schema_id:unknown")
            return self._fingerprints[name]
        if name < 0:
            raise UnusableSchemaError("parse:magic")
        schema, references = schema_with_references(self._open_registry(), name, "AVRO")
        try:
            kind = parse_schema(schema.text, [inner.text for _, inner in references])
        except BadSchemaError:
            raise UnusableSchemaError("parse:schema_id:invalid") from None
        if kind.kind != "record":
            raise UnusableSchemaError("parse:schema_id:record")
        return kind

    def _open_registry(self) -> SchemaRegistry:
        if self._registry is None:
            self._registry = self._reading.registry(self._settings.registry)
        return self._registry

    def _load(self, file: str) -> AvroType:
        path = Path(self._reading.root, file)
        try:
            kind = parse_schema(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError("cannot read the schema file", file=file, why=error.strerror) from error
        except ValueError as error:
            raise ConfigError("not an Avro schema", file=file, why=str(error)) from error
        if kind.kind != "record":
            raise ConfigError("the schema is no record, and rows are records", file=file)
        return kind

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Columns of the subject's newest schema, else of the schemas that the messages were written with."""
        if self._given is not None:
            return record_schema(self._given)
        if self._settings.framing == "confluent":
            subject = self._settings.subject or f"{topic}-value"
            latest = latest_of(self._open_registry(), subject, "AVRO")
            if latest is not None:
                references = references_of(self._open_registry(), latest)
                return record_schema(
                    _parsed(lambda: parse_schema(latest.text, [r.text for _, r in references]), subject)
                )
        array = pa.array(values, pa.binary())
        ids, _ = self._ids(message_lines(array, np.arange(len(values))))
        found = [self._records(int(name)) for name in frequent(ids, self._settings.schemas_max)[0]]
        return unify_schemas([record_schema(each.writer) for each in found if isinstance(each, AvroRecords)])

    def parts(self, path: str) -> Sequence[Part]:
        """The blocks of a file; one part of one record when it cannot be opened."""
        try:
            with AvroFile(path, self._settings.block_bytes_max) as file:
                return [Part(block.rows, block.size) for block in file.blocks]
        except NotAvroError:
            return [Part(1, _KEPT_BYTES)]

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Rows by number, some blocks at a time."""
        try:
            file = AvroFile(path, self._settings.block_bytes_max)
        except NotAvroError:
            with open(path, "rb") as broken:
                yield rejected(self._reading, unit, [(0, ["parse:file"], broken.read(_KEPT_BYTES))])
            return
        with file:
            try:
                records = self._made(file.records())
            except NotAvroError:
                records = None
            yield from file.read(records, self._reading, unit, start, end)

    def infer_file(self, path: str) -> Schema:
        """The file's columns; those that no table can store are left out.

        Raises:
            ConfigError: the file cannot be opened.
        """
        try:
            with AvroFile(path, self._settings.block_bytes_max) as file:
                return record_schema(file.records())
        except NotAvroError as error:
            raise ConfigError("not a readable Avro file; declare `columns:`", file=path, why=str(error)) from error

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Not for file framing."""
        raise NotImplementedError

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Not for file framing."""
        raise NotImplementedError


_NO_FINGERPRINT = 1 << 62


def _read_fingerprints(lines: Lines) -> Ints:
    """Fingerprints as numbers; `_NO_FINGERPRINT` for messages that begin otherwise."""
    found = np.full(len(lines), _NO_FINGERPRINT, np.int64)
    fits = np.flatnonzero(lines.ends - lines.starts >= _SINGLE_BYTES)
    if not len(fits):
        return found
    heads = lines.block[lines.starts[fits][:, None] + np.arange(_SINGLE_BYTES)]
    marked = (heads[:, :2] == np.frombuffer(_SINGLE, np.uint8)).all(axis=1)
    found[fits[marked]] = np.ascontiguousarray(heads[marked, 2:]).view("<i8")[:, 0]
    return found


def _parsed(parse: Callable[[], AvroType], subject: str) -> AvroType:
    try:
        kind = parse()
    except BadSchemaError as error:
        raise ConfigError("the subject's newest schema is not Avro", subject=subject, why=str(error)) from error
    if kind.kind != "record":
        raise ConfigError("the subject's newest schema is no record, and rows are records", subject=subject)
    return kind


component = AvroFormat
