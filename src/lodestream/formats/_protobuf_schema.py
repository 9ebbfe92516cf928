"""Protobuf schemas: compiled from text into messages and fields, with the table types that hold them."""

from __future__ import annotations

import base64
import binascii
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from lodestream.errors import MissingDriverError
from lodestream.model.types import BIGINT, BINARY, BOOLEAN, DOUBLE, INT, STRING, TIMESTAMP, Column, DataType, Schema
from lodestream.model.widening import unify_schemas

TEXT_CHARS_MAX = 4 << 20
COMPILE_S_MAX = 60
COLUMN_TYPES_MAX = 5_000
_FILE = "schema.proto"
_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: "double", FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64", FieldDescriptor.TYPE_INT32: "int32", FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_FIXED32: "fixed32", FieldDescriptor.TYPE_BOOL: "bool", FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_GROUP: "group", FieldDescriptor.TYPE_MESSAGE: "message", FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_UINT32: "uint32", FieldDescriptor.TYPE_ENUM: "enum", FieldDescriptor.TYPE_SFIXED32: "sfixed32",
    FieldDescriptor.TYPE_SFIXED64: "sfixed64", FieldDescriptor.TYPE_SINT32: "sint32",
    FieldDescriptor.TYPE_SINT64: "sint64",
}  # fmt: skip
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
TIME = "google.protobuf.Timestamp"


class BadProtobufError(ValueError):
    """The text is no Protobuf schema, or has no such message; the message says why."""


@dataclass(eq=False, slots=True)
class ProtoField:
    """A field: `kind` is its type's name in the language, `presence` whether absent differs from its zero value."""

    number: int
    name: str
    kind: str
    is_repeated: bool
    is_map: bool
    has_presence: bool
    oneof: int
    message: ProtoMessage | None
    enum: Mapping[int, str] | None


@dataclass(eq=False, slots=True)
class ProtoMessage:
    """A message type; those that are used again are the same object, so a recursive schema is a cycle."""

    name: str
    fields: tuple[ProtoField, ...] = ()


@dataclass(frozen=True, slots=True)
class ProtoSchema:
    """A compiled file."""

    file: descriptor_pb2.FileDescriptorProto
    pool: descriptor_pool.DescriptorPool

    def at(self, path: Sequence[int]) -> ProtoMessage:
        """The message at the place that Confluent's message indexes say. Raises BadProtobufError."""
        messages: Any = self.file.message_type
        names = [self.file.package] if self.file.package else []
        for index in path:
            if not 0 <= index < len(messages):
                raise BadProtobufError("no such message")
            names.append(messages[index].name)
            messages = messages[index].nested_type
        return self.named(".".join(names))

    def named(self, name: str) -> ProtoMessage:
        """The message of that full name, or that name in the file's package. Raises BadProtobufError."""
        for full in (name, f"{self.file.package}.{name}"):
            try:
                return _message(self.pool.FindMessageTypeByName(full), {})
            except KeyError:
                continue
        raise BadProtobufError(f"no message {name!r}")


def parse_protobuf(text: str, references: Sequence[tuple[str, str]] = ()) -> ProtoSchema:
    """Compile a schema, as text or as a Base64 file descriptor; `references` are the files that it may import.

    Raises:
        BadProtobufError: it is none.
        MissingDriverError: it is text, and the compiler is not installed.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise BadProtobufError("longer than 4 Mi characters")
    files = [_descriptor(inner, name) for name, inner in references]
    own = _descriptor(text, _FILE)
    if own is None or None in files:
        found = _compile({_FILE: text, **dict(references)})
        own = next(file for file in found if file.name == _FILE)
    else:
        found = [*(file for file in files if file), own]
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in [*_well_known(found), *found]:
            pool.Add(file)
        pool.FindFileByName(own.name)
    except (TypeError, KeyError, ValueError) as error:
        raise BadProtobufError(str(error)) from error
    return ProtoSchema(own, pool)


def _descriptor(text: str, name: str) -> descriptor_pb2.FileDescriptorProto | None:
    """What a Base64 file descriptor holds; None when the text is none."""
    try:
        made = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    if name != _FILE:
        made.name = name
    return made if made.name else None


def _well_known(found: Sequence[descriptor_pb2.FileDescriptorProto]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The files of the language itself that these import and do not bring along."""
    have = {file.name for file in found}
    default = descriptor_pool.Default()
    for name in sorted({name for file in found for name in file.dependency} - have):
        if name.startswith("google/protobuf/"):
            __import__(name.removesuffix(".proto").replace("/", ".") + "_pb2")
            made = descriptor_pb2.FileDescriptorProto()
            default.FindFileByName(name).CopyToProto(made)
            yield made


