"""Applies filters and masks to rows that trusted code has in its hands."""

from __future__ import annotations

import threading

import duckdb
import pyarrow as pa

from lodestream.model.access import TableAccess
from lodestream.model.types import Schema
from lodestream.query.quoting import quoted
from lodestream.query.scan import seen

_here = threading.local()


def filtered(rows: pa.Table, schema: Schema, access: TableAccess) -> pa.Table:
    """The rows as somebody may see them.

    Args:
        rows: with all stored columns.
        schema: the stored columns.
        access: what is seen of them; its expressions are compiled, so they cannot err and reach nothing else.
    """
    connection = _connection()
    connection.register("found", rows)
    try:
        names = ", ".join(_plain(column.name, rows.schema.field(column.name).type) for column in schema)
        return connection.sql(seen(f"SELECT {names} FROM found", schema, access, None, ())).to_arrow_table()
    finally:
        connection.unregister("found")


def _connection() -> duckdb.DuckDBPyConnection:
    if not hasattr(_here, "connection"):
        _here.connection = duckdb.connect(
            ":memory:",
            config={"enable_external_access": False, "threads": 1, "python_enable_replacements": False},
        )
        _here.connection.execute("SET TimeZone = 'UTC'")
        _here.connection.execute("SET lock_configuration = true")
    connection: duckdb.DuckDBPyConnection = _here.connection
    return connection


def _plain(name: str, kind: pa.DataType) -> str:
    """A column in our types: timestamps are naive, in UTC."""
    text = quoted(name)
    return f"{text}::TIMESTAMP AS {text}" if pa.types.is_timestamp(kind) else text
