"""Runs one flow on its own thread: steps it, waits when there is nothing, and decides what an error means."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.publish import SinkFlow
from lodestream.engines.embedded.surroundings import Committed
from lodestream.errors import ConflictError, CorruptionError, LodestreamError, RewrittenError, TransientError
from lodestream.model.table import FlowName, TableName
from lodestream.ports.source import Waiter

_BACKOFF_MAX_S = 30.0
_PROMPT_S = 0.5
"""Who looks for news less often than that wants large batches, and is not woken early."""
_PACE_S = 0.05
"""A flow that is woken by each record begins a batch that often at most, or every record would be one."""


@dataclass
class FlowStatus:
    """What is known about a running flow; written by its thread, read by others.

    Attributes:
        state: `starting`, `waiting` (for a lookup), `running`, `idle`, `standby`, `retrying`, `failed`, `stopped`.
        table: the table that is filled, or the sink.
        counts: rows by disposition since the start of this run.
    """

    table: FlowName
    state: str = "starting"
    batches: int = 0
    batch: int = 0
    version: int = -1
    counts: dict[str, int] = field(default_factory=dict)
    busy_s: float = 0.0
    max_event_us: int | None = None
    last_commit_us: int | None = None
    state_bytes: int = 0
    state_spilled_bytes: int = 0
    error: LodestreamError | None = None
    retries: int = 0


class Board:
    """Who is idle and who has news; every thread of a run waits on it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.news: dict[FlowName, int] = {}
        self.idle: dict[FlowName, bool] = {}
        self.caught_up: set[FlowName] = set()
        self.failed: set[FlowName] = set()
        self.stopping = threading.Event()

    def committed(self, table: FlowName) -> None:
        """A table has a new version."""
        with self.changed:
            self.news[table] = self.news.get(table, 0) + 1
            self.idle[table] = False
            self.changed.notify_all()

    def quiet(self, table: FlowName, *, idle: bool) -> None:
        """A flow has nothing to do (or has again)."""
        with self.changed:
            if self.idle.get(table) != idle:
                self.idle[table] = idle
                self.changed.notify_all()

    def catch_up(self, table: FlowName) -> None:
        """A flow has taken in what was there when it started."""
        with self.changed:
            self.caught_up.add(table)
            self.changed.notify_all()

    def stop(self) -> None:
        """Ask every flow to end after its batch."""
        self.stopping.set()
        with self.changed:
            self.changed.notify_all()


