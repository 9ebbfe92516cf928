"""Makes points of a lake: a cut, pinned, then every file that the set does not have yet, then the point."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from lodestream.engines.embedded.store import FOLDED
from lodestream.errors import ConfigError, ConflictError, LodestreamError
from lodestream.lake.disk import Disk, LocalDisk
from lodestream.lake.erasures import Erasure
from lodestream.lake.pins import drop_pin, put_pin
from lodestream.lake.standing import standing
from lodestream.operations.backup.contents import Part, parts
from lodestream.operations.backup.copying import Amount, GoneError, Mover, check_room
from lodestream.operations.backup.cut import Cut, Flows, Links, take
from lodestream.operations.backup.home import home_parts
from lodestream.operations.backup.turn import renewed
from lodestream.operations.backup.vault import Entry, Group, Point, Vault

_PIN_US = 900_000_000
_TRIES = 5


InPlace = tuple[Callable[[str, bytes], None], Callable[[Entry], bool]]


@dataclass
class Source:
    """The lake that is copied.

    Attributes:
        disk, lake, home: where it is.
        project, root: the project's name and folder.
        flows: the project's flows, inputs first.
        external: stores of the project that are databases of their own, in words.
        external_catalog: whether the catalog is one of them.
        clock: microseconds since 1970 UTC.
        tell: hears how it goes.
        links: state links that were looked at.
    """

    disk: Disk
    lake: str
    home: str
    project: str
    root: str
    flows: Flows
    clock: Callable[[], int]
    external: Sequence[str] = ()
    external_catalog: bool = False
    tell: Callable[[str], None] = lambda _text: None
    links: Links = field(default_factory=dict)

    def take(self) -> Cut:
        """A moment of it. Raises ConfigError for a lake that is not whole itself."""
        now = standing(self.disk, self.lake)
        if now is not None and now.kind != "fenced":
            fix = "copy the lake that is written" if now.kind == "replica" else "run the same lodestream restore again"
            raise ConfigError("lake is a copy itself and not one to copy", lake=self.lake, is_=now.kind, fix=fix)
        return take(self.disk, self.lake, self.flows, self.links)

    def parts(self, cut: Cut, before: Point | None, *, read: bool = False) -> list[Part]:
        """All that a point of it holds, in order; `read` for a copy that is read in its place."""
        told = before.tables if before is not None else ()
        since = {str(one["path"]): int(one["version"]) for one in told} if read else None
        done = {str(one["flow"]): str(one.get("erasure", "")) for one in told if "flow" in one}
        here = home_parts(self.home, self.root, self.lake, external_catalog=self.external_catalog)
        return parts(self.disk, self.lake, cut, done, since) + here


@dataclass(frozen=True, slots=True)
class Made:
    """A point that was made, the files of its parts, and how much was moved."""

    point: Point
    entries: Mapping[str, Mapping[str, Entry]]
    amount: Amount


def check_apart(source: Source, place: str) -> None:
    """Raise ConfigError when a place lies in the lake, or the lake in it."""
    for one, other in ((source.lake, place), (place, source.lake), (source.home, place)):
        if one.rstrip("/") == other.rstrip("/") or other.startswith(one.rstrip("/") + "/"):
            fix = "name a place beside the lake, better on another disk or in another region"
            raise ConfigError(
                "place of the copy and the lake lie in each other", lake=source.lake, place=place, fix=fix
            )


def would(source: Source, vault: Vault) -> dict[str, Any]:
    """How much a point would copy, and from which versions; nothing is written."""
    before = vault.newest() if vault.exists else None
    cut = source.take()
    files = size = 0
    for name, items in source.parts(cut, before):
        known = vault.entries(before.groups.get(name)) if before is not None else {}
        for item in items():
            if not (item.fixed and item.path in known) and not item.path.endswith(FOLDED):
                files, size = files + 1, size + (item.size or 0)
    return {"tables": [table.told() for table in cut.tables], "files": files, "bytes_of_data": size}


def make_point(source: Source, vault: Vault, in_place: InPlace | None = None, *, room: str | None = None) -> Made:
    """Make a point of a lake while it is written; one that was broken off is gone on with.

    Args:
        source: the lake.
        vault: where it goes; the caller has its turn.
        in_place: where early files go, and whether one that an earlier point names is there; see `Mover`.
        room: folder of this machine whose file system takes it; None for no folder.

    Raises:
        ConfigError: there is no room, or the lake is not one to copy.
        ConflictError: the lake changes faster than it can be copied.
        CorruptionError: the lake is damaged.
    """
    gone = ""
    for _ in range(_TRIES):
        try:
            return _make_point(source, vault, in_place, room)
        except GoneError as error:  # erased, or taken by somebody who does not know of pins: a later moment has less
            gone = error.path
            source.links.clear()
    raise ConflictError("lake loses files faster than they can be copied", file=gone, fix="lodestream doctor")


def _make_point(source: Source, vault: Vault, in_place: InPlace | None, room: str | None) -> Made:
    before = vault.newest()
    known = before.groups if before is not None else {}
    made_us = source.clock()
    id_ = _point_id(made_us, before)
    amount = Amount(time.monotonic, source.tell)
    with _pinned(source, id_) as cut:
        listed = source.parts(cut, before, read=in_place is not None)
        put, held = in_place or (None, lambda entry: entry.blob is None)
        mover = Mover(vault, put, vault.blobs(), amount, held)
        tables = {
            name: (list(items()), vault.entries(known.get(name))) for name, items in listed if name.startswith("table ")
        }
        amount.bytes_expected = sum(
            item.size or 0 for items, old in tables.values() for item in items if mover.known(item, old) is None
        )
        check_room(room, amount.bytes_expected)
        groups: dict[str, Group] = {}
        entries: dict[str, Mapping[str, Entry]] = {}
        for name, now in listed:
            amount.part = name
            items, old = tables.pop(name) if name in tables else (now(), vault.entries(known.get(name)))
            entries[name] = mover.move(items, old)
            groups[name] = vault.put_entries(entries[name], old, known.get(name))
    made = Point(
        id_, made_us, source.project, source.lake, tuple(_told(cut)), groups,
        tuple(_erased(one) for one in cut.erasures), tuple(_left_out(source, cut)),
    )  # fmt: skip
    vault.keep_turn()
    vault.put_point(made)
    vault.close_journal()
    return Made(made, entries, amount)


def _erased(one: Erasure) -> dict[str, Any]:
    done = one.report is not None
    return {"id": one.id, "time_us": one.time_us, "columns": list(one.columns), "done": done}


def _told(cut: Cut) -> Iterator[dict[str, Any]]:
    for table in cut.tables:
        yield table.told() | ({"erasure": table.flow.erasure} if table.flow is not None else {})


def _left_out(source: Source, cut: Cut) -> Iterator[str]:
    yield from source.external
    for name in cut.spark:
        yield f"checkpoint of Spark of {name}: the embedded engine goes on from its rows, where it can take over"


@contextmanager
def _pinned(source: Source, id_: str) -> Iterator[Cut]:
    """A cut whose files upkeep leaves meanwhile."""
    cut = source.take()
    pin = cut.pin(id_, 0)

    def keep() -> None:
        put_pin(source.disk, source.lake, replace(pin, until_us=source.clock() + _PIN_US))

    keep()
    try:
        with renewed(keep):
            yield cut
    finally:
        with suppress(LodestreamError):  # it ends by itself
            drop_pin(source.disk, source.lake, pin)


def room_of(disk: Disk, place: str) -> str | None:
    """The folder of a place whose free space can be asked for."""
    return place if isinstance(disk, LocalDisk) else None


def _point_id(made_us: int, before: Point | None) -> str:
    """A name by time, greater than all before, whatever the clock says."""
    made = dt.datetime.fromtimestamp(made_us / 1e6, dt.UTC)
    id_ = made.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    if before is not None and id_ <= before.id:
        id_ = before.id + "+"
    return id_
