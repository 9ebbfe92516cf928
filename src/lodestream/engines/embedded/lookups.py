"""Lookups: a left join against one pinned version of a table whose key must be unique."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.frames import ROW, numbered, quoted
from lodestream.model.table import Lookup


class LookupTable:
    """One version of a lookup table, ready to be joined.

    Args:
        connection: the flow's DuckDB.
        lookup: the declaration.
        rows: all rows of the pinned version.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, lookup: Lookup, rows: pa.Table) -> None:
        self._connection = connection
        self._lookup = lookup
        self._here = [here for here, _ in lookup.on]
        self._there = [there for _, there in lookup.on]
        self._rows = rows
        keys = ", ".join(map(quoted, self._there))
        connection.register("lookup_rows", numbered(rows.select(self._there)))
        try:
            not_null = " AND ".join(f"{quoted(c)} IS NOT NULL" for c in self._there)
            self._index = connection.sql(
                f"SELECT {keys}, min({ROW}) AS _row, count(*) > 1 AS _many FROM lookup_rows"
                f" WHERE {not_null} GROUP BY {keys}"
            ).to_arrow_table()
        finally:
            connection.unregister("lookup_rows")

    def find(self, rows: pa.Table) -> tuple[list[pa.ChunkedArray], np.ndarray]:
        """Look up n rows.

        Returns:
            (columns, ambiguous): the looked-up columns, n values each, NULL where there is no match; and n flags, true
            where the key stands more than once in the looked-up version.
        """
        self._connection.register("input", numbered(rows.select(self._here)))
        self._connection.register("lookup_index", self._index)
        try:
            equal = " AND ".join(
                f"i.{quoted(here)} = l.{quoted(there)}" for here, there in zip(self._here, self._there, strict=True)
            )
            joined = self._connection.sql(
                f"SELECT l._row, coalesce(l._many, false) AS _many FROM input i"
                f" LEFT JOIN lookup_index l ON {equal} ORDER BY i.{ROW}"
            ).to_arrow_table()
        finally:
            self._connection.unregister("input")
            self._connection.unregister("lookup_index")
        taken = joined.column("_row")
        columns = [self._rows.column(there).combine_chunks().take(taken) for there, _ in self._lookup.columns]
        ambiguous = joined.column("_many").to_numpy().astype(np.bool_)
        return [pa.chunked_array(c) if isinstance(c, pa.Array) else c for c in columns], ambiguous
