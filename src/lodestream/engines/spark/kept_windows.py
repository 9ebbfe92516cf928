"""Where windows lie that Spark's Python workers fold: those that are open, a small Delta table beside the flow's plans.

Batch N's commit to it comes before the table's own, under the same number. A batch that is done again begins with what
the batch before left, and its commit is passed over when it is there already.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence

from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import ConflictError
from lodestream.lake.actions import AddFile
from lodestream.lake.layout import app_id, flow_folder
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName
from lodestream.model.types import Schema

_CHECKPOINT_EVERY, _VERSIONS_KEPT = 100, 10


def windows_path(lake: str, name: TableName, epoch: int) -> str:
    """Where they lie."""
    return os.path.join(flow_folder(lake, name), str(epoch), "windows")


class KeptWindows:
    """The open windows of one epoch of a table.

    Args:
        around: the flow's surroundings.
        name: the table.
        epoch: its rebuild generation.
        schema: columns of the windows.
    """

    def __init__(self, around: Surroundings, name: TableName, epoch: int, schema: Schema) -> None:
        self._around, self._app = around, app_id(name, epoch)
        self.table = DeltaTable.create(
            around.disk, windows_path(around.lake, name, epoch), schema, table_id=str(uuid.uuid4()),
            clock_us=around.clock(),
        )  # fmt: skip
        self._unlinked: set[str] = set()

    def before(self, batch: int) -> list[AddFile]:
        """Files of the windows that batch N begins with."""
        table = self.table
        if table.refresh().txns.get(self._app, 0) < batch:
            self._tidy()
            return table.files()
        commit = last_commit(table, self._app)  # it died between this commit and the table's
        assert commit is not None
        return table.read_version(commit.version - 1)

    def replace(self, adds: Sequence[AddFile], batch: BatchPlan) -> None:
        """Have these files, which are durable, for all windows, as batch N."""
        table, info = self.table, {"batch": batch.batch}
        if table.refresh().txns.get(self._app, 0) >= batch.batch:
            table.discard(adds)
            return
        txn = self._app, batch.batch
        try:
            table.commit(adds=adds, removes=table.files(), txn=txn, info=info, clock_us=batch.clock_us)
        except ConflictError:  # another process runs the same plan and was first; its windows are ours
            table.discard(adds)
            if table.refresh().txns.get(self._app, 0) < batch.batch:
                raise

    def held(self) -> dict[str, int]:
        """How many there are, and bytes of their files, as a commit tells it."""
        files = self.table.files()
        rows = sum(add.num_records or 0 for add in files)
        return {"state_rows": rows, "state_bytes": sum(add.size for add in files)} if rows else {}

    def _tidy(self) -> None:
        """Delete files and versions that no batch may begin with any more."""
        table = self.table
        for path in table.snapshot.tombstones.keys() - self._unlinked:
            with contextlib.suppress(FileNotFoundError):
                self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
            self._unlinked.add(path)
        version = table.snapshot.version
        if version % _CHECKPOINT_EVERY == _CHECKPOINT_EVERY - 1:
            table.checkpoint(self._around.clock())
            table.clean_log(keep_versions=_VERSIONS_KEPT, needed_from=version)
