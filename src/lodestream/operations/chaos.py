"""Kills a running pipeline again and again, at named points and at random, and proves that nothing was lost.

Each worker is a child process forked from a clean interpreter. It runs every flow of a small project against one lake.
A second worker runs the same flows beside it. Half of the kills fall at named points inside a batch; in the end the
pipeline runs once more in peace and a checker, which shares no code with the engine, judges files and tables.
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
from lodestream.runtime.pipeline import Pipeline

_RIVAL_S = 0.5
_POINT_WAIT_S = 4.0
_RECORDS_PER_FILE = 60
_START_US = 1_700_000_000_000_000


@dataclass
class Result:
    """What a crash test did and found.

    Attributes:
        kills: SIGKILLs sent, by ourselves at a point or by the parent at random.
        points: kills by `table/point`.
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
        self.result = Result()
        self.files = 0
        self.serial = 0
        self.rounds = 0

    def run(self) -> Result:
        started = time.monotonic()
        with resources.as_file(resources.files("lodestream.operations") / "chaos_project") as template:
            shutil.copytree(template, self.folder, dirs_exist_ok=True)
        self.events.mkdir()
        self.produce(4)
        points = self.discover()
        while self.result.kills < self.kills:
            self.produce(1)
            self.round(points)
        self.produce(2)
        self.finish(self.fork(lambda: run_worker(self.folder, until_idle=True)))
        for line in self.journal.read_text().splitlines():
            self.result.points[line] = self.result.points.get(line, 0) + 1
        self.result.verdict = check(self.events, self.folder / "lake")
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
        points = [p for p in seen.read_text().split("\n") if not p.startswith(("MainThread/", "maintenance/"))]
        self.rng.shuffle(points)
        # A table is made once only: those points come first, in a lake that is not there yet.
        shutil.rmtree(self.folder / "lake")
        return sorted(points, key=lambda point: "/create." not in point)

    def round(self, points: list[str]) -> None:
        """A worker that dies at a point, and a rival on the same flows that dies at random, before or after it."""
        target = points[self.rounds % len(points)]
        self.rounds += 1
        victim = self.fork(lambda: self.die_at(target))
        time.sleep(self.rng.uniform(0.0, 0.4))
        rival: int | None = self.fork(lambda: run_worker(self.folder, until_idle=False))
        started = time.monotonic()
        while not os.waitpid(victim, os.WNOHANG)[0]:
            waited = time.monotonic() - started
            if rival is not None and waited > _RIVAL_S:  # the rival does all the work, so the victim never gets there
                self.kill(rival)
                self.counted("anywhere")
                rival = None
            elif waited > _POINT_WAIT_S:
                self.kill(victim)
                break
            if self.rng.random() < 0.2:
                self.produce(1)
            time.sleep(0.02)
        self.counted(target)
        if rival is not None:
            time.sleep(self.rng.uniform(0.0, 0.3))
            self.kill(rival)
            self.counted("anywhere")

    def die_at(self, target: str) -> None:
        """Run until this process comes by `target`, then vanish there."""

        def maybe(name: str) -> None:
            if f"{threading.current_thread().name}/{name}" == target:
                journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.write(journal, f"{target}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        crash.install(maybe)
        run_worker(self.folder, until_idle=False)

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

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

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


def run_worker(folder: Path, *, until_idle: bool) -> None:
    """Run every flow of the project in `folder`; batches are small, so that there are many."""
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
    )
    pipeline.run(until_idle=until_idle)
