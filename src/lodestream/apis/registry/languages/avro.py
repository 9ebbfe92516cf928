"""Reads Avro schemas (specification 1.12) into types with their names resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestream.apis.registry.languages import avro_resolution
from lodestream.apis.registry.languages.parsed import (
    Difference,
    InvalidSchemaError,
    Parsed,
    Steps,
    Texts,
    read_json,
    write_json,
)

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_COMPLEX = ("record", "error", "enum", "fixed", "array", "map")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORDER = (
    "type", "name", "namespace", "doc", "fields", "symbols", "items", "values", "size", "default", "order",
    "aliases", "logicalType", "precision", "scale",
)  # fmt: skip
_FIELD_ORDER = ("name", "type", "doc", "default", "order", "aliases")
_INT, _LONG = 1 << 31, 1 << 63


@dataclass(eq=False, slots=True)
class Field:
    """A field of a record."""

    name: str
    type: Type
    has_default: bool
    aliases: tuple[str, ...]


@dataclass(eq=False, slots=True)
class Type:
    """An Avro type; named ones may contain themselves.

    Attributes:
        kind: a primitive's name, or `record`, `enum`, `fixed`, `array`, `map`, `union`.
        name: full name of a record, enum or fixed.
        aliases: full names it had before.
        fields: of a record.
        symbols: of an enum.
        has_default: whether an enum has a default symbol.
        size: bytes of a fixed.
        inner: items of an array, values of a map, branches of a union.
        named: the fields by name.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    fields: list[Field] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    has_default: bool = False
    size: int = 0
    inner: list[Type] = field(default_factory=list)
    named: dict[str, Field] = field(default_factory=dict)


class Avro:
    """The Avro language."""

    def parse(self, text: str, references: Texts = ()) -> Parsed:
        """Read a schema; the names that the referenced schemas define are known to it."""
        names: dict[str, Type] = {}
        for name, referred in references:
            try:
                _Reading(names).type(read_json(referred), "", "")
            except InvalidSchemaError as error:
                raise InvalidSchemaError(f"reference {name!r}: {error}") from None
        value = read_json(text)
        canonical = write_json(_ordered(value))
        return Parsed(canonical, (_Reading(names).type(value, "", ""), value), canonical)

    def normal(self, parsed: Parsed) -> str:
        """Full names, attributes in order, other properties sorted."""
        return write_json(_ordered(_full(parsed.model[1], ""), sort=True))

    def form(self, parsed: Parsed, name: str) -> str:
        """There is one form."""
        return parsed.text

    def differences(self, reader: Parsed, writer: Parsed) -> list[Difference]:
        """By the resolution rules of the specification."""
        return avro_resolution.differences(reader.model[0], writer.model[0])


class _Reading:
    """One schema being read; `names` holds what is defined so far."""

    def __init__(self, names: dict[str, Type]) -> None:
        self.names = names
        self._steps = Steps()

    def type(self, value: Any, space: str, path: str) -> Type:
        if isinstance(value, str):
            return self._named(value, space, path)
        if isinstance(value, list):
            return self._union(value, space, path)
        if not isinstance(value, dict):
            raise InvalidSchemaError(f"not a type at {path or '/'}: {write_json(value)[:80]}")
        kind = value.get("type")
        if not isinstance(kind, str):
            return self.type(kind, space, path)  # {"type": {…}} and {"type": […]} are what they hold
        if kind in ("record", "error", "enum", "fixed"):
            return self._definition(value, kind, space, path)
        if kind in ("array", "map"):
            word = "items" if kind == "array" else "values"
            if word not in value:
                raise InvalidSchemaError(f"{kind} without {word!r} at {path or '/'}")
            inner = self.type(value[word], space, f"{path}/{word}")
            _check_logical(value, kind, path)
            return Type(kind, inner=[inner])
        found = self._named(kind, space, path)
        _check_logical(value, kind, path)
        return found

    def _named(self, name: str, space: str, path: str) -> Type:
        if name in PRIMITIVES:
            return Type(name)
        full = name if "." in name or not space else f"{space}.{name}"
        found = self.names.get(full.removeprefix("."))
        if found is None:
            raise InvalidSchemaError(f"no such type at {path or '/'}: {name[:200]!r}")
        return found

    def _union(self, value: list[Any], space: str, path: str) -> Type:
        branches = [self.type(one, space, f"{path}/{i}") for i, one in enumerate(value)]
        seen: set[str] = set()
        for one in branches:
            if one.kind == "union":
                raise InvalidSchemaError(f"union directly inside a union at {path or '/'}")
            if (key := one.name or one.kind) in seen:
                raise InvalidSchemaError(f"union holds {key} twice at {path or '/'}")
            seen.add(key)
        return Type("union", inner=branches)

    def _definition(self, value: Mapping[str, Any], kind: str, space: str, path: str) -> Type:
        name, space = _full_name(value, space, path)
        if name in self.names or name in PRIMITIVES:
            raise InvalidSchemaError(f"type is defined twice at {path or '/'}: {name!r}")
        found = Type("record" if kind == "error" else kind, name, _aliases(value, space, path))
        self.names[name] = found
        if found.kind == "record":
            self._fields(found, value, space, path)
        elif kind == "enum":
            _symbols(found, value, path)
        else:
            size = value.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _INT:
                raise InvalidSchemaError(f"fixed without a size at {path or '/'}")
            found.size = size
            _check_logical(value, "fixed", path)
        return found

    def _fields(self, record: Type, value: Mapping[str, Any], space: str, path: str) -> None:
        fields = value.get("fields")
        if not isinstance(fields, list):
            raise InvalidSchemaError(f"record without a list of fields at {path or '/'}")
        for i, one in enumerate(fields):
            at = f"{path}/fields/{i}"
            if not isinstance(one, dict) or not _is_name(one.get("name")) or "type" not in one:
                raise InvalidSchemaError(f"not a field with name and type at {at}")
            if one["name"] in record.named:
                raise InvalidSchemaError(f"field appears twice at {at}: {one['name']!r}")
            kind = self.type(one["type"], space, f"{at}/type")
            if one.get("order", "ascending") not in ("ascending", "descending", "ignore"):
                raise InvalidSchemaError(f"order is ascending, descending or ignore at {at}")
            aliases = one.get("aliases", [])
            if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
                raise InvalidSchemaError(f"aliases are a list of names at {at}")
            record.named[one["name"]] = Field(one["name"], kind, "default" in one, tuple(aliases))
            record.fields.append(record.named[one["name"]])
            if "default" in one and not _fits(one["default"], kind, self._steps):
                raise InvalidSchemaError(f"default does not fit its type at {at}: {write_json(one['default'])[:80]}")


