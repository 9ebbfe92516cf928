"""Handing a lake over to its replica, and back: the one that is left is fenced, and rewound before it follows."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lodestream.errors import ConfigError, ConflictError, CorruptionError, LodestreamError
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk, replace_durable, write_durable
from lodestream.lake.layout import diverged_folder, flow_folder, replica_folder, table_path
from lodestream.lake.log import commit_path, list_log, log_folder
from lodestream.lake.standing import Standing, put_standing, standing
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.backup.copying import Amount, Fetcher
from lodestream.operations.backup.cut import table_folders
from lodestream.operations.backup.make import Source
from lodestream.operations.backup.replica import Replica
from lodestream.operations.backup.restore import put_all
from lodestream.operations.backup.vault import Entry, Point

FENCED_PROPERTY = "lodestream.fenced"
"""Table property that says which replica took over; setting it refuses every commit that is under way."""
FENCE = "FENCE"
_TRIES = 1_000
_HOME = "home/"


def fence(disk: Disk, lake: str, by: str, made: Point | None, clock_us: int) -> int:
    """Keep a lake from being written from now on; the number of its tables.

    The file refuses whoever opens a flow. A commit that changes the metadata of each table refuses whoever is about to
    commit: it loses the race for a version, or sees the new metadata, and opens its flow again.

    Raises:
        LodestreamError: the lake cannot be reached, or not all of it.
    """
    facts = {"by": by, "point": made.id if made is not None else None}
    put_standing(disk, lake, Standing("fenced", facts))
    point("fence.standing")
    count = 0
    for name in table_folders(disk, lake):
        table = DeltaTable.open(disk, table_path(lake, name))
        if table is not None:
            _fence_table(table, by, clock_us)
            count += 1
            point("fence.table")
    return count


def _fence_table(table: DeltaTable, by: str, clock_us: int) -> None:
    for _ in range(_TRIES):
        metadata = table.refresh().metadata
        if metadata.configuration.get(FENCED_PROPERTY) == by:
            return
        marked = replace(metadata, configuration={**metadata.configuration, FENCED_PROPERTY: by})
        with contextlib.suppress(ConflictError):
            table.commit(metadata=marked, clock_us=clock_us, operation=FENCE)
            return
    raise ConflictError("table is written so fast that it cannot be fenced", table=table.path)


def activate(
    replica: Replica, clock: Callable[[], int], tell: Callable[[str], None], old: tuple[Disk, str] | None
) -> dict[str, Any]:
    """Make a replica the lake that is written; broken off, it is gone on with.

    One that took over already fences the old lake, which may not have been within reach then.

    Args:
        replica: of the lake that is left.
        clock: microseconds since 1970 UTC.
        tell: hears how it goes.
        old: disk and root of the lake that is left, to fence it; None when nobody can reach it.

    Returns:
        What it is now: the cut it goes on from, how far that lies back, how long this took, and whether the old lake
        is fenced: when not, `unfenced` says why, and both would be written if somebody ran the old one.

    Raises:
        ConfigError: it is no replica, or has no whole cut.
    """
    begun = time.monotonic()
    now = standing(replica.disk, replica.lake)
    if now is None and (taken := _activation(replica.disk, replica.lake)) is not None:
        then = replica.vault.point(str(taken["point"]))
        return _activated(replica, then, clock(), begun, _fence_old(old, replica.lake, then, clock()))
    if now is None or now.kind != "replica":
        raise ConfigError("place is no replica", place=replica.lake, is_=now.kind if now else "a lake")
    with replica.vault.turn(clock):
        made = replica.finish(tell)
        if made is None:
            raise ConfigError("replica has no whole cut yet", place=replica.lake, fix="lodestream replicate again")
        unfenced = _fence_old(old, replica.lake, made, clock())
        _put_home(replica, made, tell)
        point("activate.home")
        replica.vault.keep_turn()
        told = {"point": made.id, "of": now.facts.get("of"), "at_us": clock()}
        replace_durable(replica.disk, os.path.join(replica.vault.root, "activated.json"), json.dumps(told).encode())
        replica.open_standing()
        replica.vault.sweep({digest for group in made.groups.values() for digest in group.lists})  # all is in place
        point("activate.done")
    return _activated(replica, made, clock(), begun, unfenced)


def _activated(replica: Replica, made: Point, now_us: int, begun: float, unfenced: str | None) -> dict[str, Any]:
    return {
        "point": made.id, "lake": replica.lake, "home": replica.home,
        "behind_s": round((now_us - made.made_us) / 1e6, 3),
        "seconds": round(time.monotonic() - begun, 3), "fenced": unfenced is None, "unfenced": unfenced,
        "tables": [dict(one) for one in made.tables], "left_out": list(made.left_out),
    }  # fmt: skip


def _fence_old(old: tuple[Disk, str] | None, by: str, made: Point, clock_us: int) -> str | None:
    """Why the old lake is not fenced; None when it is."""
    if old is None:
        return "not asked for"
    try:
        if not fence(*old, by, made, clock_us):
            return "it has no tables that can be seen"
    except LodestreamError as error:
        return str(error)
    return None


def _put_home(replica: Replica, made: Point, tell: Callable[[str], None]) -> None:
    """Put catalog, keys and pushed events in place; what another life left there is renamed, never lost."""
    fetcher = Fetcher(replica.vault)
    amount = Amount(time.monotonic, tell)
    for name, group in made.groups.items():
        amount.part = name
        found = [entry for entry in replica.vault.entries(group).values() if entry.path.startswith(_HOME)]
        for entry in found:
            _put_aside(os.path.join(replica.home, entry.path.removeprefix(_HOME)), entry, fetcher, made.id)
        put_all(found, fetcher.read, replica.places(), amount)


def _put_aside(path: str, entry: Entry, fetcher: Fetcher, id_: str) -> None:
    try:
        with open(path, "rb") as file:
            if file.read() == fetcher.read(entry):
                return
    except FileNotFoundError:
        return
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, f"{path}{suffix}.left-{id_}")


def rewind(replica: Replica, source: Source) -> dict[str, int]:
    """Take a fenced lake back to the cut at which its replica took over, so that it can follow that one now.

    What it committed after that cut is put aside under `_lodestream/diverged/`: the replica has made its own of the
    same input. Files that both have do not cross again.

    Returns:
        By table: how many versions were put aside.

    Raises:
        ConfigError: it was not left for this lake.
    """
    now = standing(replica.disk, replica.lake)
    assert now is not None
    taken = _activation(source.disk, source.lake)
    if taken is None or now.facts.get("by") != source.lake or taken.get("of") != replica.lake:
        fix = "name an empty place, or the lake that this one took over from"
        raise ConfigError("place was left for another lake", place=replica.lake, by=now.facts.get("by"), fix=fix)
    there = Replica(source.disk, source.lake, source.home)
    made = there.vault.point(str(taken["point"]))
    aside = {}
    for told in made.tables:
        if number := _rewind_table(replica, told, made.id):
            aside[str(told["path"])] = number
    known = {str(told["path"]) for told in made.tables}
    here = {table_path("", name) for name in table_folders(replica.disk, replica.lake)}
    for path in sorted(here - known):
        aside[path] = _rewind_table(replica, {"path": path, "version": -1}, made.id)
    _rewind_vault(replica, there, made)
    put_standing(replica.disk, replica.lake, Standing("replica", {"of": source.lake}))
    point("rewind.done")
    return aside


def _activation(disk: Disk, lake: str) -> dict[str, Any] | None:
    """What a lake took over from, when it was a replica."""
    path = os.path.join(replica_folder(lake), "activated.json")
    try:
        found: dict[str, Any] = json.loads(disk.read(path))
        return found
    except FileNotFoundError:
        return None


def _rewind_table(replica: Replica, told: dict[str, Any] | Any, id_: str) -> int:
    """Take versions after a cut, and plans of batches after it, out of their places, the newest first."""
    disk, path, version = replica.disk, os.path.join(replica.lake, told["path"]), int(told["version"])
    table = DeltaTable.open(disk, path)
    if table is not None and "id" in told and table.snapshot.metadata.id != told["id"]:
        raise CorruptionError("table was made anew after its replica took over; name an empty place", table=path)
    names = list_log(disk, path)
    kept = os.path.join(diverged_folder(replica.lake, id_), told["path"])
    for late in sorted((v for v in names.checkpoints if v > version), reverse=True):
        for name in names.checkpoints[late]:
            _move(disk, os.path.join(log_folder(path), name), os.path.join(kept, name))
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(os.path.join(log_folder(path), "_last_checkpoint"))
    late_commits = sorted((v for v in names.commits if v > version), reverse=True)
    for late in late_commits:
        _move(disk, commit_path(path, late), os.path.join(kept, f"{late:020d}.json"))
        point("rewind.commit")
    if "flow" in told:
        flow = flow_folder(replica.lake, TableName.parse(told["flow"]))
        plans = os.path.join(flow, str(told["epoch"]), "plans")
        for name in sorted(disk.list(plans), reverse=True):
            if name[:20].isdigit() and int(name[:20]) > int(told["batch"]):
                _move(disk, os.path.join(plans, name), os.path.join(kept, "plans", name))
    return len(late_commits)


def _move(disk: Disk, path: str, target: str) -> None:
    if not disk.exists(target):
        write_durable(disk, target, disk.read(path))
    disk.unlink(path)


def _rewind_vault(replica: Replica, there: Replica, made: Point) -> None:
    """Let the replica know what it has: all files of the cut that are still in their places."""
    for id_ in replica.vault.points():
        replica.vault.drop_point(id_)
    replica.vault.make(made.project)
    groups = {}
    for name, group in made.groups.items():
        found = there.vault.entries(group)
        folders: dict[str, set[str]] = {}
        here: dict[str, Entry] = {}
        for path, entry in found.items():
            if path.startswith("lake/"):
                folder, _, file = os.path.join(replica.lake, path.removeprefix("lake/")).rpartition("/")
                if folder not in folders:
                    folders[folder] = set(replica.disk.list(folder))
                if file in folders[folder]:
                    here[path] = entry
        groups[name] = replica.vault.put_entries(here, {}, None)
    replica.vault.put_point(replace(made, groups=groups))
    replica.note_applied(made)
