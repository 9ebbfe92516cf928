"""Reads the text of a .proto file (proto2, proto3, editions) into a FileDescriptorProto whose names are as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    Edition,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    UninterpretedOption,
)

from lodestream.apis.registry.languages.parsed import InvalidSchemaError
from lodestream.apis.registry.languages.proto_options import Constant, unescaped

SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "fixed32": 7, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13, "sfixed32": 15, "sfixed64": 16, "sint32": 17, "sint64": 18,
}  # fmt: skip
GROUP = 10
FIELD_MAX, ENUM_MAX = 536_870_911, 2_147_483_647
_NESTING_MAX = 32
_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/
    |(?P<text>"(?:[^"\\\n\0]|\\.)*"|'(?:[^'\\\n\0]|\\.)*')
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>[{}\[\]()<>=;:,.+/-])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_LABELS = {"optional": 1, "required": 2, "repeated": 3}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def read_proto(text: str) -> FileDescriptorProto:
    """The file's descriptor. Raises InvalidSchemaError with the line of what is wrong."""
    return _Reading(text).file()


class _Reading:
    """A text being read from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._proto3 = False

    def file(self) -> FileDescriptorProto:
        found = FileDescriptorProto()
        while self._now.kind != "end":
            self._statement(found)
        return found

    def _statement(self, found: FileDescriptorProto) -> None:
        word = self._take("name") if self._now.text != ";" else self._take("sign")
        if word in ("syntax", "edition"):
            self._sign("=")
            self._edition(found, word, self._text())
            self._sign(";")
        elif word == "import":
            kind = self._take("name") if self._now.text in ("public", "weak") else ""
            found.dependency.append(self._text())
            if kind:
                listed = found.public_dependency if kind == "public" else found.weak_dependency
                listed.append(len(found.dependency) - 1)
            self._sign(";")
        elif word == "package":
            found.package = self._full_name()
            self._sign(";")
        elif word == "option":
            self._option(found.options)
            self._sign(";")
        elif word == "message":
            self._message(found.message_type.add())
        elif word == "enum":
            self._enum(found.enum_type.add())
        elif word == "extend":
            self._extend(found.extension, found.message_type)
        elif word == "service":
            self._service(found.service.add())
        elif word != ";":
            raise self._wrong(f"not a statement: {word!r}")

    def _edition(self, found: FileDescriptorProto, word: str, text: str) -> None:
        if word == "syntax" and text in ("proto2", "proto3"):
            self._proto3 = text == "proto3"
            if self._proto3:
                found.syntax = text
        elif word == "edition" and f"EDITION_{text}" in Edition.keys() and text.isdigit():  # noqa: SIM118 - no mapping
            found.syntax, found.edition = "editions", Edition.Value(f"EDITION_{text}")
        else:
            raise self._wrong(f"no such {word}: {text[:40]!r}")

    def _message(self, found: DescriptorProto) -> None:
        found.name = self._take("name")
        self._body(found)
        for field in found.field:  # a lone optional field of proto3 is a oneof of its own
            if field.proto3_optional:
                field.oneof_index = len(found.oneof_decl)
                found.oneof_decl.add().name = f"_{field.name}"

    def _body(self, found: DescriptorProto) -> None:
        self._open()
        while not self._closes():
            word = self._now.text
            if word == "message" and self._next_is_name():
                self._take("name")
                self._message(found.nested_type.add())
            elif word == "enum" and self._next_is_name():
                self._take("name")
                self._enum(found.enum_type.add())
            elif word == "extend" and self._next_is_name():
                self._take("name")
                self._extend(found.extension, found.nested_type)
            elif word == "oneof" and self._next_is_name():
                self._oneof(found)
            elif word == "option" and self._next_is_option():
                self._take("name")
                self._option(found.options)
                self._sign(";")
            elif word in ("reserved", "extensions") and self._tokens[self._at + 1].kind in ("number", "text", "name"):
                self._take("name")
                self._reserved(found, FIELD_MAX) if word == "reserved" else self._extensions(found)
            elif word == ";":
                self._sign(";")
            else:
                self._field(found.field.add(), found.nested_type)

    def _field(self, field: FieldDescriptorProto, nested: Any, *, labels: bool = True) -> None:
        field.label = FieldDescriptorProto.LABEL_OPTIONAL
        if labels and self._now.text in _LABELS and self._tokens[self._at + 1].text != "=":
            word = self._take("name")
            field.label = _LABELS[word]
            if word == "optional" and self._proto3:
                field.proto3_optional = True
        if self._now.text == "map" and self._tokens[self._at + 1].text == "<":
            entry = self._map(field, nested)
            field.name = self._take("name")
            field.type_name = entry.name = f"{_camel(field.name)}Entry"
        elif self._now.text == "group" and self._tokens[self._at + 2].text == "=":
            self._group(field, nested)
            return
        else:
            self._type(field)
            field.name = self._take("name")
        self._sign("=")
        field.number = self._number(FIELD_MAX)
        self._field_options(field)
        self._sign(";")

    def _type(self, field: FieldDescriptorProto) -> None:
        name = self._full_name(dot=True)
        if name in SCALARS:
            field.type = SCALARS[name]
        else:
            field.type_name = name

    def _map(self, field: FieldDescriptorProto, nested: Any) -> DescriptorProto:
        entry: DescriptorProto = nested.add()
        entry.options.map_entry = True
        self._take("name")
        self._sign("<")
        for number, (name, end) in enumerate((("key", ","), ("value", ">")), 1):
            inner = entry.field.add(name=name, number=number)
            inner.label = FieldDescriptorProto.LABEL_OPTIONAL
            self._type(inner)
            self._sign(end)
        field.label, field.type = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.TYPE_MESSAGE
        return entry

    def _group(self, field: FieldDescriptorProto, nested: Any) -> None:
        self._take("name")
        message = nested.add(name=self._take("name"))
        field.name, field.type_name = message.name.lower(), message.name
        field.type = FieldDescriptorProto.TYPE_GROUP
        self._sign("=")
        field.number = self._number(FIELD_MAX)
        self._field_options(field)
        self._body(message)

    def _field_options(self, field: FieldDescriptorProto) -> None:
        if self._now.text != "[":
            return
        self._sign("[")
        while True:
            if self._now.text in ("default", "json_name") and self._tokens[self._at + 1].text == "=":
                word = self._take("name")
                self._sign("=")
                constant = self._constant()
                is_bytes = word == "default" and field.type == FieldDescriptorProto.TYPE_BYTES
                if not is_bytes and not constant.is_text:
                    raise self._wrong(f"{word} is not UTF-8")
                if word == "default":
                    field.default_value = constant.as_default(is_bytes)
                else:
                    field.json_name = constant.value
            else:
                self._option(field.options)
            if self._now.text != ",":
                break
            self._sign(",")
        self._sign("]")

    def _oneof(self, message: DescriptorProto) -> None:
        self._take("name")
        index = len(message.oneof_decl)
        oneof = message.oneof_decl.add(name=self._take("name"))
        self._open()
        while not self._closes():
            if self._now.text == "option" and self._next_is_option():
                self._take("name")
                self._option(oneof.options)
                self._sign(";")
            elif self._now.text == ";":
                self._sign(";")
            else:
                field = message.field.add(oneof_index=index)
                self._field(field, message.nested_type, labels=False)

    def _enum(self, found: EnumDescriptorProto) -> None:
        found.name = self._take("name")
        self._open()
        while not self._closes():
            if self._now.text == "option" and self._next_is_option():
                self._take("name")
                self._option(found.options)
                self._sign(";")
            elif self._now.text == "reserved" and self._tokens[self._at + 1].text != "=":
                self._take("name")
                self._reserved(found, ENUM_MAX)
            elif self._now.text == ";":
                self._sign(";")
            else:
                value = found.value.add(name=self._take("name"))
                self._sign("=")
                value.number = self._number(ENUM_MAX, signed=True)
                if self._now.text == "[":
                    self._options(value.options)
                self._sign(";")

    def _reserved(self, found: Any, most: int) -> None:
        if self._now.kind in ("text", "name"):
            while True:
                named = self._now.kind == "name"
                found.reserved_name.append(self._take("name") if named else self._text())
                if self._now.text != ",":
                    break
                self._sign(",")
        else:
            for start, end in self._ranges(most, signed=most == ENUM_MAX):
                found.reserved_range.add(start=start, end=end + (most != ENUM_MAX))
        self._sign(";")

    def _extensions(self, found: DescriptorProto) -> None:
        ranges = [found.extension_range.add(start=start, end=end + 1) for start, end in self._ranges(FIELD_MAX)]
        if self._now.text == "[":
            at = self._at
            for one in ranges:
                self._at = at
                self._options(one.options)
        self._sign(";")

    def _ranges(self, most: int, *, signed: bool = False) -> Iterator[tuple[int, int]]:
        while True:
            start = end = self._number(most, signed=signed)
            if self._now.text == "to":
                self._take("name")
                if self._now.text == "max":
                    self._take("name")
                    end = most
                else:
                    end = self._number(most, signed=signed)
            yield start, end
            if self._now.text != ",":
                return
            self._sign(",")

    def _extend(self, extensions: Any, nested: Any) -> None:
        extended = self._full_name(dot=True)
        self._open()
        while not self._closes():
            if self._now.text == ";":
                self._sign(";")
            else:
                self._field(extensions.add(extendee=extended), nested)

    def _service(self, found: Any) -> None:
        found.name = self._take("name")
        self._open()
        while not self._closes():
            word = self._take("name") if self._now.text != ";" else self._take("sign")
            if word == "option":
                self._option(found.options)
                self._sign(";")
            elif word == "rpc":
                self._method(found.method.add())
            elif word != ";":
                raise self._wrong(f"not a part of a service: {word!r}")

    def _method(self, found: Any) -> None:
        found.name = self._take("name")
        found.input_type, found.client_streaming = self._passed()
        if self._take("name") != "returns":
            raise self._wrong("a method returns something")
        found.output_type, found.server_streaming = self._passed()
        for word in ("client_streaming", "server_streaming"):
            if not getattr(found, word):
                found.ClearField(word)
        if self._now.text != "{":
            self._sign(";")
            return
        self._open()
        while not self._closes():
            if self._now.text == "option":
                self._take("name")
                self._option(found.options)
            self._sign(";")

    def _passed(self) -> tuple[str, bool]:
        self._sign("(")
        stream = self._now.text == "stream" and self._tokens[self._at + 1].text != ")"
        if stream:
            self._take("name")
        name = self._full_name(dot=True)
        self._sign(")")
        return name, stream

    def _options(self, options: Any) -> None:
        self._sign("[")
        while True:
            self._option(options)
            if self._now.text != ",":
                break
            self._sign(",")
        self._sign("]")

    def _option(self, options: Any) -> None:
        """`name = constant`: a known one into its field, another one as it is written."""
        parts: list[tuple[str, bool]] = []
        while True:
            if self._now.text == "(":
                self._sign("(")
                parts.append((self._full_name(dot=True), True))
                self._sign(")")
            else:
                parts.append((self._take("name"), False))
            if self._now.text != ".":
                break
            self._sign(".")
        self._sign("=")
        constant = self._constant()
        if not constant.is_text:
            raise self._wrong("text is not UTF-8")
        if not constant.put(options, parts):
            if not any(extension for _, extension in parts):
                raise self._wrong(f"no such option, or not its value: {'.'.join(name for name, _ in parts)[:80]!r}")
            told: UninterpretedOption = options.uninterpreted_option.add()
            for name, extension in parts:
                told.name.add(name_part=name, is_extension=extension)
            constant.tell(told)

    def _constant(self) -> Constant:
        if self._now.text == "{":
            return Constant("aggregate", self._aggregate())
        negative = self._now.text in ("-", "+") and self._take("sign") == "-"
        kind = self._now.kind
        if kind == "text":
            text = ""
            while self._now.kind == "text":
                text += self._take("text")[1:-1]
            return Constant("text", unescaped(f'"{text}"'))
        if kind == "name":
            name = self._full_name()
            return Constant("name", f"-{name}" if negative else name)
        return Constant("number", ("-" if negative else "") + self._take("number"))

    def _aggregate(self) -> str:
        """The tokens between braces, with one space between them."""
        self._sign("{")
        depth = 1
        words: list[str] = []
        while True:
            token = self._now
            if token.kind == "end":
                raise self._wrong("a brace is not closed")
            self._at += 1
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if depth == 0:
                return " ".join(words)
            words.append(token.text)

    def _text(self) -> str:
        found = Constant("text", unescaped(self._take("text")))
        if not found.is_text:
            raise self._wrong("text is not UTF-8")
        return found.value

    @property
    def _now(self) -> _Token:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _next_is_name(self) -> bool:
        return self._tokens[self._at + 1].kind == "name" or self._tokens[self._at + 1].text == "."

    def _next_is_option(self) -> bool:
        return self._tokens[self._at + 1].text == "(" or self._tokens[self._at + 2].text in ("=", ".")

    def _take(self, kind: str) -> str:
        token = self._now
        if token.kind != kind:
            raise self._wrong(f"expected a {kind}, found {token.text[:40]!r}" if token.text else "ends too early")
        self._at += 1
        return token.text

    def _sign(self, sign: str) -> None:
        if self._now.text != sign or self._now.kind != "sign":
            raise self._wrong(f"expected {sign!r}, found {self._now.text[:40]!r}")
        self._at += 1

    def _open(self) -> None:
        self._sign("{")
        self._depth += 1
        if self._depth > _NESTING_MAX:
            raise self._wrong(f"nests too deep. depth_max={_NESTING_MAX}")

    def _closes(self) -> bool:
        if self._now.text != "}":
            return False
        self._sign("}")
        self._depth -= 1
        return True

    def _full_name(self, *, dot: bool = False) -> str:
        name = ""
        if dot and self._now.text == ".":
            self._sign(".")
            name = "."
        name += self._take("name")
        while self._now.text == ".":
            self._sign(".")
            name += f".{self._take('name')}"
        return name

    def _number(self, most: int, *, signed: bool = False) -> int:
        negative = signed and self._now.text == "-" and self._take("sign") == "-"
        text = self._take("number")
        try:
            value = int(text, 8 if re.fullmatch("0[0-7]+", text) else 0) if len(text) < 20 else most + 2
        except ValueError:
            raise self._wrong(f"not a whole number: {text[:40]!r}") from None
        if value > most + negative:
            raise self._wrong(f"number is too large: {text[:40]!r}")
        return -value if negative else value

    def _wrong(self, what: str) -> InvalidSchemaError:
        return InvalidSchemaError(f"line {self._now.line}: {what}")


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidSchemaError(f"line {line}: not a part of a .proto file: {text[at : at + 20]!r}")
        if match.lastgroup:
            yield _Token(match.lastgroup, match[0], line)
        line += match[0].count("\n")
        at = match.end()
    for _ in range(3):
        yield _Token("end", "", line)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
