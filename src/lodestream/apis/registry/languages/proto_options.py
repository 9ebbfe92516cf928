"""Constants and options of .proto files: from text into descriptors and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pb2 import UninterpretedOption

_ESCAPES = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, "'": 39, '"': 34, "?": 63}
_WHOLE = (Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64)


@dataclass(frozen=True, slots=True)
class Constant:
    """A value in a .proto file.

    Attributes:
        kind: `text`, `name`, `number` or `aggregate`.
        value: as written, a text without its quotes and escapes.
    """

    kind: str
    value: str

    @property
    def is_text(self) -> bool:
        """Whether it can stand where text stands: bytes that are not UTF-8 cannot."""
        return not any("\ud800" <= c <= "\udfff" for c in self.value)

    def as_default(self, is_bytes: bool) -> str:
        """As `default_value` holds it: bytes escaped, numbers in decimal."""
        if self.kind == "text":
            return escaped(self.value) if is_bytes else self.value
        if self.kind == "number" and (value := _whole(self.value)) is not None:
            return str(value)
        return self.value

    def put(self, options: Any, parts: list[tuple[str, bool]]) -> bool:
        """Set the option that `parts` name; whether there is such an option and this is a value of it."""
        for name, extension in parts[:-1]:
            field = options.DESCRIPTOR.fields_by_name.get(name)
            if extension or field is None or field.message_type is None or field.is_repeated:
                return False
            options = getattr(options, name)
        name, extension = parts[-1]
        field = options.DESCRIPTOR.fields_by_name.get(name)
        if extension or field is None or field.message_type is not None or name == "map_entry":
            return False
        value = self._of(field)
        if value is None:
            return False
        if field.is_repeated:
            getattr(options, name).append(value)
        else:
            setattr(options, name, value)
        return True

    def _of(self, field: Field) -> Any:
        if field.type == Field.TYPE_BOOL:
            return {"true": True, "false": False}.get(self.value) if self.kind == "name" else None
        if field.type == Field.TYPE_STRING:
            return self.value if self.kind == "text" else None
        if field.type == Field.TYPE_ENUM:
            found = field.enum_type.values_by_name.get(self.value) if self.kind == "name" else None
            return None if found is None else found.number
        value = _whole(self.value) if self.kind == "number" and field.type in _WHOLE else None
        return value if value is not None and -(1 << 31) <= value < 1 << 31 else None

    def tell(self, told: UninterpretedOption) -> None:
        """Put it as written into an option that nobody here knows."""
        if self.kind == "text":
            told.string_value = self.value.encode()
        elif self.kind == "aggregate":
            told.aggregate_value = self.value
        elif self.kind == "name":
            told.identifier_value = self.value
        elif (value := _whole(self.value)) is None or not -(1 << 63) <= value < 1 << 64:
            told.double_value = float(self.value)
        elif value < 0:
            told.negative_int_value = value
        else:
            told.positive_int_value = value


def shown_options(options: Any) -> Iterator[str]:
    """`name = value` of every option that is set."""
    for field, value in options.ListFields():
        if field.name == "uninterpreted_option":
            for one in value:
                parts = (f"({p.name_part})" if p.is_extension else p.name_part for p in one.name)
                yield f"{'.'.join(parts)} = {_shown_unknown(one)}"
        elif field.message_type is not None and not field.is_repeated:
            yield from (f"{field.name}.{inner}" for inner in shown_options(value))
        elif field.message_type is None and field.name != "map_entry":
            for one in value if field.is_repeated else [value]:
                yield f"{field.name} = {_shown(field, one)}"


def _shown(field: Field, value: Any) -> str:
    if field.type == Field.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == Field.TYPE_STRING:
        return quoted(value)
    if field.type == Field.TYPE_ENUM:
        found = field.enum_type.values_by_number.get(value)
        return str(value) if found is None else str(found.name)
    return str(value)


def _shown_unknown(one: UninterpretedOption) -> str:
    if one.HasField("string_value"):
        return quoted(one.string_value.decode("utf-8", "replace"))
    if one.HasField("aggregate_value"):
        return f"{{ {one.aggregate_value} }}"
    for name in ("identifier_value", "positive_int_value", "negative_int_value"):
        if one.HasField(name):
            return str(getattr(one, name))
    return repr(one.double_value)


def quoted(text: str) -> str:
    """A text as a .proto file has it."""
    return '"' + "".join(_escaped(c) if c in '"\\' or c < " " or c == "\x7f" else c for c in text) + '"'


def escaped(text: str) -> str:
    """Bytes as `default_value` has them."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(_escaped(chr(b)) if b < 32 or b > 126 or chr(b) in "\"'\\" else chr(b) for b in data)


def _escaped(char: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}
    return short.get(char, f"\\{ord(char):03o}")


def unescaped(text: str) -> str:
    """A quoted text without its quotes and escapes; bytes that are not UTF-8 become lone surrogates."""
    data = bytearray()
    for match in re.finditer(r"\\([xX][0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|.)|[^\\]+", text[1:-1], re.DOTALL):
        told = match[1]
        if told is None:
            data += match[0].encode()
        elif told[0] in "xX" and len(told) > 1:
            data.append(int(told[1:], 16))
        elif told[0].isdigit() and told[0] in "01234567":
            data.append(int(told, 8) & 255)
        elif told[0] == "u" and len(told) == 5:
            data += chr(int(told[1:], 16)).encode("utf-8", "replace")
        else:
            data.append(_ESCAPES.get(told, ord(told) & 255))
    return data.decode("utf-8", "surrogateescape")


def _whole(text: str) -> int | None:
    """A whole number in decimal, hexadecimal or octal."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if len(digits) > 30 or not re.fullmatch(r"0[xX][0-9a-fA-F]+|\d+", digits):
        return None
    try:
        return sign * int(digits, 8 if re.fullmatch("0[0-7]+", digits) else 0)
    except ValueError:
        return None
