"""Puts a point of a backup set into an empty place: a lake that goes on as if it had stood still since."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from lodestream.engines.embedded.store import FOLDED
from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk, LocalDisk, put_if_absent, replace_durable
from lodestream.lake.layout import ingest_folder, keys_path, registry_file, standing_file
from lodestream.lake.log import load
from lodestream.lake.standing import Standing, put_standing, standing
from lodestream.model.table import LAYERS
from lodestream.operations.backup.copying import Amount, Fetcher, in_flight
from lodestream.operations.backup.vault import Entry, Point, Vault, digest_of

_LAKE, _HOME, _PROJECT = "lake/", "home/", "project/"
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Places:
    """Where a point goes.

    Attributes:
        disk, lake: of the lake.
        home: the lake's folder of this machine.
        declarations: folder for the project's own files; None leaves them out.
    """

    disk: Disk
    lake: str
    home: str
    declarations: str | None = None

    def of(self, path: str) -> tuple[Disk, str] | None:
        """Where a file of a point belongs; None when it is left out."""
        for prefix, disk, root in (
            (_LAKE, self.disk, self.lake), (_HOME, LocalDisk(), self.home), (_PROJECT, LocalDisk(), self.declarations),
        ):  # fmt: skip
            if path.startswith(prefix):
                below = path.removeprefix(prefix)
                if os.path.isabs(below) or ".." in below.split("/"):
                    raise CorruptionError("backup names a file outside its lake", file=path)
                return None if root is None else (disk, os.path.join(root, below))
        raise CorruptionError("backup names a file outside its lake", file=path)


def check_empty(places: Places, id_: str) -> None:
    """Raise ConfigError when a lake, or another restore, is in the way; one of the same point is gone on with."""
    now = standing(places.disk, places.lake)
    if now is not None and now.kind == "restoring" and now.facts.get("point") == id_:
        return
    if now is not None and now.kind == "restoring":
        fix = "restore that point to the end, or empty the place"
        raise ConfigError(
            "another point is being restored here", lake=places.lake, point=now.facts.get("point"), fix=fix
        )
    homes = [os.path.dirname(keys_path(places.home)), ingest_folder(places.home), registry_file(places.home)]
    held = occupied(places.disk, places.lake) + [path for path in homes if os.path.exists(path)]
    if held or now is not None:
        fix = "name an empty place with --lake, or move what is there away"
        raise ConfigError(
            "place is not empty", lake=places.lake, holds=(held or [standing_file(places.lake)])[0], fix=fix
        )


def occupied(disk: Disk, lake: str) -> list[str]:
    """Folders of a lake that hold something."""
    folders = [os.path.join(lake, layer) for layer in LAYERS] + [os.path.dirname(standing_file(lake))]
    return [path for path in folders if disk.list(path)]


def restore(vault: Vault, made: Point, places: Places, tell: Callable[[str], None]) -> dict[str, Any]:
    """Restore a point; one that was broken off is gone on with.

    Returns:
        The report: what was moved, how fast, and what the point does not hold.

    Raises:
        ConfigError: the place is not empty, or there is no room.
        CorruptionError: a file of the point is missing or damaged; the lake is not to be written then.
    """
    check_empty(places, made.id)
    amount = Amount(time.monotonic, tell)
    amount.bytes_expected = made.byte_count
    put_standing(places.disk, places.lake, Standing("restoring", {"point": made.id}))
    point("restore.begun")
    fetcher = Fetcher(vault)
    for name, group in made.groups.items():
        amount.part = name
        entries = vault.entries(group)
        put_all(in_order(e for e in entries.values() if places.of(e.path) is not None), fetcher.read, places, amount)
        point("restore.part")
    for told in made.tables:
        check_version(places, told)
    places.disk.unlink(standing_file(places.lake))
    places.disk.sync_directory(os.path.dirname(standing_file(places.lake)))
    point("restore.done")
    later = _erased_since(vault, made)
    return {
        "point": made.id, "made_us": made.made_us, "lake": places.lake, "home": places.home,
        **amount.told(), "tables": [dict(told) for told in made.tables], "left_out": list(made.left_out),
        "erased_since": later,
    }  # fmt: skip


def put_all(
    entries: Iterable[Entry], read: Callable[[Entry], bytes], places: Places, amount: Amount
) -> None:  # fmt: skip
    """Put files in place, durably: early ones in any order, log entries and what follows one after the other."""
    put = partial(_put, read=read, places=places, amount=amount)
    for ordered, some in groupby(entries, lambda entry: is_ordered(entry.path)):
        for _ in map(put, some) if ordered else in_flight(some, put, _size):
            pass


def _size(entry: Entry) -> int:
    return entry.size


def is_ordered(path: str) -> bool:
    """Whether a file is put in place only when those in front of it are: what a log holds."""
    return "/_delta_log/" in path


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The files of a part as they are put in place: what a log names, checkpoints, the log, and what hints at them.

    Behind a checkpoint of its last version a log is put from its end, so that nobody stops at a version in between.
    """
    ranked = sorted(entries, key=lambda entry: (_rank(entry.path), entry.path))
    commits = [entry for entry in ranked if _rank(entry.path) == _COMMIT]
    last = max((_version(entry.path) for entry in ranked if _rank(entry.path) == _CHECKPOINT), default="")
    if not commits or _version(commits[-1].path) != last:
        return ranked
    first = ranked.index(commits[0])
    return [*ranked[:first], *reversed(commits), *ranked[first + len(commits) :]]


