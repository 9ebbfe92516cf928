"""Keeping a log short and whole: checkpoints, cleaning, repair."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Callable

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.actions import HOT_TAG, Metadata
from lodestream.lake.checkpoint import Contents, count_actions, write_checkpoint
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk, put_if_absent, random_id, replace_durable
from lodestream.lake.live import LiveMap
from lodestream.lake.log import (
    LogNames,
    Snapshot,
    checkpoint_contents,
    commit_path,
    list_log,
    log_folder,
    read_commit,
    read_hint,
)
from lodestream.lake.paths import ForeignPathError

_UNITS_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
WEEK_MS = _UNITS_MS["week"]
RETENTION_PROPERTY = "delta.deletedFileRetentionDuration"


def checkpoint(
    disk: Disk,
    path: str,
    snapshot: Snapshot,
    now_ms: int | None,
    new_id: Callable[[], str] = random_id,
    *,
    kept_ms: int = 0,
) -> int:
    """Write `snapshot` as a checkpoint and point `_last_checkpoint` at it, both durably.

    Tombstones older than `delta.deletedFileRetentionDuration` (a week when not set) are left out, but for those of the
    last `kept_ms` that are not of open windows: a vacuum goes by when a file was removed. Where that property is not
    set, `kept_ms` alone counts for them, if it is given.
    """
    if now_ms is None:
        changed = [add.modification_time for add in snapshot.files.values()]
        now_ms = max(*changed, *(r.deletion_time for r in snapshot.tombstones.values()), 0, 0)
    horizon = now_ms - removed_kept_ms(snapshot.metadata)
    kept = now_ms - max(removed_kept_ms(snapshot.metadata, kept_ms or WEEK_MS), kept_ms)
    tombstones = LiveMap(
        (key, r)
        for key, r in snapshot.tombstones.items()
        if r.deletion_time > (horizon if r.tags.get(HOT_TAG) == "true" else kept)
    )
    contents = Contents(snapshot.metadata, snapshot.protocol, snapshot.files, tombstones, snapshot.txns)
    data, rows = write_checkpoint(contents)
    folder = log_folder(path)
    target = os.path.join(folder, f"{snapshot.version:020d}.checkpoint.parquet")
    point("checkpoint.before")
    if not put_if_absent(disk, target, data, new_id):
        rows = _standing_or_replaced(disk, path, snapshot.version, target, data, new_id)
    point("checkpoint.written")
    standing = read_hint(disk, path).get("version")
    if not isinstance(standing, int) or standing < snapshot.version:
        hint = {"version": snapshot.version, "size": rows}
        _replace_hint(disk, path, hint, new_id)
    point("checkpoint.done")
    return snapshot.version


def _standing_or_replaced(
    disk: Disk, path: str, version: int, target: str, data: bytes, new_id: Callable[[], str]
) -> int:
    """Another writer's checkpoint of the same version stands unless it is damaged; gives its number of actions."""
    try:
        checkpoint_contents(disk, path, version, (os.path.basename(target),))
    except CorruptionError:
        replace_durable(disk, target, data, new_id)
    return count_actions(disk.read(target))


def _replace_hint(disk: Disk, path: str, hint: dict[str, int], new_id: Callable[[], str]) -> None:
    replace_durable(disk, os.path.join(log_folder(path), "_last_checkpoint"), json.dumps(hint).encode(), new_id)


def clean_log(disk: Disk, path: str, keep_versions: int, needed_from: int, older_than_ms: int | None = None) -> int:
    """Delete JSON commits, oldest first, and the checkpoints that only they made useful.

    A commit goes only when two checkpoints that can be read stand after it, so that a damaged one costs nothing;
    when it is not among the newest `keep_versions`; when no registered reader needs it (`needed_from` is the
    smallest version any of them still has to read); and when it was made before `older_than_ms`.

    Returns:
        The number of commits deleted.
    """
    names = list_log(disk, path)
    readable: list[int] = []
    for version in sorted(names.checkpoints, reverse=True):
        with contextlib.suppress(CorruptionError):
            checkpoint_contents(disk, path, version, names.checkpoints[version])
            readable.append(version)
        if len(readable) == 2:
            break
    if len(readable) < 2:
        return 0
    disk.sync_directory(log_folder(path))  # the checkpoints may be another writer's, not synced yet
    bound = min(readable[1], names.last - keep_versions + 1, needed_from)
    deleted = 0
    first_kept = bound
    for version in sorted(v for v in names.commits if v < bound):
        if older_than_ms is not None and read_commit(disk, path, version).timestamp_ms >= older_than_ms:
            first_kept = version
            break
        point("clean.before_unlink")
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(commit_path(path, version))
            deleted += 1
    _drop_checkpoints(disk, path, names, first_kept, readable[0])
    disk.sync_directory(log_folder(path))
    return deleted


