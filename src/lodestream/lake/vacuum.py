"""Vacuum: deletes the data files that no version within reach, no reader and no writer at work needs any more."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk, Stored
from lodestream.lake.log import Snapshot
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable

KEEP_MIN_MS = 3 * 3_600_000
"""Nothing younger is deleted: clocks may be an hour apart, and a file is on disk before its commit."""
_BATCH = re.compile(r"part-(?!compact-)(?:[a-z]+-)?(\d+)-")


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A data file that may be deleted.

    Attributes:
        file: relative to the table.
        bytes: its size.
        why: `removed`: a version took it away; `orphan`: no version that is known ever had it.
    """

    file: str
    bytes: int
    why: Literal["removed", "orphan"]


def unneeded(
    table: DeltaTable, *, now_ms: int, keep_ms: int, needed: Collection[str] = (), batch: int | None = None
) -> list[Unneeded]:
    """The files that a vacuum would delete, in path order.

    A file stays while it is live, while a reader needs it, within `keep_ms` of its removal or, when no version knows
    it, of its writing; and one that is named after a batch above `batch` is being written right now.

    Args:
        table: the table, refreshed.
        now_ms: now, milliseconds since 1970.
        keep_ms: safety window.
        needed: files, relative to the table, that readers of earlier versions need.
        batch: last committed batch of the table's flow; None for a table without one.

    Raises:
        ConfigError: the window is shorter than `KEEP_MIN_MS`.
    """
    if keep_ms < KEEP_MIN_MS:
        fix = "a running writer or reader could lose files; keep at least 3 hours"
        raise ConfigError("the window is too short", keep_ms=keep_ms, fix=fix)
    snapshot = table.snapshot
    live = {add.file for add in snapshot.files.values()}
    removed = _removed(snapshot, table.path)
    found = []
    for one in stored_files(table.disk, table.path):
        if one.path in live or one.path in needed or _in_flight(one.path, batch):
            continue
        if removed.get(one.path, one.modified_ms) < now_ms - keep_ms:
            why: Literal["removed", "orphan"] = "removed" if one.path in removed else "orphan"
            found.append(Unneeded(one.path, one.bytes, why))
    return sorted(found, key=lambda one: one.file)


def vacuum(table: DeltaTable, files: list[Unneeded], stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete files that `unneeded` gave; the number that were deleted before `stopping` said so.

    Each is looked at once more against the newest version: a restore may have brought one back.
    """
    table.refresh()
    live = {add.file for add in table.snapshot.files.values()}
    deleted = 0
    for one in files:
        if stopping():
            break
        if one.file in live:
            continue
        point("vacuum.before_unlink")
        with contextlib.suppress(FileNotFoundError):
            table.disk.unlink(os.path.join(table.path, one.file))
            deleted += 1
    point("vacuum.done")
    return deleted


def stored_files(disk: Disk, root: str) -> Iterator[Stored]:
    """Every data file in a table's folder, its path relative to that; names with a leading `_` or `.` are others'.

    The log, which may be long, is not listed.
    """
    folders = [name for name in sorted(disk.list(root)) if "=" in name]
    for one in disk.walk(root, deep=False):
        if _is_data(one.path):
            yield one
    for folder in folders:
        for one in disk.walk(os.path.join(root, folder)):
            if _is_data(path := os.path.join(folder, one.path)):
                yield Stored(path, one.bytes, one.modified_ms)


def _is_data(path: str) -> bool:
    *folders, name = path.split(os.sep)
    hidden = any(part.startswith(("_", ".")) for part in (*folders, name))
    return name.endswith(".parquet") and not hidden and all("=" in folder for folder in folders)


def _removed(snapshot: Snapshot, where: str) -> dict[str, int]:
    found = {}
    for path, remove in snapshot.tombstones.items():
        with contextlib.suppress(CorruptionError):
            found[decode_path(path, where)] = remove.deletion_time
    return found


def _in_flight(file: str, batch: int | None) -> bool:
    """Whether the file belongs to a batch that is not committed yet: whoever finds its plan will commit it."""
    match = _BATCH.match(os.path.basename(file))
    return batch is not None and match is not None and int(match[1]) > batch
