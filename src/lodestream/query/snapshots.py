"""The versions of the lake's tables, kept open: a query pins the newest in microseconds."""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.log import Snapshot, list_log, read_commit
from lodestream.lake.table import DeltaTable
from lodestream.model.table import LAYERS, TableName
from lodestream.ports.waiting import before_waiting

_KEPT = 64
_SURE_S = 1.0
"""For so long a version that was seen is taken to be there still: the table may have been made anew since."""
Pinned = tuple[DeltaTable, Snapshot]


class Snapshots:
    """The tables of one lake; safe from any thread.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
    """

    def __init__(self, disk: Disk, lake: str) -> None:
        self.disk, self.lake = disk, lake
        self._lock = threading.Lock()
        self._tables: dict[TableName, tuple[DeltaTable, float]] = {}
        self._old: OrderedDict[tuple[TableName, str, int], Snapshot] = OrderedDict()

    def tables(self) -> list[TableName]:
        """All tables of the lake, quarantines included, by layer and name."""
        before_waiting()
        return [
            TableName(layer, name)
            for layer in LAYERS
            for name in sorted(self.disk.list(os.path.join(self.lake, layer)))
            if name.isidentifier() and self.disk.exists(os.path.join(self.lake, layer, name, "_delta_log"))
        ]

    def pin(
        self, name: TableName, version: int | None = None, known: Callable[[], Iterable[TableName]] | None = None
    ) -> Pinned:
        """A table and one version of it, the newest for None.

        Args:
            name: the table.
            version: of the table.
            known: the names that the caller may be told of when there is no such table; all for None.

        Raises:
            ConfigError: there is no such table or version.
            CorruptionError: its log is damaged.
        """
        if version is not None and version < 0:
            raise ConfigError("no such version", table=str(name), version=version)
        table, looked = self._held(name)
        if version is not None and table is not None and time.monotonic() - looked < _SURE_S:
            snapshot = table.snapshot
            if snapshot.version == version:
                return table, snapshot
        table = self._newest(name)
        if table is None:
            raise no_such_table(name, (known or self.tables)())
        snapshot = table.snapshot
        if version is None or version == snapshot.version:
            return table, snapshot
        before_waiting()
        key = (name, snapshot.metadata.id, version)
        with self._lock:
            found = self._old.get(key)
        if found is None:
            found = table.snapshot_at(version)
            with self._lock:
                self._old[key] = found
                while len(self._old) > _KEPT:
                    self._old.popitem(last=False)
        return table, found

    def version_at(self, name: TableName, time_us: int) -> int:
        """The newest version that was there at a time, microseconds since 1970 UTC.

        Raises:
            ConfigError: there is no such table, or it was made later than that, or its log is gone.
        """
        before_waiting()
        table, _ = self.pin(name)
        for version in sorted(list_log(self.disk, table.path).commits, reverse=True):
            try:
                commit = read_commit(self.disk, table.path, version)
            except FileNotFoundError:
                break
            if commit.timestamp_ms * 1000 <= time_us:
                return version
        raise ConfigError("there was no version of the table at that time, or its log is gone", table=str(name))

    def _held(self, name: TableName) -> tuple[DeltaTable | None, float]:
        """A table that is kept open, and when it was looked at."""
        with self._lock:
            return self._tables.get(name, (None, 0.0))

    def _newest(self, name: TableName) -> DeltaTable | None:
        table, _ = self._held(name)
        if table is not None:
            if self.disk.atomic:  # looking is asking over a network
                before_waiting()
            try:
                table.refresh()
            except CorruptionError:  # made anew under its name, or really damaged: opening it tells
                with self._lock:
                    self._tables.pop(name, None)
                table = None
        if table is None:
            before_waiting()
            table = DeltaTable.follow(self.disk, table_path(self.lake, name))
        if table is not None:
            with self._lock:
                self._tables[name] = table, time.monotonic()
        return table


def no_such_table(name: TableName, known: Iterable[TableName]) -> ConfigError:
    """The error for a table that is not there, or not for this caller, which is the same to them."""
    names = [str(table) for table in known]
    near = difflib.get_close_matches(str(name), names, 1)
    fix = "`lodestream run` makes the declared tables" if not names else None
    return ConfigError("no such table in the lake", table=str(name), nearest=near[0] if near else None, fix=fix)