def _drop_checkpoints(disk: Disk, path: str, names: LogNames, first_kept: int, newest: int) -> None:
    gone = [version for version in names.checkpoints if version < first_kept - 1]
    hinted = read_hint(disk, path).get("version")
    if hinted in gone:
        size = sum(count_actions(disk.read(os.path.join(log_folder(path), part))) for part in names.checkpoints[newest])
        _replace_hint(disk, path, {"version": newest, "size": size}, random_id)
    for version in gone:
        for name in names.checkpoints[version]:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(os.path.join(log_folder(path), name))


def repair(disk: Disk, path: str, new_id: Callable[[], str] = random_id) -> list[str]:
    """Make a damaged log readable again without losing what can be read.

    Empty or torn commits at the end of the log are put aside (never deleted), checkpoints that cannot be read are
    deleted when the log without them is whole, and `_last_checkpoint` is deleted when it names none of the rest.

    Returns:
        What was done, one line each; empty when nothing was wrong.

    Raises:
        CorruptionError: a damaged checkpoint holds what nothing else does.
    """
    done: list[str] = []
    folder = log_folder(path)
    names = list_log(disk, path)
    for version in sorted(names.commits, reverse=True):
        try:
            read_commit(disk, path, version)
            break
        except (ConfigError, ForeignPathError):
            break  # whole, and a person has to look at it
        except CorruptionError:
            aside = os.path.join(folder, f".broken-{version:020d}-{new_id()}")
            disk.link(commit_path(path, version), aside)
            disk.sync_directory(folder)
            with contextlib.suppress(FileNotFoundError):  # linking may have moved it
                disk.unlink(commit_path(path, version))
            done.append(f"put broken commit {version} aside as {os.path.basename(aside)}")
    good = _drop_damaged(disk, path, list_log(disk, path), done)
    hint = os.path.join(folder, "_last_checkpoint")
    if disk.exists(hint) and read_hint(disk, path).get("version") not in good:
        disk.unlink(hint)
        done.append("deleted _last_checkpoint, which names no checkpoint")
    if done:
        disk.sync_directory(folder)
    return done


def _drop_damaged(disk: Disk, path: str, names: LogNames, done: list[str]) -> set[int]:
    """Delete the damaged checkpoints; gives the versions of the others."""
    damaged, good = [], set()
    for version, parts in names.checkpoints.items():
        try:
            checkpoint_contents(disk, path, version, parts)
            good.add(version)
        except (ConfigError, ForeignPathError):
            good.add(version)
        except CorruptionError:
            damaged.append(version)
    enough = any(names.commits.issuperset(range(start + 1, names.last + 1)) for start in (*good, -1))
    if damaged and not enough:
        fix = "restore the log from a copy"
        raise CorruptionError(
            "checkpoint is damaged and nothing replaces it", table=path, version=max(damaged), fix=fix
        )
    for version in damaged:
        for name in names.checkpoints[version]:
            disk.unlink(os.path.join(log_folder(path), name))
        done.append(f"deleted damaged checkpoint {version}")
    return good


def removed_kept_ms(metadata: Metadata, otherwise: int = WEEK_MS) -> int:
    """How long a table remembers removed files by its properties, milliseconds; `otherwise` when they do not say."""
    return interval_ms(metadata.configuration.get(RETENTION_PROPERTY), otherwise)


@functools.lru_cache(maxsize=256)
def interval_ms(text: str | None, otherwise: int) -> int:
    """Milliseconds of a Delta interval such as `interval 2 hours`; `otherwise` for None.

    Raises:
        ConfigError: it is not one.
    """
    if text is None:
        return otherwise
    pairs = re.findall(r"(\d+)\s+([a-z]+?)s?(?=\s|$)", text.strip().lower())
    if not pairs or any(unit not in _UNITS_MS for _, unit in pairs):
        raise ConfigError("not an interval", text=text, fix="write such as 'interval 7 days'")
    return sum(int(count) * _UNITS_MS[unit] for count, unit in pairs)
