"""What a flow's own commits say."""

from __future__ import annotations

from lodestream.lake.log import Commit
from lodestream.lake.table import DeltaTable


def last_commit(table: DeltaTable, application: str) -> Commit | None:
    """The newest commit of a flow (by its application id), or None; it is near the end of the log."""
    if application not in table.snapshot.txns:
        return None
    for version in range(table.snapshot.version, -1, -1):
        for commit in table.commits(version - 1, version):
            if application in commit.txns:
                return commit
    return None
