"""Runs the flows of a project, all or some of them, until told to stop or until nothing is left to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from lodestream.drivers.registry import registries
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.handover import Handover
from lodestream.engines.embedded.publish import SinkFlow
from lodestream.engines.embedded.python_step import Functions
from lodestream.engines.embedded.shared import SharedFlow, is_shared
from lodestream.engines.embedded.spill import StateBudget
from lodestream.engines.embedded.surroundings import Committed, Notice, Surroundings, has_state, untold
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.disk import Disk, write_durable
from lodestream.lake.layout import caught_up_file, component_cache
from lodestream.model.batch import BatchLimit
from lodestream.model.steps import FlowPlan, Publish, ReadSource, RunQuery
from lodestream.model.table import FlowName, TableName
from lodestream.model.types import Schema
from lodestream.ports.plugins import Resolve, make_enricher, make_sink, make_source
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.sink import Publishing, Sink
from lodestream.ports.source import Reading, Source
from lodestream.runtime.maintain import Maintenance, Upkeep
from lodestream.runtime.memory import keep_freed_memory
from lodestream.runtime.notes import FailureNotes
from lodestream.runtime.schedule import is_due
from lodestream.runtime.supervise import Board, FlowStatus, Worker

_REFRESH_EVERY_US = 5_000_000
_PAUSE_S = 0.05
_T = TypeVar("_T")


class Pipeline:
    """The flows of one project over one lake.

    Args:
        root: project folder; sources and functions are found relative to it.
        flows: the compiled flows in an order in which inputs come first.
        lake: root folder of the lake.
        disk: seam for every effect.
        clock: microseconds since 1970 UTC.
        handover: whether flows of this process hand rows over in memory.
        limit: bound of one batch.
        poll_s: how often sources and other processes' tables are looked at.
        standby_s: how long a flow rests after another process ran its batch first.
        code: version of the software, written into commits.
        resolve: puts values in the place of references such as `${env:NAME}` in a component's settings.
        registry: opens a schema registry by the name it has in the project, or by URL.
        upkeep: how often logs are looked after, and what is kept of them.
        notice: told what a person should know of a table that is no error.
        state_bytes_max: how much state all flows may hold in memory; None for any amount.
    """

    def __init__(
        self,
        root: str,
        flows: Mapping[TableName, FlowPlan],
        *,
        lake: str,
        disk: Disk,
        clock: Callable[[], int],
        handover: bool = True,
        limit: BatchLimit | None = None,
        poll_s: float = 0.1,
        standby_s: float = 1.0,
        code: str = "",
        resolve: Resolve = lambda settings: settings,
        registry: Callable[[str], SchemaRegistry] | None = None,
        upkeep: Upkeep | None = None,
        notice: Notice = untold,
        state_bytes_max: int | None = None,
    ) -> None:
        stateful = sum(map(has_state, flows.values()))
        self.root = root
        self.flows = flows
        self.around = Surroundings(
            disk=disk,
            lake=lake,
            clock=clock,
            handover=Handover() if handover else None,
            limit=limit or BatchLimit(),
            functions=Functions(root),
            code=code,
            enricher=lambda component: make_enricher(component, self.resolve),
            notice=notice,
            budget=None if state_bytes_max is None else StateBudget(state_bytes_max, stateful),
        )
        self.resolve = resolve
        self._registry = registry or registries({}, component_cache(disk.beside(lake)))
        self.poll_s = poll_s
        self._standby_s = standby_s
        self._upkeep = upkeep or Upkeep()
        self._board = Board()
        self.workers: dict[FlowName, Worker] = {}

    @property
    def status(self) -> list[FlowStatus]:
        """One status per running flow and sink."""
        return [worker.status for worker in self.workers.values()]

    def flow(self, name: TableName) -> Flow:
        """A flow that is not running, to be opened and stepped by the caller."""
        self._require(name)
        plan = self.flows[name]
        kind = SharedFlow if is_shared(plan) else Flow
        return kind(plan, self.around, lambda schema, group, member: self._source(plan, schema, group, member))

    def beside(
        self, name: TableName, work: Callable[[Flow], _T], settled: Callable[[], bool] = lambda: False, *,
        tries: int = 20,
    ) -> _T | None:  # fmt: skip
        """Have a batch made by an opened flow beside whatever process runs it; again when that process was first.

        Args:
            name: the table.
            work: what is to be done; it begins anew each time.
            settled: asked when another process was first; True when nothing is left to do.
            tries: how often at most.

        Returns:
            What `work` gives; None when it was settled.

        Raises:
            ConflictError: another process was first again and again.
        """
        for left in reversed(range(tries)):
            flow = self.flow(name)
            try:
                flow.open()
                return work(flow)
            except ConflictError:
                if not left:
                    raise
                time.sleep(_PAUSE_S)
            finally:
                flow.close()
            if settled():
                return None
        raise AssertionError("unreachable")

    def sinks(self, tables: Iterable[TableName] | None = None) -> list[SinkFlow]:
        """The sinks of the tables, or of all, to be opened and stepped by the caller."""
        wanted = [sink for name in self._chosen(tables) for sink in self.flows[name].sinks]
        return [SinkFlow(sink, self.around, self._sink) for sink in wanted]

    def run_once(
        self, tables: Iterable[TableName] | None = None, publishing: Iterable[TableName] | None = None
    ) -> list[FlowStatus]:
        """At most one batch per flow, inputs first, then at most one piece per sink, on this thread.

        The sinks are those of `publishing`, or of `tables`.
        """
        statuses = []
        flows: list[Flow | SinkFlow] = [self.flow(name) for name in self._chosen(tables)]
        for flow in [*flows, *self.sinks(tables if publishing is None else publishing)]:
            status = FlowStatus(flow.name)
            try:
                flow.open()
                committed = flow.step()
                if committed is not None:
                    status.batches, status.batch, status.version = 1, committed.batch, committed.version
                    status.counts = dict(committed.counts)
                status.state = "stopped"
            finally:
                flow.close()
            statuses.append(status)
        return statuses

    def run(
        self,
        *,
        tables: Iterable[TableName] | None = None,
        publishing: Iterable[TableName] | None = None,
        until_idle: bool = False,
        listener: Callable[[FlowName, Committed], None] = lambda _name, _committed: None,
        on_error: Callable[[FlowStatus], None] = lambda _status: None,
    ) -> list[FlowStatus]:
        """Run flows and their sinks until `stop` is called or, with `until_idle`, until nothing is left to do.

        A flow or sink that fails ends alone; `on_error` hears of it at once, and of every error that is tried again.
        The sinks are those of `publishing`, or of `tables`.

        Raises:
            LodestreamError: what made a flow fail, once all flows have ended; the first in flow order.
        """
        keep_freed_memory()
        board = self._board = Board()
        chosen = list(self._chosen(tables))
        notes = FailureNotes(self.around, chosen, on_error)
        self.workers = {name: self._worker(name, chosen, board, listener, notes.told) for name in chosen}
        for sink in self.sinks(chosen if publishing is None else publishing):
            self.workers[sink.name] = self._publisher(sink, board, listener, on_error)
        maintenance = Maintenance(chosen, self.flows, self.around, self._upkeep)
        housekeeping = threading.Thread(target=maintenance.run, args=(board.stopping,), name="maintenance", daemon=True)
        for worker in self.workers.values():
            worker.thread.start()
        housekeeping.start()
        try:
            self._wait(board, until_idle=until_idle)
        finally:
            board.stop()
            for worker in self.workers.values():
                worker.thread.join()
            housekeeping.join()
        for worker in self.workers.values():
            if worker.status.state == "failed" and worker.status.error is not None:
                raise worker.status.error
        return self.status

    def stop(self) -> None:
        """End the run after the batches that are under way; safe from any thread or signal handler."""
        self._board.stopping.set()

    def _wait(self, board: Board, *, until_idle: bool) -> None:
        while not board.stopping.is_set():
            with board.changed:
                alive = any(worker.thread.is_alive() for worker in self.workers.values())
                news = dict(board.news)
                done = until_idle and all(board.idle.get(name, False) for name in self.workers)
            if done and self._settled(board, news):
                return
            if not alive:
                return
            with board.changed:
                board.changed.wait(self.poll_s)

    def _settled(self, board: Board, news: dict[FlowName, int]) -> bool:
        """Idle all round, and nothing was committed since: the flags were raised one after the other."""
        with board.changed:
            return board.news == news and all(board.idle.get(name, False) for name in self.workers)

    def _worker(
        self,
        name: TableName,
        chosen: list[TableName],
        board: Board,
        listener: Callable[[FlowName, Committed], None],
        on_error: Callable[[FlowStatus], None],
    ) -> Worker:
        plan = self.flows[name]
        reads = list(plan.streams)
        first = plan.steps[0]
        if isinstance(first, RunQuery):
            reads += first.inputs
        reads += plan.waits_for
        inputs = tuple(dict.fromkeys(table for table in reads if table in chosen))

        def waiting() -> list[TableName]:
            if isinstance(first, RunQuery):
                return []
            return [t for t in plan.waits_for if t not in board.caught_up and not self._caught_up(t, chosen)]

        return Worker(
            self.flow(name), board, inputs, waiting, self.poll_s, listener, on_error, self.mark_caught_up,
            self._refresh_due, self._standby_s,
        )  # fmt: skip

    def _publisher(
        self, sink: SinkFlow, board: Board, listener: Callable[[FlowName, Committed], None],
        on_error: Callable[[FlowStatus], None],
    ) -> Worker:  # fmt: skip
        inputs = tuple(name for name in self.workers if name == sink.name.table)
        return Worker(
            sink, board, inputs, list, self.poll_s, listener, on_error, lambda _name: None, lambda _flow: False,
            self._standby_s,
        )  # fmt: skip

    def _caught_up(self, table: TableName, chosen: list[TableName]) -> bool:
        """Whether a table that another process fills has taken in what was there when that process started."""
        return table not in chosen and self.around.disk.exists(caught_up_file(self.around.lake, table))

    def mark_caught_up(self, table: FlowName) -> None:
        """Tell other processes that the table has taken in what was there."""
        assert isinstance(table, TableName)
        path = caught_up_file(self.around.lake, table)
        if not self.around.disk.exists(path):
            write_durable(self.around.disk, path, b"")

    def _refresh_due(self, flow: Flow | SinkFlow) -> bool:
        assert isinstance(flow, Flow)
        first = flow.plan.steps[0]
        if not isinstance(first, RunQuery):
            return False
        now = self.around.clock()
        if first.schedule:
            return is_due(first.schedule, flow.state.clock_us, now)
        return now - flow.state.clock_us >= _REFRESH_EVERY_US

    def _chosen(self, tables: Iterable[TableName] | None) -> Iterable[TableName]:
        wanted = set(self.flows if tables is None else tables)
        for name in wanted:
            self._require(name)
        return [name for name in self.flows if name in wanted]

    def _require(self, name: TableName) -> None:
        if name not in self.flows:
            raise ConfigError("no such table", table=str(name), known=", ".join(map(str, self.flows)))

    def _source(self, plan: FlowPlan, schema: Schema, group: str, member: str) -> Source:
        first = plan.steps[0]
        assert isinstance(first, ReadSource)
        reserved = frozenset(name.lower() for name in plan.schema.names)
        reading = Reading(
            schema, first.keep_raw, first.drift, self.root, reserved, self._registry, group, member,
            self.around.disk.beside(self.around.lake), str(plan.table.name),
        )  # fmt: skip
        return make_source(first.source, first.format, reading, self.resolve)

    def _sink(self, publish: Publish, identity: str, passing: Callable[[str], None]) -> Sink:
        publishing = Publishing(
            publish.name.table, publish.value, publish.key, publish.changing, identity, self.root, self._registry,
            passing,
        )  # fmt: skip
        return make_sink(publish.sink, publishing, self.resolve)
