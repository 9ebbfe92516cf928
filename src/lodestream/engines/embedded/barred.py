"""Records of erased subjects that a source still shows: they are left out as they come in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.leaving import Key, Positions
from lodestream.engines.embedded.rejects import QUARANTINE_ARROW, noted_as_erased
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.lake.erasures import Bar, erasures, keyed, secret
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName


class Barred:
    """The bars of one table.

    Args:
        key: that of the hashes.
        bars: each with the time from which it holds, microseconds since 1970 UTC.
        places: positions of records that never decoded, likewise.
    """

    def __init__(self, key: bytes, bars: Iterable[tuple[int, Bar]], places: Iterable[tuple[int, Key]] = ()) -> None:
        self._key = key
        self._bars, self._places = list(bars), list(places)

    def silence(self, aside: pa.Table, batch: BatchPlan) -> pa.Table:
        """Quarantine rows of a batch's undecoded records, where records of a subject say no more than `erased`."""
        gone = Positions(key for time_us, key in self._places if time_us <= batch.clock_us).among(aside)
        if not gone.any():
            return aside
        out = aside.filter(pa.array(gone))
        return pa.concat_tables([aside.filter(pa.array(~gone)), noted_as_erased(out, batch)])

    def leave_out(self, rows: pa.Table, batch: BatchPlan) -> tuple[pa.Table, pa.Table]:
        """The rows that may come in, and quarantine rows for the others.

        Only bars from before the batch was planned count, so that the batch is the same whenever it runs.
        """
        columns: dict[str, list[Bar]] = {}
        for time_us, bar in self._bars:
            if time_us <= batch.clock_us and bar.column in rows.column_names:
                columns.setdefault(bar.column, []).append(bar)
        gone = np.zeros(len(rows), np.bool_)
        for column, bars in columns.items():
            texts = texts_of(rows.column(column))
            macs = {bar.mac for bar in bars}
            candidates = np.flatnonzero(np.isin(near(self._key, texts), [bar.near for bar in bars]))
            for i in candidates.tolist():
                text = texts[i].as_py()
                gone[i] |= text is not None and keyed(self._key, text) in macs
        if not gone.any():
            return rows, QUARANTINE_ARROW.empty_table()
        return rows.filter(pa.array(~gone)), noted_as_erased(rows.filter(pa.array(gone)), batch)


def texts_of(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as the texts that are hashed."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_binary(values.type):
        return pa.chunked_array([pa.array([v and v.hex() for v in values.to_pylist()], pa.string())])
    return values.cast(pa.string())


def near(key: bytes, texts: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """16 bits of a keyed hash of each text; enough to pass over others, too little to guess from."""
    high, low = hash_keys([texts])
    odd = np.uint64(int.from_bytes(key[:8], "big") | 1)
    mixed: npt.NDArray[np.uint64] = (high ^ np.uint64(int.from_bytes(key[8:16], "big"))) * odd ^ low * odd
    return mixed >> np.uint64(48)


def barred_from(around: Surroundings, name: TableName) -> Barred | None:
    """The bars of a table, None when there is none."""
    standing = erasures(around.disk, around.lake)
    bars = [(one.time_us, bar) for one in standing for bar in one.bars if bar.table == str(name)]
    places = [(one.time_us, (s, p)) for one in standing for table, s, p in one.places if table == str(name)]
    return Barred(secret(around.disk, around.lake), bars, places) if bars or places else None
