"""Keeps worker processes for queries: who waits for one, who gets the next, and what ends one that takes too long."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from lodestream.errors import ConfigError, LodestreamError, TransientError
from lodestream.ports.waiting import before_waiting
from lodestream.query.job import BATCH, DESCRIBE, DONE, JOB, READY, SCHEMA, Job, receive, send

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "LC_ALL": "C.UTF-8"}
_LOOK_S = 0.05
_KEPT_KEYS = 4


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many queries run at once.

    Attributes:
        workers: processes, and so queries of all callers at once.
        per_principal: queries of one caller at once.
        queue_max: callers that may wait; more are refused at once.
        queue_s: seconds that one may wait.
    """

    workers: int = 4
    per_principal: int = 2
    queue_max: int = 64
    queue_s: float = 10.0


@dataclass(eq=False)
class _Worker:
    """One process."""

    connection: socket.socket
    handle: int
    readable: tuple[str, ...]
    keys: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=_KEPT_KEYS))
    started: bool = False

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.kill()
        self.connection.close()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


class Running:
    """A query in a worker. Read `batches` to the end or `close`; `cancel` from any thread."""

    def __init__(self, pool: WorkerPool, worker: _Worker, principal: str, deadline: float) -> None:
        self._pool, self._worker, self._principal = pool, worker, principal
        self.deadline = deadline
        self.why: LodestreamError | None = None
        self._over = threading.Lock()
        self._released = False
        self.schema = pa.schema([])
        self.cut = False
        self.types: tuple[tuple[str, str], ...] = ()

    def begin(self) -> None:
        """Wait for the columns. Raises what `batches` does."""
        kind, payload = self._next()
        if kind == SCHEMA:
            self.schema = pa.ipc.read_schema(pa.py_buffer(payload))
            return
        raise self._failed(payload)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; can be taken once.

        Raises:
            ConfigError: the query errs on these rows, or needs more memory than it may use.
            TransientError: it was cancelled, took too long, or the files were cleaned up meanwhile.
        """
        while True:
            kind, payload = self._next()
            if kind == BATCH:
                yield pa.ipc.read_record_batch(pa.py_buffer(payload), self.schema)
            elif kind == DONE:
                told = json.loads(payload)
                self.types = tuple((name, kind) for name, kind in told.get("types", ()))
                self.cut = told.get("cut", False)
                self._release(good=True)
                return
            else:
                raise self._failed(payload)

    def cancel(self, why: LodestreamError | None = None) -> None:
        """End it now; whoever reads gets a TransientError."""
        with self._over:
            if not self._released:
                self.why = self.why or why or TransientError("query was cancelled")
                self._worker.kill()

    def close(self) -> None:
        """Give the worker back; one in the middle of an answer is ended. Twice is harmless."""
        self._release(good=False)

    def _next(self) -> tuple[bytes, bytes]:
        if self._released:
            raise self.why or TransientError("the answer was closed before its end")
        frame = receive(self._worker.connection)
        if frame is not None:
            return frame
        why = self.why
        self._release(good=False)
        fix = "select fewer columns, filter earlier, or ask for less"
        raise why or ConfigError("query ended its worker; it most likely needs more memory than it may use", fix=fix)

    def _failed(self, payload: bytes) -> LodestreamError:
        told = json.loads(payload)
        self._release(good=True)
        if told["kind"] == "files":
            return TransientError("files were cleaned up while they were read; ask again", reason=told["text"])
        if told["kind"] == "memory":
            fix = "select fewer columns, filter earlier, or raise the memory that a query may use"
            return ConfigError("query needs more memory than it may use", fix=fix)
        return ConfigError(f"query fails\n{told['text']}\n")

    def _release(self, *, good: bool) -> None:
        with self._over:
            if self._released:
                return
            self._released = True
        self._pool.give_back(self, self._worker, self._principal, good=good and self.why is None)


class WorkerPool:
    """Worker processes that are there before they are needed.

    Args:
        settings: how many.
        readable: gives the folders that a worker may read; asked whenever one is made.
        clock: seconds, monotonic.
    """

    def __init__(
        self, settings: PoolSettings, readable: Callable[[], Sequence[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._readable, self._clock = readable, clock
        self._lock = threading.Condition()
        self._nursing = threading.Lock()
        self._control: socket.socket | None = None
        self._nursery: subprocess.Popen[bytes] | None = None
        self._idle: list[_Worker] = []
        self._running: dict[Running, str] = {}
        self._held: collections.Counter[str] = collections.Counter()
        self._waiting: list[tuple[str, object]] = []
        self._watch: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Make the workers now, not with the first query."""
        while len(self._idle) < self.settings.workers:
            worker = self._make()
            with self._lock:
                self._idle.append(worker)

    def run(
        self, job: Job, principal: str, *, describe: bool = False, began: Callable[[Running], None] | None = None
    ) -> Running:
        """Run a job once a worker is free.

        Args:
            job: the query.
            principal: whose it is.
            describe: only tell columns and types.
            began: is told of the query before its columns are known, so that it can be cancelled while it computes.

        Raises:
            TransientError: nobody was free in time; ask again after `retry_after_s`.
            ConfigError: the query fails.
        """
        before_waiting()
        self._admit(principal)
        running: Running | None = None
        try:
            key = job.surroundings()
            payload = job.to_bytes(key)
            worker = self._worker(key)
            running = Running(self, worker, principal, self._clock() + job.budget.time_s)
            with self._lock:
                self._running[running] = principal
                self._start_watch()
            worker.keys.append(key)
            if began is not None:
                began(running)
            with contextlib.suppress(OSError):  # one that has just died is found by reading
                send(worker.connection, DESCRIBE if describe else JOB, payload)
            running.begin()
        except BaseException:
            if running is not None:
                running.close()
            else:
                self._leave(principal)
            raise
        return running

    def close(self) -> None:
        """End all workers; what runs is cancelled."""
        with self._lock:
            self._closed = True
            running, idle, self._idle = list(self._running), self._idle, []
            self._lock.notify_all()
        for each in running:
            each.cancel(TransientError("the server is stopping"))
        for worker in idle:
            worker.close()
        with self._nursing:
            if self._control is not None and self._nursery is not None:
                self._control.close()
                try:
                    self._nursery.wait(2.0)
                except subprocess.TimeoutExpired:
                    self._nursery.kill()
                    self._nursery.wait()
                self._control = self._nursery = None

    def give_back(self, running: Running, worker: _Worker, principal: str, *, good: bool) -> None:
        """Take a worker back, or end it when something was wrong with its query."""
        with self._lock:
            self._running.pop(running, None)
            keep = good and not self._closed
            if keep:
                self._idle.append(worker)
        if not keep:
            worker.close()
        self._leave(principal)

    def _admit(self, principal: str) -> None:
        """Wait for a turn: of those who may go, whoever runs the fewest, then whoever came first."""
        ticket = (principal, object())
        until = self._clock() + self.settings.queue_s
        with self._lock:
            if len(self._waiting) >= self.settings.queue_max:
                raise TransientError("too many queries wait; ask again later", retry_after_s=2.0)
            self._waiting.append(ticket)
            try:
                while self._next_turn() is not ticket:
                    if self._closed:
                        raise TransientError("the server is stopping")
                    left = until - self._clock()
                    if left <= 0:
                        raise TransientError(
                            "no room for another query; ask again later", retry_after_s=2.0,
                            running=self._held.total(), yours=self._held[principal],
                        )  # fmt: skip
                    self._lock.wait(left)
                self._held[principal] += 1
            finally:
                self._waiting.remove(ticket)
                self._lock.notify_all()

    def _next_turn(self) -> tuple[str, object] | None:
        if self._closed or self._held.total() >= self.settings.workers:
            return None
        most = min(self.settings.per_principal, max(1, self.settings.workers - 1))  # one is left to others
        able = [ticket for ticket in self._waiting if self._held[ticket[0]] < most]
        return min(able, key=lambda ticket: self._held[ticket[0]], default=None)

    def _leave(self, principal: str) -> None:
        with self._lock:
            self._held[principal] -= 1
            if self._held[principal] <= 0:
                del self._held[principal]
            self._lock.notify_all()

    def _worker(self, key: str) -> _Worker:
        """An idle worker, at best one that has the job's tables open."""
        readable = tuple(self._readable())
        stale: list[_Worker] = []
        with self._lock:
            fit: list[_Worker] = []
            for worker in self._idle:
                (fit if set(readable) <= set(worker.readable) and not worker.ended else stale).append(worker)
            self._idle = fit
            chosen = next((worker for worker in fit if key in worker.keys), fit[0] if fit else None)
            if chosen is not None:
                fit.remove(chosen)
        for worker in stale:
            worker.close()
        if chosen is None:
            chosen = self._make()
        if not chosen.started:
            frame = receive(chosen.connection)
            if frame is None or frame[0] != READY:
                chosen.close()
                raise TransientError("a worker could not start; ask again")
            chosen.started = True
        return chosen

    def _make(self) -> _Worker:
        with self._nursing:
            if self._closed:
                raise TransientError("the server is stopping")
            control = self._started()
            ours, theirs = socket.socketpair()
            readable = tuple(self._readable())
            with theirs:
                socket.send_fds(control, [json.dumps({"readable": readable}).encode()], [theirs.fileno()])
            told = b""
            while len(told) < 4:
                part = control.recv(4 - len(told))
                if not part:
                    ours.close()
                    raise TransientError("the nursery of workers has ended; ask again")
                told += part
            return _Worker(ours, os.pidfd_open(int.from_bytes(told, "big")), readable)

    def _started(self) -> socket.socket:
        if self._nursery is not None and self._nursery.poll() is not None and self._control is not None:
            self._control.close()
            self._control = None
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-P", "-m", "lodestream.query.worker", str(theirs.fileno())]
            self._nursery = subprocess.Popen(
                command, env=_ENVIRONMENT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
            )  # fmt: skip
            theirs.close()
            self._control = ours
        return self._control

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = threading.Thread(target=self._look, name="query-deadlines", daemon=True)
            self._watch.start()

    def _look(self) -> None:
        """End what is over its time."""
        while not self._closed:
            time.sleep(_LOOK_S)
            now = self._clock()
            with self._lock:
                late = [running for running in self._running if now >= running.deadline]
            for running in late:
                fix = "filter earlier, or ask for more time"
                running.cancel(TransientError("query took longer than it may", fix=fix))
