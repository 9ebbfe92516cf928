"""What a flow reads of a table from which rows were erased: as it was until the flow has erased too, without them then.

A flow that had taken the rows in must find them once more to know what they became in its own table; one that has
erased must never see them again, even where it reads commits that were made before. Rows know the batch that brought
them (`_batch`), and that says which commit they came with wherever they are stored now. Where a column was renamed the
same is needed: files from before it have another name for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.lake.actions import AddFile, Commit
from lodestream.lake.layout import RENAMED_PROPERTY, erased_by, present_app_id
from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName

LATEST = "~"
"""In place of the last erasure of a reader that never took in the rows of any."""


@dataclass(frozen=True, slots=True)
class ErasedView:
    """The version of a table that stands for what is older than it."""

    table: DeltaTable
    standing: Snapshot
    application: str

    def touches(self, commit: Commit) -> bool:
        """Whether files that a commit added do not stand any more."""
        if commit.version > self.standing.version:
            return False
        return any(add.data_change and add.path not in self.standing.files for add in commit.adds)

    def brought(self, commit: Commit, columns: Sequence[str]) -> pa.Table:
        """The rows that a commit brought, as far as they stand."""
        batch = commit.txns.get(self.application, -1)
        return self._of_batches(columns, lambda batches: pc.equal(batches, batch))

    def upto(self, version: int, columns: Sequence[str]) -> pa.Table:
        """All rows up to a version, as far as they stand."""
        if version < self.standing.version:
            last = self.table.snapshot_at(version).txns.get(self.application, 0)
            return self._of_batches(columns, lambda batches: pc.less_equal(batches, last))
        files = self._files()
        for commit in self.table.commits(self.standing.version, version):
            files += [add for add in commit.adds if add.data_change]
        return self.table.read(files, columns=columns)

    def _files(self) -> list[AddFile]:
        return sorted(self.standing.files.values(), key=lambda add: add.path)

    def _of_batches(self, columns: Sequence[str], wanted: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.Table:
        rows = self.table.read(self._files(), columns=list(dict.fromkeys((*columns, "_batch"))))
        order = pc.sort_indices(rows, sort_keys=[("_batch", "ascending")])
        rows = rows.take(order)
        return rows.filter(wanted(rows.column("_batch"))).select(list(columns))


def view_of(
    table: DeltaTable, name: TableName, applied: str, finished: Callable[[str], bool]
) -> ErasedView | None:  # fmt: skip
    """How a flow reads a table by its handle; None when no row was erased and no column renamed.

    Args:
        table: the table, refreshed.
        name: its name.
        applied: id of the last erasure that went through the flow's own table.
        finished: whether an erasure has gone through all tables there were, so that a new one begins without the rows.
    """
    configuration = table.snapshot.metadata.configuration
    erasure, first = erased_by(configuration)
    if not erasure and RENAMED_PROPERTY not in configuration:
        return None
    application = present_app_id(name, configuration)
    if not erasure or applied >= erasure or finished(erasure):
        return ErasedView(table, table.snapshot, application)
    version = table.snapshot.version
    for at in range(version, -1, -1):
        if any(commit.txns.get(application) == first for commit in table.commits(at - 1, at)):
            version = at - 1
            break
    return ErasedView(table, table.snapshot_at(version), application)
