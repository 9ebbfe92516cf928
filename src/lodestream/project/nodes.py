"""A declaration as a tree of values with places, read from YAML 1.2 or from Python values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from lodestream.model.diagnostic import Place
from lodestream.model.project import Path
from lodestream.project.mistakes import Mistakes

Scalar = str | int | float | bool | None
DEPTH_MAX = 50
# YAML 1.2 core schema, section 10.3.2: the library's own resolver also knows dates, underscores and 1.1 booleans
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        place: of the value; for a mapping or list under a key, of that key.
        value: a scalar, a list of nodes, or nodes by key.
        text: a scalar as written, without quotes.
        keys: place of each key of a mapping.
        broken: whether a mistake in it is noted already.
    """

    place: Place
    value: Scalar | list[Node] | dict[str, Node]
    text: str = ""
    keys: dict[str, Place] = field(default_factory=dict)
    broken: bool = False

    @property
    def kind(self) -> str:
        """What it is, in a person's words."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        if isinstance(self.value, bool):
            return "true or false"
        if isinstance(self.value, int | float):
            return "a number"
        return "nothing" if self.value is None else "text"

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def places(self) -> dict[Path, Place]:
        """Where everything in it stands, by the keys and numbers that lead there from here."""
        found: dict[Path, Place] = {(): self.place}
        items: Iterable[tuple[int | str, Node]] = self.value.items() if isinstance(self.value, dict) else ()
        if isinstance(self.value, list):
            items = enumerate(self.value)
        for step, node in items:
            found |= {(step, *path): place for path, place in node.places().items()}
        return found


def from_yaml(data: bytes, file: str, mistakes: Mistakes) -> Node | None:
    """Read one YAML 1.2 document; None (and mistakes) when it cannot be read."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        mistakes.add(Place(file, line, column), "D101", "not UTF-8", fix="save the file as UTF-8")
        return None
    text = text.replace("\r\n", "\n")
    try:
        if _brackets(text) > 10 * DEPTH_MAX:  # the parser's time grows with the square of the depth
            raise RecursionError
        root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            mistakes.add(Place(file, 1), "D101", "empty file", fix="declare something, or remove the file")
            return None
        return _Reader(text, file, mistakes).node(root, None, 0)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1)
        said = " ".join(part for part in (error.context, error.problem) if part)
        mistakes.add(place, "D101", f"not valid YAML: {said}")
    except RecursionError:
        mistakes.add(Place(file, 1), "D101", "nested too deep", fix=f"use at most {DEPTH_MAX} levels")
    except YAMLError as error:
        before = text[: getattr(error, "position", 0)]
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        mistakes.add(place, "D101", "not valid YAML: character not allowed", fix="remove the control character")
    return None


def _brackets(text: str) -> int:
    """How deep brackets are open at most; quotes are not looked at, since no text comes near the bound."""
    steps = (1 if char in "[{" else -1 for char in re.findall(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


class _Reader:
    """Turns the parser's nodes into ours."""

    def __init__(self, text: str, file: str, mistakes: Mistakes) -> None:
        self.text, self.file, self.mistakes = text, file, mistakes
        self.open: set[int] = set()
        self.done: dict[int, Node] = {}

    def place(self, node: Any) -> Place:
        start, end = node.start_mark, node.end_mark
        raw = self.text[start.index : end.index] if isinstance(node, ScalarNode) else ""
        return Place(self.file, start.line + 1, start.column + 1, raw)

    def node(self, node: Any, key: Place | None, depth: int) -> Node:
        """One node; the alias of a node is that node, so that a few lines cannot unfold into gigabytes."""
        if id(node) in self.done:
            return self.done[id(node)]
        if id(node) in self.open or depth > DEPTH_MAX:
            self.mistakes.add(self.place(node), "D101", "nested too deep or within itself")
            return Node(key or self.place(node), None)
        self.open.add(id(node))
        if not isinstance(node, ScalarNode) and str(node.tag) not in (_CORE + "map", _CORE + "seq"):
            self.tagged(node)
        if isinstance(node, MappingNode):
            made = self.mapping(node, key, depth)
        elif isinstance(node, SequenceNode):
            made = Node(key or self.place(node), [self.node(item, None, depth + 1) for item in node.value])
        else:
            made = self.scalar(node, key)
        self.open.discard(id(node))
        self.done[id(node)] = made
        return made

    def mapping(self, node: Any, key: Place | None, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        comma = False
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, ScalarNode):
                self.mistakes.add(place, "D104", "a key must be text", found="a mapping or list")
                continue
            name = str(key_node.value)
            value = self.node(value_node, place, depth + 1)
            if comma and value.value is None:  # the rest of `{x: f(a, b)}` after its comma
                continue
            if name in values:
                first = keys[name].line
                self.mistakes.add(place, "D102", "key appears twice", key=name, first_line=first)
                continue
            comma = bool(node.flow_style) and isinstance(value_node, ScalarNode) and _cut(value_node)
            if comma:
                self.mistakes.add(value.place, "D109", "a comma inside { } ends the value", value=value.text)
                value = Node(value.place, None, broken=True)
            values[name], keys[name] = value, place
        return Node(key or self.place(node), values, keys=keys)

    def scalar(self, node: Any, key: Place | None) -> Node:
        text, place, tag = str(node.value), self.place(node), str(node.tag)
        if key is not None and not place.raw:  # nothing was written: the parser points to what comes after
            return Node(key, None)
        known = tag.removeprefix(_CORE) if tag.startswith(_CORE) else None
        if known not in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value"):
            self.tagged(node)
        if node.style is not None or (known == "str" and place.raw.startswith("!")):
            return Node(place, text, text)
        return Node(place, _resolve(text), text)

    def tagged(self, node: Any) -> None:
        self.mistakes.add(self.place(node), "D101", "tags are not supported", tag=str(node.tag), fix="remove the tag")


def _cut(node: Any) -> bool:
    return node.style is None and node.value.count("(") > node.value.count(")")


def _resolve(text: str) -> Scalar:
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if len(text) < 100 and _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def from_python(value: Any, place: Place) -> Node:
    """The tree of plain Python values (mappings, lists, scalars); anything else counts as its text."""
    if isinstance(value, Mapping):
        values = {str(key): from_python(item, place) for key, item in value.items()}
        return Node(place, values, keys=dict.fromkeys(values, place))
    if isinstance(value, list | tuple):
        return Node(place, [from_python(item, place) for item in value])
    if value is None:
        return Node(place, None)
    if isinstance(value, bool):
        return Node(place, value, "true" if value else "false")
    if isinstance(value, int | float):
        return Node(place, value, str(value))
    return Node(place, str(value), str(value))
