"""What a query asks of the rows of each table that it names, wherever it names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lodestream.query.conditions import Condition, all_of, filled
from lodestream.query.guard import Statement

Node = Mapping[str, Any]
_JOINS = ("INNER", "LEFT", "RIGHT", "OUTER", "SEMI", "ANTI")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place in which a query names a table.

    A row that fails one of the conditions changes nothing there: leaving it out gives the same answer.

    Attributes:
        layer, label: the table, as `Reference` has it.
        conditions: with values; a qualifier is that of this table.
        shared: conditions without a qualifier, which are this table's when it alone has the column.
        beside: (layer, label) of the other tables that could have it.
    """

    layer: str
    label: str
    conditions: tuple[Condition, ...] = ()
    shared: tuple[Condition, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()


def occurrences(statement: Statement, parameters: Sequence[object]) -> list[Occurrence]:
    """Every place in which a statement names a table of the lake."""
    known = statement.known.get("occurrences")
    if known is None:
        known = statement.known["occurrences"] = list(_occurrences(statement.tree["node"]))
    return [
        replace(one, conditions=filled(one.conditions, parameters), shared=filled(one.shared, parameters))
        for one in known
    ]


def _occurrences(tree: Node) -> Iterator[Occurrence]:
    told: dict[int, Occurrence] = {}
    tables: list[Node] = []
    for node in _dicts(tree):
        if node.get("type") == "SELECT_NODE":
            for table, found in _of_select(node):
                told.setdefault(id(table), found)  # the outermost SELECT comes first and knows the most
        elif node.get("type") == "BASE_TABLE" and node["schema_name"]:
            tables.append(node)
    for table in tables:
        yield told.get(id(table)) or Occurrence(*_named(table))


def _dicts(item: Any) -> Iterator[Node]:
    """Every dictionary in a tree, outer ones first."""
    if isinstance(item, list):
        for each in item:
            yield from _dicts(each)
    elif isinstance(item, dict):
        yield item
        for value in item.values():
            yield from _dicts(value)


def _of_select(node: Node) -> Iterator[tuple[Node, Occurrence]]:
    """The tables after FROM, each with what WHERE asks of it."""
    if node["sample"] is not None or not node["where_clause"]:
        return
    made = {item["alias"].lower() for item in node["select_list"] if item["alias"]}
    found = [one for one in all_of(node["where_clause"]) if one.column not in made]  # it may be what SELECT makes
    sources = _Sources()
    sources.take(node["from_table"])
    if sources.outer:  # a row without a partner has NULLs, so whoever is left out must not be missed by them
        found = [one for one in found if one.operator != "null"]
    aliases = [one.alias for one in sources.found]
    for one in sources.found:
        if aliases.count(one.alias) > 1:
            continue
        mine = [each for each in found if one.columns is None or each.column in one.columns]
        own = tuple(each for each in mine if each.qualifier == one.alias)
        shared = () if sources.merged else tuple(each for each in mine if each.qualifier is None)
        others = tuple(_named(other.table) for other in sources.found if other is not one)
        yield one.table, Occurrence(*_named(one.table), own, shared, others)


@dataclass(frozen=True, slots=True)
class _Source:
    """A table after FROM: what WHERE calls it, and which of its columns WHERE can name; None for all."""

    alias: str
    table: Node
    columns: frozenset[str] | None = None


class _Sources:
    """The tables whose rows WHERE looks at.

    Attributes:
        found: they.
        merged: whether columns of two may be one by name, or it is not clear.
        outer: whether rows of one may be without a partner.
    """

    def __init__(self) -> None:
        self.found: list[_Source] = []
        self.merged = self.outer = False

    def take(self, item: Node) -> None:
        """Collect from a table, a subquery or a join."""
        if item.get("sample") is not None:
            self.merged = True
        elif item["type"] == "BASE_TABLE" and item["schema_name"] and not item["column_name_alias"]:
            self.found.append(_Source((item["alias"] or item["table_name"]).lower(), item))
        elif item["type"] == "SUBQUERY" and not item["column_name_alias"]:
            inner = item["subquery"]["node"]
            if _passes_on(inner):
                self.found.append(_Source(item["alias"].lower(), inner["from_table"], _columns(inner["select_list"])))
        elif item["type"] == "JOIN":
            self._join(item)

    def _join(self, item: Node) -> None:
        plain = item["ref_type"] in ("REGULAR", "CROSS") and item["join_type"] in _JOINS
        if not plain or item.get("ranking_expression") is not None:
            self.merged = True
            return
        self.merged = self.merged or bool(item["using_columns"])
        self.outer = self.outer or item["join_type"] in ("LEFT", "RIGHT", "OUTER")
        self.take(item["left"])
        if item["join_type"] not in ("SEMI", "ANTI"):
            self.take(item["right"])


def _passes_on(node: Node) -> bool:
    """Whether a subquery gives rows of one table as they are, some columns of them under their own names."""
    if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
        return False
    table = node["from_table"]
    parts = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "qualify", "sample")
    if any(node[part] for part in parts) or node["cte_map"]["map"] or node["aggregate_handling"] != "STANDARD_HANDLING":
        return False
    if table["sample"] is not None or table["column_name_alias"] or not table["schema_name"]:
        return False
    return all(_as_it_is(item) for item in node["select_list"])


def _columns(listed: Sequence[Node]) -> frozenset[str] | None:
    """The columns that a subquery gives; None for all of its table."""
    if any(item["class"] == "STAR" for item in listed):
        return None
    return frozenset(item["column_names"][-1].lower() for item in listed)


def _as_it_is(item: Node) -> bool:
    if item["class"] == "STAR":
        return not any(item.get(part) for part in ("exclude_list", "replace_list", "expr", "rename_list", "columns"))
    if item["class"] != "COLUMN_REF" or len(item["column_names"]) > 2:
        return False
    return item["alias"].lower() in ("", item["column_names"][-1].lower())


def _named(table: Node) -> tuple[str, str]:
    return table["schema_name"].lower(), table["table_name"].lower()
