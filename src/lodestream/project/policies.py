"""Reads `policies.yaml`: users, grants, row filters, masks, tags and what tags mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lodestream.model.access import PRIVILEGES
from lodestream.model.diagnostic import Place
from lodestream.model.policy import (
    GROUP,
    Declassified,
    Grant,
    Mask,
    Policies,
    RowFilter,
    Tagged,
    TagPolicy,
    User,
    parse_column,
)
from lodestream.model.project import Path
from lodestream.model.table import LAYERS, TableName
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node
from lodestream.project.values import NAME

POLICY_FILE = "policies.yaml"
POLICY_KEYS = ("users", "grants", "row_filters", "masks", "tags", "declassified", "tag_policies")
USER_KEYS = ("kind", "groups", "attributes", "disabled")
GRANT_KEYS = ("to", *PRIVILEGES)
FILTER_KEYS = ("on", "where", "except")
MASK_KEYS = ("on", "with", "except")
TAG_POLICY_KEYS = ("mask", "except")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@/+|-]{0,299}")
_QUARANTINE = "__quarantine"
_Read = TypeVar("_Read")


def read_policies(node: Node, mistakes: Mistakes) -> tuple[Policies, dict[Path, Place]]:
    """What the file declares, as far as it can be read, and the place of every value; every mistake is noted.

    Whether tables and columns are there is for planning to say.
    """
    fields = Fields(node, POLICY_KEYS, mistakes, "the policies")
    reader = _Reader(fields, mistakes)
    found = Policies(
        users=tuple(reader.named("users", reader.user, _USER, "a user")),
        grants=tuple(reader.grants()),
        row_filters=tuple(reader.named("row_filters", reader.row_filter)),
        masks=tuple(reader.named("masks", reader.mask)),
        tags=tuple(Tagged(*one) for one in reader.tagged("tags")),
        declassified=tuple(Declassified(*one) for one in reader.tagged("declassified")),
        tag_policies=tuple(reader.named("tag_policies", reader.tag_policy)),
    )
    reader.agree(found.masks)
    return found, node.places()


def is_name_of_user(text: str) -> bool:
    """Whether a user may be called so."""
    return _USER.fullmatch(text) is not None


def is_grantee(text: str) -> bool:
    """Whether this is a user's name or `group:name`."""
    return bool(text.removeprefix(GROUP)) if text.startswith(GROUP) else is_name_of_user(text)


