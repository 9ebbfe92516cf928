"""Reads `columns:`, as `{name: type}` or as a list of `{name, type, nullable, comment, renamed_from}`."""

from __future__ import annotations

from lodestream.model.diagnostic import Place
from lodestream.model.types import Column, DataType, Schema
from lodestream.project.fields import Fields, column_name, wrong_kind
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node
from lodestream.project.values import TYPE_NAMES, parse_column_type

_KEYS = ("type", "nullable", "comment", "renamed_from")


def read_columns(node: Node, mistakes: Mistakes) -> tuple[Schema | None, set[str]]:
    """The declared schema, and names of columns that are declared but cannot be read."""
    written: list[tuple[str, Node, Place]] = []
    if isinstance(node.value, dict):
        written = [(name, item, node.keys[name]) for name, item in node.value.items()]
    elif isinstance(node.value, list):
        for item in node.value:
            named = item.value.get("name") if isinstance(item.value, dict) else None
            if named is None or not isinstance(named.value, str):
                wrong_kind(mistakes, item, "an item of columns", "{name: …, type: …}")
            else:
                written.append((named.value, item, named.place))
    else:
        wrong_kind(mistakes, node, "columns", "a mapping of names to types, or a list")
        return None, set()
    if not written:
        mistakes.add(node.place, "D104", "columns must name at least one column")
        return None, set()
    good: dict[str, Column] = {}
    broken: set[str] = set()
    for name, item, place in written:
        column = _column(name, item, mistakes)
        twin = next((other for other in (*good, *broken) if other.lower() == name.lower()), None)
        if twin is not None:
            mistakes.add(place, "D113", "column appears twice", column=name, first=twin)
        elif not column_name(mistakes, place, name, strict=False) or column is None:
            broken.add(name)
        else:
            good[name] = column
    return Schema(tuple(good.values())), broken


def _column(name: str, item: Node, mistakes: Mistakes) -> Column | None:
    if not isinstance(item.value, dict):
        kind = _type(item, name, mistakes)
        return None if kind is None else Column(name, kind)
    fields = Fields(item, ("name", *_KEYS), mistakes, f"column {name}")
    nullable = fields.flag("nullable") if "nullable" in fields else True
    comment = fields.text("comment") or ""
    if not fields.need("type"):
        return None
    kind = _type(fields.nodes["type"], name, mistakes)
    return None if kind is None else Column(name, kind, nullable, comment, fields.text("renamed_from") or "")


def _type(node: Node, name: str, mistakes: Mistakes) -> DataType | None:
    if not isinstance(node.value, str):
        wrong_kind(mistakes, node, f"type of {name}", "text")
        return None
    try:
        return parse_column_type(node.value)
    except ValueError as error:
        word = node.value.partition("(")[0].partition("<")[0].strip()
        message = str(error) if str(error).startswith("not a decimal") else "not a type"
        mistakes.add(node.place, "D108", message, column=name, type=node.value, nearest=nearest(word, TYPE_NAMES))
        return None
