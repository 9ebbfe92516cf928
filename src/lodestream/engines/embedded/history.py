"""What a flow's own commits say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lodestream.errors import DataLossRefused
from lodestream.lake.actions import Commit
from lodestream.lake.disk import Disk
from lodestream.lake.layout import present_app_id, table_path
from lodestream.lake.log import list_log, read_commit
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
    return last_commit(table, present_app_id(flow, table.snapshot.metadata.configuration))


def check_kept(commit: Commit, upstream: str, reader: TableName) -> None:
    """Raise DataLossRefused when a commit of the table above took rows away, so that its reader no longer fits it."""
    if commit.takes_away:
        raise DataLossRefused(
            "upstream rows were taken away (rebuild, restore or overwrite); begin this table again too: "
            f"lodestream table restore {reader} --version 0 --rewind",
            upstream=upstream, version=commit.version,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of the rows of one batch.

    Attributes:
        time_us: when it was planned.
        number: of the batch.
        counts: rows by fate and by broken rule (`rule:<name>`).
    """

    time_us: int
    number: int
    counts: Mapping[str, int]


def batches(disk: Disk, lake: str, flow: TableName, limit: int = 1_000) -> list[Batch]:
    """The newest batches of the present epoch that the log still has, oldest first.

    Raises:
        LodestreamError: the table is damaged.
    """
    table = DeltaTable.open(disk, table_path(lake, flow))
    if table is None:
        return []
    application = present_app_id(flow, table.snapshot.metadata.configuration)
    found = []
    for version in sorted(list_log(disk, table.path).commits)[-limit:]:
        try:
            commit = read_commit(disk, table.path, version)
        except FileNotFoundError:  # cleaned up since it was listed
            continue
        if application in commit.txns:
            counts = commit.info.get("counts") or {}
            found.append(Batch(commit.timestamp_ms * 1000, commit.txns[application], counts))
    return found
