"""Writes a FileDescriptorProto as the text of a .proto file; equal descriptors give equal texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, Edition, FieldDescriptorProto, FileDescriptorProto

from lodestream.apis.registry.languages.proto_options import quoted, shown_options
from lodestream.apis.registry.languages.proto_text import ENUM_MAX, FIELD_MAX, GROUP, SCALARS

_NAMES = {number: name for name, number in SCALARS.items()}
_LABELS = {1: "optional ", 2: "required ", 3: "repeated "}


def print_proto(file: FileDescriptorProto) -> str:
    """The text."""
    return "\n".join(_file(file)) + "\n"


def _file(file: FileDescriptorProto) -> Iterator[str]:
    if file.syntax == "editions":
        yield f'edition = "{Edition.Name(file.edition).removeprefix("EDITION_")}";'
    else:
        yield f'syntax = "{file.syntax or "proto2"}";'
    if file.package:
        yield f"package {file.package};"
    for i, name in enumerate(file.dependency):
        kind = "public " if i in file.public_dependency else "weak " if i in file.weak_dependency else ""
        yield f"import {kind}{quoted(name)};"
    yield from (f"option {one};" for one in shown_options(file.options))
    loose = file.syntax in ("", "proto2")
    for message in file.message_type:
        yield from _block(f"message {message.name}", _message(message, loose))
    for enum in file.enum_type:
        yield from _block(f"enum {enum.name}", _enum(enum))
    yield from _extensions(file.extension, file.message_type, loose)
    for service in file.service:
        yield from _block(f"service {service.name}", _service(service))


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"{head} {{"
    yield from (f"  {line}" for line in lines)
    yield "}"


def _message(message: DescriptorProto, loose: bool) -> Iterator[str]:
    yield from (f"option {one};" for one in shown_options(message.options))
    yield from _reserved(message, FIELD_MAX, 1)
    for one in message.extension_range:
        told = ", ".join(shown_options(one.options))
        yield f"extensions {_range(one.start, one.end - 1, FIELD_MAX)}{f' [{told}]' if told else ''};"
    nested = {one.name: one for one in message.nested_type}
    done: set[int] = set()
    inside: dict[int, list[FieldDescriptorProto]] = {}
    for field in message.field:
        if field.HasField("oneof_index"):
            inside.setdefault(field.oneof_index, []).append(field)
    held: set[str] = set()
    for field in message.field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            if field.oneof_index in done:
                continue
            done.add(field.oneof_index)
            oneof = message.oneof_decl[field.oneof_index]
            inner = [f"option {told};" for told in shown_options(oneof.options)]
            for one in inside[field.oneof_index]:
                inner += _field(one, nested, held, loose, label=False)
            yield from _block(f"oneof {oneof.name}", inner)
        else:
            yield from _field(field, nested, held, loose)
    for one in message.nested_type:
        if one.name not in held:
            yield from _block(f"message {one.name}", _message(one, loose))
    for enum in message.enum_type:
        yield from _block(f"enum {enum.name}", _enum(enum))
    yield from _extensions(message.extension, message.nested_type, loose)


def _field(
    field: FieldDescriptorProto, nested: dict[str, DescriptorProto], held: set[str], loose: bool, *, label: bool = True
) -> Iterator[str]:
    """The field's lines; messages that are part of it (map entries, groups) are noted in `held`."""
    told = list(shown_options(field.options))
    if field.HasField("default_value"):
        told.insert(0, f"default = {_default(field)}")
    if field.json_name and field.json_name != _json_name(field.name):
        told.insert(0, f"json_name = {quoted(field.json_name)}")
    tail = f" = {field.number} [{', '.join(told)}]" if told else f" = {field.number}"
    own = nested.get(field.type_name.rpartition(".")[2])
    if own is not None and own.options.map_entry:
        held.add(own.name)
        yield f"map<{_type(own.field[0])}, {_type(own.field[1])}> {field.name}{tail};"
        return
    marked = field.label != 1 or field.proto3_optional or loose
    head = _LABELS[field.label] if label and marked else ""
    if field.type == GROUP and own is not None:
        held.add(own.name)
        yield from _block(f"{head}group {own.name}{tail}", _message(own, loose))
        return
    yield f"{head}{_type(field)} {field.name}{tail};"


def _type(field: FieldDescriptorProto) -> str:
    return field.type_name or _NAMES.get(field.type, "")


def _default(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return quoted(field.default_value)
    return f'"{field.default_value}"' if field.type == FieldDescriptorProto.TYPE_BYTES else field.default_value


def _json_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def _enum(enum: Any) -> Iterator[str]:
    yield from (f"option {one};" for one in shown_options(enum.options))
    yield from _reserved(enum, ENUM_MAX, 0)
    for value in enum.value:
        told = ", ".join(shown_options(value.options))
        yield f"{value.name} = {value.number}{f' [{told}]' if told else ''};"


def _reserved(found: Any, most: int, past: int) -> Iterator[str]:
    for one in found.reserved_range:
        yield f"reserved {_range(one.start, one.end - past, most)};"
    for name in found.reserved_name:
        yield f"reserved {quoted(name)};"


def _range(start: int, end: int, most: int) -> str:
    return str(start) if start == end else f"{start} to {'max' if end == most else end}"


def _extensions(extensions: Any, messages: Any, loose: bool) -> Iterator[str]:
    nested = {one.name: one for one in messages}
    for field in extensions:
        yield from _block(f"extend {field.extendee}", _field(field, nested, set(), loose))


def _service(service: Any) -> Iterator[str]:
    yield from (f"option {one};" for one in shown_options(service.options))
    for method in service.method:
        given = f"{'stream ' if method.client_streaming else ''}{method.input_type}"
        back = f"{'stream ' if method.server_streaming else ''}{method.output_type}"
        told = [f"option {one};" for one in shown_options(method.options)]
        head = f"rpc {method.name} ({given}) returns ({back})"
        yield from _block(head, told) if told else [f"{head};"]
