"""The declared tables that stand in a lake."""

from __future__ import annotations

import os

from lodestream.errors import CorruptionError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import QUARANTINE_SUFFIX, epoch_of, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import LAYERS, TableName
from lodestream.planning.diff import Deployed


def deployed(disk: Disk, lake: str, *, lenient: bool = False) -> dict[TableName, Deployed]:
    """The tables that stand in a lake, quarantines apart, with the definition that made them.

    Args:
        disk: the lake's disk.
        lake: its root folder.
        lenient: whether a damaged table is left out.

    Raises:
        CorruptionError: one is damaged.
    """
    found = {}
    for layer in LAYERS:
        for folder in disk.list(os.path.join(lake, layer)):
            if folder.endswith(QUARANTINE_SUFFIX) or not folder.isidentifier():
                continue
            name = TableName(layer, folder)
            try:
                table = DeltaTable.open(disk, table_path(lake, name))
            except CorruptionError:
                if not lenient:
                    raise
                continue
            if table is not None:
                found[name] = deployed_as(table)
    return found


def deployed_as(table: DeltaTable) -> Deployed:
    """What a table is made by, as it was read."""
    configuration = table.snapshot.metadata.configuration
    return Deployed(
        definition_json=configuration.get("lodestream.definition", "{}"),
        schema=table.snapshot.metadata.schema,
        hash=configuration.get("lodestream.hash", ""),
        epoch=epoch_of(configuration),
        version=table.snapshot.version,
    )
