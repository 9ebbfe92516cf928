"""Keeps running tables small and quick to read, beside their writers and never in their way."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from lodestream.engines.embedded.sink_memory import needed
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import LodestreamError
from lodestream.lake.compaction import due
from lodestream.lake.layout import quarantine_name
from lodestream.lake.log import list_log
from lodestream.lake.maintenance import removed_kept_ms
from lodestream.lake.paths import decode_path
from lodestream.lake.pins import Pin, pins
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import vacuum
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.runtime.care import Care


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How often running tables are looked after, and what is kept; None leaves it to each table's policy.

    Attributes:
        checkpoint_every: commits between two checkpoints.
        versions_kept: newest versions whose log entries stay.
        log_kept_us: age under which a log entry stays, microseconds.
        hot_kept_ms: age up to which a swapped-out file of open windows stays for its readers, milliseconds.
        look_every_s: pause between two rounds.
        compact_every_s: pause between two looks at a table's small files; also looked at with each checkpoint.
        expire_every_s: pause between two looks for rows past retention.
        vacuum_every_s: pause between two vacuums of a table.
        files_min: small files of one size that are put together, at least 2.
        groups_at_end: how many groups of files a run that ends still puts together.
    """

    checkpoint_every: int | None = None
    versions_kept: int = 1_000
    log_kept_us: int | None = None
    hot_kept_ms: int = 60_000
    look_every_s: float = 1.0
    compact_every_s: float = 600.0
    expire_every_s: float = 600.0
    vacuum_every_s: float = 3600.0
    files_min: int = 16
    groups_at_end: int = 4


@dataclass(slots=True)
class _Seen:
    """What was done to one table in this run.

    Attributes:
        table: a handle of our own.
        checkpoint: version of the newest checkpoint.
        compacted_s, expired_s, vacuumed_s: when it was looked at last, by a clock that never goes back.
    """

    table: DeltaTable
    checkpoint: int
    compacted_s: float = -math.inf
    expired_s: float = -math.inf
    vacuumed_s: float = -math.inf


class Maintenance:
    """Looks after the tables of a run on a thread of its own, with handles of its own.

    Each table gets a checkpoint every so many commits; log entries that nobody needs are deleted; small files are put
    together; rows past retention leave; files that no version, reader or writer needs are deleted. All of it goes
    through commits that lose against the flow's, so a writer never waits for it.

    A log entry is deleted when it is old, not among the newest, covered by two readable checkpoints, read by every
    flow that streams from the table, and published by every sink that has begun.

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
        self._flows = flows
        self._around = around
        self._upkeep = upkeep or Upkeep()
        names = [name for table in tables for name in (table, quarantine_name(table))]
        self._cares = [Care.of(name, around, flows) for name in names]
        self._seen: dict[TableName, _Seen] = {}
        self._deleted: dict[str, frozenset[str]] = {}
        self._stopping = threading.Event()
        self._left = math.inf
        self.errors = 0

    def run(self, stopping: threading.Event) -> None:
        """Look at every table again and again until `stopping` is set, and once more then."""
        self._stopping = stopping
        while not stopping.wait(self._upkeep.look_every_s):
            self.look()
        self._left = self._upkeep.groups_at_end
        self.look()  # short runs must not leave a long log behind

    def look(self) -> None:
        """One round; a failure is counted and tried again in the next one, for nothing depends on it."""
        copied = cache(lambda: pins(self._around.disk, self._around.lake, self._around.clock()))
        for care in self._cares:
            try:
                self._look_after(care, copied)
            except (LodestreamError, FileNotFoundError):  # the latter: another process cleaned up as well
                self.errors += 1

    def _look_after(self, care: Care, copied: Callable[[], Sequence[Pin]]) -> None:
        seen = self._seen.get(care.name)
        if seen is None:
            table = care.open()
            if table is None:
                return
            policy_ms = care.policy.deleted_file_retention_us // 1000
            table.removed_kept_ms = max(policy_ms, removed_kept_ms(table.snapshot.metadata, policy_ms))
            last = max(list_log(self._around.disk, table.path).checkpoints, default=0)
            seen = self._seen[care.name] = _Seen(table, last)
        now = seen.table.refresh()
        self._delete_hot_files(care, seen.table, copied)
        now_s = time.monotonic()
        every = self._upkeep.checkpoint_every or care.policy.checkpoint_after(len(now.files) + len(now.tombstones))
        full = now.version - seen.checkpoint >= every
        if full:
            self._shorten_log(care, seen)
        if full or now_s - seen.compacted_s >= self._upkeep.compact_every_s:
            seen.compacted_s = now_s
            self._compact(care, seen.table)
        if now_s - seen.expired_s >= self._upkeep.expire_every_s:
            seen.expired_s = now_s
            care.expire(seen.table, care.past(seen.table))
        if now_s - seen.vacuumed_s >= self._upkeep.vacuum_every_s:
            seen.vacuumed_s = now_s
            vacuum(seen.table, care.unneeded(seen.table), self._hurried)

    def _shorten_log(self, care: Care, seen: _Seen) -> None:
        now_us = self._around.clock()
        seen.checkpoint = seen.table.checkpoint(now_us, care.policy.deleted_file_retention_us)
        kept_us = self._upkeep.log_kept_us
        seen.table.clean_log(
            keep_versions=self._upkeep.versions_kept, needed_from=care.needed_from(seen.table),
            older_than_us=now_us - (care.policy.log_retention_us if kept_us is None else kept_us),
        )  # fmt: skip

    def _compact(self, care: Care, table: DeltaTable) -> None:
        """Put small files together, no more than the end of a run has time for."""
        if not care.policy.compact or care.replaced_whole:
            return
        calm_ms = self._around.clock() // 1000 - (self._upkeep.hot_kept_ms if self._rewrites(care) else 0) + 1
        groups = due(
            table.snapshot.files.values(), target_bytes=care.policy.target_file_size,
            files_min=self._upkeep.files_min, changed_before_ms=calm_ms,
        )  # fmt: skip
        for group in groups:
            if self._left <= 0 or (self._hurried() and self._left == math.inf):
                return
            self._left -= 1
            care.compact(table, [group], care.policy)

    def _rewrites(self, care: Care) -> bool:
        """Whether the flow itself replaces files that are not hot."""
        return care.name == care.owner and self._flows[care.owner].table.late == "update"

    def _hurried(self) -> bool:
        return self._stopping.is_set()

    def _delete_hot_files(self, care: Care, table: DeltaTable, copied: Callable[[], Sequence[Pin]]) -> None:
        """Delete files of open windows that were swapped out a while ago, but for those that a sink or a copy needs."""
        before_ms = self._around.clock() // 1000 - self._upkeep.hot_kept_ms
        old = {one.path for one in table.swapped_files() if one.deletion_time < before_ms}
        deleted = self._deleted.get(table.path, frozenset()) & old
        if leaving := old - deleted:  # nobody is asked for what they need while there is nothing to delete
            sinks = self._flows[care.owner].sinks if care.name == care.owner else ()
            _, read = needed(self._around.disk, self._around.lake, sinks)
            leaving -= read.union(*(pin.hot.get(str(care.name), ()) for pin in copied()))
        for path in leaving:
            with contextlib.suppress(FileNotFoundError):
                self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
        self._deleted[table.path] = deleted | leaving
