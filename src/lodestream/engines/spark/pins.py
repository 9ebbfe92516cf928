"""Which version of each looked-up table a batch is to see."""

from __future__ import annotations

from collections.abc import Iterable

from lodestream.errors import ConfigError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName


def pins_of(looked_up: Iterable[TableName], disk: Disk, lake: str) -> dict[str, int]:
    """The present versions of the tables that a flow looks up. Raises ConfigError when there is none yet."""
    return {str(name): opened(disk, lake, name).snapshot.version for name in looked_up}


def opened(disk: Disk, lake: str, name: TableName) -> DeltaTable:
    """A table that is looked up. Raises ConfigError when there is none yet."""
    table = DeltaTable.open(disk, table_path(lake, name))
    if table is None:
        raise ConfigError("lookup table does not exist yet; run it first", table=str(name))
    return table