def _full_name(value: Mapping[str, Any], space: str, path: str) -> tuple[str, str]:
    """(full name, namespace) of a definition."""
    name, own = value.get("name"), value.get("namespace", space)
    if not isinstance(name, str) or not isinstance(own, str):
        raise InvalidSchemaError(f"{value['type']} without a name at {path or '/'}")
    if "." in name:
        own, _, name = name.rpartition(".")
    if not _is_name(name) or (own and not all(_is_name(part) for part in own.split("."))):
        raise InvalidSchemaError(f"not a name at {path or '/'}: {name[:200]!r}, letters, digits and _ only")
    return (f"{own}.{name}" if own else name), own


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _aliases(value: Mapping[str, Any], space: str, path: str) -> tuple[str, ...]:
    aliases = value.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(one, str) for one in aliases):
        raise InvalidSchemaError(f"aliases are a list of names at {path or '/'}")
    return tuple(one if "." in one or not space else f"{space}.{one}" for one in aliases)


def _symbols(enum: Type, value: Mapping[str, Any], path: str) -> None:
    symbols = value.get("symbols")
    if not isinstance(symbols, list) or not all(_is_name(one) for one in symbols):
        raise InvalidSchemaError(f"enum without a list of symbols at {path or '/'}")
    if len(set(symbols)) < len(symbols):
        raise InvalidSchemaError(f"enum holds a symbol twice at {path or '/'}")
    enum.symbols, enum.has_default = tuple(symbols), "default" in value
    if enum.has_default and value["default"] not in symbols:
        raise InvalidSchemaError(f"default of an enum is none of its symbols at {path or '/'}")


def _check_logical(value: Mapping[str, Any], kind: str, path: str) -> None:
    """Refuse a decimal that cannot be; other logical types that do not fit are ignored, as the specification says."""
    if value.get("logicalType") != "decimal" or kind not in ("bytes", "fixed"):
        return
    precision, scale = value.get("precision"), value.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision or precision < 1:
        raise InvalidSchemaError(f"not a decimal at {path or '/'}. precision={precision!r} scale={scale!r}")


def _fits(value: Any, kind: Type, steps: Steps) -> bool:
    """Whether a default's JSON is a value of its type."""
    steps.take()
    match kind.kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int" | "long":
            bound = _INT if kind.kind == "int" else _LONG
            return isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound
        case "float" | "double":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "bytes" | "fixed":
            return isinstance(value, str) and all(ord(c) < 256 for c in value) and (
                kind.kind == "bytes" or len(value) == kind.size
            )  # fmt: skip
        case "enum":
            return value in kind.symbols
        case "array":
            return isinstance(value, list) and all(_fits(one, kind.inner[0], steps) for one in value)
        case "map":
            return isinstance(value, dict) and all(_fits(one, kind.inner[0], steps) for one in value.values())
        case "union":
            return any(_fits(value, one, steps) for one in kind.inner)
    return isinstance(value, dict) and all(
        _fits(value[f.name], f.type, steps) if f.name in value else f.has_default for f in kind.fields
    )


def _ordered(value: Any, *, sort: bool = False, keys: tuple[str, ...] = _ORDER) -> Any:
    """A type with its attributes in order, `{"type": "int"}` as `"int"`."""
    if isinstance(value, list):
        return [_ordered(one, sort=sort) for one in value]
    if not isinstance(value, dict):
        return value
    if keys is _ORDER and set(value) == {"type"}:
        return _ordered(value["type"], sort=sort)
    rest = [key for key in value if key not in keys]
    found = {}
    for key in (*(k for k in keys if k in value), *(sorted(rest) if sort else rest)):
        inner = value[key]
        if key == "fields" and isinstance(inner, list):
            inner = [_ordered(one, sort=sort, keys=_FIELD_ORDER) for one in inner]
        elif key in ("type", "items", "values"):
            inner = _ordered(inner, sort=sort)
        found[key] = inner
    return found


def _full(value: Any, space: str) -> Any:
    """A type in which every name is a full name."""
    if isinstance(value, str):
        return value if value in PRIMITIVES or value in _COMPLEX or "." in value or not space else f"{space}.{value}"
    if isinstance(value, list):
        return [_full(one, space) for one in value]
    if not isinstance(value, dict):
        return value
    found = dict(value)
    if found.get("type") in ("record", "error", "enum", "fixed"):
        name, space = _full_name(found, space, "")
        found.pop("namespace", None)
        found["name"] = name
        if isinstance(found.get("fields"), list):
            found["fields"] = [{**one, "type": _full(one["type"], space)} for one in found["fields"]]
        return found
    for key in ("type", "items", "values"):
        if key in found:
            found[key] = _full(found[key], space)
    return found
