"""Keeps the logs of running tables short, beside the writers and never in their way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.embedded.sink_memory import needed
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import LodestreamError
from lodestream.lake.actions import HOT_TAG
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.log import list_log
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How often the log of a running table is looked after, and what is kept of it.

    Attributes:
        checkpoint_every: commits between two checkpoints.
        versions_kept: newest versions whose log entries stay.
        log_kept_us: age under which a log entry stays, microseconds.
        hot_kept_ms: age up to which a swapped-out file of open windows stays for its readers, milliseconds.
        look_every_s: pause between two rounds.
    """

    checkpoint_every: int = 100
    versions_kept: int = 1_000
    log_kept_us: int = 24 * 3600 * 1_000_000
    hot_kept_ms: int = 60_000
    look_every_s: float = 1.0


class Maintenance:
    """Writes a checkpoint of each table every so many commits, and deletes log entries that nobody needs.

    An entry is deleted when it is old, not among the newest, covered by two readable checkpoints, read by every flow
    that streams from the table, and published by every sink that has begun.

    Args:
        tables: tables of this run; only they are looked after.
        flows: all flows of the project, for who reads whom.
        around: disk, lake and clock.
        upkeep: how often, and what is kept.
    """

    def __init__(
        self,
        tables: Iterable[TableName],
        flows: Mapping[TableName, FlowPlan],
        around: Surroundings,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._names = list(tables)
        self._flows = flows
        self._around = around
        self._upkeep = upkeep or Upkeep()
        self._tables: dict[TableName, DeltaTable] = {}
        self._last: dict[TableName, int] = {}
        self._deleted: set[tuple[str, str]] = set()
        self.errors = 0

    def run(self, stopping: threading.Event) -> None:
        """Look at every table again and again until `stopping` is set, and once more then."""
        while not stopping.wait(self._upkeep.look_every_s):
            self.look()
        self.look()  # short runs must not leave a long log behind

    def look(self) -> None:
        """One round; a failure is counted and tried again in the next one, for nothing depends on it."""
        for name in self._names:
            for table_name in (name, quarantine_name(name)):
                try:
                    self._look_after(table_name, name)
                except (LodestreamError, FileNotFoundError):  # the latter: another process cleaned up as well
                    self.errors += 1

    def _look_after(self, name: TableName, owner: TableName) -> None:
        table = self._tables.get(name) or DeltaTable.open(self._around.disk, table_path(self._around.lake, name))
        if table is None:
            return
        self._tables[name] = table
        version = table.refresh().version
        sinks = self._flows[owner].sinks if name == owner else ()
        first, pinned = needed(self._around.disk, self._around.lake, sinks)
        self._delete_hot_files(table, pinned)
        if name not in self._last:
            self._last[name] = max(list_log(self._around.disk, table.path).checkpoints, default=0)
        if version - self._last[name] < self._upkeep.checkpoint_every:
            return
        now_us = self._around.clock()
        self._last[name] = table.checkpoint(now_us)
        needed_from = self._needed_from(name, table, owner)
        table.clean_log(
            keep_versions=self._upkeep.versions_kept,
            needed_from=needed_from if first is None else min(first, needed_from),
            older_than_us=now_us - self._upkeep.log_kept_us,
        )  # fmt: skip

    def _delete_hot_files(self, table: DeltaTable, pinned: frozenset[str]) -> None:
        """Delete files of open windows that were swapped out a while ago, but for those a sink compares with."""
        for path, removed in table.snapshot.tombstones.items():
            old = self._around.clock() // 1000 - removed.deletion_time > self._upkeep.hot_kept_ms
            if removed.tags.get(HOT_TAG) != "true" or path in pinned:
                continue
            if old and (table.path, path) not in self._deleted:
                with contextlib.suppress(FileNotFoundError):
                    self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
                self._deleted.add((table.path, path))

    def _needed_from(self, name: TableName, table: DeltaTable, owner: TableName) -> int:
        """The first version that a flow still has to read: a stream behind us, or the table's own at recovery."""
        own = flow_commit(table, owner)
        needed = [own.version if own else table.snapshot.version]
        for reader, plan in self._flows.items():
            if plan.upstream == name:
                needed.append(self._read_upto(reader, "upto") + 1)
            if plan.join is not None and plan.join.join.table == name:
                needed.append(self._read_upto(reader, "joined_upto") + 1)
        return min(needed)

    def _read_upto(self, reader: TableName, which: str) -> int:
        table = DeltaTable.open(self._around.disk, table_path(self._around.lake, reader))
        if table is None:
            return -1
        commit = flow_commit(table, reader)
        return int(commit.info.get(which, -1)) if commit else -1
