"""Keeps the logs of running tables short, beside the writers and never in their way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping

from lodestream.engines.embedded.flow import Surroundings
from lodestream.engines.embedded.history import last_commit
from lodestream.errors import LodestreamError
from lodestream.lake.actions import HOT_TAG
from lodestream.lake.layout import app_id, quarantine_name, table_path
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName

CHECKPOINT_EVERY = 100
VERSIONS_KEPT = 1_000
HOT_KEPT_MS = 60_000
LOG_KEPT_US = 24 * 3600 * 1_000_000
_LOOK_EVERY_S = 1.0


class Maintenance:
    """Writes a checkpoint of each table at least every hundred commits, and deletes log entries that nobody needs.

    An entry is deleted when it is a day old, not among the newest thousand, covered by two readable checkpoints, and
    read by every flow that streams from the table.

    Args:
        tables: tables of this run; only they are looked after.
        flows: all flows of the project, for who reads whom.
        around: disk, lake and clock.
        checkpoint_every: commits between two checkpoints.
    """

    def __init__(
        self,
        tables: Iterable[TableName],
        flows: Mapping[TableName, FlowPlan],
        around: Surroundings,
        checkpoint_every: int = CHECKPOINT_EVERY,
    ) -> None:
        self._names = list(tables)
        self._flows = flows
        self._around = around
        self._every = checkpoint_every
        self._tables: dict[TableName, DeltaTable] = {}
        self._last: dict[TableName, int] = {}
        self._deleted: set[tuple[str, str]] = set()
        self.errors = 0

    def run(self, stopping: threading.Event) -> None:
        """Look at every table once a second until `stopping` is set."""
        while not stopping.wait(_LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """One round; a failure is counted and tried again in the next one, for nothing depends on it."""
        for name in self._names:
            for table_name in (name, quarantine_name(name)):
                try:
                    self._look_after(table_name, name)
                except LodestreamError:
                    self.errors += 1

    def _look_after(self, name: TableName, owner: TableName) -> None:
        table = self._tables.get(name) or DeltaTable.open(self._around.disk, table_path(self._around.lake, name))
        if table is None:
            return
        self._tables[name] = table
        version = table.refresh().version
        self._delete_hot_files(table)
        if version - self._last.setdefault(name, version - version % self._every) < self._every:
            return
        now_us = self._around.clock()
        self._last[name] = table.checkpoint(now_us)
        needed = self._needed_from(name, table, owner)
        table.clean_log(keep_versions=VERSIONS_KEPT, needed_from=needed, older_than_us=now_us - LOG_KEPT_US)

    def _delete_hot_files(self, table: DeltaTable) -> None:
        """Delete files of open windows that were swapped out a minute ago; nobody reads them any more."""
        for path, removed in table.snapshot.tombstones.items():
            old = self._around.clock() // 1000 - removed.deletion_time > HOT_KEPT_MS
            if removed.tags.get(HOT_TAG) == "true" and old and (table.path, path) not in self._deleted:
                with contextlib.suppress(FileNotFoundError):
                    self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
                self._deleted.add((table.path, path))

    def _needed_from(self, name: TableName, table: DeltaTable, owner: TableName) -> int:
        """The first version that somebody still has to read: a stream behind us, or the flow's own recovery."""
        epoch = table.snapshot.metadata.configuration.get("lodestream.epoch", "1")
        own = last_commit(table, app_id(owner, int(epoch)))
        needed = [own.version if own else table.snapshot.version]
        for reader, plan in self._flows.items():
            if plan.upstream == name:
                needed.append(self._read_upto(reader) + 1)
        return min(needed)

    def _read_upto(self, reader: TableName) -> int:
        table = DeltaTable.open(self._around.disk, table_path(self._around.lake, reader))
        if table is None:
            return -1
        epoch = int(table.snapshot.metadata.configuration.get("lodestream.epoch", "1"))
        commit = last_commit(table, app_id(reader, epoch))
        return int(commit.info.get("upto", -1)) if commit else -1
