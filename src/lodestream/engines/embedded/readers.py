"""Handles of tables that are read again and again: to open one is to read its log, later only what is new of it."""

from __future__ import annotations

from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName


class Readers:
    """Tables that a flow reads beside its stream; each is opened once and refreshed after that."""

    def __init__(self, disk: Disk, lake: str) -> None:
        self._disk, self._lake = disk, lake
        self._tables: dict[TableName, DeltaTable] = {}

    def open(self, name: TableName) -> DeltaTable | None:
        """The table as it was last seen, or None while there is none."""
        if name not in self._tables:
            table = DeltaTable.follow(self._disk, table_path(self._lake, name))
            if table is None:
                return None
            self._tables[name] = table
        return self._tables[name]
