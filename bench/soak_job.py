"""The process that `bench.soak` watches: runs a project to its end, and notes how long commits and rows take."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lodestream.app import App, now_us, open_project, resolved
from lodestream.engines.embedded.surroundings import Committed
from lodestream.lake import vacuum
from lodestream.lake.table import DeltaTable
from lodestream.model.table import FlowName, TableName
from lodestream.project import maintain
from lodestream.runtime.maintain import Upkeep
from lodestream.runtime.memory import keep_freed_memory
from lodestream.runtime.pipeline import Pipeline

GOLD = TableName("gold", "per_country")


class Notes:
    """What happened since the last note: milliseconds of commits, and of rows from their event to gold."""

    def __init__(self) -> None:
        self.commits_ms: list[float] = []
        self.oldest_ms: list[float] = []
        self.newest_ms: list[float] = []
        self._seen_us: int | None = None
        commit = DeltaTable.commit

        def timed(table: DeltaTable, **what: Any) -> int:
            started = time.perf_counter()
            version = commit(table, **what)
            self.commits_ms.append((time.perf_counter() - started) * 1000)
            return version

        DeltaTable.commit = timed  # type: ignore[method-assign, assignment]

    def heard(self, pipeline: Pipeline, flow: FlowName, committed: Committed) -> None:
        """A batch is durable: its rows came after the newest event before it, up to the newest in it."""
        if flow != GOLD or not committed.counts.get("input"):
            return
        newest_us, now = pipeline.workers[flow].status.max_event_us, now_us()
        if newest_us is None:
            return
        self.newest_ms.append((now - newest_us) / 1000)
        self.oldest_ms.append((now - (self._seen_us or newest_us)) / 1000)
        self._seen_us = newest_us

    def taken(self) -> dict[str, list[float]]:
        """All notes, which begin anew."""
        found = {"commits_ms": self.commits_ms, "oldest_ms": self.oldest_ms, "newest_ms": self.newest_ms}
        self.commits_ms, self.oldest_ms, self.newest_ms = [], [], []
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until all events are in gold; notes and, last, the counts of every flow go to `--out`, JSON line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kept-seconds", type=float, required=True, help="log entries and deleted files are kept")
    parser.add_argument("--every-seconds", type=float, required=True, help="between two notes")
    args = parser.parse_args(arguments)
    keep_freed_memory()
    vacuum.KEEP_MIN_MS = maintain.KEEP_LEAST_US = 0  # one machine, one clock, and files are committed at once
    app = open_project(args.project)
    app.apply()
    pipeline, notes = _pipeline(app, args.kept_seconds), Notes()
    ended = threading.Event()
    with args.out.open("w", buffering=1) as out:

        def note() -> None:
            while not ended.wait(args.every_seconds):
                state = sum(status.state_bytes for status in pipeline.status)
                print(json.dumps({"at": time.time(), "state_bytes": state, **notes.taken()}), file=out)

        thread = threading.Thread(target=note, daemon=True)
        thread.start()
        statuses = pipeline.run(until_idle=True, listener=lambda flow, done: notes.heard(pipeline, flow, done))
        ended.set()
        thread.join()
        print(json.dumps({"at": time.time(), "counts": {str(one.table): one.counts for one in statuses}}), file=out)
    app.close()
    return 0


def _pipeline(app: App, kept_s: float) -> Pipeline:
    """The project's pipeline, which looks after its tables as often as hours and days are seconds here."""
    often_s = max(2.0, kept_s / 6)
    return Pipeline(
        app.project.root, app.flows, lake=app.lake, disk=app.disk, clock=now_us, limit=app.project.batch.limit,
        poll_s=0.1, resolve=resolved,
        upkeep=Upkeep(
            versions_kept=100, hot_kept_ms=min(60_000, round(kept_s * 1000)), compact_every_s=often_s,
            expire_every_s=often_s, vacuum_every_s=often_s,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
