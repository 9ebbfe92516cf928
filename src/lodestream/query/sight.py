"""Applies filters and masks to rows that trusted code has in its hands."""

from __future__ import annotations

import datetime as dt
import functools
import threading
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from lodestream.model.access import TableAccess
from lodestream.model.types import Schema
from lodestream.ports.waiting import before_waiting
from lodestream.query.quoting import quoted
from lodestream.query.scan import duckdb_type, seen

_here = threading.local()
_FEW_ROWS = 4
"""Up to here it is faster to hand rows to a statement one after the other than to have a table read."""
_SIMPLE = frozenset(
    {"tinyint", "smallint", "int", "bigint", "boolean", "string", "date", "timestamp", "decimal", "float", "double"}
)


def filtered(rows: pa.Table, schema: Schema, access: TableAccess) -> pa.Table:
    """The rows as somebody may see them.

    Args:
        rows: with all stored columns.
        schema: the stored columns.
        access: what is seen of them; its expressions are compiled, so they cannot err and reach nothing else.
    """
    if rows.num_rows <= _FEW_ROWS and (statement := _statement(schema, access)) is not None:
        try:
            return statement.apply(rows, access)
        except (duckdb.Error, ValueError, OverflowError):  # a value that Python has not, such as the year 10000
            pass
    before_waiting()
    connection = _connection()
    connection.register("found", rows)
    try:
        names = ", ".join(_plain(column.name, rows.schema.field(column.name).type) for column in schema)
        return connection.sql(seen(f"SELECT {names} FROM found", schema, access, None, ())).to_arrow_table()
    finally:
        connection.unregister("found")


@dataclass(frozen=True, slots=True)
class _Statement:
    """Says of one row whether it is seen, and what its masked columns hold then.

    Attributes:
        made: takes a value for each column of `needed`; gives whether the row is seen, then the masked columns.
        needed: the columns that policies look at.
        masked: the columns that are not seen as they are stored.
    """

    made: duckdb.Statement
    needed: tuple[str, ...]
    masked: tuple[str, ...]

    def apply(self, rows: pa.Table, access: TableAccess) -> pa.Table:
        """The rows as somebody may see them. Raises duckdb.Error, ValueError or OverflowError when it cannot say."""
        given = [[_naive(value) for value in rows.column(name).to_pylist()] for name in self.needed]
        lock, connection = _shared()
        with lock:
            told = [
                connection.execute(self.made, [column[row] for column in given]).fetchall()[0]
                for row in range(rows.num_rows)
            ]
        kept = [row for row, (is_seen, *_) in enumerate(told) if is_seen]
        shown = rows if len(kept) == rows.num_rows else rows.take(pa.array(kept, pa.int64()))
        columns = []
        for name, masked in access.columns:
            if masked is None:
                columns.append(shown.column(name))
            else:
                place = 1 + self.masked.index(name)
                columns.append(pa.array([told[row][place] for row in kept], rows.schema.field(name).type))
        return pa.table(columns, [name for name, _ in access.columns])


@functools.lru_cache(256)
def _statement(schema: Schema, access: TableAccess) -> _Statement | None:
    """The statement for how a table is seen; None when a value in it has no plain form in Python."""
    before_waiting()
    masks = {name: text for name, text in access.columns if text is not None}
    texts = [*access.filters, *masks.values()]
    needed = [column for column in schema if any(quoted(column.name) in text for text in texts)]
    if any(column.type.name not in _SIMPLE for column in (*needed, *(schema[name] for name in masks))):
        return None
    found = ["(" + (" AND ".join(f"({text})" for text in access.filters) or "true") + ") IS TRUE"]
    found += [f"TRY_CAST(({text}) AS {duckdb_type(schema[name].type)})" for name, text in masks.items()]
    given = [f"CAST(${n} AS {duckdb_type(c.type)}) AS {quoted(c.name)}" for n, c in enumerate(needed, 1)]
    text = f"SELECT {', '.join(found)} FROM (SELECT {', '.join(given) or '1'})"
    lock, connection = _shared()
    with lock:
        made = connection.extract_statements(text)[0]
    return _Statement(made, tuple(column.name for column in needed), tuple(masks))


@functools.cache
def _shared() -> tuple[threading.Lock, duckdb.DuckDBPyConnection]:
    """The database in which statements run, one at a time whatever thread asks."""
    return threading.Lock(), _opened()


def _naive(value: Any) -> Any:
    """A value for a statement: times are naive, in UTC."""
    return value.astimezone(dt.UTC).replace(tzinfo=None) if isinstance(value, dt.datetime) and value.tzinfo else value


def _connection() -> duckdb.DuckDBPyConnection:
    if not hasattr(_here, "connection"):
        _here.connection = _opened()
    connection: duckdb.DuckDBPyConnection = _here.connection
    return connection


def _opened() -> duckdb.DuckDBPyConnection:
    """A database that holds nothing and may do nothing."""
    made = duckdb.connect(
        ":memory:", config={"enable_external_access": False, "threads": 1, "python_enable_replacements": False}
    )
    made.execute("SET TimeZone = 'UTC'")
    made.execute("SET lock_configuration = true")
    return made


def _plain(name: str, kind: pa.DataType) -> str:
    """A column in our types: timestamps are naive, in UTC."""
    text = quoted(name)
    return f"{text}::TIMESTAMP AS {text}" if pa.types.is_timestamp(kind) else text
