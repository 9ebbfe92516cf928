"""Takes typed values out of a declaration's tree, noting a mistake instead of raising."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lodestream.model.diagnostic import Place
from lodestream.model.table import TableName
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node
from lodestream.project.values import COLUMN, parse_bytes, parse_duration

_STREAM = re.compile(r"stream\(\s*([^()\s]+)\s*\)")


class Fields:
    """One block of a declaration: a mapping with known keys.

    Args:
        node: what was written.
        keys: the keys it may have.
        mistakes: where mistakes go.
        what: the block's name in messages.
    """

    def __init__(self, node: Node, keys: Iterable[str], mistakes: Mistakes, what: str) -> None:
        self.node, self.mistakes, self.what = node, mistakes, what
        self.nodes: dict[str, Node] = {}
        self.meant: set[str] = set()  # known keys that unknown ones are most like
        if not isinstance(node.value, dict):
            wrong_kind(mistakes, node, what, "a mapping")
            return
        known = tuple(keys)
        for key, value in node.value.items():
            if key in known:
                self.nodes[key] = value
                continue
            near = nearest(key, known)
            self.meant.add(near or "")
            fix = None if near else f"use one of: {', '.join(known)}"
            mistakes.add(node.keys[key], "D103", f"unknown key in {what}", key=key, nearest=near, fix=fix)

    def __contains__(self, key: str) -> bool:
        return key in self.nodes

    def place(self, key: str) -> Place:
        """Where a key stands."""
        return self.node.keys.get(key, self.node.place)

    def need(self, *keys: str) -> bool:
        """Whether all keys are there; notes each missing one."""
        missing = [key for key in keys if key not in self.nodes]
        if isinstance(self.node.value, dict):
            for key in missing:
                self.mistakes.add(self.node.place, "D105", f"missing key in {self.what}", key=key)
        return not missing

    def text(self, key: str) -> str | None:
        """A text, or None."""
        node = self.nodes.get(key)
        if node is None:
            return None
        if not isinstance(node.value, str):
            wrong_kind(self.mistakes, node, key, "text")
            return None
        return node.value

    def expression(self, key: str) -> str | None:
        """The text of an expression: any scalar as written, such as `1` or `true`."""
        node = self.nodes.get(key)
        return None if node is None else expression(self.mistakes, node, key)

    def flag(self, key: str) -> bool:
        """True or false; false when not written."""
        node = self.nodes.get(key)
        if node is None:
            return False
        if not isinstance(node.value, bool):
            wrong_kind(self.mistakes, node, key, "true or false")
            return False
        return node.value

    def whole(self, key: str, least: int = 1) -> int | None:
        """A whole number of at least `least`, or None."""
        node = self.nodes.get(key)
        if node is None:
            return None
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < least:
            wrong_kind(self.mistakes, node, key, f"a whole number of at least {least}")
            return None
        return node.value

    def choice(self, key: str, options: tuple[str, ...]) -> str | None:
        """One of `options`, or None."""
        text = self.text(key)
        if text is None or text in options:
            return text
        near, fix = nearest(text, options), f"use one of: {', '.join(options)}"
        place = self.nodes[key].place
        self.mistakes.add(place, "D106", f"{key} does not know this value", value=text, nearest=near, fix=fix)
        return None

    def duration(self, key: str, *, zero: bool = False) -> int | None:
        """Microseconds, or None; more than zero unless `zero`."""
        node = self.nodes.get(key)
        if node is None:
            return None
        if isinstance(node.value, dict | list) or node.value is None:
            wrong_kind(self.mistakes, node, key, "a duration")
            return None
        try:
            micros = parse_duration(node.text)
        except ValueError as error:
            self.mistakes.add(node.place, "D107", str(error), key=key, value=node.text)
            return None
        if micros == 0 and not zero:
            self.mistakes.add(node.place, "D107", "a duration of nothing", key=key, value=node.text)
            return None
        return micros

    def size(self, key: str, least: int) -> int | None:
        """Bytes, at least `least`, or None."""
        node = self.nodes.get(key)
        if node is None:
            return None
        try:
            size = parse_bytes(str(node.value))
        except ValueError:
            size = 0
        if size < least:
            fix = f"write a number and a unit, such as 512 MiB or 4 GiB; at least {least >> 20} MiB"
            self.mistakes.add(node.place, "D106", f"{key} is a size", value=str(node.value), fix=fix)
            return None
        return size

    def table(self, key: str) -> TableName | None:
        """A table's name, or None."""
        text = self.text(key)
        return None if text is None else table_name(self.mistakes, self.nodes[key].place, text)

    def stream(self, key: str) -> TableName | None:
        """The table in `stream(layer.name)`, or None."""
        text = self.text(key)
        if text is None:
            return None
        place = self.nodes[key].place
        match = _STREAM.fullmatch(text.strip())
        if match is None:
            inner = text.strip().removeprefix("stream(").removesuffix(")").strip()
            near = f"stream({inner})" if re.fullmatch(r"[\w.]+", inner) else None
            self.mistakes.add(place, "D104", f"{key} must be stream(layer.name)", value=text, nearest=near)
            return None
        return table_name(self.mistakes, place, match[1])

    def strings(self, key: str) -> list[tuple[str, Node]]:
        """A list of texts with their nodes; empty when not written."""
        node = self.nodes.get(key)
        if node is None:
            return []
        if not isinstance(node.value, list):
            wrong_kind(self.mistakes, node, key, "a list")
            return []
        return list(texts(self.mistakes, node.value, key))


