"""Whether one Protobuf file reads what another wrote: the wire rules of Protobuf's guide for updating messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from lodestream.apis.registry.languages.parsed import Difference, Steps

if TYPE_CHECKING:
    from lodestream.apis.registry.languages.protobuf import Model

_WIRE = {
    Field.TYPE_INT32: "varint", Field.TYPE_INT64: "varint", Field.TYPE_UINT32: "varint", Field.TYPE_UINT64: "varint",
    Field.TYPE_BOOL: "varint", Field.TYPE_ENUM: "varint", Field.TYPE_SINT32: "zigzag", Field.TYPE_SINT64: "zigzag",
    Field.TYPE_FIXED32: "fixed32", Field.TYPE_SFIXED32: "fixed32", Field.TYPE_FIXED64: "fixed64",
    Field.TYPE_SFIXED64: "fixed64", Field.TYPE_FLOAT: "float", Field.TYPE_DOUBLE: "double",
    Field.TYPE_STRING: "text", Field.TYPE_BYTES: "text", Field.TYPE_MESSAGE: "message", Field.TYPE_GROUP: "group",
}  # fmt: skip
"""Types of one word can be taken for each other."""
_NUMERIC = ("varint", "zigzag", "fixed32", "fixed64", "float", "double")


def differences(reader: Model, writer: Model) -> list[Difference]:
    """Every place where `reader` would misread what `writer` wrote. Packages may differ."""
    return _Comparison(reader, writer).files()


class _Comparison:
    """One comparison; a pair of messages is looked at once."""

    def __init__(self, reader: Model, writer: Model) -> None:
        self._reader, self._writer = reader, writer
        self._steps = Steps()
        self._seen: set[tuple[str, str]] = set()

    def files(self) -> list[Difference]:
        found: list[Difference] = []
        for name in self._writer.messages:
            local = _local(self._writer, name)
            if local is None:
                continue
            mine = _full(self._reader, local)
            if mine in self._reader.messages:
                found += self._messages(mine, name)
            elif not self._writer.messages[name].options.map_entry:
                found.append(Difference("MESSAGE_REMOVED", f"message {local} is gone"))
        return found

    def _messages(self, mine: str, theirs: str) -> list[Difference]:
        if (mine, theirs) in self._seen:
            return []
        self._seen.add((mine, theirs))
        reader, writer = self._reader.messages[mine], self._writer.messages[theirs]
        ours, old = ({field.number: field for field in one.field} for one in (reader, writer))
        found: list[Difference] = []
        for number in sorted({*ours, *old}):
            self._steps.take()
            where = f"field {number} of {theirs.removeprefix('.')}"
            if number not in ours:
                found += _removed(old[number], where)
            elif number not in old:
                if ours[number].label == Field.LABEL_REQUIRED:
                    found.append(Difference("REQUIRED_FIELD_ADDED", f"{where} is required and new"))
            else:
                found += self._fields(ours[number], old[number], where)
        return found + _oneofs(reader, writer, ours, old, theirs)

    def _fields(self, reader: Field, writer: Field, where: str) -> list[Difference]:
        new, old = _WIRE[reader.type], _WIRE[writer.type]
        if new != old:
            kinds = "message" in (new, old) or "group" in (new, old)
            rule = "FIELD_KIND_CHANGED" if kinds else "FIELD_SCALAR_KIND_CHANGED"
            return [Difference(rule, f"{where} was {_said(writer)} and is {_said(reader)}")]
        found = []
        if Field.LABEL_REQUIRED == reader.label != writer.label:
            found.append(Difference("REQUIRED_FIELD_ADDED", f"{where} became required"))
        many = [one.label == Field.LABEL_REPEATED for one in (reader, writer)]
        if many[0] != many[1] and new in _NUMERIC:
            text = f"{where} was {'' if many[1] else 'not '}repeated, and numbers are packed"
            found.append(Difference("FIELD_NUMERIC_LABEL_CHANGED", text))
        if new in ("message", "group"):
            local, mine = _local(self._writer, writer.type_name), _local(self._reader, reader.type_name)
            if (local or writer.type_name) != (mine or reader.type_name):
                text = f"{where} was {writer.type_name} and is {reader.type_name}"
                return [*found, Difference("FIELD_NAMED_TYPE_CHANGED", text)]
            found += self._messages(reader.type_name, writer.type_name)
        return found


def _removed(field: Field, where: str) -> list[Difference]:
    if field.label == Field.LABEL_REQUIRED:
        return [Difference("REQUIRED_FIELD_REMOVED", f"{where} is required and gone")]
    if field.HasField("oneof_index") and not field.proto3_optional:
        return [Difference("ONEOF_FIELD_REMOVED", f"{where} is gone from its oneof")]
    return []


def _oneofs(
    reader: DescriptorProto, writer: DescriptorProto, ours: dict[int, Field], old: dict[int, Field], name: str
) -> list[Difference]:  # fmt: skip
    """Fields that the writer may set together must not be in one oneof of the reader."""
    found = []
    inside_of: dict[int, list[int]] = {}
    for number, field in ours.items():
        if number in old and field.HasField("oneof_index"):
            inside_of.setdefault(field.oneof_index, []).append(number)
    for i, inside in inside_of.items():
        homes = {old[n].oneof_index if old[n].HasField("oneof_index") else -n for n in inside}
        if len(inside) > 1 and len(homes) > 1:
            numbers = ", ".join(map(str, sorted(inside)))
            home = f"oneof {reader.oneof_decl[i].name} of {name.removeprefix('.')}"
            text = f"fields {numbers} could be set together and are in {home} now"
            found.append(Difference("MULTIPLE_FIELDS_MOVED_TO_ONEOF", text))
    return found


def _local(model: Model, name: str) -> str | None:
    """A name without the file's package; None when it is not of the file itself."""
    prefix = f".{model.file.package}." if model.file.package else "."
    local = name.removeprefix(prefix)
    top = local.partition(".")[0]
    return local if top in model.own and name.startswith(prefix) else None


def _full(model: Model, local: str) -> str:
    return f".{model.file.package}.{local}" if model.file.package else f".{local}"


def _said(field: Field) -> str:
    return field.type_name or str(Field.Type.Name(field.type)).removeprefix("TYPE_").lower()
