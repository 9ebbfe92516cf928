"""What the query string of a table says: filters, columns, order and size of a page."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.values import value_of
from lodestream.model.types import Column, Schema
from lodestream.query.quoting import quoted

RESERVED = frozenset({"select", "order", "limit", "cursor", "as_of", "format", "csv_guard"})
"""Names that are not columns; a column of such a name is written with a dot before it."""
_COMPARED = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "LIKE", "ilike": "ILIKE"}
_IS = {"null": "IS NULL", "true": "IS TRUE", "false": "IS FALSE"}
OPERATORS = (*_COMPARED, "in", "is")
_FILTERS_MAX = 50
_LISTED_MAX = 1000
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,"]*)')


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition, with `{}` in the place of each value."""

    text: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a table are asked for.

    Attributes:
        columns: in the order wanted.
        filters: all must hold.
        order: (column, whether descending), most important first; nulls come last.
        limit: rows of a page.
        given: the parameters that made it, so that a cursor is of one question.
    """

    columns: tuple[str, ...]
    filters: tuple[Filter, ...]
    order: tuple[tuple[str, bool], ...]
    limit: int
    given: tuple[tuple[str, str], ...]


def read(given: Iterable[tuple[str, str]], schema: Schema, limit: int, limit_max: int) -> Wanted:
    """What is asked for.

    Args:
        given: names and values of the query string.
        schema: the columns that the caller sees.
        limit: rows of a page when nothing is said.
        limit_max: the most that may be asked for.

    Raises:
        ProblemError: 400 it cannot be read.
    """
    pairs = sorted(given)
    said = {name: value for name, value in pairs if name in RESERVED}
    asked = [(name, value) for name, value in pairs if name not in RESERVED]
    if len(asked) > _FILTERS_MAX:
        raise ProblemError(400, f"there may be {_FILTERS_MAX} filters")
    filters = tuple(_filter(_column(name.removeprefix("."), schema), text) for name, text in asked)
    columns = tuple(_column(name, schema).name for name in _names(said.get("select", "")))
    order = []
    for item in _names(said.get("order", "")):
        name, _, way = item.rpartition(".") if item.endswith((".asc", ".desc")) else (item, "", "asc")
        order.append((_column(name, schema).name, way == "desc"))
    text = said.get("limit")
    if text is not None:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= limit_max:
            raise ProblemError(400, f"limit is a whole number from 1 to {limit_max}")
        limit = int(text)
    kept = tuple(pair for pair in pairs if pair[0] not in ("cursor", "format", "limit", "as_of", "csv_guard"))
    return Wanted(columns or tuple(schema.names), filters, tuple(order), limit, kept)


def sql(table: str, wanted: Wanted, order: Sequence[tuple[str, bool]], limit: int, offset: int = 0,
        more: Sequence[Filter] = ()) -> tuple[str, list[Any]]:  # fmt: skip
    """The query for some rows, and its parameters.

    Args:
        table: its name, quoted.
        wanted: columns and filters.
        order: columns to order by; none for any order.
        limit: rows.
        offset: rows to leave out first.
        more: further filters.
    """
    values: list[Any] = []

    def numbered(one: Filter) -> str:
        marks = [f"${len(values) + place + 1}" for place in range(len(one.values))]
        values.extend(one.values)
        return one.text.format(*marks)

    text = f"SELECT {', '.join(quoted(name) for name in wanted.columns)} FROM {table}"
    conditions = [numbered(one) for one in (*wanted.filters, *more)]
    if conditions:
        text += f" WHERE {' AND '.join(conditions)}"
    if order:
        text += " ORDER BY " + ", ".join(
            f"{quoted(name)} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in order
        )
    return f"{text} LIMIT {limit:d}" + (f" OFFSET {offset:d}" if offset else ""), values


def _filter(column: Column, text: str) -> Filter:
    """`eq.DE`, `not.in.(a,b)`, `is.null`."""
    rest = text.removeprefix("not.")
    operator, dot, value = rest.partition(".")
    name, what = _braced(column.name), f"the filter of {column.name}"
    if not dot or operator not in OPERATORS:
        fix = f"write one of {', '.join(f'{one}.value' for one in OPERATORS)}, or not. before it"
        raise ProblemError(400, f"{what} has no operator", fix=fix)
    kind = str(column.type)
    if operator == "is":
        if value not in _IS or (value != "null" and kind != "boolean"):
            raise ProblemError(400, f"{what}: is takes null, or true and false for booleans")
        made = Filter(f"{name} {_IS[value]}", ())
    elif operator == "in":
        listed = tuple(value_of(item, kind, what) for item in _listed(value, what))
        made = Filter(f"{name} IN ({', '.join(['{}'] * len(listed))})", listed)
    elif operator in ("like", "ilike"):
        if kind != "string":
            raise ProblemError(400, f"{what}: {operator} is for texts")
        made = Filter(f"{name} {_COMPARED[operator]} {{}}", (value_of(value.replace("*", "%"), kind, what),))
    else:
        made = Filter(f"{name} {_COMPARED[operator]} {{}}", (value_of(value, kind, what),))
    return made if rest == text else Filter(f"NOT ({made.text})", made.values)


def _listed(text: str, what: str) -> list[str]:
    """The items of `(a,b,"c,d")`."""
    if not text.startswith("(") or not text.endswith(")"):
        raise ProblemError(400, f"{what}: in takes a list in parentheses")
    found: list[str] = []
    rest = text[1:-1]
    while True:
        match = _ITEM.match(rest)
        assert match
        found.append(re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2])
        rest = rest[match.end() :]
        if len(found) > _LISTED_MAX:
            raise ProblemError(400, f"{what}: a list has at most {_LISTED_MAX} values")
        if not rest:
            return found
        if not rest.startswith(","):
            raise ProblemError(400, f"{what}: values of a list are separated by commas")
        rest = rest[1:]


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@functools.lru_cache(256)
def _lowered(schema: Schema) -> dict[str, str]:
    return {column.lower(): column for column in schema.names}


def _column(name: str, schema: Schema) -> Column:
    """A column by name; one that the caller does not see is one that is not there."""
    found = _lowered(schema).get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name, schema.names, 1)
        raise ProblemError(400, "no such column", column=name[:100], nearest=near[0] if near else None)
    return schema[found]


def _braced(name: str) -> str:
    """A quoted name in which braces stand for themselves."""
    return quoted(name).replace("{", "{{").replace("}", "}}")
