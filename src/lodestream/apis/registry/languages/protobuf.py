"""Reads Protobuf schemas, as .proto text or as a serialized descriptor in base64, with what they import."""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from lodestream.apis.registry.languages import protobuf_rules
from lodestream.apis.registry.languages.parsed import Difference, InvalidSchemaError, Parsed, Texts
from lodestream.apis.registry.languages.proto_print import print_proto
from lodestream.apis.registry.languages.proto_text import read_proto

_OWN = "schema.proto"
_KNOWN = re.compile(r"(google/protobuf|google/type|confluent|confluent/type)/(\w+)\.proto")
_PACKAGES = {"confluent": "confluent_kafka.schema_registry.confluent"}


@dataclass(frozen=True, slots=True)
class Model:
    """A Protobuf file with its names resolved.

    Attributes:
        file: its descriptor.
        messages: every message that it can see, by full name with a leading dot.
        own: names of the messages and enums at the top of the file.
    """

    file: FileDescriptorProto
    messages: Mapping[str, DescriptorProto]
    own: frozenset[str]


class Protobuf:
    """The Protobuf language."""

    def parse(self, text: str, references: Texts = ()) -> Parsed:
        """Read a schema; it may import the references and the files that come with Protobuf."""
        pool = DescriptorPool()
        files: dict[str, FileDescriptorProto] = {}
        for name, referred in references:
            files[name] = _added(pool, files, _read(referred), name)
        given = _read(text)
        own = _OWN
        while own in files:
            own = f"_{own}"
        file = _added(pool, files, given, own)
        file.ClearField("name")
        messages: dict[str, DescriptorProto] = {}
        for one in (*files.values(), file):
            prefix = f".{one.package}" if one.package else ""
            _collect(prefix, one.message_type, messages)
        own_names = frozenset(one.name for one in (*file.message_type, *file.enum_type))
        printed = print_proto(file)
        stored = text.strip() if _decoded(text) is None else _shown(file, printed)
        return Parsed(stored, Model(file, messages, own_names), printed)

    def normal(self, parsed: Parsed) -> str:
        """Fields sorted by number, nested types and imports by name."""
        file = FileDescriptorProto()
        file.CopyFrom(parsed.model.file)
        if not file.public_dependency and not file.weak_dependency:
            file.dependency.sort()
        for message in file.message_type:  # their order is what messages name them by, so it stays
            _sort(message)
        return print_proto(file)

    def form(self, parsed: Parsed, name: str) -> str:
        """`serialized`: the descriptor in base64."""
        if name == "serialized":
            return base64.b64encode(parsed.model.file.SerializeToString(deterministic=True)).decode()
        return parsed.text

    def differences(self, reader: Parsed, writer: Parsed) -> list[Difference]:
        """By what is safe on the wire, as Protobuf's guide for updating messages tells."""
        return protobuf_rules.differences(reader.model, writer.model)


def _shown(file: FileDescriptorProto, printed: str) -> str:
    """A descriptor as text, or in base64 when the text would not say all of it, as with options of others."""
    try:
        again = read_proto(printed)
    except InvalidSchemaError:
        again = FileDescriptorProto()
    if print_proto(again) == printed and not _has_unknown(file):
        return printed
    return base64.b64encode(file.SerializeToString(deterministic=True)).decode()


def _has_unknown(file: FileDescriptorProto) -> bool:
    """Whether the descriptor holds options that only their authors can read."""
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.DiscardUnknownFields()
    return bool(bare.ByteSize() != file.ByteSize())


def _read(text: str) -> FileDescriptorProto:
    found = _decoded(text)
    return read_proto(text) if found is None else found


def _decoded(text: str) -> FileDescriptorProto | None:
    """The descriptor of a text that is base64; None when it is .proto text."""
    if not re.fullmatch(r"[A-Za-z0-9+/\s]+={0,2}\s*", text):
        return None
    try:
        found = FileDescriptorProto.FromString(base64.b64decode(text, validate=False))
    except (binascii.Error, DecodeError, ValueError) as error:
        raise InvalidSchemaError(f"neither a .proto file nor a descriptor in base64: {error}") from None
    found.ClearField("source_code_info")
    _check_text(found)
    return found


def _check_text(message: Any) -> None:
    """Raises InvalidSchemaError when a text inside is not UTF-8: such a one is bytes."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if field.message_type is not None:
                _check_text(one)
            elif field.type == field.TYPE_STRING and isinstance(one, bytes):
                raise InvalidSchemaError(f"text is not UTF-8: {one[:40]!r}")


def _added(
    pool: DescriptorPool, files: dict[str, FileDescriptorProto], file: FileDescriptorProto, name: str
) -> FileDescriptorProto:
    """The file with its names resolved; what it imports must be there, or come with Protobuf."""
    for needed in file.dependency:
        if needed not in files:
            _add_known(pool, files, needed)
    return _built(pool, file, name)


def _add_known(pool: DescriptorPool, files: dict[str, FileDescriptorProto], name: str) -> None:
    match = _KNOWN.fullmatch(name)
    if match is None:
        raise InvalidSchemaError(f"no such import; register it and name it in the references: {name[:200]!r}")
    folder = match[1].split("/")
    package = ".".join([_PACKAGES.get(folder[0], folder[0]), *folder[1:]])
    try:
        found = importlib.import_module(f"{package}.{match[2]}_pb2")
        file = FileDescriptorProto.FromString(found.DESCRIPTOR.serialized_pb)
    except (ModuleNotFoundError, AttributeError):
        raise InvalidSchemaError(f"no such import: {name!r}") from None
    for needed in file.dependency:
        if needed not in files:
            _add_known(pool, files, needed)
    files[name] = _built(pool, file, name)


def _built(pool: DescriptorPool, file: FileDescriptorProto, name: str) -> FileDescriptorProto:
    file.name = name
    found = FileDescriptorProto()
    try:
        pool.Add(file)
        pool.FindFileByName(name).CopyToProto(found)
    except (TypeError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise InvalidSchemaError(str(error).partition("\n")[0][:300]) from None
    return found


def _collect(prefix: str, messages: Iterable[DescriptorProto], found: dict[str, DescriptorProto]) -> None:
    for one in messages:
        name = f"{prefix}.{one.name}"
        found[name] = one
        _collect(name, one.nested_type, found)


def _sort(message: DescriptorProto) -> None:
    message.field.sort(key=lambda one: one.number)
    for one in message.nested_type:
        _sort(one)
