"""A second lake that follows the first, cut by cut, and can take over.

A cut reaches the replica in three steps. Data files and state go where they belong: no log names them yet. Everything
else (logs, plans, what changes under its name) goes into the replica's own folder, and the point that names it is put
there: from then on the cut is durable and whole. Then it is put in place, tables that others read first, each log in
order. Whoever dies, the next pass or the activation puts the rest of a whole cut in place before anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk, put_if_absent, replace_durable
from lodestream.lake.layout import replica_folder, standing_file
from lodestream.lake.standing import Standing, put_standing, standing
from lodestream.operations.backup.copying import Amount, Fetcher
from lodestream.operations.backup.make import Made, Source, make_point, room_of
from lodestream.operations.backup.restore import Places, check_version, in_order, occupied, put_all
from lodestream.operations.backup.vault import Entry, Point, Vault

KEEP_US = 3 * 3_600_000_000
"""How long files that the first lake needs no more stay for readers of the replica, microseconds."""
_LAKE = "lake/"


class Replica:
    """A replica, as whoever fills or activates it sees it.

    Args:
        disk: its disk.
        lake: its root.
        home: its folder of this machine.
    """

    def __init__(self, disk: Disk, lake: str, home: str) -> None:
        self.disk, self.lake, self.home = disk, lake, home
        self.vault = Vault(disk, replica_folder(lake))
        self._applied = os.path.join(self.vault.root, "applied.json")
        self._retired = os.path.join(self.vault.root, "retired.json")

    # --- what it is ---------------------------------------------------------------------------------------------------

    def prepare(self, source: Source) -> None:
        """Make the place a replica of a lake, unless it is.

        Raises:
            ConfigError: something else is there.
        """
        now = standing(self.disk, self.lake)
        if now is None:
            if held := occupied(self.disk, self.lake):
                fix = "name an empty place or a replica of this lake"
                raise ConfigError("place is not empty and not a replica", place=self.lake, holds=held[0], fix=fix)
            put_standing(self.disk, self.lake, Standing("replica", {"of": source.lake}))
        elif now.kind != "replica" or now.facts.get("of") != source.lake:
            fix = "name an empty place, or replicate from the lake that it is a replica of"
            raise ConfigError("place is something else than a replica of this lake", place=self.lake, is_=now.kind,
                              of=now.facts.get("of"), fix=fix)  # fmt: skip
        self.vault.make(source.project)

    @property
    def applied(self) -> Point | None:
        """The cut that readers of the replica see; None before the first."""
        try:
            told = json.loads(self.disk.read(self._applied))
        except FileNotFoundError:
            return None
        return self.vault.point(told["point"])

    def note_applied(self, made: Point) -> None:
        """Write down which cut readers see."""
        replace_durable(self.disk, self._applied, json.dumps({"point": made.id}).encode())

    # --- following ----------------------------------------------------------------------------------------------------

    def follow(self, source: Source) -> dict[str, Any]:
        """Bring the replica to a cut of now; what this took, and how far behind it is when it is done.

        Raises:
            ConfigError: it is no replica of this lake, or there is no room.
            ConflictError: another process fills it.
            CorruptionError: the lake or the replica is damaged.
        """
        self.prepare(source)
        with self.vault.turn(source.clock):
            self.finish(source.tell)
            made = make_point(source, self.vault, (self._put_early, self._holds), room=room_of(self.disk, self.lake))
            self._apply(made.point, source.tell)
            self._tidy(made, source.clock())
        behind_s = (source.clock() - made.point.made_us) / 1e6
        return {
            "point": made.point.id, **made.amount.told(), "behind_s": round(behind_s, 3),
            "tables": [dict(told) for told in made.point.tables], "left_out": list(made.point.left_out),
        }  # fmt: skip

    def finish(self, tell: Callable[[str], None]) -> Point | None:
        """Put the rest of a whole cut in place; the cut that is in place then."""
        newest = self.vault.newest()
        if newest is not None:
            self._apply(newest, tell)
        return newest

    def _holds(self, entry: Entry) -> bool:
        """Whether a file of the cut in place lies there; `finish` came first."""
        return entry.path.startswith(_LAKE)

    def _put_early(self, path: str, data: bytes) -> None:
        target = os.path.join(self.lake, path.removeprefix(_LAKE))
        if not put_if_absent(self.disk, target, data) and self.disk.size(target) != len(data):
            raise CorruptionError("another file has this name in the replica", path=target)

    def _apply(self, made: Point, tell: Callable[[str], None]) -> None:
        before = self.applied
        if before is not None and before.id == made.id:
            return
        self.vault.keep_turn()
        places, amount, fetcher = self.places(), Amount(time.monotonic, tell), Fetcher(self.vault)
        point("replicate.whole")
        stands = before.groups if before is not None else {}
        for name, group in made.groups.items():
            if group == stands.get(name):
                continue
            amount.part = f"putting in place: {name}"
            old = self.vault.entries(stands.get(name))
            fresh = (
                entry for path, entry in self.vault.entries(group).items()
                if path.startswith(_LAKE) and entry.blob is not None and _differs(old.get(path), entry)
            )  # fmt: skip
            put_all(in_order(fresh), fetcher.read, places, amount)
            point("replicate.part")
        for told in made.tables:
            check_version(places, told)
        self.note_applied(made)
        point("replicate.applied")

    def places(self) -> Places:
        """Where files of a cut go."""
        return Places(self.disk, self.lake, self.home)

    # --- keeping it small ---------------------------------------------------------------------------------------------

    def _tidy(self, made: Made, now_us: int) -> None:
        """Forget earlier cuts, and after a while the files that only they had; what was erased goes at once."""
        self.vault.keep_turn()
        retired: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            retired = json.loads(self.disk.read(self._retired))
        earlier = [self.vault.point(id_) for id_ in self.vault.points() if id_ != made.point.id]
        erased = any(one.erasures != made.point.erasures for one in earlier)
        for path in self._gone(made, earlier):
            retired.setdefault(path, now_us)
        for path in [path for path in retired if any(path in files for files in made.entries.values())]:
            del retired[path]  # a restored version has it again
        keep_us = now_us - KEEP_US
        for path, since_us in sorted(retired.items()):
            if since_us < keep_us or erased:
                self._unlink(os.path.join(self.lake, path.removeprefix(_LAKE)))
                del retired[path]
        replace_durable(self.disk, self._retired, json.dumps(retired, sort_keys=True).encode())
        for one in earlier:
            self.vault.drop_point(one.id)
        kept = {digest for group in made.point.groups.values() for digest in group.lists}
        for files in made.entries.values():
            kept |= {e.blob for e in files.values() if e.blob is not None and not e.path.startswith(_LAKE)}
        self.vault.sweep(kept)

    def _gone(self, made: Made, earlier: list[Point]) -> Iterator[str]:
        for one in earlier:
            for name, group in one.groups.items():
                if group == made.point.groups.get(name):
                    continue
                now = made.entries.get(name, {})
                yield from (path for path in self.vault.entries(group) if path.startswith(_LAKE) and path not in now)

    def _unlink(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.disk.unlink(path)

    # --- what it holds ------------------------------------------------------------------------------------------------

    def fetcher(self) -> Fetcher:
        """Reads files of the cut in place, wherever they lie."""
        return Fetcher(self.vault, lambda path: self.disk.read(os.path.join(self.lake, path.removeprefix(_LAKE))))

    def open_standing(self) -> None:
        """Take away what keeps the lake from being written."""
        path = standing_file(self.lake)
        self._unlink(path)
        self.disk.sync_directory(os.path.dirname(path))


def _differs(old: Entry | None, new: Entry) -> bool:
    return old is None or (old.digest, old.size) != (new.digest, new.size)
