"""Which columns of which tables a query reads, as far as its text tells: too many where it does not, never too few."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lodestream.model.table import LAYERS, TableName
from lodestream.model.types import Schema

Reads = Mapping[TableName, frozenset[str] | None]
"""Columns by table; None for all that it has."""


def reads(text: str, schemas: Mapping[TableName, Schema]) -> Reads:
    """Columns by table that a query reads; empty when it names no table or cannot be read.

    A column counts as read when the query has its name anywhere, for each table that has such a column.

    Args:
        text: DuckDB SQL; literals may be `?`.
        schemas: columns of the tables that are known; of others all are read.
    """
    tables, words = _named(text)
    found: dict[TableName, frozenset[str] | None] = {}
    for table in tables:
        schema = schemas.get(table)
        if words is None or schema is None:
            found[table] = None
        else:
            found[table] = frozenset(name for name in schema.names if name.lower() in words)
    return found


@functools.lru_cache(maxsize=512)
def _named(text: str) -> tuple[tuple[TableName, ...], frozenset[str] | None]:
    """The tables of a query, and every name in it; None when it reads tables as a whole."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree: Any = sqlglot.parse_one(text, dialect="duckdb")
    except (SqlglotError, RecursionError):
        return (), None
    tables: set[TableName] = set()
    aliases: set[str] = set()
    for one in tree.find_all(exp.Table):
        layer, name = one.db.lower(), one.name.lower()
        aliases.add((one.alias or name).lower())
        if layer in LAYERS and name.isidentifier():
            tables.add(TableName(layer, name))
    names = tuple(sorted(tables))
    whole = any(isinstance(star.parent, exp.Select | exp.Column | exp.Anonymous) for star in tree.find_all(exp.Star))
    whole |= any(tree.find_all(exp.Columns, exp.Pivot, exp.Describe, exp.Summarize))
    whole |= any(join.args.get("method") == "NATURAL" for join in tree.find_all(exp.Join))
    whole |= any(not column.table and column.name.lower() in aliases for column in tree.find_all(exp.Column))
    whole |= any(not select.expressions for select in tree.find_all(exp.Select))
    if whole:
        return names, None
    return names, frozenset(identifier.name.lower() for identifier in tree.find_all(exp.Identifier))
