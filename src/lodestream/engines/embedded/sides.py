"""The rows of two joined streams that wait for a partner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.spill import Kept, Spill, filtered, taken
from lodestream.model.table import Join

TIME, SERIAL, MATCHED = "_time_us", "_serial", "_matched"
HERE, THERE, MET = "join_here", "join_there", "join_met"
"""Sections of the stored state: rows of each side that began to wait, and which of the earlier ones met somebody."""

_MET_SCHEMA = pa.schema([("side", pa.string()), ("serial", pa.int64())])
_CHUNKS_MAX = 32
_PARTS_MAX = 64  # each has a file that is open


class Side:
    """Rows of one stream.

    `rows` has the stream's columns, then `TIME` (int64 microseconds), `SERIAL` (int64, ascending: what a row is known
    by in the state) and `MATCHED` (boolean: it is in a pair already). It has no columns before the first rows. Rows go
    into a file when those in memory take more than an eighth of the room that `spill` has.
    """

    def __init__(self, spill: Spill | None = None) -> None:
        self.next_serial = 0
        self._spill = spill
        self._aside: list[Kept] = []
        self._recent = pa.table({})
        self._matched = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        return len(self._matched)

    @property
    def rows(self) -> pa.Table:
        """All rows; copies nothing but the flags."""
        if not self._recent.num_columns:
            return self._recent
        rows = pa.concat_tables([*(part.table for part in self._aside), self._recent])
        return rows.append_column(MATCHED, pa.array(self._matched))

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return int(self._recent.nbytes + self._matched.nbytes + sum(part.held for part in self._aside))

    @property
    def spilled(self) -> int:
        """Bytes in files."""
        return sum(part.spilled for part in self._aside)

    def add(self, rows: pa.Table, time_us: np.ndarray) -> None:
        """Append n rows with n event times."""
        flat = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in rows.columns]
        serials = np.arange(self.next_serial, self.next_serial + len(rows), dtype=np.int64)
        columns = [*flat, pa.array(time_us, pa.int64()), pa.array(serials), pa.array(np.zeros(len(rows), np.bool_))]
        self.put(pa.table(columns, names=[*rows.column_names, TIME, SERIAL, MATCHED]))

    def put(self, rows: pa.Table) -> None:
        """Append rows in the form of `rows`, as they were stored or are about to be."""
        if len(rows):
            self.next_serial = int(rows.column(SERIAL)[-1].as_py()) + 1
        self._matched = np.concatenate([self._matched, rows.column(MATCHED).to_numpy()])
        rows = rows.drop_columns([MATCHED])
        if not self._recent.num_columns:
            self._recent = rows
        else:
            fresh = rows.select(self._recent.column_names).cast(self._recent.schema)
            self._recent = pa.concat_tables([self._recent, fresh])
        if self._spill is not None and self._recent.nbytes > self._spill.room() // 8:
            aside = [self._recent]
            if len(self._aside) >= _PARTS_MAX:  # one file of all
                aside = [*(part.table for part in self._aside), *aside]
                self._aside = []
            batches = (batch for part in aside for batch in part.to_batches())
            self._aside.append(self._spill.keep(self._recent.schema, batches, 0))
            self._recent = self._recent.schema.empty_table()
        elif self._recent.column(0).num_chunks > _CHUNKS_MAX:
            self._recent = self._recent.combine_chunks()

    def refill(self, rows: pa.Table) -> None:
        """Hold these rows instead, in the form of `rows`; serials go on as before."""
        serial, self._aside, self._recent = self.next_serial, [], pa.table({})
        self._matched = np.zeros(0, np.bool_)
        if rows.num_columns:
            self.put(rows)
        self.next_serial = serial

    def take(self, numbers: np.ndarray) -> pa.Table:
        """The rows of these numbers, in their order and in the form of `rows`."""
        return taken(self.rows, numbers) if self._aside else self.rows.take(pa.array(numbers))

    def since(self, serial: int) -> pa.Table:
        """The rows from this serial on, in the form of `rows`."""
        parts = filtered(self.rows, lambda part: pc.greater_equal(part.column(SERIAL), serial))
        return pa.concat_tables([self.rows.slice(0, 0), *(part for part, _ in parts)])

    def meet(self, numbers: np.ndarray) -> None:
        """Note that the rows of these numbers are in a pair."""
        self._matched[numbers] = True

    def meet_serials(self, serials: pa.ChunkedArray) -> None:
        """The same, of rows known by their serials; those that wait no more are passed over."""
        if len(self) and len(serials):
            met = pc.is_in(self.rows.column(SERIAL), value_set=serials.combine_chunks())
            self._matched |= met.to_numpy().astype(np.bool_)

    def evict(self, until_us: int) -> pa.Table:
        """Let go of rows at or before `until_us`; those of them that met nobody, in the form of `rows`."""
        rows = self.rows
        if not len(rows):
            return rows
        over = filtered(rows, lambda part: pc.less_equal(part.column(TIME), until_us))
        alone = [part.filter(pc.invert(part.column(MATCHED))) for part, _ in over]
        stays = pc.greater(rows.column(TIME), until_us)
        if not pc.all(stays).as_py():
            self._matched = self._matched[stays.to_numpy().astype(np.bool_)]
            self._aside = [left for part in self._aside if len((left := self._left(part, until_us)).table)]
            self._recent = self._recent.filter(pc.greater(self._recent.column(TIME), until_us))
        return pa.concat_tables([rows.slice(0, 0), *alone])

    def _left(self, part: Kept, until_us: int) -> Kept:
        """What stays of a part: what is whole stays in its file, the rest in memory unless it is too much."""
        assert self._spill is not None
        left = list(filtered(part.table, lambda rows: pc.greater(rows.column(TIME), until_us)))
        batches = [batch for rows, _ in left for batch in rows.to_batches()]
        if all(copied for _, copied in left):
            return self._spill.keep(part.table.schema, batches, self._spill.room() // 8 // len(self._aside))
        held = sum(rows.nbytes for rows, copied in left if copied)
        if held > self._spill.room() // 8 // len(self._aside):
            return self._spill.keep(part.table.schema, batches, 0)
        return Kept(pa.Table.from_batches(batches), held, part.spilled)


@dataclass
class JoinState:
    """Both sides of a join, and how many rows it has given."""

    join: Join
    here: Side = field(default_factory=Side)
    there: Side = field(default_factory=Side)
    given: int = 0

    @classmethod
    def beside(cls, join: Join, spill: Spill | None) -> JoinState:
        """Nothing waits yet; what has no room will go where `spill` says."""
        return cls(join, Side(spill), Side(spill))

    def limits(self, watermark_us: int) -> tuple[tuple[Side, int], tuple[Side, int]]:
        """Each side with the event time (microseconds) up to which no partner can come any more."""
        return (self.here, watermark_us - self.join.high_us), (self.there, watermark_us + self.join.low_us)

    def everything(self) -> dict[str, pa.Table]:
        """All that waits, as sections of a base."""
        return {name: side.rows for name, side in ((HERE, self.here), (THERE, self.there)) if len(side)}

    def since(self, serials: tuple[int, int], met: tuple[pa.ChunkedArray, pa.ChunkedArray]) -> dict[str, pa.Table]:
        """What one batch changed, as sections of a link.

        Args:
            serials: first serial of each side that the batch gave.
            met: serials of earlier rows of each side that met somebody in it.
        """
        sections = {}
        for name, side, first in ((HERE, self.here, serials[0]), (THERE, self.there, serials[1])):
            if len(side) and len(fresh := side.since(first)):
                sections[name] = fresh
        names = pa.array([HERE] * len(met[0]) + [THERE] * len(met[1]), pa.string())
        sections[MET] = pa.table(
            [names, pa.chunked_array([*met[0].chunks, *met[1].chunks], pa.int64())], schema=_MET_SCHEMA
        )
        return sections

    def apply(self, sections: Mapping[str, pa.Table], watermark_us: int) -> None:
        """Take in the sections of one stored link, then let go of what its batch let go of."""
        if MET in sections:
            for side, name in ((self.here, HERE), (self.there, THERE)):
                side.meet_serials(sections[MET].filter(pc.equal(sections[MET].column("side"), name)).column("serial"))
        for side, name in ((self.here, HERE), (self.there, THERE)):
            if name in sections:
                side.put(sections[name])
        for side, until_us in self.limits(watermark_us):
            side.evict(until_us)
