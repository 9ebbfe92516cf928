"""What a flow's own commits say."""

from __future__ import annotations

from lodestream.lake.actions import Commit
from lodestream.lake.layout import app_id, epoch_of
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName


def last_commit(table: DeltaTable, application: str) -> Commit | None:
    """The newest commit of a flow (by its application id), or None; it is near the end of the log."""
    if application not in table.snapshot.txns:
        return None
    for version in range(table.snapshot.version, -1, -1):
        for commit in table.commits(version - 1, version):
            if application in commit.txns:
                return commit
    return None


def flow_commit(table: DeltaTable, flow: TableName) -> Commit | None:
    """The newest commit that the flow of `flow` made in the present epoch of `table`, or None."""
    return last_commit(table, app_id(flow, epoch_of(table.snapshot.metadata.configuration)))
