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
from lodestream.lake.disk import Disk
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
    for file in data_files(table.disk, table.path):
        if file in live or file in needed or _in_flight(file, batch):
            continue
        path = os.path.join(table.path, file)
        with contextlib.suppress(FileNotFoundError):
            since = removed[file] if file in removed else table.disk.modified_ms(path)
            if since < now_ms - keep_ms:
                why: Literal["removed", "orphan"] = "removed" if file in removed else "orphan"
                found.append(Unneeded(file, table.disk.size(path), why))
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


def data_files(disk: Disk, root: str, folder: str = "") -> Iterator[str]:
    """Paths, relative to the table, of every data file in its folder; names with a leading `_` or `.` are others'."""
    for name in sorted(disk.list(os.path.join(root, folder))):
        if name.startswith(("_", ".")):
            continue
        relative = os.path.join(folder, name) if folder else name
        if name.endswith(".parquet"):
            yield relative
        elif "=" in name:
            yield from data_files(disk, root, relative)


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
