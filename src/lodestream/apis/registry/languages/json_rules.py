"""Whether every document that one JSON Schema admits is admitted by another.

Keyword by keyword, as Confluent's registry does it: sound, and sometimes stricter than need be. A keyword that is not
compared must be the same in both. Two leniencies, which that registry has too: a property may become required when it
has a default, and `oneOf` is taken for `anyOf`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lodestream.apis.registry.languages.parsed import Difference, InvalidSchemaError, Steps, write_json

if TYPE_CHECKING:
    from lodestream.apis.registry.languages.json_schema import Document, Node

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_WORDS = {
    "$schema", "$id", "id", "$comment", "$anchor", "$dynamicAnchor", "$defs", "definitions", "title", "description",
    "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType",
    "contentSchema", "$vocabulary",
}  # fmt: skip
"""Keywords that refuse no document."""
_COMPARED = {
    "type", "enum", "const", "anyOf", "oneOf", "allOf", "not", "maxLength", "minLength", "pattern", "maximum",
    "minimum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf", "properties", "required", "additionalProperties",
    "patternProperties", "minProperties", "maxProperties", "dependentRequired", "items", "prefixItems",
    "additionalItems", "minItems", "maxItems", "uniqueItems",
}  # fmt: skip
_UPPER = (("maxLength", "string"), ("maxProperties", "object"), ("maxItems", "array"))
_LOWER = (("minLength", "string"), ("minProperties", "object"), ("minItems", "array"))


def differences(reader: Document, writer: Document) -> list[Difference]:
    """Every place where `reader` refuses what `writer` admits."""
    try:
        return _Comparison(reader, writer).compare(reader.root, writer.root, "#")
    except RecursionError:
        raise InvalidSchemaError("schema nests too deep to compare") from None


def says_nothing(value: Any) -> bool:
    """Whether a schema admits every document."""
    return value is True or (isinstance(value, Mapping) and _WORDS.issuperset(value))


class _Comparison:
    """One comparison of two documents."""

    def __init__(self, reader: Document, writer: Document) -> None:
        self._reader, self._writer = reader, writer
        self._steps = Steps()
        self._open: set[tuple[int, int]] = set()
        self._alike: dict[tuple[int, int], tuple[bool, Node, Node]] = {}
        self._made: dict[tuple[int, str, int], tuple[Node, Node]] = {}

    def compare(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        self._steps.take(1 + _weight(reader.value) + _weight(writer.value))
        reader, writer = self._reader.resolve(reader), self._writer.resolve(writer)
        if says_nothing(reader.value) or writer.value is False:
            return []
        if reader.value is False:
            return [Difference("TYPE_NARROWED", f"nothing is admitted any more at {path}")]
        key = (id(reader.value), id(writer.value))
        if key in self._open:  # inside itself: it is admitted if the rest is
            return []
        if key not in self._alike:
            self._alike[key] = (_same(reader.value, writer.value), reader, writer)  # kept, so that ids stay theirs
        if self._alike[key][0]:
            return []
        self._open.add(key)
        try:
            return self._pair(reader, writer, path)
        finally:
            self._open.discard(key)

    def _pair(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        """Take both apart: each of the writer's alternatives, and each of the reader's demands, by itself."""
        w, r = _object(writer.value), _object(reader.value)
        for word in ("anyOf", "oneOf"):
            if isinstance(branches := w.get(word), list):
                rest = {key: value for key, value in w.items() if key != word}
                found = []
                for i, branch in enumerate(branches):
                    found += self.compare(reader, self._both(self._writer, writer, rest, branch, word, i), path)
                return found
        if isinstance(parts := r.get("allOf"), list):
            rest = {key: value for key, value in r.items() if key != "allOf"}
            own = self._once(self._reader, reader, "allOf", -1, rest)
            found = [] if says_nothing(rest) else self.compare(own, writer, path)
            for part in parts:
                found += self.compare(self._reader.inner(reader, part), writer, path)
            return found
        if isinstance(parts := w.get("allOf"), list):
            return self._from_all(reader, writer, parts, path)
        return self._to_any(reader, writer, path)

    def _from_all(self, reader: Node, writer: Node, parts: list[Any], path: str) -> list[Difference]:
        self._steps.take(len(parts))
        rest = {key: value for key, value in _object(writer.value).items() if key != "allOf"}
        nodes = [self._writer.inner(writer, part) for part in parts]
        nodes += [] if says_nothing(rest) else [self._once(self._writer, writer, "allOf", -1, rest)]
        nodes = [node for node in map(self._writer.resolve, nodes) if not says_nothing(node.value)]
        if any(node.value is False for node in nodes):
            return []
        one = self._merged(writer, nodes)
        tries = [self.compare(reader, node, path) for node in ([one] if one is not None else nodes)]
        return [] if any(not found for found in tries) else min(tries, key=len, default=[])

    def _to_any(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        w, r = _object(writer.value), _object(reader.value)
        words = [one for one in ("anyOf", "oneOf") if isinstance(r.get(one), list)]
        if not words:
            return self._keywords(reader, writer, path)
        types = w.get("type")
        found = []
        if isinstance(types, list) and len(types) > 1:
            for i, one in enumerate(types):
                found += self.compare(reader, self._once(self._writer, writer, "type", i, {**w, "type": one}), path)
            return found
        rest = {key: value for key, value in r.items() if key != words[0]}
        for i, branch in enumerate(r[words[0]]):
            if not self.compare(self._both(self._reader, reader, rest, branch, words[0], i), writer, path):
                return []
        return [Difference("SUM_TYPE_NARROWED", f"none of {words[0]} admits what was written at {path}")]

    def _both(
        self, document: Document, node: Node, rest: Mapping[str, Any], branch: Any, word: str, at: int
    ) -> Node:  # fmt: skip
        """A branch together with what stands beside the branches."""
        if says_nothing(rest):
            return document.inner(node, branch)
        return self._once(document, node, word, at, {**rest, "allOf": [*rest.get("allOf", []), branch]})

    def _once(self, document: Document, node: Node, word: str, at: int, value: Any) -> Node:
        """A schema made of a node, the same one each time, so that circles are seen."""
        made = self._made.setdefault((id(node.value), word, at), (node, document.inner(node, value)))
        return made[1]

    def _merged(self, writer: Node, nodes: list[Node]) -> Node | None:
        """All nodes as one, where they say different things; None where they speak of the same."""
        found: dict[str, Any] = {}
        for node in nodes:
            if not isinstance(node.value, dict) or node.base != writer.base:
                return None
            for key, value in node.value.items():
                if key in _WORDS or found.get(key) == value:
                    continue
                if key == "properties" and not set(found.get(key, {})) & set(value):
                    found[key] = {**found.get(key, {}), **value}
                elif key == "required":
                    found[key] = [*found.get(key, []), *value]
                elif key in found:
                    return None
                else:
                    found[key] = value
        return self._once(self._writer, writer, "merged", 0, found)

    def _keywords(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        r, w = reader.value, _object(writer.value)
        may = _types(w)
        found = _type(r, may, path) + _values(r, w, path)
        if found and ("enum" in w or "const" in w):
            return found
        found += _bounds(r, w, may, path)
        if "not" in r and (
            "not" not in w
            or _Comparison(self._writer, self._reader).compare(
                self._writer.inner(writer, w["not"]), self._reader.inner(reader, r["not"]), f"{path}/not"
            )
        ):
            found.append(Difference("NOT_TYPE_EXTENDED", f"more is excluded at {path}/not"))
        if "object" in may:
            found += self._object(reader, writer, path)
        if "array" in may:
            found += self._array(reader, writer, path)
        for word in sorted(set(r) - _WORDS - _COMPARED):
            if word not in w or w[word] != r[word]:
                found.append(Difference("KEYWORD_CHANGED", f"{word!r} is new or another at {path}"))
        return found

    def _object(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        r, w = reader.value, _object(writer.value)
        ours, theirs = _mapping(r, "properties"), _mapping(w, "properties")
        found = []
        for name in sorted({*ours, *theirs}):
            at = f"{path}/properties/{name}"
            if name in ours and name in theirs:
                found += self.compare(
                    self._reader.inner(reader, ours[name]), self._writer.inner(writer, theirs[name]), at
                )
            elif name in ours:
                if self.compare(
                    self._reader.inner(reader, ours[name]), self._writer.inner(writer, self._rest(w, name)), at
                ):
                    text = f"property {name!r} is new at {path}, and the writer could put anything there"
                    found.append(Difference("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", text))
            elif self.compare(
                self._reader.inner(reader, self._rest(r, name)), self._writer.inner(writer, theirs[name]), at
            ):
                text = f"property {name!r} is gone at {path}, and others are not admitted"
                found.append(Difference("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", text))
        patterns, others = _mapping(r, "patternProperties"), _mapping(w, "patternProperties")
        for pattern, inner in patterns.items():
            there = others.get(pattern, w.get("additionalProperties", True))
            found += self.compare(
                self._reader.inner(reader, inner), self._writer.inner(writer, there), f"{path}/patternProperties"
            )
        theirs_rest = [inner for pattern, inner in others.items() if pattern not in patterns]
        for there in (w.get("additionalProperties", True), *theirs_rest):
            mine = self._reader.inner(reader, r.get("additionalProperties", True))
            if self.compare(mine, self._writer.inner(writer, there), f"{path}/additionalProperties"):
                found.append(Difference("ADDITIONAL_PROPERTIES_NARROWED", f"fewer properties are admitted at {path}"))
                break
        always = {*w["required"]} if isinstance(w.get("required"), list) else set()
        for name in r.get("required", []) if isinstance(r.get("required"), list) else []:
            if name not in always and "default" not in _object(ours.get(name)):
                found.append(
                    Difference("REQUIRED_ATTRIBUTE_ADDED", f"{name!r} is required at {path} and has no default")
                )
        for name, needs in _mapping(r, "dependentRequired").items():
            told = _mapping(w, "dependentRequired").get(name)
            given = {*map(str, told)} if isinstance(told, list) else set()
            if not isinstance(needs, list) or not {*map(str, needs)} - given <= always:
                found.append(Difference("DEPENDENCY_ARRAY_EXTENDED", f"{name!r} needs more at {path}"))
        return found

    def _rest(self, schema: Mapping[str, Any], name: str) -> Any:
        """What a schema says of a property that it does not name."""
        for pattern, inner in _mapping(schema, "patternProperties").items():
            self._steps.take()
            if _matches(pattern, name):
                return inner
        return schema.get("additionalProperties", True)

    def _array(self, reader: Node, writer: Node, path: str) -> list[Difference]:
        r, w = reader.value, _object(writer.value)
        (ours, our_rest), (theirs, their_rest) = _items(r), _items(w)
        found = []
        for i in range(max(len(ours), len(theirs))):
            mine = ours[i] if i < len(ours) else our_rest
            there = theirs[i] if i < len(theirs) else their_rest
            found += self.compare(
                self._reader.inner(reader, mine), self._writer.inner(writer, there), f"{path}/items/{i}"
            )
        found += self.compare(
            self._reader.inner(reader, our_rest), self._writer.inner(writer, their_rest), f"{path}/items"
        )
        if r.get("uniqueItems") is True and w.get("uniqueItems") is not True:
            found.append(Difference("UNIQUE_ITEMS_ADDED", f"items must differ at {path}"))
        return found


def _weight(value: Any) -> int:
    """What a schema with long lists costs more than another."""
    return (
        sum(len(one) for one in value.values() if isinstance(one, list | dict)) // 16 if isinstance(value, dict) else 0
    )


def _same(reader: Any, writer: Any) -> bool:
    """Whether two schemas are one text and refer to nothing else."""
    open_ = [reader] if reader == writer else []
    while open_:
        one = open_.pop()
        if isinstance(one, dict):
            if not {"$ref", "$dynamicRef", "$recursiveRef"}.isdisjoint(one):
                return False
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one
        elif not isinstance(one, str | int | float | None):
            return False
    return repr(reader) == repr(writer)  # 1 equals True, but is another value


def _object(value: Any) -> Mapping[str, Any]:
    """A schema's keywords; `true` has none."""
    return value if isinstance(value, dict) else {}


