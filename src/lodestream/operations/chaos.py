"""Kills a running pipeline again and again, at named points and at random, and proves that nothing was lost.

Each worker is a child process forked from a clean interpreter. It runs every flow of a small project against one lake,
and writes checkpoints and cleans logs all the time. A second worker runs the same flows beside it. Most kills fall at
named points inside a batch; in the end the pipeline runs once more in peace and a checker, which shares no code with
the engine, judges files and tables. A worker that stops before it is killed is a finding too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from lodestream.errors import ConfigError
from lodestream.lake import crash
from lodestream.lake.disk import LocalDisk
from lodestream.model.batch import BatchLimit
from lodestream.operations.chaos_check import Verdict, check
from lodestream.planning.compile import compile_project
from lodestream.project.load import load_project
from lodestream.runtime.maintain import Upkeep
from lodestream.runtime.pipeline import Pipeline

_RIVAL_S = 0.5
_RIVAL_AT_POINT = 0.6
_RIVAL_POINT_S = 1.5
_OUTSIDE = ("create.", "checkpoint.", "clean.")
_UPKEEP_AFTER = 6
_UPKEEP_POINTS = [
    f"maintenance/{name}"
    for name in ("checkpoint.before", "checkpoint.written", "checkpoint.done", "clean.before_unlink")
]
_RIVAL_POINTS = [f"{table}/commit.lost_race" for table in ("bronze.events", "silver.events", "gold.activity")]
"""Points that a worker only comes by when another one was first; never waited for."""
_POINT_WAIT_S = 4.0
_RECORDS_PER_FILE = 60
_START_US = 1_700_000_000_000_000


@dataclass
class Result:
    """What a crash test did and found.

    Attributes:
        kills: SIGKILLs sent, by ourselves at a point or by the parent at random.
        points: kills by `table/point`; those of `maintenance` are its thread's.
        verdict: the checker's findings.
        seconds: duration.
    """

    kills: int = 0
    points: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or left unexplained."""
        return not (self.verdict.lost or self.verdict.duplicated or self.verdict.unaccounted)

    @property
    def inside(self) -> int:
        """Kills at named points inside a batch."""
        return sum(number for name, number in self.points.items() if _is_inside(name))

    def to_json(self) -> dict[str, int]:
        """The closing line of `lodestream chaos --json`."""
        verdict = self.verdict
        return {
            "kills": self.kills, "produced": verdict.produced, "lost": verdict.lost,
            "duplicated": verdict.duplicated, "unaccounted": verdict.unaccounted,
        }  # fmt: skip


