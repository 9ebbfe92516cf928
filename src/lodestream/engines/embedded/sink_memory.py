"""What a lake remembers of a sink: how far it is, what it is about to publish, and which files it still needs.

The position that counts is the one that the service keeps with the messages. This file answers when the service keeps
none or has forgotten it, tells others how far the sink is, and keeps upkeep from deleting what the sink still needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from urllib.parse import quote, unquote

from lodestream.engines.embedded.locks import try_lock
from lodestream.errors import CorruptionError
from lodestream.lake.disk import Disk, replace_durable
from lodestream.lake.layout import flow_folder
from lodestream.model.steps import Publish
from lodestream.model.table import SinkName, TableName
from lodestream.ports.sink import SinkPosition


@dataclass(frozen=True, slots=True)
class Remembered:
    """One sink, as its file has it.

    Attributes:
        identity: the sink's; a file of another identity says nothing about this one.
        place: the target's identity, None where it has none.
        position: the last one known to be published.
        hot: files of open windows that were live at that version.
        upto: last version of a range that is, or may be, under way; equal to the position's when none is.
        hot_upto: files of open windows that were live at `upto`.
        since_us: when that range was begun, microseconds since 1970.
        messages: how many were published by this identity, as far as is known.
    """

    identity: str
    place: str | None
    position: SinkPosition
    hot: tuple[str, ...] = ()
    upto: int = -1
    hot_upto: tuple[str, ...] = ()
    since_us: int = 0
    messages: int = 0

    @property
    def under_way(self) -> bool:
        """Whether a range was begun that is not known to be published."""
        return self.upto > self.position.version

    def begun(self, upto: int, hot: Iterable[str], clock_us: int) -> Remembered:
        """The same, about to publish up to a version."""
        return replace(self, upto=upto, hot_upto=tuple(hot), since_us=clock_us)

    def done(self, position: SinkPosition, messages: int) -> Remembered:
        """The same, with a range published to its end."""
        return replace(
            self, position=position, hot=self.hot_upto, upto=position.version, messages=self.messages + messages
        )


class SinkMemory:
    """The file of one sink, and the lock that one process of this machine holds while it publishes.

    Args:
        disk: the seam for every effect.
        lake: root folder of the lake.
        name: the sink.
    """

    def __init__(self, disk: Disk, lake: str, name: SinkName) -> None:
        self._disk = disk
        stem = os.path.join(flow_folder(lake, name.table), "sinks", quote(name.sink, safe=""))
        self._path, self._lock_path = f"{stem}.json", f"{disk.beside(stem)}.lock"
        self._lock: int | None = None

    def read(self) -> Remembered | None:
        """What was written last; None when nothing was.

        Raises:
            CorruptionError: the file is not as it was written.
        """
        if not self._disk.exists(self._path):
            return None
        try:
            told = json.loads(self._disk.read(self._path))
            position = SinkPosition(**told.pop("position"))
            hot, hot_upto = tuple(told.pop("hot")), tuple(told.pop("hot_upto"))
            return Remembered(position=position, hot=hot, hot_upto=hot_upto, **told)
        except (ValueError, KeyError, TypeError) as error:
            fix = "delete it: the position kept with the messages is enough, where there is one"
            raise CorruptionError("memory of a sink cannot be read", path=self._path, fix=fix) from error

    def write(self, remembered: Remembered) -> None:
        """Replace what was written, durably."""
        replace_durable(self._disk, self._path, json.dumps(asdict(remembered), sort_keys=True).encode())

    def lock(self) -> bool:
        """Whether no other process of this machine publishes this sink; from then on we do."""
        if self._lock is not None:
            return True
        os.makedirs(os.path.dirname(self._lock_path), exist_ok=True)
        self._lock = try_lock(self._lock_path)
        return self._lock is not None

    def unlock(self) -> None:
        """Let others publish; twice is harmless."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def known_sinks(disk: Disk, lake: str, table: TableName) -> dict[SinkName, Remembered]:
    """Every sink of a table that ever began, also those that are no longer declared, by name."""
    found = {}
    for file in sorted(disk.list(os.path.join(flow_folder(lake, table), "sinks"))):
        if file.endswith(".json"):
            name = SinkName(table, unquote(file.removesuffix(".json")))
            if (remembered := SinkMemory(disk, lake, name).read()) is not None:
                found[name] = remembered
    return found


def needed(disk: Disk, lake: str, sinks: Iterable[Publish]) -> tuple[int | None, frozenset[str]]:
    """What a table's sinks still need: the first version, None for any, and files of open windows by path."""
    first: int | None = None
    hot: set[str] = set()
    for sink in sinks:
        remembered = SinkMemory(disk, lake, sink.name).read()
        if remembered is not None:
            version = remembered.position.version + 1
            first = version if first is None else min(first, version)
            hot.update(remembered.hot, remembered.hot_upto)
    return first, frozenset(hot)
