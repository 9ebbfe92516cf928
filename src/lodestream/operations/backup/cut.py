"""One moment of a lake whose tables go on: a version of each, chosen so that whatever was made of a row has that row.

Readers come first. When a table's version is looked at after those of all its readers, it holds every version that they
had taken in, for a log only grows. What a flow keeps beside its table follows from the table: its last commit names the
batch and the state, plans up to that batch stand in front of it, and its quarantine, looked at later, is taken at the
last version that is not of a later batch. Of the same kind are a sink (a reader of its table), the answers of a flow
(more of them than the batch counted do no harm) and the log of pushed events (read by bronze, so looked at last).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.ledger import ledger_path
from lodestream.engines.embedded.sink_memory import known_sinks
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.takeover import is_spark
from lodestream.errors import ConflictError, CorruptionError
from lodestream.lake.disk import Disk
from lodestream.lake.erasures import Erasure, erasures
from lodestream.lake.layout import (
    QUARANTINE_SUFFIX,
    app_id,
    epoch_of,
    erased_by,
    flow_folder,
    quarantine_name,
    table_path,
)
from lodestream.lake.log import Snapshot, load, log_folder
from lodestream.lake.pins import Pin
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.model.table import LAYERS, TableName

Flows = Mapping[TableName, FlowPlan]
_TRIES = 20


@dataclass(frozen=True, slots=True)
class FlowCut:
    """What a flow was.

    Attributes:
        name: its table.
        epoch: rebuild generation.
        batch: the last one that is committed, 0 for none.
        state: names of the links of its state, the base first; none when Spark made the last batch.
        upto, joined_upto: versions of its streams that it had taken in, -1 for none.
        pins: versions of other tables that its last batch read.
        erasure: the last erasure that went through its table.
        spark: whether Spark made the last batch.
    """

    name: TableName
    epoch: int
    batch: int
    state: tuple[str, ...] = ()
    upto: int = -1
    joined_upto: int = -1
    pins: Mapping[str, int] = field(default_factory=dict)
    erasure: str = ""
    spark: bool = False


@dataclass(frozen=True, slots=True)
class TableCut:
    """What a table was.

    Attributes:
        path: below the lake.
        id: Delta id.
        version: of its log.
        hot: its files of open windows, as in the log.
        flow: whose table it is; None for a quarantine, answers, or a table that nobody declares.
        unread: the first version whose added files a reader has still to read.
        pinned: earlier versions that are read again.
        needed: files of open windows that sinks compare with, as in the log.
    """

    path: str
    id: str
    version: int
    hot: tuple[str, ...] = ()
    flow: FlowCut | None = None
    unread: int = 0
    pinned: frozenset[int] = frozenset()
    needed: frozenset[str] = frozenset()

    def told(self) -> dict[str, Any]:
        """As a point says it."""
        found: dict[str, Any] = {"path": self.path, "id": self.id, "version": self.version}
        if self.flow is not None:
            state = self.flow.state[-1] if self.flow.state else None
            found |= {"flow": str(self.flow.name), "epoch": self.flow.epoch, "batch": self.flow.batch, "state": state}
        return found


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment of a lake.

    Attributes:
        tables: inputs first, each table behind its quarantine.
        sinks: files that sinks keep, by path below the lake.
        erasures: what had been erased, the oldest first.
    """

    tables: tuple[TableCut, ...]
    sinks: Mapping[str, bytes]
    erasures: tuple[Erasure, ...]

    @property
    def spark(self) -> list[str]:
        """The tables that Spark fills."""
        return [str(table.flow.name) for table in self.tables if table.flow is not None and table.flow.spark]

    def pin(self, id_: str, until_us: int) -> Pin:
        """What upkeep has to leave while the cut is copied."""
        versions, hot, states = {}, {}, {}
        for table in self.tables:
            layer, _, name = table.path.partition(os.sep)
            versions[f"{layer}.{name}"] = table.version
            hot[f"{layer}.{name}"] = [*table.hot, *table.needed]
            if table.flow is not None:
                states[str(table.flow.name)] = list(table.flow.state)
        return Pin(id_, until_us, versions, hot, states)


