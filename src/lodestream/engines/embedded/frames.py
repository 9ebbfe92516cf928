"""Arrow tables through DuckDB and back, with timestamps kept naive in UTC inside."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

import duckdb
import pyarrow as pa


def connect(memory_limit: str = "2GB") -> duckdb.DuckDBPyConnection:
    """A private DuckDB: one thread, so that the same rows always give the same result; nothing outside is reachable."""
    settings = {
        "threads": 1, "memory_limit": memory_limit, "enable_external_access": False,
        "autoinstall_known_extensions": False, "autoload_known_extensions": False,
    }  # fmt: skip
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET preserve_insertion_order = true")
    return connection


def quoted(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


@functools.lru_cache(maxsize=1024)
def _naive_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _naive_type(f.type), f.nullable) for f in kind])
    if pa.types.is_list(kind):
        return pa.list_(_naive_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_naive_type(kind.key_type), _naive_type(kind.item_type))
    return kind


def naive(table: pa.Table) -> pa.Table:
    """The same values with timestamps as naive UTC microseconds; copies nothing."""
    target = pa.schema([f.with_type(_naive_type(f.type)).with_nullable(True) for f in table.schema])
    return table if target.equals(table.schema) else table.cast(target)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and types; extra columns fall away."""
    table = table.select(schema.names)
    return table if table.schema.equals(schema) else table.cast(schema)


def select(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, items: Iterable[tuple[str, str]], source: str = "input"
) -> pa.Table:
    """Compute named DuckDB expressions over `rows`, one result row per input row, in order."""
    connection.register(source, naive(rows))
    try:
        listed = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in items)
        return connection.sql(f"SELECT {listed} FROM {source}").to_arrow_table()
    finally:
        connection.unregister(source)


def new_attempt() -> str:
    """Eight hex digits that tell two runs of one batch apart; never part of a result."""
    return os.urandom(4).hex()