class Worker:
    """The thread of one flow.

    Args:
        flow: not yet opened.
        board: shared by all workers of the run.
        inputs: tables of this run that the flow reads; it is quiet only when they are.
        waits_for: returns the tables it still has to wait for before it may start.
        poll_s: how often to look for news that nobody announces.
        listener: told of every batch.
        on_error: told when the flow has to wait and try again, and when it fails for good.
        caught_up: told when the flow has nothing to do for the first time.
        refresh_due: for `sql:` tables, whether a refresh may run although inputs are busy.
        standby_s: how long to leave the flow to another process that was first.
    """

    def __init__(
        self,
        flow: Flow | SinkFlow,
        board: Board,
        inputs: tuple[FlowName, ...],
        waits_for: Callable[[], list[TableName]],
        poll_s: float,
        listener: Callable[[FlowName, Committed], None],
        on_error: Callable[[FlowStatus], None],
        caught_up: Callable[[FlowName], None],
        refresh_due: Callable[[Flow | SinkFlow], bool],
        standby_s: float,
    ) -> None:
        self.flow = flow
        self.status = FlowStatus(flow.name)
        self._board = board
        self._inputs = inputs
        self._waits_for = waits_for
        self._poll_s = poll_s
        self._listener = listener
        self._on_error = on_error
        self._caught_up = caught_up
        self._refresh_due = refresh_due
        self._standby_s = standby_s
        if isinstance(flow, Flow):
            flow.enrichment.wake = self._wake
        self.thread = threading.Thread(target=self._run, name=str(flow.name), daemon=True)

    def _run(self) -> None:
        board, name = self._board, self.flow.name
        try:
            while not board.stopping.is_set():
                try:
                    self._work()
                except RewrittenError:
                    continue  # maintenance moved rows that the batch replaces; it goes again from where they are now
                except ConflictError:
                    self.status.state = "standby"
                    self._pause(self._standby_s)
                except TransientError as error:
                    self.status.state, self.status.error = "retrying", error
                    self.status.retries += 1
                    self._on_error(self.status)
                    self._pause(min(_BACKOFF_MAX_S, error.retry_after_s * 2 ** min(self.status.retries - 1, 5)))
            self.status.state = "stopped"
        except LodestreamError as error:
            self.status.state, self.status.error = "failed", error
            self._on_error(self.status)
        except Exception as error:  # noqa: BLE001 - the one place that may: a bug stops its flow, not the others
            unexpected = LodestreamError("unexpected error, please report it", table=str(name), cause=repr(error))
            unexpected.__cause__ = error
            self.status.state, self.status.error = "failed", unexpected
            self._on_error(self.status)
        finally:
            with board.changed:
                board.idle[name] = True
                if self.status.state == "failed":
                    board.failed.add(name)
                board.changed.notify_all()
            self.flow.close()

    def _work(self) -> None:
        """Open the flow and step it until asked to stop; errors leave through here."""
        board, name = self._board, self.flow.name
        while missing := self._waits_for():
            for table in board.failed.intersection(missing):
                raise LodestreamError(
                    "the flow of a table that it waits for has failed", table=str(name), waited_for=str(table)
                )
            self.status.state = "waiting"
            board.quiet(name, idle=False)
            self._pause(self._poll_s, until=missing)
            if board.stopping.is_set():
                return
        self.flow.open()
        self.status.batch = self.flow.state.batch
        while not board.stopping.is_set():
            with board.changed:
                seen = {table: board.news.get(table, 0) for table in self._inputs}
                quiet = all(board.idle.get(table, False) for table in self._inputs)
            started = time.perf_counter()
            committed = self._step(idle=quiet or self._refresh_due(self.flow))
            if committed is not None:
                self._note(committed, time.perf_counter() - started)
                board.committed(name)
                if self._prompt is not None:
                    board.stopping.wait(max(0.0, _PACE_S - (time.perf_counter() - started)))
                continue
            self.status.state = "idle"
            if quiet and name not in board.caught_up:
                board.catch_up(name)
                self._caught_up(name)
            finished = self._finished() and quiet
            board.quiet(name, idle=finished)
            if self._prompt is not None:
                self._prompt.wait(self._poll_s)
                continue
            with board.changed:
                if all(board.news.get(t, 0) == n for t, n in seen.items()) and not board.stopping.is_set():
                    board.changed.wait(self._poll_s)

    def _step(self, *, idle: bool) -> Committed | None:
        """One step; files that are gone are no damage when another process has run the batch, and took them away."""
        flow = self.flow
        try:
            return flow.step(idle=idle)
        except CorruptionError as error:
            if isinstance(flow, Flow) and flow.table.refresh().txns.get(flow.app_id, 0) > self.status.batch:
                raise ConflictError("another process has run this batch", table=str(flow.name)) from error
            raise

    @property
    def _prompt(self) -> Waiter | None:
        """The source, when it says itself that there is news and nobody asked for large batches."""
        source: object = self.flow.source
        return source if self._poll_s <= _PROMPT_S and isinstance(source, Waiter) else None

    def _finished(self) -> bool:
        if isinstance(self.flow, SinkFlow):
            return self.flow.caught_up
        if len(self.flow.state.waiting):
            return False
        source = self.flow.source
        return source is None or source.finished(self.flow.state.consumed, self.flow.around.clock())

    def _wake(self) -> None:
        """There is something to do that no table and no source tells of."""
        with self._board.changed:
            self._board.changed.notify_all()

    def _note(self, committed: Committed, seconds: float) -> None:
        status = self.status
        status.state, status.error, status.retries = "running", None, 0
        status.batches += 1
        status.batch, status.version = committed.batch, committed.version
        status.busy_s += seconds
        for kind, number in committed.counts.items():
            status.counts[kind] = status.counts.get(kind, 0) + number
        status.max_event_us = self.flow.state.max_event_us
        status.last_commit_us = self.flow.state.clock_us
        _, status.state_bytes, status.state_spilled_bytes = self.flow.state.held()
        self._listener(self.flow.name, committed)

    def _pause(self, seconds: float, until: list[TableName] | None = None) -> None:
        deadline = time.monotonic() + seconds
        with self._board.changed:
            while not self._board.stopping.is_set() and (left := deadline - time.monotonic()) > 0:
                self._board.changed.wait(left)
                if until is not None:
                    return
