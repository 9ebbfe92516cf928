"""Brings the lake's tables in line with the declarations: creates, alters and, when accepted, rebuilds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lodestream.engines.embedded.rebuild import begin_epoch, table_properties
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import EPOCH_PROPERTY, epoch_of, table_path
from lodestream.lake.opening import check_put_if_absent
from lodestream.lake.standing import refuse_written
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.planning.diff import Change, Deployed, accept_hash
from lodestream.runtime.deployed import deployed_as
from lodestream.runtime.evolving import evolve_table

TRIES = 5
"""How often to look again at what has to change, when processes that start side by side change the same tables."""


def check_lake(disk: Disk, lake: str) -> None:
    """Raise ConfigError for a lake that is not to be written, or is in a store in which commits could be lost."""
    refuse_written(disk, lake)
    if disk.atomic:
        check_put_if_absent(disk, lake)


def accepted(changes: list[Change], accept: str | None) -> list[Change]:
    """The same changes. Raises ConfigError for those that must be accepted, where `accept` is not their hash."""
    grave = [change for change in changes if change.must_be_accepted]
    if grave and accept != (wanted := accept_hash(changes)):
        what = "must be rebuilt" if any(one.kind == "rebuild" for one in grave) else "lose columns"
        raise ConfigError(
            f"tables {what}; look at `lodestream plan`, then `lodestream run --accept {wanted}`",
            tables=", ".join(str(change.table) for change in grave),
        )
    return changes


def apply_changes(
    changes: Sequence[Change], flows: Mapping[TableName, FlowPlan], seen: Mapping[TableName, Deployed], *, lake: str,
    disk: Disk, clock_us: int,
) -> None:  # fmt: skip
    """Carry out every change but drops, which only a person makes; `check_lake` comes first.

    Args:
        changes: what to do.
        flows: what tables are to be.
        seen: what they were when the changes were found.
        lake: root of the lake.
        disk: its disk.
        clock_us: commit time.

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
        if not _is_as_seen(table, seen.get(change.table)):
            raise _changed(change)
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
                raise _changed(change) from None


def _is_as_seen(table: DeltaTable | None, seen: Deployed | None) -> bool:
    """Whether a table is still made by the same definition; rows may have come."""
    if table is None or seen is None:
        return table is None and seen is None
    return deployed_as(table) == replace(seen, version=table.snapshot.version)


def _changed(change: Change) -> ConflictError:
    return ConflictError("table changed meanwhile; plan again", table=str(change.table))
