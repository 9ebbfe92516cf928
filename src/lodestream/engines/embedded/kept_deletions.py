"""Where Spark keeps the deletions that a table of changes remembers: a small Delta table beside the flow's plans.

Batch N's commit to it comes before the table's own, under the same number. So what batch N begins with is the newest
version, or, when batch N is half done, the one before.
"""

from __future__ import annotations

import os

from lodestream.engines.embedded.checkpoints import DELETIONS
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.lake.actions import AddFile
from lodestream.lake.layout import app_id, flow_folder
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName


def deletions_path(lake: str, name: TableName, epoch: int) -> str:
    """Where they lie."""
    return os.path.join(flow_folder(lake, name), str(epoch), DELETIONS)


def has_batch(table: DeltaTable, name: TableName, epoch: int, batch: int) -> bool:
    """Whether the deletions are as batch N leaves them."""
    return table.snapshot.txns.get(app_id(name, epoch), 0) >= batch


def deletions_before(
    around: Surroundings, name: TableName, epoch: int, batch: int
) -> tuple[DeltaTable, list[AddFile]] | None:
    """The deletions that batch N begins with; None while there is no such table."""
    table = DeltaTable.open(around.disk, deletions_path(around.lake, name, epoch))
    return None if table is None else (table, files_before(table, name, epoch, batch))


def files_before(table: DeltaTable, name: TableName, epoch: int, batch: int) -> list[AddFile]:
    """The files with what batch N begins with."""
    if not has_batch(table, name, epoch, batch):
        return table.files()
    commit = last_commit(table, app_id(name, epoch))
    assert commit is not None
    return table.read_version(commit.version - 1)
