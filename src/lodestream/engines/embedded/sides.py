"""The rows of two joined streams that wait for a partner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.model.table import Join

TIME, SERIAL, MATCHED = "_time_us", "_serial", "_matched"
HERE, THERE, MET = "join_here", "join_there", "join_met"
"""Sections of the stored state: rows of each side that began to wait, and which of the earlier ones met somebody."""

_MET_SCHEMA = pa.schema([("side", pa.string()), ("serial", pa.int64())])
_CHUNKS_MAX = 32


class Side:
    """Rows of one stream.

    `rows` has the stream's columns, then `TIME` (int64 microseconds), `SERIAL` (int64, ascending: what a row is known
    by in the state) and `MATCHED` (boolean: it is in a pair already). It has no columns before the first rows.
    """

    def __init__(self) -> None:
        self.rows = pa.table({})
        self.next_serial = 0

    def __len__(self) -> int:
        return len(self.rows)

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
        if not self.rows.num_columns:
            self.rows = rows
            return
        self.rows = pa.concat_tables([self.rows, rows.select(self.rows.column_names).cast(self.rows.schema)])
        if self.rows.column(0).num_chunks > _CHUNKS_MAX:
            self.rows = self.rows.combine_chunks()

    def meet(self, numbers: np.ndarray) -> None:
        """Note that the rows of these numbers are in a pair."""
        if len(numbers):
            matched = self._matched()
            matched[numbers] = True
            self._set_matched(matched)

    def meet_serials(self, serials: pa.ChunkedArray) -> None:
        """The same, of rows known by their serials; those that wait no more are passed over."""
        if len(self.rows) and len(serials):
            self._set_matched(
                self._matched() | pc.is_in(self.rows.column(SERIAL), value_set=serials.combine_chunks()).to_numpy()
            )

    def evict(self, until_us: int) -> pa.Table:
        """Let go of rows at or before `until_us`; those of them that met nobody, in the form of `rows`."""
        if not len(self.rows):
            return self.rows
        over = pc.less_equal(self.rows.column(TIME), until_us)
        gone = self.rows.filter(over)
        if len(gone):
            self.rows = self.rows.filter(pc.invert(over))
        return gone.filter(pc.invert(gone.column(MATCHED)))

    def _matched(self) -> np.ndarray:
        flags: np.ndarray = self.rows.column(MATCHED).to_numpy().astype(np.bool_)
        return flags

    def _set_matched(self, flags: np.ndarray) -> None:
        at = self.rows.schema.get_field_index(MATCHED)
        self.rows = self.rows.set_column(at, MATCHED, pa.array(flags))


@dataclass
class JoinState:
    """Both sides of a join, and how many rows it has given."""

    join: Join
    here: Side = field(default_factory=Side)
    there: Side = field(default_factory=Side)
    given: int = 0

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
            if len(side) and len(fresh := side.rows.filter(pc.greater_equal(side.rows.column(SERIAL), first))):
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
