"""What a batch of changes does to its table: which rows join, which leave, where a span ends, which deletions stand."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.deletions import Deletions, identity
from lodestream.engines.embedded.frames import naive, quoted
from lodestream.engines.embedded.key_index import KeyIndex, Numbers, key_hashes
from lodestream.lake.actions import AddFile
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import ApplyChanges
from lodestream.model.table import VALID_FROM, VALID_TO

DELETES = "_deletes"
"""Column of a batch's rows: whether the change deletes."""
_KIND, _AT, _UNTIL = "_kind", "_at", "_until"
_BATCH, _STORED, _DELETED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A data file that changes.

    Attributes:
        file: the file.
        gone: numbers of its rows that leave.
        ended: numbers of its rows whose span ends elsewhere now.
        until: the new `valid_to` of those.
    """

    file: AddFile
    gone: Numbers
    ended: Numbers
    until: pa.Array


@dataclass(frozen=True, slots=True)
class Merge:
    """What the batch's commit does.

    Attributes:
        rows: rows that join, in the order they came.
        rewrites: files that change.
        superseded: how many changes of the batch lost at once against a newer one.
    """

    rows: pa.Table
    rewrites: tuple[Rewrite, ...]
    superseded: int


class Merger:
    """Merges batches into one table.

    Args:
        connection: the flow's DuckDB.
        step: keys and order.
        table: the table; what it holds in its newest known version is merged with.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, step: ApplyChanges, table: DeltaTable) -> None:
        self._connection, self._step, self._table = connection, step, table
        self._index = KeyIndex(table, step.changes.keys)
        self._identity = identity(step)
        self._history = step.changes.history

    def merge(self, rows: pa.Table, deletions: Deletions, forgotten: pa.Table | None = None) -> tuple[Merge, pa.Table]:
        """Decide what a batch does.

        Args:
            rows: the changes, with `DELETES`; keys and sequence are not NULL.
            deletions: those of the batches before; moved on.
            forgotten: deletions of these keys that are no longer remembered, for changes behind the watermark.

        Returns:
            The merge, and what to store of the deletions.
        """
        batch = rows.select(self._identity).cast(deletions.schema)
        wanted = np.unique(key_hashes([batch.column(key) for key in self._step.changes.keys]))
        files, stored = self._stored(wanted)
        remembered = deletions.of(wanted)
        known = remembered
        if forgotten is not None:
            known = pa.concat_tables([known, _without(forgotten.select(self._identity).cast(known.schema), known)])
        stands, until = self._decide(batch, stored, known)
        deletes = rows.column(DELETES).to_numpy()
        new = stands[_BATCH] & ~deletes
        joined = rows.filter(pa.array(new)).drop_columns([DELETES])
        if self._history:
            start = joined.column(self._step.changes.sequence_by[0])
            joined = joined.append_column(VALID_FROM, start)
            joined = joined.append_column(VALID_TO, until[_BATCH].filter(pa.array(new)).cast(start.type))
        gone = ~stands[_STORED]
        ended = np.zeros(len(gone), np.bool_)
        if self._history and len(gone):
            before = stored.column(VALID_TO)
            ended = ~gone & _differ(before, until[_STORED].cast(before.type))
        rewrites = _rewrites(files, gone, ended, until[_STORED])
        added = batch.filter(pa.array(stands[_BATCH] & deletes))
        dropped = remembered.filter(pa.array(~stands[_DELETED][: len(remembered)]))
        superseded = int((~stands[_BATCH]).sum())
        return Merge(joined, rewrites, superseded), deletions.change(added, dropped)

    def _stored(self, wanted: npt.NDArray[np.uint64]) -> tuple[list[tuple[AddFile, Numbers]], pa.Table]:
        """Where the table has rows of these keys, and which changes those rows are, file by file."""
        columns = [*self._identity, *((VALID_TO,) if self._history else ())]
        files = list(self._index.find(wanted))
        parts = [self._table.read([file], columns=columns).take(pa.array(numbers)) for file, numbers in files]
        return files, pa.concat_tables(parts) if parts else self._table.read([], columns=columns)

    def _decide(
        self, batch: pa.Table, stored: pa.Table, deleted: pa.Table
    ) -> tuple[list[npt.NDArray[np.bool_]], list[pa.ChunkedArray]]:
        """By kind of row: which changes stand, and until when each holds (with history only)."""
        parts = []
        for kind, part in ((_BATCH, batch), (_STORED, stored), (_DELETED, deleted)):
            at = pa.array(np.arange(len(part), dtype=np.int64))
            part = (
                naive(part).append_column(_AT, at).append_column(_KIND, pa.repeat(pa.scalar(kind, pa.int8()), len(at)))
            )
            parts.append(part.rename_columns([_UNTIL if name == VALID_TO else name for name in part.column_names]))
        everything = pa.concat_tables(parts, promote_options="default")
        self._connection.register("changes", everything)
        try:
            found = self._connection.sql(self._query()).to_arrow_table()
        finally:
            self._connection.unregister("changes")
        kinds, numbers = found.column(_KIND).to_numpy(), found.column(_AT).to_numpy()
        stands, until = [], []
        for kind, part in ((_BATCH, batch), (_STORED, stored), (_DELETED, deleted)):
            of_kind = np.flatnonzero(kinds == kind)
            flags = np.zeros(len(part), np.bool_)
            flags[numbers[of_kind]] = True
            stands.append(flags)
            if self._history:
                places = np.full(len(part), -1, np.int64)
                places[numbers[of_kind]] = of_kind
                until.append(found.column(_UNTIL).take(pa.array(places, mask=places < 0)))
            else:
                until.append(pa.chunked_array([], pa.null()))
        return stands, until

    def _query(self) -> str:
        """The changes that stand, each with the next of its key. Every order is total: no two rows share a position."""
        keys = ", ".join(quoted(key) for key in self._step.changes.keys)
        sequence = [quoted(name) for name in self._step.changes.sequence_by]
        latest = '"_source" DESC, "_position" DESC'
        if not self._history:
            order = ", ".join([*(f"{name} DESC" for name in sequence), latest])
            rank = f"row_number() OVER (PARTITION BY {keys} ORDER BY {order})"
            return f"SELECT {_KIND}, {_AT} FROM changes QUALIFY {rank} = 1"
        return (
            f"WITH standing AS (SELECT * FROM changes QUALIFY"
            f" row_number() OVER (PARTITION BY {keys}, {sequence[0]} ORDER BY {latest}) = 1)"
            f" SELECT {_KIND}, {_AT}, least({_UNTIL}, lead({sequence[0]}) OVER (PARTITION BY {keys}"
            f" ORDER BY {sequence[0]})) AS {_UNTIL} FROM standing"
        )


def _without(deletions: pa.Table, others: pa.Table) -> pa.Table:
    """The deletions that are not among others."""
    position = ["_source", "_position"]
    return deletions.join(others.select(position), position, join_type="left anti").select(deletions.column_names)


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Where two columns of n values have other values; NULL equals NULL."""
    either = pc.xor(pc.is_null(one), pc.is_null(other))
    return np.asarray(pc.or_(either, pc.fill_null(pc.not_equal(one, other), False)).to_numpy(), np.bool_)


def _rewrites(
    files: list[tuple[AddFile, Numbers]], gone: npt.NDArray[np.bool_], ended: npt.NDArray[np.bool_],
    until: pa.ChunkedArray,
) -> tuple[Rewrite, ...]:  # fmt: skip
    found, start = [], 0
    for file, numbers in files:
        part = slice(start, start + len(numbers))
        start += len(numbers)
        leaving, ending = gone[part], ended[part]
        if leaving.any() or ending.any():
            ends = until.slice(part.start, len(numbers)).filter(pa.array(ending)) if ending.any() else until.slice(0, 0)
            found.append(Rewrite(file, numbers[leaving], numbers[ending], ends))
    return tuple(found)