class _Reader:
    """Reads the blocks of the file; a list may also be written as its only item."""

    def __init__(self, fields: Fields, mistakes: Mistakes) -> None:
        self.fields, self.mistakes = fields, mistakes

    def named(
        self, key: str, read: Callable[[str, Node], _Read | None], allowed: re.Pattern[str] = NAME, what: str = "a name"
    ) -> Iterator[_Read]:
        """The items of a block that maps names to what they say."""
        node = self.fields.nodes.get(key)
        if node is None or node.value is None:
            return
        if not isinstance(node.value, dict):
            wrong_kind(self.mistakes, node, key, "a mapping of names")
            return
        for name, item in node.value.items():
            if not allowed.fullmatch(name):
                fix = None if allowed is NAME else "use letters, digits, blanks and . _ @ / + | -, at most 300"
                self.mistakes.add(node.keys[name], "D110", f"not {what}", name=name, fix=fix)
            elif (found := read(name, item)) is not None:
                yield found

    def user(self, name: str, node: Node) -> User:
        """One user; nothing has to be said of them."""
        if node.value is None:
            return User(name)
        inner = Fields(node, USER_KEYS, self.mistakes, f"user {name}")
        kind = inner.choice("kind", ("user", "service")) or "user"
        groups = frozenset(text for text, _ in self.listed(inner, "groups"))
        return User(
            name, "service" if kind == "service" else "user", groups, self.attributes(inner), inner.flag("disabled")
        )

    def attributes(self, inner: Fields) -> dict[str, str]:
        """Facts about a user; numbers and the like are kept as they are written."""
        node = inner.nodes.get("attributes")
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            wrong_kind(self.mistakes, node, "attributes", "a mapping of names to text")
            return {}
        found = {}
        for name, item in node.value.items():
            if item.value is None or isinstance(item.value, dict | list):
                wrong_kind(self.mistakes, item, f"attribute {name}", "text")
            else:
                found[name] = item.text
        return found

    def grants(self) -> Iterator[Grant]:
        """`- {to: …, select: […]}`: every privilege on every object to everybody named."""
        node = self.fields.nodes.get("grants")
        if node is None or node.value is None:
            return
        if not isinstance(node.value, list):
            wrong_kind(self.mistakes, node, "grants", "a list, such as - {to: group:analysts, select: [gold]}")
            return
        for item in node.value:
            inner = Fields(item, GRANT_KEYS, self.mistakes, "a grant")
            inner.need("to")
            to = list(self.grantees(inner, "to"))
            given = [(p, on) for p in PRIVILEGES for on in self.objects(inner, p)]
            if isinstance(item.value, dict) and not any(p in inner for p in PRIVILEGES) and not inner.meant:
                fix = f"add one of: {', '.join(PRIVILEGES)}"
                self.mistakes.add(item.place, "D105", "a grant of nothing", fix=fix)
            yield from (Grant(name, privilege, on) for name in to for privilege, on in given)

    def row_filter(self, name: str, node: Node) -> RowFilter | None:
        """One row filter, or None."""
        inner = Fields(node, FILTER_KEYS, self.mistakes, f"row filter {name}")
        if not inner.need("on", "where"):
            return None
        tables = tuple(table for text, item in self.listed(inner, "on") if (table := self.table(text, item.place)))
        where = inner.expression("where")
        exempt = tuple(self.grantees(inner, "except"))
        return RowFilter(name, tables, where, exempt) if where is not None and tables else None

    def mask(self, name: str, node: Node) -> Mask | None:
        """One mask, or None."""
        inner = Fields(node, MASK_KEYS, self.mistakes, f"mask {name}")
        if not inner.need("on", "with"):
            return None
        columns = tuple(cell for text, item in self.listed(inner, "on") if (cell := self.column(text, item.place)))
        shown = self.shown(inner, "with")
        exempt = tuple(self.grantees(inner, "except"))
        return Mask(name, columns, shown, exempt) if shown is not None and columns else None

    def tagged(self, key: str) -> Iterator[tuple[str, TableName, str | None]]:
        """`pii: [silver.customers.email]`; a table's name stands for all of its columns."""
        node = self.fields.nodes.get(key)
        if node is None or node.value is None:
            return
        if not isinstance(node.value, dict):
            wrong_kind(self.mistakes, node, key, "a mapping of tags to columns, such as {pii: [silver.users.email]}")
            return
        for tag, item in node.value.items():
            if not NAME.fullmatch(tag):
                self.mistakes.add(node.keys[tag], "D110", "not a name", tag=tag)
                continue
            for text, place in _items(self.mistakes, item, f"tag {tag}"):
                if text.count(".") == 1:
                    if (table := self.table(text, place.place)) is not None:
                        yield tag, table, None
                elif (cell := self.column(text, place.place)) is not None:
                    yield tag, *cell

    def tag_policy(self, tag: str, node: Node) -> TagPolicy | None:
        """What becomes of columns with a tag, or None."""
        inner = Fields(node, TAG_POLICY_KEYS, self.mistakes, f"policy of tag {tag}")
        if not inner.need("mask"):
            return None
        shown = self.shown(inner, "mask")
        exempt = tuple(self.grantees(inner, "except"))
        return None if shown is None else TagPolicy(tag, shown, exempt)

    def agree(self, masks: tuple[Mask, ...]) -> None:
        """Note a column that two masks name: which of them holds would be anybody's guess."""
        first: dict[tuple[TableName, str], str] = {}
        for mask in masks:
            for table, column in mask.on:
                if first.setdefault((table, column), mask.name) != mask.name:
                    node = self.fields.nodes["masks"]
                    assert isinstance(node.value, dict)
                    self.mistakes.add(
                        node.keys[mask.name], "D403", "a second mask on a column", column=f"{table}.{column}",
                        first=first[table, column],
                    )  # fmt: skip

    def listed(self, inner: Fields, key: str) -> Iterator[tuple[str, Node]]:
        """The texts of a list, or the only one."""
        if key in inner:
            yield from _items(self.mistakes, inner.nodes[key], key)

    def grantees(self, inner: Fields, key: str) -> Iterator[str]:
        """Names of users and `group:…`."""
        for text, node in self.listed(inner, key):
            if is_grantee(text):
                yield text
            else:
                self.mistakes.add(
                    node.place, "D110", "neither a user nor a group", name=text, fix="write name or group:name"
                )

    def objects(self, inner: Fields, key: str) -> Iterator[str]:
        """Tables, layers or `*`."""
        for text, node in self.listed(inner, key):
            if text == "*" or text in LAYERS:
                yield text
            elif "." not in text:
                near = nearest(text, LAYERS)
                self.mistakes.add(node.place, "D401", "neither a table, a layer nor '*'", on=text, nearest=near)
            elif (table := self.table(text, node.place)) is not None:
                yield str(table)

    def table(self, text: str, place: Place) -> TableName | None:
        """A table, or None; a quarantine goes with its table."""
        try:
            table = TableName.parse(text)
        except ValueError:
            near = nearest(text.partition(".")[0], LAYERS)
            near = f"{near}.{text.partition('.')[2]}" if near else None
            fix = "write bronze.name, silver.name or gold.name"
            self.mistakes.add(place, "D201", "not a table name", table=text, nearest=near, fix=fix)
            return None
        if table.name.endswith(_QUARANTINE):
            near = text.removesuffix(_QUARANTINE)
            self.mistakes.add(place, "D402", "a policy on a quarantine", table=text, nearest=near)
            return None
        return table

    def column(self, text: str, place: Place) -> tuple[TableName, str] | None:
        """A column, or None."""
        try:
            table, column = parse_column(text)
        except ValueError:
            self.mistakes.add(place, "D404", "not a column", column=text)
            return None
        return (table, column) if self.table(str(table), place) is not None else None

    def shown(self, inner: Fields, key: str) -> str | None:
        """The expression of a mask; YAML's null stands for SQL's."""
        node = inner.nodes[key]
        if node.value is None and node.text.strip():
            return "null"
        return inner.expression(key)


def _items(mistakes: Mistakes, node: Node, what: str) -> Iterator[tuple[str, Node]]:
    """The texts of a list with their nodes; one text alone is a list of it."""
    nodes: list[Any] = node.value if isinstance(node.value, list) else [node]
    for item in nodes:
        if isinstance(item.value, str):
            yield item.value, item
        else:
            wrong_kind(
                mistakes,
                item,
                f"an item of {what}" if item is not node else what,
                "a list of texts" if item is node else "text",
            )
