"""Runs the flows of a project on Spark, until told to stop or until nothing is left to do."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.checkpoints import Checkpoint
from lodestream.engines.embedded.surroundings import Committed, Surroundings
from lodestream.errors import ConfigError, LodestreamError, TransientError
from lodestream.lake.object_disk import ObjectDisk
from lodestream.model.steps import Annotate, FlowPlan, ReadSource, RunQuery, Watermark
from lodestream.model.table import Component, FlowName, TableName
from lodestream.ports.plugins import Resolve
from lodestream.runtime.beside import Beside
from lodestream.runtime.maintain import Maintenance, Upkeep
from lodestream.runtime.pipeline import Pipeline
from lodestream.runtime.schedule import is_due
from lodestream.runtime.supervise import FlowStatus

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lodestream.engines.spark.flow import MakeFlow, MakeRecipe, SparkFlow
    from lodestream.engines.spark.refresh import SparkRefresh
    from lodestream.engines.spark.source import Recipe

_REFRESH_EVERY_S = 5.0
_TRIES = 5


class SparkPipeline:
    """The flows of one project over one lake, on Spark.

    Args:
        flows: the compiled flows in an order in which inputs come first.
        around: the flows' surroundings.
        checkpoints: root folder of the checkpoints.
        open_session: opens the run's session.
        make_recipe: for flows that read a source.
        embedded: makes the same flows on the embedded engine, to end batches that it has begun.
        beside: runs what the driver does itself.
        poll_s: how often to look for new rows.

    Attributes:
        upkeep: how the logs of the tables are kept short.
    """

    def __init__(
        self,
        flows: Mapping[TableName, FlowPlan],
        around: Surroundings,
        checkpoints: str,
        open_session: Callable[[], SparkSession],
        make_recipe: MakeRecipe,
        embedded: MakeFlow,
        beside: Beside,
        poll_s: float,
    ) -> None:
        self.flows, self.around = flows, around
        self._checkpoints = checkpoints
        self._open_session, self._make_recipe, self._embedded = open_session, make_recipe, embedded
        self._beside, self._poll_s = beside, poll_s
        sources = {name: plan.step(ReadSource) for name, plan in flows.items()}
        self._widening = frozenset(name for name, step in sources.items() if step and step.drift == "widen")
        self.upkeep = Upkeep()
        self._stopping = threading.Event()
        self._statuses: dict[FlowName, FlowStatus] = {}
        self._running: dict[TableName, SparkFlow] = {}
        self._refreshes: list[SparkRefresh] = []
        self._makers: dict[TableName, Callable[[], SparkFlow]] = {}

    @property
    def status(self) -> list[FlowStatus]:
        """One status per flow."""
        return list(self._statuses.values())

    def stop(self) -> None:
        """End the run; batches that are under way are done again by the next. Safe from any thread, and again."""
        self._stopping.set()
        for flow in list(self._running.values()):
            flow.stop()
        self._beside.stop()

    def run(
        self,
        *,
        tables: Iterable[TableName] | None = None,
        publishing: Iterable[TableName] | None = None,
        until_idle: bool = False,
        more: Callable[[], bool] = lambda: False,
        listener: Callable[[FlowName, Committed], None] = lambda _name, _committed: None,
        on_error: Callable[[FlowStatus], None] = lambda _status: None,
    ) -> list[FlowStatus]:
        """Run flows until `stop` is called or, with `until_idle`, until nothing is left to do.

        Args:
            tables: which; None for all.
            publishing: whose sinks run; None for those of `tables`.
            until_idle: whether to end when nothing is left to do.
            more: asked when a run until idle is idle; True when it brought more to do.
            listener: hears of every batch, on a thread of Spark's.
            on_error: hears of the flow that failed.

        Raises:
            LodestreamError: what made a flow fail; the others end too.
        """
        chosen = self._chosen(tables)
        self._statuses = {name: FlowStatus(name) for name in chosen}
        session = self._open_session()
        ended = threading.Event()
        self._beside.chosen = chosen
        self._beside.publishing = chosen if publishing is None else self._chosen(publishing)
        ours = [name for name in chosen if name not in self._beside.tables]
        maintenance = Maintenance(ours, self.flows, self.around, self.upkeep)
        housekeeping = threading.Thread(target=maintenance.run, args=(ended,), name="maintenance", daemon=True)
        housekeeping.start()
        try:
            self._begin(session, chosen, listener, in_turn=until_idle)
            if until_idle:
                self._settle(listener)
                while more() and not self._stopping.is_set():
                    self._settle(listener)
            else:
                self._beside.start(self._hearing(listener))
                self._watch()
        except LodestreamError as error:
            if not self._stopping.is_set():
                self._failed(error, on_error)
                raise
        finally:
            for flow in self._running.values():
                flow.stop()
            self._beside.stop()
            ended.set()
            housekeeping.join()
        for status in self._statuses.values():
            status.state = "stopped"
        return self.status

    def _begin(
        self, session: SparkSession, chosen: list[TableName], listener: Callable[[FlowName, Committed], None], *,
        in_turn: bool,
    ) -> None:  # fmt: skip
        """Start every flow; who looks a table up begins when that has taken in what is there.

        With `in_turn` each begins when those before it have nothing to do, so that it finds all rows in few batches.
        """
        from lodestream.engines.spark.refresh import SparkRefresh
        from lodestream.engines.spark.remote import flow_class

        kind = flow_class(session)
        self._running, self._refreshes, self._makers = {}, [], {}
        for name in chosen:
            if self._stopping.is_set():
                return
            plan = self.flows[name]
            noted = self._noted(name, listener)
            if isinstance(plan.steps[0], RunQuery):
                self._refreshes.append(SparkRefresh(plan, self.around, session, noted))
                continue
            self._await(plan, listener)
            if name in self._beside.tables:
                self._beside.make(name)
                if in_turn:
                    self._beside.settle(name, self._hearing(listener))
                continue
            self._makers[name] = partial(
                kind, plan, self.around, self._checkpoints, session, self._make_recipe, self._embedded, self._poll_s,
                self._widening,
            )  # fmt: skip
            self._start(name, noted)
            if in_turn:
                self._settle_one(name)

    def _await(self, plan: FlowPlan, listener: Callable[[FlowName, Committed], None]) -> None:
        """Wait until the tables that a flow looks up have taken in what is there."""
        for table in plan.waits_for:
            if table in self._running:
                self._settle_one(table)
            elif table in self._beside.tables:
                self._beside.settle(table, self._hearing(listener))
            else:
                continue
            self._beside.caught_up(table)

    def _start(self, name: TableName, noted: Callable[[Committed], None]) -> None:
        flow = self._makers[name]()
        flow.open()
        self._statuses[name].state = "running"
        self._running[name] = flow
        flow.start(noted)

    def _noted(self, name: FlowName, listener: Callable[[FlowName, Committed], None]) -> Callable[[Committed], None]:
        def noted(committed: Committed) -> None:
            status = self._statuses[name]
            status.state = "running"
            status.batches += 1
            status.batch, status.version = committed.batch, committed.version
            for kind, number in committed.counts.items():
                status.counts[kind] = status.counts.get(kind, 0) + number
            listener(name, committed)

        return noted

    def _hearing(self, listener: Callable[[FlowName, Committed], None]) -> Callable[[FlowName, Committed], None]:
        """A listener that keeps the statuses of flows and sinks."""

        def heard(name: FlowName, committed: Committed) -> None:
            self._statuses.setdefault(name, FlowStatus(name))
            self._noted(name, listener)(committed)

        return heard

    def _settle(self, listener: Callable[[FlowName, Committed], None]) -> None:
        """Go round the flows, inputs first, until a round brings nothing new."""
        before, heard = -1, self._hearing(listener)
        while not self._stopping.is_set() and before != (done := sum(s.batches for s in self._statuses.values())):
            before = done
            for name in self._beside.chosen:
                if name in self._running:
                    self._settle_one(name)
                elif name in self._beside.tables and not self._stopping.is_set():
                    self._beside.settle(name, heard)
            self._refresh()
        if not self._stopping.is_set():
            self._beside.publish(heard)

    def _settle_one(self, name: TableName) -> None:
        for waited in self.flows[name].waits_for:
            if waited in self._running:
                self._running[waited].settle()
        if not self._stopping.is_set():
            self._trying_again(name, lambda: self._running[name].settle())
            self._begin_anew_if_outdated(name)

    def _begin_anew_if_outdated(self, name: TableName) -> None:
        """A query whose table has got columns begins anew with those."""
        flow = self._running[name]
        if flow.outdated and not self._stopping.is_set():
            flow.stop()
            self._start(name, flow.listener)

    def _trying_again(self, name: TableName, work: Callable[[], None]) -> None:
        """Do it; a flow that failed for a while only is started again, a few times in a row."""
        for tries in itertools.count(1):
            try:
                work()
                return
            except TransientError as error:
                if tries == _TRIES or self._stopping.wait(error.retry_after_s * tries):
                    raise
                status = self._statuses[name]
                status.state, status.error, status.retries = "retrying", error, tries
                self._running[name].stop()
                self._start(name, self._running[name].listener)

    def _refresh(self, *, scheduled: bool = False) -> None:
        """Refresh `sql:` tables whose inputs have changed; `scheduled`: those that have a schedule, when it says so."""
        for refresh in self._refreshes:
            due = (
                not scheduled or not refresh.schedule or is_due(refresh.schedule, refresh.last_us, self.around.clock())
            )
            if due and not self._stopping.is_set():
                refresh.step()

    def _watch(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(0.2):
            for name in list(self._running):
                self._trying_again(name, lambda name=name: self._running[name].check())  # type: ignore[misc]
                self._begin_anew_if_outdated(name)
            self._beside.check()
            if time.monotonic() >= due:
                self._refresh(scheduled=True)
                due = time.monotonic() + _REFRESH_EVERY_S

    def _failed(self, error: LodestreamError, on_error: Callable[[FlowStatus], None]) -> None:
        for name, flow in self._running.items():
            if flow.error is error or (flow.query is not None and flow.query.exception() is not None):
                status = self._statuses[name]
                status.state, status.error = "failed", error
                on_error(status)
                return

    def _chosen(self, tables: Iterable[TableName] | None) -> list[TableName]:
        wanted = set(self.flows if tables is None else tables)
        for name in wanted:
            if name not in self.flows:
                raise ConfigError("no such table", table=str(name), known=", ".join(map(str, self.flows)))
        return [name for name in self.flows if name in wanted]


def on_spark(
    pipeline: Pipeline,
    registries: Mapping[str, Any],
    checkpoints: str | None,
    master: str | None,
    session: SparkSession | None,
    conf: Mapping[str, str],
) -> SparkPipeline:
    """A pipeline's flows on Spark; pyspark is needed only when it runs.

    Args:
        pipeline: the same flows on the embedded engine, not running. Spark sees its lake too, its clock is a function
            that other processes can import.
        registries: the project's schema registries, resolved.
        checkpoints: root folder of the checkpoints of a lake in an object store; None for the declared one, else its
            home. A lake in a folder holds them itself.
        master: where Spark runs, `sc://host:port` for a server of Spark Connect; None for the session that is there,
            else this machine.
        session: one that is there already, instead of that.
        conf: further settings of Spark.

    Raises:
        ConfigError: checkpoints have no place beside a lake in a folder.
    """
    around = pipeline.around
    folder = _checkpoints(pipeline, checkpoints)

    def make_recipe(plan: FlowPlan, epoch: int, group: str, checkpoint: Checkpoint) -> Recipe:
        from lodestream.engines.spark.source import Recipe

        step = plan.steps[0]
        assert isinstance(step, ReadSource)
        watermark = plan.step(Watermark)
        delay_us = None if watermark is None else watermark.event_time.delay_us
        settled = [Component(part.name, dict(pipeline.resolve(part.settings))) for part in (step.source, step.format)]
        return Recipe(
            replace(step, source=settled[0], format=settled[1]), pipeline.root, around.lake, plan.table.name, epoch,
            group, plan.definition,
            frozenset(name.lower() for name in plan.schema.names), registries, around.limit, around.clock,
            replace(checkpoint, consumed=()), around.disk, plan.looked_up, delay_us,
        )  # fmt: skip

    def opened() -> SparkSession:
        from lodestream.engines.spark.connect import connect
        from lodestream.engines.spark.session import check_folder, checked, open_session, prepare

        if session is not None:
            opened = prepare(session, conf)
        elif master is not None and master.startswith("sc:"):
            opened = prepare(connect(master, folder), conf)
        else:
            opened = open_session(master, settings=checked(conf))
        if around.disk.atomic:
            check_folder(opened, folder)
        return opened

    flows = {name: _settled(plan, pipeline.resolve) for name, plan in pipeline.flows.items()}
    return SparkPipeline(flows, around, folder, opened, make_recipe, pipeline.flow, Beside(pipeline), pipeline.poll_s)


def _checkpoints(pipeline: Pipeline, named: str | None) -> str:
    disk, lake = pipeline.around.disk, pipeline.around.lake
    if not isinstance(disk, ObjectDisk):
        if named is not None:
            raise ConfigError("a lake in a folder keeps Spark's checkpoints itself; leave --checkpoints out")
        return lake
    chosen = named or disk.settings.checkpoints
    return os.path.abspath(os.path.join(pipeline.root, chosen)) if chosen else disk.beside(lake)


def _settled(plan: FlowPlan, resolve: Resolve) -> FlowPlan:
    """The plan with values in the place of references, which workers could not resolve."""
    steps = [
        replace(step, enricher=Component(step.enricher.name, dict(resolve(step.enricher.settings))))
        if isinstance(step, Annotate) else step for step in plan.steps
    ]  # fmt: skip
    return replace(plan, steps=tuple(steps))
