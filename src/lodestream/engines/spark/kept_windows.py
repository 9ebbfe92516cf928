"""The open windows that Spark's Python workers fold, which each batch writes again as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from lodestream.engines.embedded.kept import WINDOWS
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.spark.kept import KeptTable
from lodestream.errors import ConflictError
from lodestream.lake.actions import AddFile
from lodestream.lake.layout import app_id
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName
from lodestream.model.types import Schema


class KeptWindows(KeptTable):
    """The open windows of one epoch of a table; the Delta table is there from the first batch on.

    Args:
        around: the flow's surroundings.
        name: the table.
        epoch: its rebuild generation.
        schema: columns of the windows.
    """

    def __init__(self, around: Surroundings, name: TableName, epoch: int, schema: Schema) -> None:
        super().__init__(around, name, epoch, WINDOWS, schema)
        self.table = self.made(around.clock())

    def replace(self, adds: Sequence[AddFile], batch: BatchPlan) -> None:
        """Have these files, which are durable, for all windows, as batch N."""
        table, info = self.table, {"batch": batch.batch}
        table.refresh()
        if self.has(batch.batch):
            table.discard(adds)
            return
        txn = app_id(self._name, self._epoch), batch.batch
        try:
            table.commit(adds=adds, removes=table.files(), txn=txn, info=info, clock_us=batch.clock_us)
        except ConflictError:  # another process runs the same plan and was first; its windows are ours
            table.discard(adds)
            table.refresh()
            if not self.has(batch.batch):
                raise
