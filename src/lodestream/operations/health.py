"""Looks for what is wrong with a lake: its disk, its copies, and the log, files, plans and state of each table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import ConfigError, CorruptionError, LodestreamError
from lodestream.lake import maintenance
from lodestream.lake.actions import AddFile
from lodestream.lake.disk import Disk, Stored, nearest_folder
from lodestream.lake.layout import app_id, epoch_of, quarantine_name, table_path
from lodestream.lake.log import checkpoint_contents, list_log, log_folder, read_commit, read_hint
from lodestream.lake.opening import check_put_if_absent
from lodestream.lake.paths import ForeignPathError, decode_path
from lodestream.lake.pins import pins
from lodestream.lake.standing import standing
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import stored_files
from lodestream.model.table import TableName
from lodestream.operations.backup.known import copies

_FREE_BYTES_MIN = 256 << 20
_YOUNG_S = 3600.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        level: `ok`, `note` (nothing to do now), `repaired`, `error`.
        check: what was looked at.
        text: what was found.
        fix: what to do, empty for nothing.
        code: says what it is; empty where nothing is wrong and for what has a code of its own in the text.
    """

    level: Literal["ok", "note", "repaired", "error"]
    check: str
    text: str
    fix: str = ""
    code: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding as JSON values."""
        return asdict(self)


def examine(lake: str, disk: Disk, names: Iterable[TableName], *, repair: bool, now_s: float) -> list[Finding]:
    """Check a lake; with `repair`, mend damaged logs first.

    Args:
        lake: root folder of the lake.
        disk: its disk.
        names: tables to look at; those that are not in the lake are passed over.
        repair: whether to mend what can be mended without losing anything readable.
        now_s: the present, seconds since 1970; files younger than an hour are nobody's orphans.
    """
    findings = [*_disk(lake, disk), *_copies(lake, disk, now_s)]
    for name in names:
        path = table_path(lake, name)
        if not disk.exists(log_folder(path)):
            continue
        found = [*_log(disk, name, path, repair=repair)]
        if not any(one.level == "error" for one in found):
            found += _table(disk, lake, name, path, now_s, repair=repair)
        findings += found or [Finding("ok", str(name), "log, files, plans and state are whole")]
    return findings


def _disk(lake: str, disk: Disk) -> Iterator[Finding]:
    """Free space, and whether the lake can be written the way commits need."""
    there = nearest_folder(disk.beside(lake))
    free = shutil.disk_usage(there).free
    text = f"{free // _MIB:,} MiB free"
    if free < _FREE_BYTES_MIN:
        yield Finding(
            "error", "disk space", text, "free space: a full disk stops every table, and loses nothing", "L101"
        )
    else:
        yield Finding("ok", "disk space", text)
    if disk.atomic:
        there = lake
    elif there != lake:
        yield Finding("note", "lake", f"not there yet: {lake}", "lodestream run makes it")
    try:
        check_put_if_absent(disk, there)
        yield Finding("ok", "lake", "can be written, and no writer can overwrite another's commit")
    except LodestreamError as error:
        fix = "commits need a store or file system that refuses to overwrite"
        yield Finding("error", "lake", str(error), fix, "L102")


def _copies(lake: str, disk: Disk, now_s: float) -> Iterator[Finding]:
    """Whether the lake is a copy or was left for one, who copies it now, and how old the copies are."""
    try:
        now = standing(disk, lake)
    except CorruptionError as error:
        yield Finding("error", "lake", str(error), "restore it from a copy; nothing is written meanwhile", "L501")
        return
    if now is not None:
        text, fix = now.told()
        facts = ", ".join(f"{name} {value}" for name, value in now.facts.items())
        yield Finding("note", "lake", f"{text} ({facts})", fix, "L501")
    for pin in pins(disk, lake, 0):  # those that have ended are there as well, and stay
        if (left_s := pin.until_us / 1e6 - now_s) > 0:
            text = f"{pin.id} is being copied; upkeep leaves what it needs for {left_s / 60:.0f} min more, or longer"
            yield Finding("note", "copies", text, "nothing to do: it ends with the copy, or by itself", "L502")
    for one in copies(disk, lake):
        age_h = (now_s - one["newest_us"] / 1e6) / 3600
        text = f"{one['kind']} at {one['place']}: newest point {one.get('newest')}, made {age_h:,.1f} h ago"
        yield Finding("ok", "copies", text)


def _log(disk: Disk, name: TableName, path: str, *, repair: bool) -> Iterator[Finding]:
    """The log: torn commits, damaged checkpoints, a hint that names none."""
    if repair:
        try:
            for done in maintenance.repair(disk, path):
                yield Finding("repaired", str(name), done)
        except CorruptionError as error:
            yield Finding("error", str(name), str(error), "restore the log from a copy", "L204")
            return
    names = list_log(disk, path)
    mend = "lodestream doctor --repair"
    for version in sorted(names.commits, reverse=True)[:1]:
        try:
            read_commit(disk, path, version)
        except (ConfigError, ForeignPathError):
            pass  # opening the table tells of it
        except CorruptionError as error:
            yield Finding("error", str(name), str(error), mend, "L201")
    readable = set()
    for version, parts in names.checkpoints.items():
        try:
            checkpoint_contents(disk, path, version, parts)
            readable.add(version)
        except (ConfigError, ForeignPathError):
            readable.add(version)
        except CorruptionError:
            yield Finding("error", str(name), f"checkpoint {version} is damaged", mend, "L202")
    hinted = read_hint(disk, path).get("version")
    if disk.exists(os.path.join(log_folder(path), "_last_checkpoint")) and hinted not in readable:
        yield Finding("error", str(name), "_last_checkpoint names no checkpoint that can be read", mend, "L203")


def _table(disk: Disk, lake: str, name: TableName, path: str, now_s: float, *, repair: bool) -> Iterator[Finding]:
    try:
        table = DeltaTable.open(disk, path)
    except LodestreamError as error:
        yield _unreadable(name, error)
        return
    if table is None:
        return
    yield from _files(disk, name, table, now_s, _again(name))
    yield from _flow(disk, lake, name, table)
    quarantine = quarantine_name(name)
    if disk.exists(log_folder(table_path(lake, quarantine))):
        yield from _quarantine(disk, name, quarantine, table_path(lake, quarantine), now_s, repair=repair)


def _unreadable(name: TableName, error: LodestreamError) -> Finding:
    """Why a table cannot be opened."""
    if isinstance(error, ConfigError):
        fix = "drop the feature with the engine that added it: ALTER TABLE … DROP FEATURE …"
        return Finding("error", str(name), str(error), fix, "L205")
    if isinstance(error, ForeignPathError):
        return Finding("error", str(name), str(error), "restore the log from a copy", "L206")
    return Finding("error", str(name), str(error), "restore the log from a copy", "L204")


def _quarantine(
    disk: Disk, owner: TableName, name: TableName, path: str, now_s: float, *, repair: bool
) -> Iterator[Finding]:
    """Log and files of a table's quarantine; they are lost and come back together with the table."""
    for finding in _log(disk, name, path, repair=repair):
        yield finding
        if finding.level == "repaired" and "broken commit" in finding.text:
            yield Finding("error", str(name), "entries of its last batch may be lost", _again(owner), "L301")
    try:
        table = DeltaTable.open(disk, path)
    except LodestreamError as error:
        yield _unreadable(name, error)
        return
    if table is not None:
        yield from _files(disk, name, table, now_s, _again(owner))


