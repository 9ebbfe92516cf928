"""Lookups: a left join against one pinned version of a table whose key must be unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.frames import ROW, numbered, quoted
from lodestream.engines.embedded.readers import Readers
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.model.steps import LookUp
from lodestream.model.table import VALID_FROM, VALID_TO, Lookup


class LookupTable:
    """One version of a lookup table, ready to be joined.

    Args:
        connection: the flow's DuckDB.
        step: the lookup.
        rows: all rows of the pinned version.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, step: LookUp, rows: pa.Table) -> None:
        self._connection = connection
        self._lookup = lookup = step.lookup
        self._unique = step.unique
        self._here = [here for here, _ in lookup.on]
        self._there = [there for _, there in lookup.on]
        self._rows = rows
        if lookup.as_of is not None:
            self._index = numbered(rows.select([*self._there, VALID_FROM, VALID_TO]))
            return
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
        when = self._lookup.as_of
        here = list(dict.fromkeys((*self._here, *((when,) if when is not None else ()))))
        self._connection.register("input", numbered(rows.select(here)))
        self._connection.register("lookup_index", self._index)
        try:
            equal = " AND ".join(
                f"i.{quoted(here)} = l.{quoted(there)}" for here, there in zip(self._here, self._there, strict=True)
            )
            if when is None:
                found = "l._row, coalesce(l._many, false) AS _many"
                query = f"SELECT {found} FROM input i LEFT JOIN lookup_index l ON {equal} ORDER BY i.{ROW}"
            else:
                query = self._then(equal, f"i.{quoted(when)}")
            joined = self._connection.sql(query).to_arrow_table()
        finally:
            self._connection.unregister("input")
            self._connection.unregister("lookup_index")
        taken = joined.column("_row")
        columns = [self._rows.column(there).combine_chunks().take(taken) for there, _ in self._lookup.columns]
        ambiguous = joined.column("_many").to_numpy().astype(np.bool_)
        return [pa.chunked_array(c) if isinstance(c, pa.Array) else c for c in columns], ambiguous

    def _then(self, equal: str, when: str) -> str:
        """Asks what held at a moment; where the spans of a key may overlap, whether that is more than one row."""
        begun, ended = f"{when} >= l.{VALID_FROM}", f"{when} >= l.{VALID_TO}"
        if self._unique:  # the last row that had begun, if it had not ended yet
            return (
                f"SELECT CASE WHEN {ended} THEN NULL ELSE l.{ROW} END AS _row, false AS _many FROM input i"
                f" ASOF LEFT JOIN lookup_index l ON {equal} AND {begun} ORDER BY i.{ROW}"
            )
        return (
            f"SELECT min(l.{ROW}) AS _row, count(l.{ROW}) > 1 AS _many FROM input i LEFT JOIN lookup_index l"
            f" ON {equal} AND {begun} AND NOT coalesce({ended}, false) GROUP BY i.{ROW} ORDER BY i.{ROW}"
        )


class Lookups:
    """The lookup tables of one flow; each version is read once.

    Args:
        connection: the flow's DuckDB.
        readers: opens tables.
        steps: the flow's lookups.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, readers: Readers, steps: Sequence[LookUp]) -> None:
        self._connection, self._readers, self._steps = connection, readers, steps
        self._held: dict[Lookup, tuple[int, LookupTable]] = {}

    def pins(self) -> dict[str, int]:
        """Present versions of the lookup tables. Raises ConfigError when there is none yet."""
        pins = {}
        for step in self._steps:
            table = self._readers.open(step.lookup.table)
            if table is None:
                raise ConfigError("lookup table does not exist yet; run it first", table=str(step.lookup.table))
            pins[str(step.lookup.table)] = table.refresh().version
        return pins

    def at(self, pins: Mapping[str, int]) -> dict[Lookup, LookupTable]:
        """The tables at the pinned versions.

        A table of changes keeps files that it has replaced for a short time only, and a plan may be found long after it
        was made: its present version is taken then. Its key is unique in every version, so no row was set aside, or
        will be, for what it met.

        Raises:
            CorruptionError: a version can no longer be read.
        """
        for step in self._steps:
            name = str(step.lookup.table)
            if (held := self._held.get(step.lookup)) is not None and held[0] == pins[name]:
                continue
            try:
                self._held[step.lookup] = pins[name], self._read(step, pins[name])
            except (CorruptionError, DataLossRefused):
                present = self.pins()[name]
                if not step.unique or present == pins[name]:
                    raise
                self._held[step.lookup] = pins[name], self._read(step, present)
        return {step.lookup: self._held[step.lookup][1] for step in self._steps}

    def _read(self, step: LookUp, version: int) -> LookupTable:
        lookup = step.lookup
        table = self._readers.open(lookup.table)
        if table is None:
            raise CorruptionError("pinned lookup table is gone", table=str(lookup.table), version=version)
        then = table.snapshot_at(version)
        if not set(lookup.reads) <= set(then.metadata.schema.names):  # renamed since: files have other names
            then = table.refresh()
        files = sorted(then.files.values(), key=lambda add: add.path)
        rows = table.read(files, columns=lookup.reads)
        return LookupTable(self._connection, step, rows)