def _version(path: str) -> str:
    return os.path.basename(path).partition(".")[0]


_CHECKPOINT, _COMMIT, _HINT = 1, 2, 3


def _rank(path: str) -> int:
    if not is_ordered(path):
        return 0
    return _HINT if path.endswith("_last_checkpoint") else _CHECKPOINT if ".checkpoint" in path else _COMMIT


def _put(entry: Entry, read: Callable[[Entry], bytes], places: Places, amount: Amount) -> None:
    place = places.of(entry.path)
    assert place is not None
    disk, path = place
    if _stands(disk, path, entry):
        amount.keep()
        return
    put_file(disk, path, read(entry), replaced=entry.path.startswith((_HOME, _PROJECT)) or _replaced(entry.path))
    if entry.path.startswith(_HOME):
        os.chmod(path, _PRIVATE)
    point("restore.file")
    amount.add(entry.size)


def _replaced(path: str) -> bool:
    """Whether a file of a lake changes under its name."""
    name = os.path.basename(path)
    return name in ("_last_checkpoint", FOLDED) or "/sinks/" in path or "/erasures/" in path or "/plans/" in path


def _stands(disk: Disk, path: str, entry: Entry) -> bool:
    """Whether the file was put before we were broken off; small ones are looked at."""
    try:
        if disk.size(path) != entry.size:
            return False
        return entry.size > _LOOKED_AT or digest_of(disk.read(path)) == entry.digest
    except FileNotFoundError:
        return False


_LOOKED_AT = 1 << 20


def put_file(disk: Disk, path: str, data: bytes, *, replaced: bool) -> None:
    """Write a file durably and whole or not at all; one that is there is replaced, or has to be the same."""
    if replaced:
        replace_durable(disk, path, data)
    elif not put_if_absent(disk, path, data) and disk.read(path) != data:
        fix = "empty the place, or restore into another one"
        raise CorruptionError("another file has this name already", path=path, fix=fix)


def check_version(places: Places, told: Mapping[str, Any]) -> None:
    """Raise CorruptionError unless a table is what the point says."""
    path = os.path.join(places.lake, str(told["path"]))
    snapshot = load(places.disk, path)
    if snapshot is None or snapshot.version != told["version"] or snapshot.metadata.id != told["id"]:
        found = snapshot.version if snapshot is not None else None
        raise CorruptionError("table is not what it was", table=path, version=found, expected=told["version"])


def _erased_since(vault: Vault, made: Point) -> list[dict[str, Any]]:
    """Erasures that later points know of: this one brings their subjects back."""
    known = {one["id"] for one in made.erasures}
    newest = vault.newest()
    return [dict(one) for one in (newest.erasures if newest is not None else ()) if one["id"] not in known]


def verify(
    vault: Vault, points: Iterable[Point], tell: Callable[[str], None], fetcher: Fetcher | None = None
) -> dict[str, Any]:  # fmt: skip
    """Read everything that points hold once more and compare it with its digest; nothing is changed.

    Returns:
        Files and bytes that were read, and what is damaged or missing: `point`, `file`, `problem`.
    """
    amount, reads = Amount(time.monotonic, tell), fetcher or Fetcher(vault)
    good: set[tuple[str | None, int | None, int, str]] = set()
    bad: list[dict[str, str]] = []

    def one(entry: Entry) -> str | None:
        try:
            reads.read(entry)
        except CorruptionError as error:
            return str(error)
        amount.add(entry.size)
        return None

    for made in points:
        for name, group in made.groups.items():
            amount.part = f"{made.id} {name}"
            try:
                entries = [entry for entry in vault.entries(group).values() if _which(entry) not in good]
            except CorruptionError as error:
                bad.append({"point": made.id, "file": name, "problem": str(error)})
                continue
            for entry, problem in in_flight(entries, one, _size):
                if problem is None:
                    good.add(_which(entry))
                else:
                    bad.append({"point": made.id, "file": entry.path, "problem": problem})
    return {**amount.told(), "damaged": bad}


def _which(entry: Entry) -> tuple[str | None, int | None, int, str]:
    """What has to be read for an entry: a blob or a piece of it, or its place."""
    return entry.blob, entry.offset, entry.size, entry.path if entry.blob is None else ""