Links = dict[str, str | None]
"""The link before each link of a state that was looked at already; links never change."""


def take(disk: Disk, lake: str, flows: Flows, links: Links | None = None) -> Cut:
    """A moment of the lake, as near to now as can be; nothing is written.

    Args:
        disk: the lake's disk.
        lake: its root.
        flows: the project's flows, inputs first.
        links: remembered for the next call.

    Raises:
        ConflictError: the lake changes faster than it can be looked at, or is being erased from.
        CorruptionError: a table is damaged.
    """
    for _ in range(_TRIES):
        before = tuple(erasures(disk, lake))
        try:
            found = _take(disk, lake, flows, before, {} if links is None else links)
        except _MovedError:
            continue
        if tuple(erasures(disk, lake)) == before:
            return found
    raise ConflictError("lake changes faster than it can be looked at", lake=lake)


class _MovedError(Exception):
    """What was looked at has gone on and taken something with it."""


def _take(disk: Disk, lake: str, flows: Flows, erased: tuple[Erasure, ...], links: Links) -> Cut:
    sinks = {path: data for name in flows for path, data in _sink_files(disk, lake, name)}
    stand = list(table_folders(disk, lake))
    undeclared = [name for name in stand if name not in flows and not name.name.endswith(QUARANTINE_SUFFIX)]
    cuts: dict[TableName, list[TableCut]] = {}
    for name in [*undeclared, *reversed(list(flows))]:
        cuts[name] = _flow(disk, lake, name, flows.get(name), links)
    ordered = [table for name in [*flows, *undeclared] for table in cuts[name]]
    read = [table.flow for table in ordered if table.flow is not None]
    tables = tuple(_with_readers(disk, lake, table, read, flows) for table in ordered)
    _check(tables, flows)
    return Cut(tables, sinks, erased)


def table_folders(disk: Disk, lake: str) -> Iterator[TableName]:
    """The tables that have a log in the lake, quarantines among them, without opening them."""
    for layer in LAYERS:
        for folder in sorted(disk.list(os.path.join(lake, layer))):
            if disk.list(log_folder(os.path.join(lake, layer, folder))):
                yield TableName(layer, folder)


def _sink_files(disk: Disk, lake: str, name: TableName) -> Iterator[tuple[str, bytes]]:
    folder = os.path.join(flow_folder("", name), "sinks")
    for file in sorted(disk.list(os.path.join(lake, folder))):
        if file.endswith(".json"):
            path = os.path.join(folder, file)
            yield path, disk.read(os.path.join(lake, path))


def _flow(disk: Disk, lake: str, name: TableName, plan: FlowPlan | None, links: Links) -> list[TableCut]:
    """A table, then its quarantine and its answers, which are looked at later; they come first in what is given."""
    table = DeltaTable.open(disk, table_path(lake, name))
    if table is None:
        return []
    flow = _flow_cut(disk, lake, name, table, links)
    found = [TableCut(table_path("", name), *_seen(table.snapshot), flow=flow)]
    aside = DeltaTable.open(disk, table_path(lake, quarantine_name(name)))
    if aside is not None:
        found.insert(0, TableCut(table_path("", quarantine_name(name)), *_seen(_upto(aside, name, flow))))
    answers = DeltaTable.open(disk, ledger_path(lake, name)) if plan is not None else None
    if answers is not None:
        found.insert(0, TableCut(ledger_path("", name), *_seen(answers.snapshot)))
    return found


def _seen(snapshot: Snapshot) -> tuple[str, int, tuple[str, ...]]:
    return snapshot.metadata.id, snapshot.version, tuple(sorted(snapshot.hot))


