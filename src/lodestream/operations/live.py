"""Follows a whole lake from its commits alone, so that it does not matter which process runs the pipeline.

A thread looks for the next version of each table: one existence check a look, twenty times a second for a table that
moves and for those that read it, rarer for one that rests.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lodestream.errors import LodestreamError
from lodestream.lake.actions import Commit
from lodestream.lake.disk import Disk
from lodestream.lake.layout import QUARANTINE_SUFFIX, failure_note
from lodestream.model.live import Listener, RateHistory, State, TableLive
from lodestream.model.steps import FlowPlan, RunQuery
from lodestream.model.table import LAYERS, TableName
from lodestream.operations.following import Followed, counts_of, taken_in
from lodestream.operations.rates import Rates

_MOVING_S = 0.05
_RESTING_S = 0.2
_LOOKS_PER_S = 2_000
"""With more tables at rest than this allows, each is looked at less often."""
_SLOWER = 1.5
_CHECK_S = 1.0
_RESTING_CHECK_S = 4.0
_DISCOVER_S = 2.0
_AGAIN_S = 2.0
"""When a damaged table is looked at again."""
_RUNNING_US = 2_000_000
_UNDER_WAY_US = 60_000_000
"""A batch that is planned and not committed for so long is nobody's any more."""
_WAITS_US = 5_000_000
"""Rows that wait for so long while nothing moves are a backlog that stands."""
_READ_ERRORS = (LodestreamError, OSError, ValueError, KeyError)


@dataclass(frozen=True, slots=True)
class Failure:
    """When a flow erred, why, and whether it has ended by it; else it tries again."""

    time_us: int
    error: str
    for_good: bool


@dataclass
class _Seen:
    """One table, and when it is looked at."""

    followed: Followed
    row: int
    every_s: float = _MOVING_S
    check_s: float = 0.0
    moved_us: int = 0
    planned_us: int | None = None
    waits_us: int | None = None
    error: str | None = None
    failure: Failure | None = None


