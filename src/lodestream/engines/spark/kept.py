"""A small Delta table beside a flow's plans, for what its batches hand on to the next that Spark's state does not hold.

Batch N's commit to it comes before the table's own, under the same number. A batch that is done again begins with what
the batch before left, and does not write it twice.
"""

from __future__ import annotations

import contextlib
import os
import uuid

import pyarrow as pa

from lodestream.engines.embedded.kept import files_before, has_batch, kept_path
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.lake.actions import AddFile
from lodestream.lake.disk import random_id
from lodestream.lake.layout import app_id
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import Schema

_CHECKPOINT_EVERY, _VERSIONS_KEPT = 100, 10
_REMOVED_KEPT_MS = 600_000
"""How long such a table remembers removed files, which the next batch deletes."""


class KeptTable:
    """That of one epoch of a table; it is made with the first of its rows.

    Args:
        around: the flow's surroundings.
        name: the table.
        epoch: its rebuild generation.
        what: name of its folder.
        schema: its columns.
    """

    def __init__(self, around: Surroundings, name: TableName, epoch: int, what: str, schema: Schema) -> None:
        self._around, self._name, self._epoch = around, name, epoch
        self.path, self._schema = kept_path(around.lake, name, epoch, what), schema
        self._table: DeltaTable | None = None
        self._unlinked: set[str] = set()

    def opened(self) -> DeltaTable | None:
        """The table, None while there is none."""
        if self._table is None and (table := DeltaTable.open(self._around.disk, self.path)) is not None:
            self._hold(table)
        return self._table

    def made(self, clock_us: int) -> DeltaTable:
        """The table, made now if there is none."""
        return self._table or self._hold(DeltaTable.create(
            self._around.disk, self.path, self._schema, table_id=str(uuid.uuid4()), clock_us=clock_us
        ))  # fmt: skip

    def has(self, batch: int) -> bool:
        """Whether its last version that was looked at is as batch N leaves it, or a later one."""
        table = self.opened()
        return table is not None and has_batch(table, self._name, self._epoch, batch)

    def files_before(self, batch: int) -> list[AddFile]:
        """Files of what batch N begins with."""
        table = self.opened()
        if table is None:
            return []
        table.refresh()
        if not self.has(batch):  # else it died between this commit and the table's
            self._tidy(table)
        return files_before(table, self._name, self._epoch, batch)

    def held(self) -> dict[str, int]:
        """How many rows there are, and bytes of their files, as a commit tells it; nothing for none."""
        table = self.opened()
        files = table.files() if table is not None else []
        rows = sum(add.num_records or 0 for add in files)
        return {"state_rows": rows, "state_bytes": sum(add.size for add in files)} if rows else {}

    def take_over(self, rows: pa.Table, batch: int) -> None:
        """Hold these, as another engine does after its batch N, instead of what there is."""
        if self.opened() is None and not len(rows):
            return
        clock_us = self._around.clock()
        table = self.made(clock_us)
        table.refresh()
        if self.has(batch):  # a take-over that was broken off has done it, or this engine the very same batch
            return
        self._tidy(table)
        adds = table.stage(rows, name=f"{batch}-{random_id()}").adds if len(rows) else ()
        txn = app_id(self._name, self._epoch), batch
        table.commit(adds=adds, removes=table.files(), txn=txn, info={"batch": batch}, clock_us=clock_us)

    def _hold(self, table: DeltaTable) -> DeltaTable:
        table.removed_kept_ms, self._table = _REMOVED_KEPT_MS, table
        return table

    def _tidy(self, table: DeltaTable) -> None:
        """Delete files and versions that no batch may begin with any more."""
        removed = set(table.snapshot.tombstones)
        for path in removed - self._unlinked:
            with contextlib.suppress(FileNotFoundError):
                self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
        self._unlinked = removed
        version = table.snapshot.version
        if version % _CHECKPOINT_EVERY == _CHECKPOINT_EVERY - 1:
            table.checkpoint(self._around.clock(), _REMOVED_KEPT_MS * 1000)
            table.clean_log(keep_versions=_VERSIONS_KEPT, needed_from=version)
