"""The deletions that a table of changes remembers, so that an older change that comes later brings no row back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.key_index import Hashes, key_hashes
from lodestream.model.arrow import to_arrow
from lodestream.model.steps import ApplyChanges
from lodestream.model.types import Schema

GONE = "_gone"
"""Column of the stored form: true where a deletion is remembered no longer."""
POSITION = ("_source", "_position")
"""What a change is known by."""


def identity(step: ApplyChanges) -> list[str]:
    """The columns that say which change a row is: keys, sequence, position."""
    return list(dict.fromkeys((*step.changes.keys, *step.changes.sequence_by, *POSITION)))


class Deletions:
    """Deletions by key; `table` has the columns of `identity`.

    Args:
        step: the step that makes them.
        schema: the table's columns as stored.
    """

    def __init__(self, step: ApplyChanges, schema: Schema) -> None:
        self._step = step
        kinds = {field.name: field.type for field in to_arrow(schema)}
        self.schema = pa.schema([pa.field(name, kinds[name]) for name in identity(step)])
        self.table: pa.Table = self.schema.empty_table()

    def of(self, wanted: Hashes) -> pa.Table:
        """Those whose key has one of these hashes (sorted)."""
        if not len(self.table) or not len(wanted):
            return self.table.slice(0, 0)
        hashes = key_hashes([self.table.column(key) for key in self._step.changes.keys])
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        return self.table.filter(pa.array(wanted[at] == hashes))

    def change(self, added: pa.Table, gone: pa.Table) -> pa.Table:
        """Remember and forget; returns what to store of it."""
        marked = [part.append_column(GONE, pa.repeat(pa.scalar(flag), len(part)))
                  for part, flag in ((added, False), (gone, True))]  # fmt: skip
        stored = pa.concat_tables(marked)
        self.load(stored)
        return stored

    def load(self, stored: pa.Table) -> None:
        """Take in what `change` returned."""
        if not len(stored):
            return
        gone = stored.column(GONE)
        self.table = pa.concat_tables([self.table, stored.filter(pc.invert(gone)).drop_columns([GONE])])
        dropped = stored.filter(gone).select(POSITION)
        if len(dropped):
            self.table = self.table.join(dropped, list(POSITION), join_type="left anti").select(self.schema.names)

    def forget(self, watermark_us: int) -> None:
        """Forget what the watermark has passed: every change that may still come is newer."""
        if self._step.forgets and len(self.table):
            times = self.table.column(self._step.changes.sequence_by[0]).cast(pa.int64())
            self.table = self.table.filter(pc.greater(times, watermark_us))

    def stored(self) -> pa.Table:
        """All that is remembered, in the form of `change`."""
        return self.table.append_column(GONE, pa.repeat(pa.scalar(False), len(self.table)))
