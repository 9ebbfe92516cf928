"""What a range of a table's versions changed, for those who publish it: added rows, or net changes by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.erased_view import LATEST, view_of
from lodestream.engines.embedded.frames import ROW, numbered, quoted
from lodestream.engines.embedded.handover import Handover
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.lake.actions import AddFile, Commit, RemoveFile
from lodestream.lake.compaction import by_age
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import Publish
from lodestream.ports.sink import Changes

_ANEW = "to go on all the same, begin anew with another transactional_id and start: all or new"


@dataclass(frozen=True, slots=True)
class Span:
    """Versions `after` < v <= `upto`; with `whole`, all that the table holds at `upto`."""

    after: int
    upto: int
    whole: bool = False


class TableChanges:
    """Reads a table's changes as one sink wants them. The same span gives the same changes again.

    Args:
        table: the table; the caller refreshes it.
        sink: which columns, and whether rows change.
        connection: a DuckDB of one's own.
        handover: rows that flows of this process committed, if there are any.
    """

    def __init__(
        self, table: DeltaTable, sink: Publish, connection: duckdb.DuckDBPyConnection, handover: Handover | None
    ) -> None:
        self._table, self._sink, self._connection, self._handover = table, sink, connection, handover

    def next(self, after: int, rows_max: int) -> tuple[Span, bool] | None:
        """The span after a version, and whether anything in it changed; None when there is no newer version.

        Rows that only join are taken version by version until there are `rows_max`. Rows that change are taken up to
        the newest version: what lies between is no longer there, and only the last content of a key counts.

        Raises:
            DataLossRefused: the log no longer tells, or rows were taken away that were published as messages.
        """
        rows, upto, changed = 0, after, False
        for commit in self._table.commits(after):
            if not self._sink.changing:
                self._refuse_removals(commit)
                added = sum(add.num_records or 0 for add in commit.adds if add.data_change)
                if rows and rows + added > rows_max:
                    break
                rows += added
                changed = changed or added > 0
            else:
                files: list[AddFile | RemoveFile] = [*commit.adds, *commit.removes]
                changed = changed or any(file.data_change for file in files)
            upto = commit.version
        return (Span(after, upto), changed) if upto > after else None

    def read(self, span: Span) -> Iterator[Changes]:
        """The changes of a span in order, piece by piece."""
        if self._sink.changing:
            yield self._net(span)
        elif span.whole:
            first = 0
            for add in by_age(self._table.read_version(span.upto)):
                rows = self._rows([add])
                yield Changes(span.upto, first, rows)
                first += len(rows)
        else:
            for commit in self._table.commits(span.after, span.upto):
                adds = [add for add in commit.adds if add.data_change]
                if adds:
                    yield Changes(commit.version, 0, self._added(commit, adds))

    def _refuse_removals(self, commit: Commit) -> None:
        if commit.takes_away:
            raise DataLossRefused(
                f"rows were taken away (rebuild, restore or overwrite) that were published as messages; {_ANEW}",
                sink=str(self._sink.name), version=commit.version,
            )  # fmt: skip

    def _added(self, commit: Commit, adds: Sequence[AddFile]) -> pa.Table:
        view = view_of(self._table, self._sink.name.table, LATEST, lambda _erasure: True)
        if view is not None and view.touches(commit):
            return view.brought(commit, self._columns())
        cached = self._handover.take(self._table.path, commit.version) if self._handover is not None else None
        if cached is None:
            return self._rows(adds)
        return cached.select([name for name in self._columns() if name in cached.column_names])

    def _rows(self, adds: Sequence[AddFile]) -> pa.Table:
        return self._table.read(adds, columns=self._columns())

    def _columns(self) -> list[str]:
        """The columns that the sink reads, each once."""
        stored = self._table.snapshot.metadata.schema.names
        value = self._sink.value if self._sink.value is not None else [c for c in stored if not c.startswith("_")]
        return list(dict.fromkeys((*value, *self._sink.key, *self._sink.beside)))

    # --- changing rows -----------------------------------------------------------------------------------------------

    def _net(self, span: Span) -> Changes:
        """Rows that are there after the span and were not before, then the last content of keys that left."""
        gone: list[AddFile] = []
        if span.whole:
            came = self._table.read_version(span.upto)
        else:
            gone, came = _net_files(self._table.commits(span.after, span.upto))
        try:
            before, after = self._rows(gone), self._rows(came)
        except CorruptionError as error:
            if not all(self._table.disk.exists(self._table.file_path(add)) for add in gone):
                raise DataLossRefused(
                    f"rows that left the table can no longer be compared, their file is gone; {_ANEW}",
                    sink=str(self._sink.name), version=span.upto,
                ) from error  # fmt: skip
            raise
        upserts, tombstones = self._compare(before, after)
        rows = pa.concat_tables([after.take(upserts), before.take(tombstones)])
        flags = np.zeros(len(rows), np.bool_)
        flags[len(upserts) :] = True
        return Changes(span.upto, 0, rows, flags)

    def _compare(self, before: pa.Table, after: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Numbers of the rows of `after` that are new or differ, and of those of `before` whose key is gone."""
        connection, key = self._connection, self._sink.key
        keys = ", ".join(map(quoted, key))
        connection.register("old_rows", numbered(before))
        connection.register("new_rows", numbered(after))
        try:
            query = f"SELECT {keys} FROM new_rows GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
            if twice := connection.sql(query).fetchall():
                told = ", ".join(f"{name}={value}" for name, value in zip(key, twice[0], strict=True))
                fix = "name more columns under key:"
                raise ConfigError("the key is not unique", sink=str(self._sink.name), key=told, fix=fix)
            return (
                self._without("new_rows", "old_rows", after.column_names),
                self._without("old_rows", "new_rows", key),
            )
        finally:
            connection.unregister("old_rows")
            connection.unregister("new_rows")

    def _without(self, left: str, right: str, columns: Iterable[str]) -> pa.Array:
        """Numbers of the rows of `left` that have no equal in `right`, in order; NULL equals NULL."""
        equal = " AND ".join(f"l.{quoted(name)} IS NOT DISTINCT FROM r.{quoted(name)}" for name in columns)
        found = self._connection.sql(f"SELECT l.{ROW} FROM {left} l ANTI JOIN {right} r ON {equal} ORDER BY 1")
        numbers = found.to_arrow_table().column(ROW)
        return numbers.combine_chunks() if numbers.num_chunks != 1 else numbers.chunk(0)


def _net_files(commits: Iterable[Commit]) -> tuple[list[AddFile], list[AddFile]]:
    """Files that were live before the commits and not after, and those that are live after and were not before."""
    gone: dict[str, RemoveFile] = {}
    came: dict[str, AddFile] = {}
    for commit in commits:
        for remove in commit.removes:
            if came.pop(remove.path, None) is None:
                gone[remove.path] = remove
        for add in commit.adds:
            came[add.path] = add
    return [_file(remove) for remove in gone.values()], list(came.values())


def _file(remove: RemoveFile) -> AddFile:
    return AddFile(remove.path, remove.partition_values, remove.size)
