"""Kills processes that share a Kafka table, and the broker, again and again while producers write; then counts.

Run as a module it is the long form: `python -m tests.operations.kafka_chaos --kills 100 --restarts 10`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import random
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import polars as pl

from lodestream.app import now_us, open_project
from lodestream.lake import crash
from lodestream.lake.disk import LocalDisk
from lodestream.model.batch import BatchLimit
from lodestream.operations.reconcile import reconcile
from lodestream.runtime.maintain import Upkeep
from lodestream.runtime.pipeline import Pipeline
from lodestream.testing.kafka import KafkaBroker
from lodestream.testing.pki import Authority

PARTITIONS = 6
WORKERS = 3
TOPIC = "events"
TABLES = {
    "bronze/events.yaml": """
source: {{kafka: {{servers: "{servers}", topic: events, share: {share}, linger: 20 ms, include: [key],
         client: {{session.timeout.ms: 3000, heartbeat.interval.ms: 500}}}}}}
format: json
columns: {{id: bigint, at: timestamp, kind: string}}
expect: {{known: {{that: "kind <> 'odd'", else: quarantine}}}}
""",
    "silver/events.yaml": """
from: stream(bronze.events)
event_time: {{column: at, delay: 1 hour}}
dedup: {{keys: [id]}}
""",
    "gold/kinds.yaml": """