class Live:
    """Follows every table of a lake. `start` begins, `close` ends; the answers may be asked for from any thread.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        flows: the compiled flows, for who reads whom; tables of the lake beside them are followed too.
        clock: microseconds since 1970 UTC.
        seconds: how far the history goes back.
    """

    def __init__(
        self, disk: Disk, lake: str, flows: Mapping[TableName, FlowPlan], clock: Callable[[], int], *,
        seconds: int = 600,
    ) -> None:  # fmt: skip
        self._disk, self._lake, self._clock = disk, lake, clock
        self._flows = flows
        self._readers: dict[TableName, list[TableName]] = {}
        for reader, plan in flows.items():
            for name in _inputs(plan):
                self._readers.setdefault(name, []).append(reader)
        self._rates = Rates(seconds)
        self._seen: dict[TableName, _Seen] = {}
        self._due: list[tuple[float, int, TableName]] = []
        self._numbers = itertools.count()
        self._planned: dict[TableName, float] = {}
        self._sequence = 0
        self._listeners: list[Listener] = []
        self._told: tuple[tuple[int, int], dict[TableName, TableLive]] | None = None
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._discovered_s = -_DISCOVER_S
        self._thread: threading.Thread | None = None
        self.looks = 0

    def start(self) -> None:
        """Take in what stands, and follow from then on; again does nothing."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop following; again does nothing."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def sequence(self) -> int:
        """A number that grows with everything that changes."""
        return self._sequence

    def tables(self) -> Mapping[TableName, TableLive]:
        """Every known table as it stands, in the order of their names."""
        now_us = self._clock()
        with self._lock:
            mark = (self._sequence, now_us // 250_000)
            if self._told is None or self._told[0] != mark:
                rates = self._rates.now(now_us)
                told = {name: self._tell(self._seen[name], rates, now_us) for name in sorted(self._seen)}
                self._told = mark, told
            return self._told[1]

    def history(self, tables: Iterable[TableName], seconds: int = 600) -> RateHistory:
        """The rates of some tables together, over the last seconds."""
        with self._lock:
            rows = [self._seen[name].row for name in tables if name in self._seen]
        return self._rates.history(rows, seconds, self._clock())

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each new version from now on; the answer takes it away again."""
        with self._lock:
            self._listeners = [*self._listeners, listener]

        def leave() -> None:
            with self._lock:
                self._listeners = [one for one in self._listeners if one is not listener]

        return leave

    def step(self, now_s: float | None = None) -> float:
        """Look at what is due at a moment of the monotonic clock; seconds until more is."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._discovered_s >= _DISCOVER_S:
            self._discovered_s = now_s
            self._discover(now_s)
        while self._due and self._due[0][0] <= now_s:
            due_s, _, name = heapq.heappop(self._due)
            if self._planned.get(name) == due_s:
                self._look(name, now_s)
        wait_s = self._discovered_s + _DISCOVER_S - now_s
        return max(0.001, min(self._due[0][0] - now_s, wait_s) if self._due else wait_s)

    def _run(self) -> None:
        while not self._stopping.wait(self.step()):
            pass

    def _discover(self, now_s: float) -> None:
        """Declared tables, and those that the lake has beside them."""
        names = set(self._flows)
        for layer in LAYERS:
            try:
                found = self._disk.list(os.path.join(self._lake, layer))
            except LodestreamError:
                continue
            tables = (folder for folder in found if not folder.endswith(QUARANTINE_SUFFIX))
            names |= {TableName(layer, folder) for folder in tables if folder.isidentifier()}
        for name in sorted(names - self._seen.keys()):
            with self._lock:
                self._seen[name] = _Seen(Followed(self._disk, self._lake, name), self._rates.row())
                self._sequence += 1
            self._plan(name, now_s)

    def _plan(self, name: TableName, at_s: float) -> None:
        self._planned[name] = at_s
        heapq.heappush(self._due, (at_s, next(self._numbers), name))

    def _look(self, name: TableName, now_s: float) -> None:
        seen = self._seen[name]
        self.looks += 1
        due = now_s >= seen.check_s
        try:
            moved = self._news(seen, anew=seen.error is not None or (due and not seen.followed.stands()))
        except FileNotFoundError:
            moved = False  # it is being replaced; the next check says by what
        except _READ_ERRORS as error:
            self._damaged(seen, str(error))
            self._plan(name, now_s + _AGAIN_S)
            return
        if due:
            self._check(seen)
            moving = self._clock() - seen.moved_us < _UNDER_WAY_US
            seen.check_s = now_s + (_CHECK_S if moving else _RESTING_CHECK_S)
        if moved:
            seen.every_s = _MOVING_S
            for reader in self._readers.get(name, ()):
                self._hurry(reader, now_s)
        else:
            resting_s = max(_RESTING_S, len(self._seen) / _LOOKS_PER_S)
            seen.every_s = min(seen.every_s * _SLOWER, resting_s)
        self._plan(name, now_s + seen.every_s)

    def _hurry(self, name: TableName, now_s: float) -> None:
        """A table whose input has moved will soon move itself."""
        seen = self._seen.get(name)
        if seen is not None and seen.error is None:
            seen.every_s = _MOVING_S
            if self._planned.get(name, 0.0) > now_s + _MOVING_S:
                self._plan(name, now_s + _MOVING_S)

    def _news(self, seen: _Seen, *, anew: bool) -> bool:
        """Take in what is new and tell of it; whether there was anything. Files are read without the lock."""
        followed = seen.followed
        if not anew and not self._disk.exists(followed.next_path):
            return False
        if anew or not followed.exists:
            followed = Followed(self._disk, self._lake, followed.name)
            commits = followed.load()
            if not (followed.exists or anew):
                return False
            self._begin(seen, followed, commits)
        else:
            commits = followed.news()
            now_us = self._clock()
            with self._lock:
                for commit in commits:
                    followed.take(commit)
                    self._rates.add(seen.row, now_us, taken_in(counts_of(commit)), now_us)
                seen.moved_us, seen.planned_us = now_us, None
                self._sequence += 1
        for listener in self._listeners:
            with contextlib.suppress(RuntimeError):  # its event loop has ended, and it is about to leave
                listener(followed.name, followed.version)
        return True

    def _begin(self, seen: _Seen, followed: Followed, commits: list[Commit]) -> None:
        """Put a table that was read from the start in the place of what was known of it."""
        now_us = self._clock()
        with self._lock:
            self._rates.clear(seen.row)
            for commit in commits:
                self._rates.add(seen.row, commit.timestamp_ms * 1000, taken_in(counts_of(commit)), now_us)
            seen.followed, seen.error = followed, None
            seen.moved_us, seen.planned_us = followed.last_commit_us or 0, None
            self._sequence += 1

    def _damaged(self, seen: _Seen, error: str) -> None:
        with self._lock:
            if seen.error != error:
                seen.error = error
                self._sequence += 1

    def _check(self, seen: _Seen) -> None:
        """What needs more than the log: is a batch under way, has its pipeline failed, do rows wait?"""
        now_us = self._clock()
        followed = seen.followed
        planned_us = followed.planned_us() if followed.exists else None
        failure = read_failure(self._disk, self._lake, followed.name)
        with self._lock:
            before = self._state(seen, now_us)
            seen.planned_us, seen.failure = planned_us, failure
            waits = bool(self._backlog(seen)) or self._outdated(seen)
            seen.waits_us = (seen.waits_us or now_us) if waits else None
            if self._state(seen, now_us) != before:
                self._sequence += 1

    def _backlog(self, seen: _Seen) -> int | None:
        plan = self._flows.get(seen.followed.name)
        upstream = self._seen.get(plan.upstream) if plan is not None and plan.upstream is not None else None
        if upstream is None or upstream.error is not None:
            return None
        return upstream.followed.added_after(seen.followed.upto)

    def _outdated(self, seen: _Seen) -> bool:
        """Whether an input of a query has got rows since it was refreshed."""
        plan = self._flows.get(seen.followed.name)
        if plan is None or not isinstance(plan.steps[0], RunQuery):
            return False
        pins = seen.followed.pins
        inputs = ((name, self._seen.get(name)) for name in plan.steps[0].inputs)
        return any(one is not None and one.followed.added_after(pins.get(str(n), -1)) > 0 for n, one in inputs)

    def _failure(self, seen: _Seen) -> Failure | None:
        """What its pipeline noted, unless a batch was committed since."""
        noted = seen.failure
        return noted if noted is not None and noted.time_us >= (seen.followed.last_commit_us or 0) else None

    def _state(self, seen: _Seen, now_us: int) -> State:
        followed = seen.followed
        if seen.error is not None:
            return "damaged"
        if (failure := self._failure(seen)) is not None and failure.for_good:
            return "failed"
        if not followed.exists:
            return "missing"
        if now_us - seen.moved_us < _RUNNING_US:
            return "running"
        if seen.planned_us is not None and now_us - seen.planned_us < _UNDER_WAY_US:
            return "running"
        if seen.waits_us is not None and now_us - seen.waits_us > _WAITS_US:
            return "stalled"
        return "idle"

    def _tell(self, seen: _Seen, rates: list[float], now_us: int) -> TableLive:
        one = seen.followed
        state = self._state(seen, now_us)
        error = seen.error
        if error is None and (failure := self._failure(seen)) is not None:
            error = failure.error
        return TableLive(
            one.name, state, one.version, one.rows if one.exists else None, one.files, one.size_bytes, one.epoch,
            one.batch, one.watermark_us, one.max_event_us, one.last_commit_us, dict(one.counts), one.counted_from,
            rates[seen.row], self._backlog(seen) if one.exists else None,
            one.quarantine_open if one.exists else None, error, one.schema,
        )  # fmt: skip


def read_failure(disk: Disk, lake: str, name: TableName) -> Failure | None:
    """What a pipeline noted of a table; None when it did not."""
    path = failure_note(lake, name)
    if not disk.exists(path):
        return None
    try:
        note = json.loads(disk.read(path))
        return Failure(int(note["time_us"]), str(note["error"]), note["state"] == "failed")
    except (OSError, ValueError, KeyError, TypeError, LodestreamError):
        return None


def _inputs(plan: FlowPlan) -> set[TableName]:
    """Tables that a flow reads."""
    first = plan.steps[0]
    queried = set(first.inputs) if isinstance(first, RunQuery) else set()
    return queried | set(plan.streams)
