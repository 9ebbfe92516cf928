"""Which files a query need not be given: what its hints say of rows, as far as they are understood.

Hints bind nobody: what is not understood is passed over, and clients filter for themselves.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from lodestream.errors import LodestreamError
from lodestream.lake.actions import AddFile
from lodestream.model.types import Schema
from lodestream.query.conditions import Condition, Operator, all_of
from lodestream.query.guard import syntax_tree

Alternatives = list[list[Condition]]
"""What rows meet: all conditions of one of the lists."""
_COMPARED: Mapping[str, tuple[Operator, Operator]] = {
    "equal": ("=", "="), "lessThan": ("<", ">"), "lessThanOrEqual": ("<=", ">="), "greaterThan": (">", "<"),
    "greaterThanOrEqual": (">=", "<="),
}  # fmt: skip
"""Operator with the column on the left, and on the right."""
_ALTERNATIVES_MAX = 64
_DEPTH_MAX = 50
_ANYTHING: Alternatives = [[]]


def of_json(text: str) -> Alternatives:
    """What a predicate in the protocol's JSON form says of rows."""
    try:
        return _told(json.loads(text), 0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return _ANYTHING


def of_sql(texts: Sequence[str], schema: Schema) -> Alternatives:
    """What conditions in Spark SQL say of rows, which all hold.

    Of those that mean something else in DuckDB, whose parser reads them, nothing is taken: escapes in texts, and times
    in a zone that only the client knows.
    """
    times = {column.name.lower() for column in schema if column.type.name == "timestamp"}
    found: list[Condition] = []
    for text in texts:
        if "\\" in text:
            continue
        try:
            node = syntax_tree(f"SELECT 1 FROM t WHERE ({text})")["node"]
        except LodestreamError:
            continue
        where = node.get("where_clause")
        found += [one for one in all_of(where) if one.column not in times and one.qualifier is None] if where else []
    return [found]


def first_rows(adds: Sequence[AddFile], rows: int) -> Sequence[AddFile]:
    """As many of the files as hold so many rows."""
    found = 0
    for place, add in enumerate(adds):
        if found >= rows:
            return adds[:place]
        found += add.num_records or 0
    return adds


def _told(node: Mapping[str, Any], depth: int) -> Alternatives:
    if depth > _DEPTH_MAX:
        return _ANYTHING
    op, children = node["op"], node["children"]
    if op == "or":
        return _few([one for child in children for one in _told(child, depth + 1)])
    if op == "and":
        found = _ANYTHING
        for child in children:
            more = _told(child, depth + 1)
            found = _few([[*one, *other] for one in found for other in more])
        return found
    if op == "isNull":
        return [[Condition(_column(children[0]), "null", None)]]
    if op == "not" and children[0]["op"] == "isNull":
        return [[Condition(_column(children[0]["children"][0]), "not null", None)]]
    if op not in _COMPARED:
        return _ANYTHING
    left, right = children
    turned = left["op"] == "literal"
    column, literal = (right, left) if turned else (left, right)
    value = _value(literal)
    return _ANYTHING if value is None else [[Condition(_column(column), _COMPARED[op][turned], value)]]


def _few(found: Alternatives) -> Alternatives:
    return found if len(found) <= _ALTERNATIVES_MAX else _ANYTHING


def _column(node: Mapping[str, Any]) -> str:
    if node["op"] != "column":
        raise ValueError("not a column")
    return str(node["name"]).lower()


def _value(node: Mapping[str, Any]) -> object:
    """The value of a literal; None when there is no comparing with it."""
    if node["op"] != "literal":
        raise ValueError("not a literal")
    kind, text = node.get("valueType"), str(node["value"])
    if kind in ("int", "long"):
        return int(text)
    if kind in ("float", "double"):
        try:
            return Decimal(text)
        except InvalidOperation:
            return None
    if kind == "date":
        return dt.date.fromisoformat(text)
    if kind == "timestamp":
        moment = dt.datetime.fromisoformat(text)
        return moment if moment.tzinfo else None
    return text if kind == "string" else None