from: stream(silver.events)
event_time: {{column: at, delay: 1 hour}}
window: {{every: 1 minute}}
group_by: [kind]
measures: {{n: count(*)}}
""",
}


class KafkaChaos:
    """One run in a folder.

    Args:
        folder: gets broker, project and lake.
        share: whether the workers share the partitions; else they compete for all of them.
        seed: decides who dies when.
    """

    def __init__(self, folder: Path, *, share: bool, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        authority = Authority(folder / "pki", dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC))
        self.broker = KafkaBroker(folder / "kafka", authority).start()
        self.project = folder / "project"
        for name, text in TABLES.items():
            path = self.project / "tables" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(servers=self.broker.plain, share=str(share).lower()))
        (self.project / "lodestream.yaml").write_text("project: chaos\nlake: lake\n")
        self.journal = folder / "acknowledged.txt"
        self.stopped = folder / "stopped.txt"
        self.stop_producing = folder / "enough"
        self.kills = self.restarts = self.at_points = 0
        self.children: set[int] = set()

    def run(self, kills: int, restarts: int) -> dict[str, object]:
        """Kill until there were enough; then let everything settle and count."""
        try:
            return self._run(kills, restarts)
        finally:  # whatever went wrong, nobody is left behind
            for child in list(self.children):
                self.end(child)
            self.broker.stop()

    def _run(self, kills: int, restarts: int) -> dict[str, object]:
        self.fork(self.make_topic, wait=True)
        producer = self.fork(self.produce)
        workers: dict[int, float] = {}
        every = kills // (restarts + 1) if restarts else kills + 1
        while self.kills < kills and not self.stopped.exists():
            while len(workers) < WORKERS:
                seed = self.rng.random()
                workers[self.fork(lambda seed=seed: self.work(seed))] = time.monotonic()
            time.sleep(self.rng.uniform(0.05, 0.3))
            for child in list(workers):
                gone, status = os.waitpid(child, os.WNOHANG)
                if gone:
                    self.children.discard(child)
                    assert os.WIFSIGNALED(status), f"a worker ended by itself with {status}"
                    del workers[child]
                    self.kills += 1
                    self.at_points += 1
            old = [child for child, since in workers.items() if time.monotonic() - since > 2.0]
            if old and self.rng.random() < 0.4:
                victim = self.rng.choice(old)
                self.end(victim)
                del workers[victim]
                self.kills += 1
            if self.kills >= every * (self.restarts + 1) and self.restarts < restarts:
                self.restarts += 1
                self.broker.restart(kill=self.restarts % 2 == 0)
        for child in workers:
            self.end(child)
        self.stop_producing.touch()
        os.waitpid(producer, 0)
        self.children.discard(producer)
        self.fork(lambda: self.pipeline().run(until_idle=True), wait=True)
        return self.verdict()

    # --- children ----------------------------------------------------------------------------------------------------

    def fork(self, body: Callable[[], object], *, wait: bool = False) -> int:
        """Run `body` in a child; this process has no threads and no Kafka client, so that it may fork."""
        child = os.fork()
        if not child:
            code = 1
            try:
                body()
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        if wait:
            assert os.waitpid(child, 0)[1] == 0
        else:
            self.children.add(child)
        return child

    def end(self, child: int) -> None:
        """Kill a child that still runs."""
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.children.discard(child)

    def make_topic(self) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.broker.plain})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(20)

    def produce(self) -> None:
        """Write all the time; remember what the broker acknowledged."""
        from confluent_kafka import Producer

        from lodestream.drivers.kafka_connection import LOG

        producer = Producer(
            {"bootstrap.servers": self.broker.plain, "enable.idempotence": True, "linger.ms": 5}, logger=LOG
        )
        number, rng = 0, random.Random(7)
        with self.journal.open("w") as journal:

            def told(error, message):
                if error is None:
                    journal.write(f"{message.partition()} {message.offset()}\n")

            while not self.stop_producing.exists():
                for _ in range(50):
                    number += 1
                    value = self.event(number, rng)
                    producer.produce(TOPIC, value, key=b"%d" % number, partition=number % PARTITIONS, on_delivery=told)
                producer.poll(0)
                time.sleep(0.02)
            assert producer.flush(60) == 0

    @staticmethod
    def event(number: int, rng: random.Random) -> bytes:
        if rng.random() < 0.01:
            return b'{"id": torn'
        kind = "odd" if rng.random() < 0.02 else ("view", "click", "buy")[number % 3]
        same = number - 3 if rng.random() < 0.02 and number > 10 else number
        at = dt.datetime(2024, 5, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=20 * same)
        return json.dumps({"id": same, "at": at.isoformat(), "kind": kind}).encode()

    def pipeline(self) -> Pipeline:
        app = open_project(str(self.project))
        app.apply()
        return Pipeline(
            app.project.root, app.flows, lake=app.lake, disk=LocalDisk(), clock=now_us, poll_s=0.01, standby_s=0.05,
            limit=BatchLimit(rows_max=2000),
            upkeep=Upkeep(checkpoint_every=5, versions_kept=1000, log_kept_us=0, hot_kept_ms=100, look_every_s=0.1),
        )  # fmt: skip

    def work(self, seed: float) -> None:
        """Run every flow until killed: by the parent, or by itself at a point it comes by."""
        rng = random.Random(seed)
        armed = time.monotonic() + rng.uniform(0.5, 3.0)
        share = rng.choice([0.0, 0.01, 0.05])

        def maybe(_name: str) -> None:
            if time.monotonic() > armed and rng.random() < share:
                os.kill(os.getpid(), signal.SIGKILL)

        crash.install(maybe)
        pipeline = self.pipeline()
        threading.Thread(target=self.watch, args=(pipeline,), daemon=True).start()
        pipeline.run()

    def watch(self, pipeline: Pipeline) -> None:
        while True:
            for status in list(pipeline.status):
                if status.state == "failed":
                    with self.stopped.open("a") as file:
                        file.write(f"{status.table}: {status.error}\n")
                    os._exit(3)
            time.sleep(0.05)

    # --- counting ----------------------------------------------------------------------------------------------------

    def verdict(self) -> dict[str, object]:
        """What was written against what is there, counted without the engine."""
        written = {tuple(map(int, line.split())) for line in self.journal.read_text().splitlines()}
        bronze = self.positions("events")
        aside = self.positions("events__quarantine")
        both = bronze + aside
        app = open_project(str(self.project))
        reports = [reconcile(app.project.root, app.lake, plan, app.resolve) for plan in app.flows.values()]
        stopped = self.stopped.read_text().splitlines() if self.stopped.exists() else []
        return {
            "kills": self.kills, "at_points": self.at_points, "broker_restarts": self.restarts,
            "produced": len(written), "lost": len(written - set(both)), "duplicated": len(both) - len(set(both)),
            "unknown": len(set(both) - written), "gold_off": self.gold_off(),
            "problems": [problem for report in reports for problem in report.problems] + stopped,
        }  # fmt: skip

    def positions(self, name: str) -> list[tuple[int, int]]:
        rows = pl.read_delta(str(self.project / "lake" / "bronze" / name), columns=["_source", "_position"])
        return [(int(unit.rpartition("/")[2]), at) for unit, at in rows.iter_rows()]

    def gold_off(self) -> int:
        """How far the windows' counts are from distinct ids in silver."""
        silver = pl.read_delta(str(self.project / "lake/silver/events"), columns=["id"])
        gold = pl.read_delta(str(self.project / "lake/gold/kinds"), columns=["n"])
        assert silver["id"].n_unique() == len(silver)
        return abs(len(silver) - int(gold["n"].sum()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept for a look; otherwise a temporary one")
    parser.add_argument("--alone", action="store_true", help="workers compete for all partitions")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        started = time.monotonic()
        folder = given.folder or Path(temporary)
        found = KafkaChaos(folder, share=not given.alone, seed=given.seed).run(given.kills, given.restarts)
        print(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
