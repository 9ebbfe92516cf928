"""Follows one table by its log: a look costs one existence check, a new version one small file."""

from __future__ import annotations

import bisect
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.lake.actions import Commit
from lodestream.lake.disk import Disk
from lodestream.lake.layout import app_id, epoch_of, flow_folder, quarantine_name, table_path
from lodestream.lake.log import commit_path, list_log, load, log_folder, read_commit
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import Schema

_LOG_READ = 1_000
"""Commits that are read back at most when a table is first seen."""
_VERSIONS_KEPT = 4_096
_AT_ONCE = 200
"""New versions that are taken in by one look, so that a table which runs away does not hold up the others."""
OPEN_KINDS = ("quarantine", "late")
"""Kinds of quarantine entries that can be taken again."""


class Followed:
    """What is known of one table; used by one thread.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        name: the table.

    Attributes:
        version: newest version that was taken in, -1 before the first.
        next_path: the file or folder whose being there says that there is something new.
        epoch: rebuild generation; the sums are of it alone.
        batch: last committed batch.
        counted_from: first batch of the sums, 0 when there was none.
        counts: rows by fate and by broken rule.
        upto: version of the upstream table that was taken in.
        pins: versions of other tables that the last batch read.
        schema: columns of the newest version.
    """

    def __init__(self, disk: Disk, lake: str, name: TableName) -> None:
        self.name = name
        self.version = -1
        self._disk, self._lake = disk, lake
        self._path = table_path(lake, name)
        self.next_path = log_folder(self._path)
        self.schema = Schema()
        self._sizes: dict[str, tuple[int | None, int]] = {}
        self._unknown = 0
        self._known_rows = 0
        self.size_bytes = 0
        self._open: int | None = 0
        self._begin(1)

    def _begin(self, epoch: int) -> None:
        """Start the sums of an epoch."""
        self.epoch, self._application = epoch, app_id(self.name, epoch)
        self.batch, self.counted_from, self.upto = 0, 0, -1
        self.counts: dict[str, int] = {}
        self.pins: Mapping[str, int] = {}
        self.watermark_us: int | None = None
        self.max_event_us: int | None = None
        self.last_commit_us: int | None = None
        self._grown: deque[tuple[int, int]] = deque(maxlen=_VERSIONS_KEPT)
        self._added = 0

    @property
    def exists(self) -> bool:
        """Whether the table is in the lake."""
        return self.version >= 0

    @property
    def rows(self) -> int | None:
        """Live rows, None when a file does not say."""
        return None if self._unknown else self._known_rows

    @property
    def files(self) -> int:
        """Live data files."""
        return len(self._sizes)

    @property
    def quarantine_open(self) -> int | None:
        """Rows set aside that can be taken again; None for a table that takes no rows in."""
        return self._open if "input" in self.counts else None

    def load(self) -> list[Commit]:
        """Take in what stands, of a table that was not looked at yet; the commits that the log still has, the newest.

        Raises:
            LodestreamError: the table is damaged or cannot be read here.
        """
        snapshot = load(self._disk, self._path)
        if snapshot is None:
            return []
        self._begin(epoch_of(snapshot.metadata.configuration))
        self.schema = snapshot.metadata.schema
        for add in snapshot.files.values():
            self._put(add.path, add.num_records, add.size)
        commits = [commit for commit in self._logged(snapshot.version) if self._mine(commit)]
        for commit in commits:
            self._count(commit)
        self._step_to(snapshot.version)
        if self.counted_from > 1:
            self._open = _open_entries(self._disk, self._lake, self.name)
        return commits

    def news(self) -> list[Commit]:
        """The versions that came since; nothing is taken in yet.

        Raises:
            LodestreamError: one cannot be read.
        """
        found: list[Commit] = []
        while len(found) < _AT_ONCE:
            try:
                found.append(read_commit(self._disk, self._path, self.version + 1 + len(found)))
            except FileNotFoundError:
                break
        return found

    def take(self, commit: Commit) -> None:
        """Take in the next version."""
        if commit.metadata is not None:
            self.schema = commit.metadata.schema
            epoch = epoch_of(commit.metadata.configuration)
            if epoch != self.epoch:
                self._begin(epoch)
                self._open = 0
        for remove in commit.removes:
            self._drop(remove.path)
        for add in commit.adds:
            self._drop(add.path)
            self._put(add.path, add.num_records, add.size)
        self._count(commit)
        self._step_to(commit.version)

    def stands(self) -> bool:
        """Whether the version that was taken in is still the table's; a table may be deleted and made again."""
        return self.version < 0 or self._disk.exists(commit_path(self._path, self.version))

    def planned_us(self) -> int | None:
        """When the batch after the last one was planned; None when it is not."""
        plan = os.path.join(flow_folder(self._lake, self.name), str(self.epoch), "plans", f"{self.batch + 1:020d}.json")
        if not self._disk.exists(plan):
            return None
        try:
            return int(json.loads(self._disk.read(plan))["clock_us"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def added_after(self, version: int) -> int:
        """Rows that the versions after one have added, as far as they are remembered."""
        at = bisect.bisect_right(self._grown, (version, 1 << 62))
        return self._added - (self._grown[at - 1][1] if at else 0)

    def _logged(self, newest: int) -> Iterator[Commit]:
        versions = sorted(v for v in list_log(self._disk, self._path).commits if v <= newest)
        for version in versions[-_LOG_READ:]:
            try:
                yield read_commit(self._disk, self._path, version)
            except (FileNotFoundError, DataLossRefused, CorruptionError):
                continue  # cleaned up since it was listed; opening the table has judged the newest

    def _mine(self, commit: Commit) -> bool:
        return commit.metadata is None or epoch_of(commit.metadata.configuration) == self.epoch

    def _count(self, commit: Commit) -> None:
        """Add what a commit says to the sums."""
        self._added += sum(add.num_records or 0 for add in commit.adds if add.data_change)
        self._grown.append((commit.version, self._added))
        if self._application not in commit.txns:
            return
        info = commit.info
        self.batch = commit.txns[self._application]
        self.counted_from = self.counted_from or self.batch
        self.last_commit_us = commit.timestamp_ms * 1000
        self.watermark_us = info.get("watermark_us") or self.watermark_us
        self.max_event_us = info.get("max_event_us") or self.max_event_us
        self.upto = self.upto if info.get("upto") is None else int(info["upto"])
        self.pins = info.get("pins") or {}
        counts = counts_of(commit)
        for kind, number in counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + number
        if self._open is not None:
            aside = sum(counts.get(kind, 0) for kind in OPEN_KINDS)
            self._open += aside - (counts.get("input", 0) if info.get("kind") == "replay" else 0)

    def _step_to(self, version: int) -> None:
        self.version = version
        self.next_path = commit_path(self._path, version + 1)

    def _put(self, path: str, rows: int | None, size: int) -> None:
        self._sizes[path] = rows, size
        self.size_bytes += size
        self._known_rows += rows or 0
        self._unknown += rows is None

    def _drop(self, path: str) -> None:
        rows, size = self._sizes.pop(path, (0, 0))
        self.size_bytes -= size
        self._known_rows -= rows or 0
        self._unknown -= rows is None


def counts_of(commit: Commit) -> dict[str, int]:
    """Rows by fate and by broken rule, as a commit has them."""
    counts = commit.info.get("counts")
    return {str(kind): int(number) for kind, number in counts.items()} if isinstance(counts, dict) else {}


def taken_in(counts: Mapping[str, int]) -> int:
    """Rows that a batch took in; what a query's refresh put out."""
    return counts.get("input", counts.get("output", 0))


def _open_entries(disk: Disk, lake: str, name: TableName) -> int:
    """Open entries of a quarantine, counted in the table itself: its flow's first batches are no longer in the log."""
    quarantine = DeltaTable.open(disk, table_path(lake, quarantine_name(name)))
    if quarantine is None:
        return 0
    rows = quarantine.read(quarantine.files(), columns=["_source", "_position", "_batch", "kind"])
    rows = rows.sort_by("_batch")
    return count_open(zip(*(rows[c].to_pylist() for c in ("_source", "_position", "kind")), strict=True))


def count_open(entries: Iterable[tuple[str, int, str]]) -> int:
    """How many rows (source, position, kind), given in the order of their batches, can be taken again."""
    latest: dict[tuple[str, int], str] = {}
    for source, position, kind in entries:
        if kind != "late_window":
            latest[source, position] = kind
    return sum(kind in OPEN_KINDS for kind in latest.values())
