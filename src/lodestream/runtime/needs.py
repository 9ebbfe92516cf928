"""What the readers and the writer of a table still need of its earlier versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.embedded.sink_memory import known_sinks
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.lake.disk import Disk
from lodestream.lake.layout import epoch_of, present_app_id, table_path
from lodestream.lake.pins import pins
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName

Flows = Mapping[TableName, FlowPlan]


def recovered_from(table: DeltaTable, owner: TableName) -> int:
    """The version that the table's own flow looks at when it begins again."""
    own = flow_commit(table, owner)
    return own.version if own else table.snapshot.version


def streamed_from(around: Surroundings, flows: Flows, name: TableName, table: DeltaTable) -> int:
    """The first version that a stream still has to read; the one after the newest when they have read all."""
    needed = [table.snapshot.version + 1]
    for reader, plan in flows.items():
        if plan.upstream == name:
            needed.append(_read_upto(around, reader, "upto") + 1)
        if plan.join is not None and plan.join.join.table == name:
            needed.append(_read_upto(around, reader, "joined_upto") + 1)
    return min(needed)


def needed_files(around: Surroundings, flows: Flows, name: TableName, table: DeltaTable, first: int) -> set[str]:
    """Files, relative to the table, that are not live any more and that somebody is still going to read.

    Those that joined from version `first` on, those of every version that a flow's last or pending batch pins, those
    of a version that a sink is publishing, and those of one that is being copied.
    """
    found: set[str] = set()
    try:
        for commit in table.commits(first - 1, table.snapshot.version):
            found.update(add.file for add in commit.adds)
    except DataLossRefused:
        pass  # the log no longer tells; who is so far behind reads what is live
    for version in {v for v in _pinned(around, flows, name) if 0 <= v < table.snapshot.version}:
        try:
            found.update(add.file for add in table.read_version(version))
        except (DataLossRefused, CorruptionError):
            continue  # no longer kept: the reader goes on with the newest one
    return found


def committed_batch(table: DeltaTable, owner: TableName) -> int:
    """The last batch of the table's flow in the present epoch that is committed, 0 for none."""
    return table.snapshot.txns.get(present_app_id(owner, table.snapshot.metadata.configuration), 0)


def _pinned(around: Surroundings, flows: Flows, name: TableName) -> Iterator[int]:
    disk, lake = around.disk, around.lake
    for reader, plan in flows.items():
        reads = {*plan.streams, *plan.waits_for}
        if name in reads:
            yield from _pins_of(disk, lake, reader, plan, name)
    for remembered in known_sinks(disk, lake, name).values():
        yield from (remembered.position.version, remembered.position.upto, remembered.upto)
    yield from copied_versions(around, name)


def copied_versions(around: Surroundings, name: TableName) -> list[int]:
    """Versions of a table that are being copied to another place."""
    standing = pins(around.disk, around.lake, around.clock())
    return [pin.versions[str(name)] for pin in standing if str(name) in pin.versions]


def _pins_of(disk: Disk, lake: str, reader: TableName, plan: FlowPlan, name: TableName) -> Iterator[int]:
    table = DeltaTable.open(disk, table_path(lake, reader))
    if table is None:
        return
    commit = flow_commit(table, reader)
    # A replay and `reconcile` read the input again as the last batch left it.
    told: list[Mapping[str, Any]] = [commit.info] if commit else []
    epoch = epoch_of(table.snapshot.metadata.configuration)
    pending = FlowStore(disk, lake, reader, epoch).plan(committed_batch(table, reader) + 1)
    if pending is not None:
        told.append({"pins": pending.pins, "upto": pending.upto, "joined_upto": pending.joined_upto})
    for info in told:
        yield int((info.get("pins") or {}).get(str(name), -1))
        if plan.upstream == name:
            yield int(info.get("upto", -1))
        if plan.join is not None and plan.join.join.table == name:
            yield int(info.get("joined_upto", -1))


def _read_upto(around: Surroundings, reader: TableName, which: str) -> int:
    table = DeltaTable.open(around.disk, table_path(around.lake, reader))
    if table is None:
        return -1
    commit = flow_commit(table, reader)
    return int(commit.info.get(which, -1)) if commit else -1
