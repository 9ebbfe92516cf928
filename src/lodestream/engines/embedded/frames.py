"""Arrow tables through DuckDB and back, with timestamps kept naive in UTC inside."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.expressions.typed import duckdb_text
from lodestream.model.arrow import from_arrow_type, to_arrow
from lodestream.model.types import DataType, Schema

ROW = "_row_number"


def connect(memory_limit: str = "2GB", folder: str | None = None) -> duckdb.DuckDBPyConnection:
    """A private DuckDB: one thread, so that the same rows always give the same result; nothing outside is reachable.

    Args:
        memory_limit: what it may hold in memory, as DuckDB writes sizes.
        folder: where it puts what it cannot; made when needed.
    """
    settings = {
        "threads": 1, "memory_limit": memory_limit,
        "autoinstall_known_extensions": False, "autoload_known_extensions": False,
    }  # fmt: skip
    connection = duckdb.connect(":memory:", config=settings)
    if folder is not None:
        connection.execute(f"SET temp_directory = {duckdb_text(folder)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET enable_progress_bar = false")
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


def positions_of(table: pa.Table) -> list[tuple[str, int]]:
    """The (`_source`, `_position`) of each row."""
    return list(zip(table.column("_source").to_pylist(), table.column("_position").to_pylist(), strict=True))


def numbered(table: pa.Table) -> pa.Table:
    """The table as DuckDB may see it, with the number of each row in column `ROW`."""
    return naive(table).append_column(ROW, pa.array(np.arange(len(table), dtype=np.int64)))


def select(
    connection: duckdb.DuckDBPyConnection,
    rows: pa.Table,
    items: Iterable[tuple[str, str]],
    inner: Iterable[tuple[str, str]] | None = None,
) -> pa.Table:
    """Compute named DuckDB expressions over `rows`, one result row per input row, in order.

    DuckDB keeps the order of a plain scan but turns some expressions into joins, an IN list of five values for one,
    and joins give rows back in any order; so every row carries its number and the order is restored when it is lost.

    Args:
        connection: the flow's DuckDB.
        rows: n rows.
        items: (name, expression) over the columns of `rows`, or over `inner` when given.
        inner: (name, expression) over the columns of `rows`, for items that read computed columns.
    """
    connection.register("input", numbered(rows))
    try:
        source = "input" if inner is None else f"(SELECT {_listed(inner)} FROM input)"
        result = connection.sql(f"SELECT {_listed(items)} FROM {source}").to_arrow_table()
    finally:
        connection.unregister("input")
    numbers = result.column(ROW).to_numpy()
    if len(numbers) != len(rows):
        raise AssertionError(f"expressions gave {len(numbers)} rows for {len(rows)}")
    if (np.diff(numbers) < 0).any():
        result = result.take(pa.array(np.argsort(numbers)))
    return result.drop_columns([ROW])


def _listed(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join([*(f"{sql} AS {quoted(name)}" for name, sql in items), ROW])


def describe(columns: Schema, expression: str) -> DataType:
    """The type that DuckDB gives an expression over these columns; asked for expressions of `engine: embedded`.

    Raises:
        ValueError: DuckDB refuses it, or gives a type that no table can store.
    """
    with connect() as connection:
        connection.register("input", naive(to_arrow(columns).empty_table()))
        try:
            result = connection.sql(f"SELECT {expression} AS x FROM input").to_arrow_table()
        except duckdb.Error as error:
            raise ValueError(str(error).split("\n")[0]) from error
    return from_arrow_type(result.schema.field("x").type)


def new_attempt() -> str:
    """Eight hex digits that tell two runs of one batch apart; never part of a result."""
    return os.urandom(4).hex()
