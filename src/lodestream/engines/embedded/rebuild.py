"""Starting a table anew: a new epoch, with the old content removed in the same commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lodestream.lake.actions import RemoveFile
from lodestream.lake.layout import EPOCH_PROPERTY
from lodestream.lake.maintenance import RETENTION_PROPERTY
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import Aggregation, ApplyChanges, FlowPlan
from lodestream.model.types import Schema

REBUILD = "REBUILD"
"""Operation of the commit that begins an epoch."""


def table_properties(plan: FlowPlan) -> dict[str, str]:
    """Delta table properties that say what a flow's table was made by, and how long its removed files are kept.

    A table of windows swaps its hot file every batch, and one of changes the files whose rows change. Those are deleted
    soon, and time travel does not reach back to them.
    """
    properties = {"lodestream.hash": plan.definition, "lodestream.definition": plan.declaration}
    if any(isinstance(step, Aggregation | ApplyChanges) for step in plan.steps):
        return properties | {RETENTION_PROPERTY: "interval 10 minutes"}
    return properties | quarantine_properties(plan)


def quarantine_properties(plan: FlowPlan) -> dict[str, str]:
    """Those of its quarantine."""
    return {RETENTION_PROPERTY: f"interval {plan.table.maintenance.deleted_file_retention_us // 1_000_000} seconds"}


def begin_epoch(
    table: DeltaTable,
    epoch: int,
    *,
    clock_us: int,
    schema: Schema | None = None,
    partition_columns: tuple[str, ...] | None = None,
    configuration: Mapping[str, str] | None = None,
) -> int:
    """Empty the table and let its flow begin again as `epoch`; earlier versions stay readable by time travel.

    Args:
        table: the table as it is now.
        epoch: the new generation, one more than the present one.
        clock_us: commit time.
        schema: the new schema, if it changes.
        partition_columns: the new partition columns, if they change.
        configuration: table properties to set beside the epoch.

    Returns:
        The version of the commit.

    Raises:
        ConflictError: somebody else wrote meanwhile.
    """
    old = table.snapshot.metadata
    metadata = replace(
        old,
        schema=schema or old.schema,
        partition_columns=old.partition_columns if partition_columns is None else partition_columns,
        configuration={**old.configuration, **(configuration or {}), EPOCH_PROPERTY: str(epoch)},
    )
    return table.commit(
        removes=[RemoveFile.of(add) for add in table.files()],
        txn=None,
        info={"epoch": epoch},
        metadata=metadata,
        clock_us=clock_us,
        operation=REBUILD,
        blind=False,
    )