def _mapping(value: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    found = value.get(word)
    return found if isinstance(found, dict) else {}


def _matches(pattern: str, name: str) -> bool:
    """Whether a property's name fits a pattern, in linear time. Raises InvalidSchemaError for one that takes more."""
    import jsonschema_rs

    try:
        taken = jsonschema_rs.Draft7Validator(
            {"patternProperties": {pattern: False}}, pattern_options=jsonschema_rs.RegexOptions()
        ).is_valid({name: None})
    except ValueError:
        raise InvalidSchemaError(f"pattern cannot be compared in bounded time: {pattern[:200]!r}") from None
    return not taken


def _items(schema: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """(schemas of the first items, schema of the others)."""
    if isinstance(first := schema.get("prefixItems"), list):
        return first, schema.get("items", True)
    items = schema.get("items", True)
    return (items, schema.get("additionalItems", True)) if isinstance(items, list) else ([], items)


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The types of the documents that a schema admits, `number` with `integer`."""
    told = schema.get("type")
    if told is None and ("enum" in schema or "const" in schema):
        return {_type_of(one) for one in schema.get("enum", [schema.get("const")])}
    found = {*_TYPES} if told is None else {told} if isinstance(told, str) else {*told}
    return found | {"integer"} if "number" in found else found


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = ((type(None), "null"), (str, "string"), (int, "integer"), (float, "number"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _type(reader: Mapping[str, Any], may: set[str], path: str) -> list[Difference]:
    if "type" not in reader:
        return []
    lost = may - _types(reader)
    return (
        [Difference("TYPE_NARROWED", f"{', '.join(sorted(lost))} is not admitted any more at {path}")] if lost else []
    )


def _values(reader: Mapping[str, Any], writer: Mapping[str, Any], path: str) -> list[Difference]:
    if "enum" not in reader and "const" not in reader:
        return []
    ours = {write_json(one, sort=True) for one in reader.get("enum", [reader.get("const")])}
    if "enum" not in writer and "const" not in writer:
        return [Difference("ENUM_ARRAY_NARROWED", f"only certain values are admitted at {path}")]
    lost = {write_json(one, sort=True) for one in writer.get("enum", [writer.get("const")])} - ours
    return [Difference("ENUM_ARRAY_NARROWED", f"{', '.join(sorted(lost))[:200]} is gone at {path}")] if lost else []


def _bounds(r: Mapping[str, Any], w: Mapping[str, Any], may: set[str], path: str) -> list[Difference]:
    """Numbers and lengths: the reader's bounds must hold the writer's."""
    wrong = [word for word, kind in _UPPER if kind in may and word in r and not (word in w and w[word] <= r[word])]
    wrong += [word for word, kind in _LOWER if kind in may and r.get(word) and not (word in w and w[word] >= r[word])]
    if "string" in may and "pattern" in r and w.get("pattern") != r["pattern"]:
        wrong.append("pattern")
    if may & {"number", "integer"}:
        for word, sign in (("aximum", 1), ("inimum", -1)):
            ours, theirs = _limit(r, word, sign), _limit(w, word, sign)
            if ours is not None and (theirs is None or theirs > ours):
                wrong.append(f"m{word}")
        if (step := r.get("multipleOf")) is not None and not _is_multiple(w, may, step):
            wrong.append("multipleOf")
    return [Difference(f"{_capitals(word)}_NARROWED", f"{word!r} admits less at {path}") for word in wrong]


def _limit(schema: Mapping[str, Any], word: str, sign: int) -> tuple[float, int] | None:
    """(bound, 0 when the bound itself is out) times `sign`; the tighter of the two kinds."""
    plain, out = schema.get(f"m{word}"), schema.get(f"exclusiveM{word}")
    found = []
    if plain is not None:
        found.append((sign * plain, 0 if out is True else 1))
    if out is not None and not isinstance(out, bool):
        found.append((sign * out, 0))
    return min(found, default=None)


def _is_multiple(writer: Mapping[str, Any], may: set[str], step: float) -> bool:
    own = writer.get("multipleOf")
    if own is None:
        return step == 1 and "number" not in may
    return bool(own % step == 0)


def _capitals(word: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", word).upper()
