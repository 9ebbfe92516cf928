"""Brings the lake's tables in line with the declarations: creates, alters and, when accepted, rebuilds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lodestream.engines.embedded.rebuild import begin_epoch, table_properties
from lodestream.errors import ConflictError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import EPOCH_PROPERTY, epoch_of, table_path
from lodestream.lake.opening import check_put_if_absent
from lodestream.lake.standing import refuse_written
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.planning.diff import Change
from lodestream.runtime.evolving import evolve_table


def check_lake(disk: Disk, lake: str) -> None:
    """Raise ConfigError for a lake that is not to be written, or is in a store in which commits could be lost."""
    refuse_written(disk, lake)
    if disk.atomic:
        check_put_if_absent(disk, lake)


def apply_changes(
    changes: Sequence[Change], flows: Mapping[TableName, FlowPlan], *, lake: str, disk: Disk, clock_us: int
) -> None:
    """Carry out every change but drops, which only a person makes; `check_lake` comes first.

    Raises:
        ConflictError: a table was changed meanwhile; plan again.
    """
    for change in changes:
        plan = flows.get(change.table)
        if plan is None or change.kind == "drop":
            continue
        path = table_path(lake, change.table)
        table = DeltaTable.open(disk, path)
        configuration = table_properties(plan)
        if table is None:
            DeltaTable.create(
                disk, path, plan.schema, partition_columns=plan.partition_columns,
                configuration={**configuration, EPOCH_PROPERTY: "1"}, table_id=str(uuid.uuid4()), clock_us=clock_us,
            )  # fmt: skip
        elif change.evolution is not None:
            evolve_table(table, plan, change.evolution, configuration, clock_us=clock_us)
        elif change.kind in ("rebuild", "refresh"):
            epoch = epoch_of(table.snapshot.metadata.configuration)
            begin_epoch(
                table, epoch + 1, clock_us=clock_us, schema=plan.schema,
                partition_columns=plan.partition_columns, configuration=configuration,
            )  # fmt: skip
        else:
            old = table.snapshot.metadata
            metadata = replace(old, schema=plan.schema, configuration={**old.configuration, **configuration})
            try:
                table.commit(
                    txn=None, info={}, metadata=metadata, clock_us=clock_us, operation="ALTER", blind=False
                )  # fmt: skip
            except ConflictError:
                raise ConflictError("table changed meanwhile; plan again", table=str(change.table)) from None
