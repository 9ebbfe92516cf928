"""Reads JSON Schemas (draft 4 to 2020-12): checks them, and finds what their `$ref` names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from lodestream.apis.registry.languages import json_rules
from lodestream.apis.registry.languages.parsed import (
    Difference,
    InvalidSchemaError,
    Parsed,
    Texts,
    read_json,
    write_json,
)
from lodestream.errors import MissingDriverError

_DRAFTS = (
    "http://json-schema.org/draft-04/schema", "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema", "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)  # fmt: skip
_DRAFT = _DRAFTS[2]
"""What a schema that names no draft, or one of its own, is held to."""

_REFERRED_MAX = 8 << 20
_PLAIN = ("const", "enum", "default", "examples")
"""Keywords whose value is data, not a schema."""


@dataclass(frozen=True, slots=True)
class Node:
    """A schema and the URI that its references are relative to."""

    value: Any
    base: str = ""


class Document:
    """A schema with those it refers to, by URI.

    Args:
        root: the schema.
        referred: those it was registered with, by the name that `$ref` has for them.
    """

    def __init__(self, root: Any, referred: Mapping[str, Any]) -> None:
        self._at: dict[str, Node] = {}
        self._joined: dict[int, tuple[Node, Node]] = {}
        for name, value in referred.items():
            self._index(Node(value, name))
            self._at.setdefault(name, Node(value, name))
        own = _own_id(root) or ""
        self.root = Node(root, own)
        self._index(self.root)
        self._at[own] = self._at[""] = self.root

    def resolve(self, node: Node) -> Node:
        """The node, or what its `$ref` names. Raises InvalidSchemaError when there is nothing."""
        if (known := self._joined.get(id(node.value))) is not None:
            return known[1]
        start, seen = node, 0
        while isinstance(node.value, dict) and isinstance(node.value.get("$ref"), str):
            seen += 1
            if seen > 50:
                raise InvalidSchemaError(f"$ref goes round in a circle: {node.value['$ref'][:200]!r}")
            rest = {k: v for k, v in node.value.items() if k not in ("$ref", "$schema", "$id", "definitions", "$defs")}
            found = self._named(node.value["$ref"], node.base)
            if json_rules.says_nothing(rest):
                node = found
            else:
                joined = Node({**rest, "allOf": [*rest.get("allOf", []), _Held(found)]}, node.base)
                self._joined[id(start.value)] = (start, joined)  # the same each time, so that circles are seen
                return joined
        if seen:
            self._joined[id(start.value)] = (start, node)
        return node

    def inner(self, node: Node, value: Any) -> Node:
        """A schema that stands in a node."""
        if isinstance(value, _Held):
            return value.node
        own = _own_id(value)
        return Node(value, urljoin(node.base, own) if own else node.base)

    def check(self) -> None:
        """Follow every reference once, and hold what the meta schema may not have seen to it."""
        draft = self.root.value.get("$schema") if isinstance(self.root.value, dict) else None
        seen: set[int] = set()
        left = _REFERRED_MAX
        for node in _walk(self.root):
            if not isinstance(node.value, dict):
                continue
            targets = [*first] if isinstance(first := node.value.get("prefixItems"), list) else []
            if isinstance(node.value.get("$ref"), str):
                targets.append(self._named(node.value["$ref"], node.base).value)
                self.resolve(node)
            for target in targets:
                if id(target) not in seen:
                    seen.add(id(target))
                    left -= len(write_json(target))
                    if left < 0:
                        raise InvalidSchemaError(f"$ref and prefixItems name too much. characters_max={_REFERRED_MAX}")
                    _check(target, draft)

    def _named(self, reference: str, base: str) -> Node:
        uri, fragment = urldefrag(urljoin(base, reference))
        found = self._at.get(uri) or self._at.get(urldefrag(reference)[0])
        if found is None:
            raise InvalidSchemaError(f"no such reference: {reference[:200]!r}")
        if not fragment:
            return found
        if not fragment.startswith("/"):
            anchored = self._at.get(f"{uri}#{fragment}")
            if anchored is None:
                raise InvalidSchemaError(f"no such anchor: {reference[:200]!r}")
            return anchored
        for part in unquote(fragment).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            inner = found.value
            if isinstance(inner, dict) and key in inner:
                found = self.inner(found, inner[key])
            elif isinstance(inner, list) and key.isascii() and key.isdigit() and int(key) < len(inner):
                found = self.inner(found, inner[int(key)])
            else:
                raise InvalidSchemaError(f"no such reference: {reference[:200]!r}")
        return found

    def _index(self, root: Node) -> None:
        """Note every `$id` and anchor."""
        for node in _walk(root):
            if not isinstance(node.value, dict):
                continue
            if _own_id(node.value):
                self._at.setdefault(urldefrag(node.base)[0], node)
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := node.value.get(key), str):
                    self._at.setdefault(f"{urldefrag(node.base)[0]}#{anchor}", node)


@dataclass(frozen=True, slots=True)
class _Held:
    """A node among values, which keeps its own base."""

    node: Node


class JsonSchema:
    """The JSON Schema language."""

    def parse(self, text: str, references: Texts = ()) -> Parsed:
        """Read a schema; `$ref` may name the references, nothing is ever fetched."""
        value = read_json(text)
        _check(value, value.get("$schema") if isinstance(value, dict) else None)
        document = Document(value, {name: read_json(referred) for name, referred in references})
        document.check()
        return Parsed(write_json(value), document, write_json(value))

    def normal(self, parsed: Parsed) -> str:
        """Keys sorted."""
        return write_json(parsed.model.root.value, sort=True)

    def form(self, parsed: Parsed, name: str) -> str:
        """There is one form."""
        return parsed.text

    def differences(self, reader: Parsed, writer: Parsed) -> list[Difference]:
        """Why a document that `writer` admits may not be one for `reader`."""
        return json_rules.differences(reader.model, writer.model)


def _check(value: Any, draft: object) -> None:
    """Hold a schema to the meta schema of a draft. Raises InvalidSchemaError."""
    if not isinstance(value, dict | bool):
        raise InvalidSchemaError("a JSON Schema is an object, true or false")
    if isinstance(value, bool):
        return
    try:
        import jsonschema_rs
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            "JSON Schema needs a package: pip install 'lodestream[registry]'", missing=error.name
        ) from error
    if not isinstance(draft, str) or draft.rstrip("#") not in _DRAFTS:  # another one would be looked for in the network
        draft = _DRAFT
    try:
        jsonschema_rs.meta.validate({**value, "$schema": draft})
    except ValueError as error:
        raise InvalidSchemaError(str(error).partition("\n")[0][:300]) from None


def _own_id(value: Any) -> str | None:
    found = (value.get("$id") or value.get("id")) if isinstance(value, dict) else None
    return found if isinstance(found, str) and not found.startswith("#") else None


def _walk(root: Node) -> Iterator[Node]:
    """Every object inside a schema, with its base; data is left out."""
    open_ = [root]
    while open_:
        node = open_.pop()
        yield node
        if isinstance(node.value, dict):
            inner = [value for key, value in node.value.items() if key not in _PLAIN]
        else:
            inner = node.value if isinstance(node.value, list) else []
        for value in inner:
            if isinstance(value, dict | list):
                own = _own_id(value)
                open_.append(Node(value, urljoin(node.base, own) if own else node.base))