def texts(mistakes: Mistakes, nodes: list[Node], what: str) -> Iterator[tuple[str, Node]]:
    """The texts among `nodes`; the others are noted."""
    for node in nodes:
        if isinstance(node.value, str):
            yield node.value, node
        else:
            wrong_kind(mistakes, node, f"an item of {what}", "text")


def wrong_kind(mistakes: Mistakes, node: Node, what: str, wanted: str) -> None:
    """Note that `what` should be `wanted`; YAML 1.2 spells true and false one way only."""
    if node.broken:
        return
    fix = f"write {wanted}"
    if wanted == "true or false" and node.text.lower() in ("yes", "on", "no", "off", "y", "n"):
        fix = f"YAML 1.2 takes this as text: write {'true' if node.text.lower() in ('yes', 'on', 'y') else 'false'}"
    elif wanted == "text" and node.text and not isinstance(node.value, str):
        fix = "put it into quotes"
    mistakes.add(node.place, "D104", f"{what} must be {wanted}", found=node.kind, value=node.text or None, fix=fix)


def expression(mistakes: Mistakes, node: Node, what: str) -> str | None:
    """An expression's text, or None."""
    if node.broken:
        return None
    if isinstance(node.value, dict | list) or node.value is None or not node.text.strip():
        mistakes.add(node.place, "D309", "not an expression", key=what, found=node.kind)
        return None
    return node.text


def table_name(mistakes: Mistakes, place: Place, text: str) -> TableName | None:
    """The table's name in `text`, or None."""
    try:
        return TableName.parse(text)
    except ValueError:
        mistakes.add(place, "D201", "not a table name", table=text, fix="write bronze.name, silver.name or gold.name")
        return None


def column_name(mistakes: Mistakes, place: Place, name: str, *, strict: bool = True) -> bool:
    """Whether a new column may have this name; `strict` asks for one that SQL takes without quotes."""
    if name.startswith("_"):
        mistakes.add(place, "D111", "names that begin with _ are ours", column=name, nearest=name.lstrip("_") or None)
        return False
    if not name or name != name.strip() or (strict and not COLUMN.fullmatch(name)):
        fix = "use letters, digits and _, beginning with a letter"
        mistakes.add(place, "D110", "not a column name", column=name, fix=fix)
        return False
    return True