def _compile(files: Mapping[str, str]) -> list[descriptor_pb2.FileDescriptorProto]:
    """All files and what they import, in order of need, by the language's own compiler in a process of its own."""
    try:
        import grpc_tools
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            "compiling Protobuf needs a package: pip install 'lodestream[protobuf]'", missing=error.name
        ) from error
    known = Path(str(grpc_tools.__file__)).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, name).resolve()
            if not path.is_relative_to(Path(folder).resolve()):
                raise BadProtobufError(f"an import leads outside: {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        out = Path(folder, "compiled")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{known}", "--include_imports"]
        try:
            command += [f"--descriptor_set_out={out}", _FILE]
            done = subprocess.run(command, capture_output=True, timeout=COMPILE_S_MAX, check=False)
        except subprocess.TimeoutExpired as error:
            raise BadProtobufError("compiling takes too long") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise BadProtobufError(lines[0].replace(f"{folder}/", "") if lines else "the compiler failed")
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def _message(found: Descriptor, known: dict[str, ProtoMessage]) -> ProtoMessage:
    if found.full_name in known:
        return known[found.full_name]
    made = known[found.full_name] = ProtoMessage(found.full_name)
    made.fields = tuple(_field(field, known) for field in found.fields)
    return made


def _field(field: FieldDescriptor, known: dict[str, ProtoMessage]) -> ProtoField:
    message = field.message_type
    oneof = field.containing_oneof
    return ProtoField(
        field.number,
        field.name,
        _KINDS[field.type],
        field.is_repeated,
        message is not None and message.GetOptions().map_entry,
        field.has_presence,
        oneof.index if oneof is not None and len(oneof.fields) > 1 else -1,
        _message(message, known) if message is not None else None,
        {value.number: value.name for value in reversed(field.enum_type.values)} if field.enum_type else None,
    )


def field_types(message: ProtoMessage) -> list[DataType | None]:
    """The table type that holds every value of each field; None when there is none."""
    return _Columns().fields(message)


def message_schema(message: ProtoMessage) -> Schema:
    """The columns that hold a message's fields; those that no column can hold are left out."""
    return _Columns().record(message)


class _Columns:
    """Counts the types it makes, for a short schema can stand for very many; a type inside itself has no column."""

    def __init__(self) -> None:
        self._count = 0
        self._within: set[int] = set()

    def fields(self, message: ProtoMessage) -> list[DataType | None]:
        self._within.add(id(message))
        kinds = [self._field(field) for field in message.fields]
        self._within.discard(id(message))
        return kinds

    def record(self, message: ProtoMessage) -> Schema:
        named = zip(message.fields, self.fields(message), strict=True)
        return unify_schemas([Schema((Column(field.name, kind),)) for field, kind in named if kind])

    def _field(self, field: ProtoField) -> DataType | None:
        if field.is_map and field.message:
            key, value = field.message.fields
            element = self._value(value)
            return DataType("map", key=STRING, element=element) if element and key.kind == "string" else None
        kind = self._value(field)
        return DataType("array", element=kind) if kind and field.is_repeated else kind

    def _value(self, field: ProtoField) -> DataType | None:
        self._count += 1
        if field.message is None:
            return _PLAIN.get(field.kind)
        if self._count > COLUMN_TYPES_MAX or id(field.message) in self._within or field.kind == "group":
            return None
        if field.message.name == TIME:
            return TIMESTAMP
        if field.message.name in WRAPPERS:
            return _PLAIN[field.message.fields[0].kind]
        fields = self.record(field.message).columns
        return DataType("struct", fields=fields) if fields else None


_PLAIN = {
    "double": DOUBLE, "float": DataType("float"), "int64": BIGINT, "sint64": BIGINT, "sfixed64": BIGINT,
    "uint64": DataType("decimal", 20, 0), "fixed64": DataType("decimal", 20, 0), "int32": INT, "sint32": INT,
    "sfixed32": INT, "uint32": BIGINT, "fixed32": BIGINT, "bool": BOOLEAN, "string": STRING, "bytes": BINARY,
    "enum": STRING,
}  # fmt: skip