def run_chaos(
    folder: Path, *, kills: int, seed: int = 1, progress: Callable[[int, str], None] = lambda _kills, _what: None
) -> Result:
    """Run a crash test in `folder`, which must be empty or missing.

    Args:
        folder: gets the project, the events and the lake; kept, so that a finding can be looked at.
        kills: how many SIGKILLs at least.
        seed: decides the events and the order of crash points.
        progress: told of every kill.

    Raises:
        ConfigError: the folder is not empty, or the machine cannot fork.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("folder of a crash test must be empty", folder=str(folder))
    if not hasattr(os, "fork"):
        raise ConfigError("a crash test needs fork, which this system does not have; use Linux or macOS")
    return _Chaos(folder, kills, random.Random(seed), progress).run()


class _Chaos:
    def __init__(self, folder: Path, kills: int, rng: random.Random, progress: Callable[[int, str], None]) -> None:
        self.folder, self.kills, self.rng, self.progress = folder, kills, rng, progress
        self.events = folder / "events"
        self.journal = folder / "killed-at.txt"
        self.stopped = folder / "stopped.txt"
        self.result = Result()
        self.files = 0
        self.serial = 0
        self.rounds = 0
        self.births: list[str] = []

    def run(self) -> Result:
        started = time.monotonic()
        with resources.as_file(resources.files("lodestream.operations") / "chaos_project") as template:
            shutil.copytree(template, self.folder, dirs_exist_ok=True)
        self.events.mkdir()
        self.produce(4)
        points = self.discover()
        while self.result.kills < self.kills and not self.stopped.exists():
            self.produce(1)
            self.round(points)
        self.produce(2)
        last = self.fork(lambda: run_worker(self.folder, until_idle=True, stopped=self.stopped))
        if os.waitpid(last, 0)[1] and not self.stopped.exists():
            self.stopped.write_text("the last run, in peace\n")
        for line in self.journal.read_text().splitlines() if self.journal.exists() else []:
            self.result.points[line] = self.result.points.get(line, 0) + 1
        self.result.verdict = check(self.events, self.folder / "lake")
        if self.stopped.exists():
            for line in sorted(set(self.stopped.read_text().splitlines())):
                self.result.verdict.count(f"flow stopped by itself: {line}", 1, "unaccounted")
        self.result.seconds = time.monotonic() - started
        return self.result

    def discover(self) -> list[str]:
        """Every `table/point` that a run comes by, from a run in peace."""
        seen = self.folder / "points.txt"

        def record() -> None:
            found: set[str] = set()
            crash.install(lambda name: found.add(f"{threading.current_thread().name}/{name}"))
            run_worker(self.folder, until_idle=True)
            seen.write_text("\n".join(sorted(found)))

        self.finish(self.fork(record))
        points = [p for p in seen.read_text().split("\n") if not p.startswith("MainThread/")]
        self.rng.shuffle(points)
        # A table is made once only: those points come first, each in a lake that is not there yet.
        self.births = [p for p in points if "/create." in p][: self.kills // 8]
        shutil.rmtree(self.folder / "lake")
        points = [p for p in points if "/create." not in p]
        points[_UPKEEP_AFTER:_UPKEEP_AFTER] = _UPKEEP_POINTS  # a log must have grown first
        return points

    def round(self, points: list[str]) -> None:
        """A worker that dies at a point, and a rival on the same flows that dies inside a batch or at random.

        A rival that dies at random may do so between batches; there is none while too few have died inside one.
        """
        if self.births:
            target = self.births.pop()
            shutil.rmtree(self.folder / "lake", ignore_errors=True)
        else:
            target = points[self.rounds % len(points)]
            self.rounds += 1
        rivals = [p for p in points if _is_inside(p)] + _RIVAL_POINTS
        victim = self.fork(lambda: self.die_at(target))
        time.sleep(self.rng.uniform(0.0, 0.4))
        other = self.rng.choice(rivals) if self.rng.random() < _RIVAL_AT_POINT else None
        rival = self.fork(lambda: self.die_at(other)) if 2 * self.inside() >= self.result.kills else None
        started = time.monotonic()
        while not self.is_dead(victim, target):
            waited = time.monotonic() - started
            if rival is not None and self.is_dead(rival, other or "anywhere"):
                rival = None
            if rival is not None and waited > _RIVAL_S:  # the rival does all the work, so the victim never gets there
                self.kill(rival)
                rival = None
            elif waited > _POINT_WAIT_S:
                self.kill(victim)
                break
            if self.rng.random() < 0.2:
                self.produce(1)
            time.sleep(0.02)
        if rival is not None:
            self.outlive(rival, other)

    def inside(self) -> int:
        """Kills so far at points inside a batch."""
        return sum(map(_is_inside, self.journal.read_text().splitlines())) if self.journal.exists() else 0

    def outlive(self, rival: int, other: str | None) -> None:
        """Leave the rival alone for a while, or with enough work to come by its point, then kill it."""
        until = time.monotonic() + (self.rng.uniform(0.0, 0.3) if other is None else _RIVAL_POINT_S)
        if other is not None:
            self.produce(1)
        while time.monotonic() < until:
            if self.is_dead(rival, other or "anywhere"):
                return
            time.sleep(0.01)
        self.kill(rival)

    def die_at(self, target: str | None) -> None:
        """Run until this process comes by `target`, then vanish there."""

        def maybe(name: str) -> None:
            if f"{threading.current_thread().name}/{name}" == target:
                journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.write(journal, f"{target}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        crash.install(maybe)
        run_worker(self.folder, until_idle=False, stopped=self.stopped)

    def fork(self, body: Callable[[], None]) -> int:
        """Run `body` in a child process; returns its id. The parent has no threads, so this is safe."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)

    def finish(self, child: int) -> None:
        _, status = os.waitpid(child, 0)
        if status:
            raise ConfigError("the pipeline failed outside any kill; run it alone to see why", folder=str(self.folder))

    def is_dead(self, child: int, where: str) -> bool:
        """Whether a worker is gone; counted as a kill at `where` when it was one."""
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.counted(where)
        return gone != 0

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            self.counted("anywhere")

    def counted(self, where: str) -> None:
        self.result.kills += 1
        self.progress(self.result.kills, where)

    def produce(self, files: int) -> None:
        """Add files of events: most are good, some late, doubled, invalid or torn."""
        for _ in range(files):
            lines = [self.record() for _ in range(_RECORDS_PER_FILE)]
            part = self.events / f".{self.files:06}.part"
            part.write_bytes(b"".join(lines))
            part.rename(self.events / f"{self.files:06}.jsonl")
            self.files += 1

    def record(self) -> bytes:
        self.serial += 1
        rng, number = self.rng, self.serial
        lag_us = 120_000_000 if rng.random() < 0.01 and number > 500 else rng.randrange(8_000_000)
        if rng.random() < 0.01:
            return b'{"event_id": "torn\n'
        if rng.random() < 0.04 and number > 10:
            number -= rng.randrange(1, 8)  # the same event once more
            lag_us = 0
        event_us = _START_US + number * 400_000 - lag_us
        value = {
            "event_id": None if rng.random() < 0.005 else f"event-{number}",
            "event_time": _iso(event_us),
            "user_id": number % 97,
            "type": ("Click", "VIEW", "buy", "ping")[number % 4],
            "amount": -1 if number % 150 == 0 else number % 1000,
        }
        return json.dumps(value).encode() + b"\n"


def _iso(event_us: int) -> str:
    seconds, micros = divmod(event_us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06}Z"


def _is_inside(name: str) -> bool:
    return not name.split("/")[1].startswith(_OUTSIDE)


def run_worker(folder: Path, *, until_idle: bool, stopped: Path | None = None) -> None:
    """Run every flow of the project in `folder`; batches are small and logs are cleaned all the time.

    Args:
        folder: the project.
        until_idle: end when nothing is left to do; else run until killed.
        stopped: gets a line for each flow that stops by itself, which none of them may.
    """
    project = load_project(str(folder))
    plans = compile_project(project, {})
    pipeline = Pipeline(
        project.root,
        plans.flows,
        lake=project.lake,
        disk=LocalDisk(),
        clock=lambda: time.time_ns() // 1000,
        limit=BatchLimit(rows_max=400),
        poll_s=0.01,
        standby_s=0.03,
        upkeep=Upkeep(checkpoint_every=5, versions_kept=10, log_kept_us=0, hot_kept_ms=100, look_every_s=0.05),
    )
    if stopped is not None:
        threading.Thread(target=_watch, args=(pipeline, stopped), name="watch", daemon=True).start()
    pipeline.run(until_idle=until_idle)


def _watch(pipeline: Pipeline, stopped: Path) -> None:
    while True:
        for status in list(pipeline.status):
            if status.state == "failed":
                with stopped.open("a") as file:
                    file.write(f"{status.table}: {status.error}\n")
                os._exit(1)
        time.sleep(0.02)
