"""Recognises the query that asks one table for the rows with a key, which needs no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.query.conditions import Condition, conditions
from lodestream.query.guard import Statement

_Columns = tuple[tuple[str, str | None], ...]


class Keyed(Protocol):
    """Finds rows by equality without an engine."""

    def find(
        self, table: DeltaTable, snapshot: Snapshot, equals: Mapping[str, object],
        columns: Sequence[str] | None = None,
    ) -> pa.Table | None:  # fmt: skip
        """The rows of a version in which each of these columns has this value; None when it cannot tell."""

    def close(self) -> None:
        """Let go of what is kept."""


@dataclass(frozen=True, slots=True)
class Point:
    """`SELECT columns FROM table WHERE column = value AND … LIMIT n`.

    Attributes:
        columns: (column in lower case, name in the answer or None for its own) in order; None for all.
        equals: what must hold.
        limit: at most so many rows; None for all.
    """

    columns: _Columns | None
    equals: tuple[Condition, ...]
    limit: int | None


def point(statement: Statement, parameters: Sequence[object]) -> Point | None:
    """The point query that a statement is; None when it is more than that."""
    known = statement.known
    if "point" not in known:
        known["point"] = _shape(statement.tree["node"])
    if (shape := known["point"]) is None:
        return None
    columns, limit, count = shape
    found = conditions(statement, parameters)
    if len(found) != count or any(one.operator != "=" for one in found):
        return None
    if len({one.column for one in found}) != count:
        return None
    return Point(columns, tuple(found), limit)


def _shape(node: Mapping[str, Any]) -> tuple[_Columns | None, int | None, int] | None:
    """Columns, limit and number of conditions of a statement of that shape; None for any other."""
    if not _plain(node):
        return None
    columns, limit = _columns(node["select_list"]), _limit(node["modifiers"])
    return None if columns == () or limit == -1 else (columns, limit, _count(node["where_clause"]))


def _plain(node: Mapping[str, Any]) -> bool:
    """Whether a statement has no parts but columns, one table, conditions and LIMIT."""
    return bool(
        node["type"] == "SELECT_NODE"
        and node["where_clause"]
        and not (node["cte_map"]["map"] or node["group_expressions"] or node["group_sets"])
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and node["having"] is None
        and node["qualify"] is None
        and node["sample"] is None
        and node["from_table"]["type"] == "BASE_TABLE"
        and node["from_table"]["sample"] is None
        and not node["from_table"]["column_name_alias"]
    )


def _count(where: Mapping[str, Any]) -> int:
    """Number of conditions that hold together."""
    if where["class"] == "CONJUNCTION" and where["type"] == "CONJUNCTION_AND":
        return sum(_count(child) for child in where["children"])
    return 1


def _columns(listed: Sequence[Mapping[str, Any]]) -> _Columns | None:
    """The columns asked for; nothing when some are more than columns."""
    if len(listed) == 1 and listed[0]["class"] == "STAR":
        star = listed[0]
        more = (
            "relation_name",
            "exclude_list",
            "replace_list",
            "columns",
            "expr",
            "qualified_exclude_list",
            "rename_list",
        )
        return () if any(star.get(part) for part in more) else None
    found = []
    for item in listed:
        if item["class"] != "COLUMN_REF" or len(item["column_names"]) != 1:
            return ()
        (name,) = item["column_names"]
        found.append((name.lower(), item["alias"] or None))
    return tuple(found) if len({alias or name for name, alias in found}) == len(found) else ()


def _limit(modifiers: Sequence[Mapping[str, Any]]) -> int | None:
    """The LIMIT, None without one, -1 for any other modifier."""
    if not modifiers:
        return None
    if len(modifiers) > 1 or modifiers[0]["type"] != "LIMIT_MODIFIER" or modifiers[0].get("offset"):
        return -1
    literal = (modifiers[0]["limit"] or {}).get("literal") or {}
    if modifiers[0].get("limit_type") != "ROW_COUNT" or literal.get("kind") != "INTEGER":
        return -1
    return int(literal["text"].replace("_", ""))
