"""Which damaged tables can be filled again from their input without losing a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from lodestream.errors import LodestreamError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import app_id, epoch_of, present_app_id, table_path
from lodestream.lake.retention import retention_id
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.table import TableName
from lodestream.operations.lake_files import LakeFiles
from lodestream.operations.positions import consumed_ranges, last_batch
from lodestream.operations.reconcile import Check

if TYPE_CHECKING:
    from lodestream.ports.plugins import Resolve


def refusals(
    names: Collection[TableName], flows: Mapping[TableName, FlowPlan], *, root: str, disk: Disk, files: LakeFiles,
    resolve: Resolve,
) -> dict[TableName, str]:  # fmt: skip
    """Why damaged tables cannot be filled again, by table; one that is not among the keys can.

    A table can when its source still holds every record that it has taken in, or the tables that it reads are whole, or
    can be filled again themselves, and have let no row go.

    Args:
        names: the damaged tables.
        flows: all flows, inputs before their readers.
        root: project folder, which source paths are relative to.
        disk: the lake's disk.
        files: the lake, for who reads it without the engine.
        resolve: puts values in the place of references in a source's settings.
    """
    found: dict[TableName, str] = {name: "nobody declares it" for name in names if name not in flows}
    for name, plan in flows.items():
        if name not in names:
            continue
        try:
            why = _refusal(plan, found, disk, files.lake) or "; ".join(_input_lost(root, files, plan, resolve))
        except LodestreamError as error:
            why = str(error)
        if why:
            found[name] = why
    return found


def _refusal(plan: FlowPlan, refused: Mapping[TableName, str], disk: Disk, lake: str) -> str:
    for above in (*plan.streams, *plan.waits_for):
        if above in refused:
            return f"{above} cannot be filled again"
        table = DeltaTable.open(disk, table_path(lake, above))
        if table is None:
            return f"{above} is gone"
        application = present_app_id(above, table.snapshot.metadata.configuration)
        if above in plan.streams and table.snapshot.txns.get(retention_id(application)):
            return f"{above} has let rows go by its retention"
    return ""


def _input_lost(root: str, files: LakeFiles, plan: FlowPlan, resolve: Resolve) -> list[str]:
    """What a table's source no longer holds of all that the table has taken in; empty when it holds everything.

    A table that reads other tables has no source of its own.
    """
    first, check = plan.steps[0], Check(root, files, plan, resolve)
    table = files.table(table_path(files.lake, plan.table.name))
    if not isinstance(first, ReadSource) or table is None:
        return []
    epoch = epoch_of(table.metadata().configuration)
    batch = last_batch(table, app_id(plan.table.name, epoch))
    check.source_positions(first, consumed_ranges(files, plan.table.name, epoch, batch))
    return [*check.report.problems, *(f"{unit}: positions {start} to {end}" for unit, start, end in check.vanished)]
