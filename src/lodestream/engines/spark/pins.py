"""Which version of each looked-up table a batch is to see."""

from __future__ import annotations

from collections.abc import Iterable

from lodestream.engines.embedded.readers import Readers
from lodestream.errors import ConfigError
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName


def pins_of(looked_up: Iterable[TableName], readers: Readers) -> dict[str, int]:
    """The present versions of the tables that a flow looks up. Raises ConfigError when there is none yet."""
    return {str(name): opened(name, readers).refresh().version for name in looked_up}


def opened(name: TableName, readers: Readers) -> DeltaTable:
    """A table that is looked up. Raises ConfigError when there is none yet."""
    table = readers.open(name)
    if table is None:
        raise ConfigError("lookup table does not exist yet; run it first", table=str(name))
    return table
