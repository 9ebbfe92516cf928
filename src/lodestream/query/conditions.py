"""Conditions of a query that the reading side may apply itself, so that it need not read rows for nothing.

Only comparisons of a plain column with a value of its own kind are taken: they cannot err, whatever is in a row that
the caller may not see, and the query applies them again.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from lodestream.model.types import DataType, Schema
from lodestream.query.guard import Statement
from lodestream.query.quoting import literal, quoted
from lodestream.query.scan import duckdb_type

Operator = Literal["=", "<", "<=", ">", ">=", "in", "null", "not null"]
_OPERATORS: dict[str, Operator] = {
    "COMPARE_EQUAL": "=", "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}  # fmt: skip
_TURNED: dict[str, Operator] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_INTEGERS = frozenset({"tinyint", "smallint", "int", "bigint"})
_FLOATS = frozenset({"float", "double"})


@dataclass(frozen=True, slots=True)
class Condition:
    """`column operator value`: a Python value, a tuple of them for `in`, None for `null` and `not null`."""

    column: str
    operator: Operator
    value: object
    qualifier: str | None = None

    def sql(self, schema: Schema) -> str | None:
        """DuckDB text, or None when the value is not of the column's kind."""
        if self.column not in schema.names or self.qualifier in schema.names or self.operator not in _TURNED:
            return None
        value = _literal(self.value, schema[self.column].type)
        return None if value is None else f"{quoted(self.column)} {self.operator} {value}"


@dataclass(frozen=True, slots=True)
class _Place:
    """The value of a condition is a parameter, counted from 0."""

    index: int


def conditions(statement: Statement, parameters: Sequence[object]) -> list[Condition]:
    """What must hold of every row of the one table that a statement reads; none for any other statement."""
    known = statement.known.get("conditions")
    if known is None:
        known = statement.known["conditions"] = _conditions(statement)
    return [one for one in filled(known, parameters) if one.operator in _TURNED]


def filled(found: Iterable[Condition], parameters: Sequence[object]) -> tuple[Condition, ...]:
    """The conditions with values in the place of parameters, without those that have none."""

    def value(told: object) -> object:
        if isinstance(told, _Place):
            return parameters[told.index] if told.index < len(parameters) else None
        return told

    made = []
    for one in found:
        if one.operator == "in":
            assert isinstance(one.value, tuple)
            values = tuple(value(each) for each in one.value)
            made += [] if None in values else [Condition(one.column, one.operator, values, one.qualifier)]
        elif one.operator in ("null", "not null"):
            made.append(one)
        elif (given := value(one.value)) is not None:
            made.append(one if given is one.value else Condition(one.column, one.operator, given, one.qualifier))
    return tuple(made)


def _conditions(statement: Statement) -> list[Condition]:
    """The conditions with places where parameters stand."""
    node = statement.tree["node"]
    if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE" or len(statement.tables) != 1:
        return []
    if statement.given or not node["where_clause"] or node["cte_map"]["map"]:
        return []
    if node["from_table"]["column_name_alias"]:  # columns have other names in the query
        return []
    called = (node["from_table"]["alias"] or node["from_table"]["table_name"]).lower()
    made = {item["alias"].lower() for item in node["select_list"] if item["alias"]}
    found = all_of(node["where_clause"])
    return [
        condition for condition in found
        if condition.column not in made and condition.qualifier in (None, called)
    ]  # fmt: skip  # a name made in the SELECT list may be meant


def all_of(item: Mapping[str, Any]) -> Iterator[Condition]:
    """The conditions that an expression is the conjunction of, as far as they are simple; parameters are places."""
    if item["class"] == "CONJUNCTION" and item["type"] == "CONJUNCTION_AND":
        for child in item["children"]:
            yield from all_of(child)
    elif item["class"] == "COMPARISON" and item["type"] in _OPERATORS:
        operator = _OPERATORS[item["type"]]
        sides = ((item["left"], item["right"], operator), (item["right"], item["left"], _TURNED[operator]))
        for one, other, read in sides:
            yield from _compared(one, read, other)
    elif item["class"] == "BETWEEN":
        yield from _compared(item["input"], ">=", item["lower"])
        yield from _compared(item["input"], "<=", item["upper"])
    elif item["class"] == "OPERATOR":
        yield from _of_operator(item)


def _of_operator(item: Mapping[str, Any]) -> Iterator[Condition]:
    """`IN`, `IS NULL` and `IS NOT NULL`."""
    one, *others = item["children"]
    if one["class"] != "COLUMN_REF" or len(one["column_names"]) > 2:
        return
    *before, column = (name.lower() for name in one["column_names"])
    qualifier = before[0] if before else None
    if item["type"] == "OPERATOR_IS_NULL":
        yield Condition(column, "null", None, qualifier)
    elif item["type"] == "OPERATOR_IS_NOT_NULL":
        yield Condition(column, "not null", None, qualifier)
    elif item["type"] == "COMPARE_IN":
        values = tuple(_value(other) for other in others)
        if values and None not in values:
            yield Condition(column, "in", values, qualifier)


def _compared(one: Mapping[str, Any], operator: Operator, other: Mapping[str, Any]) -> Iterator[Condition]:
    if one["class"] == "COLUMN_REF" and len(one["column_names"]) <= 2:
        value = _value(other)
        if value is not None:
            *before, column = (name.lower() for name in one["column_names"])
            yield Condition(column, operator, value, before[0] if before else None)


def _value(item: Mapping[str, Any]) -> object:
    """The value that a node stands for; None when it is not plainly one."""
    if item["class"] == "PARAMETER":
        place = item["identifier"]
        return _Place(int(place) - 1) if place.isdecimal() and int(place) > 0 else None
    if item["class"] == "CAST" and item["child"].get("literal", {}).get("kind") == "STRING":
        return _moment(item["type_expr"].get("type_name", "").lower(), item["child"]["literal"]["text"])
    if item["class"] != "CONSTANT" or "literal" not in item:
        return None
    kind, text = item["literal"]["kind"], item["literal"].get("text", "")
    if kind == "INTEGER":
        return int(text.replace("_", ""))
    if kind == "NUMERIC":
        return None if "e" in text.lower() else Decimal(text.replace("_", ""))
    return text if kind == "STRING" else None


def _moment(kind: str, text: str) -> object:
    try:
        if kind == "date":
            return dt.date.fromisoformat(text)
        return dt.datetime.fromisoformat(text) if kind == "timestamp" else None
    except ValueError:
        return None


def _literal(value: object, kind: DataType) -> str | None:
    name = kind.name
    if isinstance(value, bool):
        return None
    if name in _INTEGERS and isinstance(value, int):
        return f"{value}" if abs(value) < 1 << 63 else None
    if name == "decimal" and isinstance(value, int | Decimal) and Decimal(value).is_finite():
        text = f"{Decimal(value):f}"
        return text if len(text) <= 38 else None
    if name in _FLOATS and isinstance(value, int | float | Decimal) and math.isfinite(value):
        return f"CAST({literal(repr(float(value)))} AS {duckdb_type(kind)})" if float(value) == value else None
    if name == "string" and isinstance(value, str) and "\0" not in value:
        return literal(value)
    if name == "date" and type(value) is dt.date:
        return f"DATE {literal(value.isoformat())}"
    if name == "timestamp" and isinstance(value, dt.datetime):
        naive = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"TIMESTAMP {literal(naive.isoformat(sep=' '))}"
    return None