def _flow_cut(disk: Disk, lake: str, name: TableName, table: DeltaTable, links: Links) -> FlowCut:
    configuration = table.snapshot.metadata.configuration
    epoch = epoch_of(configuration)
    erasure, _ = erased_by(configuration)
    commit = last_commit(table, app_id(name, epoch))
    if commit is None:
        return FlowCut(name, epoch, 0, erasure=erasure)
    info, batch = commit.info, commit.txns[app_id(name, epoch)]
    read = int(info.get("upto", -1)), int(info.get("joined_upto", -1)), dict(info.get("pins") or {})
    if is_spark(commit):
        return FlowCut(name, epoch, batch, (), *read, erasure, spark=True)
    try:
        state = _chain(FlowStore(disk, lake, name, epoch), info["state"], links)
    except CorruptionError:
        table.refresh()
        newest = last_commit(table, app_id(name, epoch))
        if newest is None or newest.txns[app_id(name, epoch)] > batch:
            raise _MovedError from None  # a new base was made, and the links before it are gone
        raise
    return FlowCut(name, epoch, batch, state, *read, erasure)


def _chain(store: FlowStore, named: str, links: Links) -> tuple[str, ...]:
    """Names of the links of a state, the base first. Raises CorruptionError when one is missing or damaged."""
    found: list[str] = []
    wanted: str | None = named
    while wanted is not None:
        found.append(wanted)
        if wanted not in links:
            links[wanted] = store.link(wanted).previous
        wanted = links[wanted]
    return tuple(reversed(found))


def _upto(aside: DeltaTable, name: TableName, flow: FlowCut) -> Snapshot:
    """The quarantine as the flow's last batch left it: without rows of a batch whose commit is still to come."""
    found = aside.snapshot
    while _later(found, name, flow):
        earlier = load(aside.disk, aside.path, found.version - 1) if found.version else None
        if earlier is None:
            raise _MovedError
        found = earlier
    return found


def _later(found: Snapshot, name: TableName, flow: FlowCut) -> bool:
    if epoch_of(found.metadata.configuration) > flow.epoch:
        return True
    return found.txns.get(app_id(name, flow.epoch), 0) > flow.batch


def _with_readers(disk: Disk, lake: str, table: TableCut, read: list[FlowCut], flows: Flows) -> TableCut:
    """The table with what its readers still need of earlier versions."""
    if table.flow is None:
        return table
    unread, pinned = table.version + 1, set[int]()
    name = table.flow.name
    for reader in read:
        plan = flows.get(reader.name)
        if plan is None:
            continue
        pinned.add(reader.pins.get(str(name), -1))
        if plan.upstream == name:
            unread = min(unread, reader.upto + 1)
            pinned.add(reader.upto)
        if plan.join is not None and plan.join.join.table == name:
            unread = min(unread, reader.joined_upto + 1)
            pinned.add(reader.joined_upto)
    needed: set[str] = set()
    for kept in known_sinks(disk, lake, name).values():
        unread = min(unread, kept.position.version + 1)
        pinned |= {kept.position.version, kept.position.upto, kept.upto}
        needed |= {*kept.hot, *kept.hot_upto}
    earlier = frozenset(version for version in pinned if 0 <= version < table.version)
    return TableCut(
        table.path, table.id, table.version, table.hot, table.flow, unread, earlier, frozenset(needed)
    )  # fmt: skip


def _check(tables: tuple[TableCut, ...], flows: Flows) -> None:
    """Look once more that no reader is ahead: the order of looking says so, but a mistake would be a silent one."""
    versions = {table.flow.name: table.version for table in tables if table.flow is not None}
    for table in tables:
        plan = flows.get(table.flow.name) if table.flow is not None else None
        if plan is None or table.flow is None:
            continue
        reads = {plan.upstream: table.flow.upto}
        if plan.join is not None:
            reads[plan.join.join.table] = table.flow.joined_upto
        for above, upto in [*reads.items(), *((TableName.parse(n), v) for n, v in table.flow.pins.items())]:
            if above is not None and upto > versions.get(above, -1):
                raise _MovedError