def _again(name: TableName) -> str:
    """The command that fills a table again from its input."""
    return f"lodestream table restore {name} --version 0 --rewind"


def _files(disk: Disk, name: TableName, table: DeltaTable, now_s: float, again: str) -> Iterator[Finding]:
    """Live files that are missing or of another size, and files that no version knows."""
    there = {one.path: one for one in stored_files(disk, table.path)}
    bad = [add.file for add in table.files() if not _is_there(disk, table, add, there.get(add.file))]
    if bad:
        text = f"{len(bad)} data files are missing or of another size, such as {bad[0]}"
        yield Finding("error", str(name), text, f"restore them from a copy, or fill it again: {again}", "L301")
    removed = (decode_path(r.path, table.path) for r in table.snapshot.tombstones.values())
    known = {add.file for add in table.files()} | {*removed}
    orphans = [
        one.bytes for one in there.values() if one.path not in known and now_s - one.modified_ms / 1000 > _YOUNG_S
    ]
    if orphans:
        yield Finding(
            "note",
            str(name),
            f"{len(orphans)} files of unfinished batches take {sum(orphans) / _MIB:.1f} MiB",
            f"harmless; lodestream table vacuum {name} deletes them",
            "L302",
        )


def _is_there(disk: Disk, table: DeltaTable, add: AddFile, listed: Stored | None) -> bool:
    """Whether a live file is there, whole; other writers have names that a listing of data files passes over."""
    if listed is not None:
        return listed.bytes == add.size
    try:
        return disk.size(table.file_path(add)) == add.size
    except FileNotFoundError:
        return False


def _flow(disk: Disk, lake: str, name: TableName, table: DeltaTable) -> Iterator[Finding]:
    """Plans against the table, and the state that the last batch names."""
    snapshot = table.snapshot
    epoch = epoch_of(snapshot.metadata.configuration)
    application = app_id(name, epoch)
    batch = snapshot.txns.get(application, 0)
    store = FlowStore(disk, lake, name, epoch)
    planned = store.last_planned()
    if planned == batch + 1:
        yield Finding(
            "note", str(name), f"batch {planned} is planned and not committed", "the next run goes on with it", "L402"
        )
    elif planned != batch and batch:
        yield Finding(
            "error", str(name), f"plans end at {planned} and the table at batch {batch}", _again(name), "L401"
        )
    if not batch:
        return
    try:
        if planned >= batch:
            store.plan(batch)
        for version in range(snapshot.version, -1, -1):
            commit = read_commit(disk, table.path, version)
            if commit.txns.get(application) == batch:
                if "state" in commit.info:  # Spark keeps its state in a checkpoint of its own
                    store.chain(str(commit.info["state"]), snapshot.metadata.id, epoch, batch)
                return
    except FileNotFoundError:
        yield Finding("error", str(name), f"the log no longer has the commit of batch {batch}", _again(name), "L401")
    except LodestreamError as error:
        yield Finding("error", str(name), str(error), _again(name), "L401")
