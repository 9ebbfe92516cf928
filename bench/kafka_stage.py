"""The stage of the Kafka benchmark: a broker, a schema registry, topics full of events, and child processes."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench import clicks, events
from bench.events import Spec
from lodestream.testing.kafka import KafkaBroker
from lodestream.testing.pki import Authority

ROOT = Path(__file__).parents[1]
_END_S = 60.0


class Stage:
    """What all measurements share. Made by `opened`.

    Attributes:
        work: folder for everything; goes with the stage.
        broker: the running broker.
        registry: URL of the running registry.
        schema_id: the number of `clicks.SCHEMA` in it.
    """

    def __init__(self, work: Path, broker: KafkaBroker, registry: str) -> None:
        self.work, self.broker, self.registry = work, broker, registry
        self.schema_id = 0
        self._admin = AdminClient({"bootstrap.servers": broker.plain, "log_level": 0})

    def topic(self, name: str, spec: Spec, lag_us: int = events.LAG_MAX_US) -> Path:
        """Make a topic and the plan of what goes into it. Returns the plan's folder."""
        kept = {"retention.ms": "-1"}  # the events are of a day long ago
        for made in self._admin.create_topics([NewTopic(name, clicks.PARTITIONS, 1, config=kept)]).values():
            made.result()
        body = json.dumps({"schema": clicks.SCHEMA}).encode()
        asked = urllib.request.Request(f"{self.registry}/subjects/{name}-value/versions", body)
        asked.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        with urllib.request.urlopen(asked) as answer:
            self.schema_id = json.load(answer)["id"]
        plan = self.work / "plans" / name
        plan.mkdir(parents=True)
        np.save(plan / "order.npy", events.order(spec, lag_us))
        np.save(plan / "invalid.npy", events.invalid_rows(spec))
        (plan / "spec.json").write_text(json.dumps(dataclasses.asdict(spec)))
        return plan

    def drop(self, name: str) -> None:
        """Delete a topic; its files go a little later."""
        for gone in self._admin.delete_topics([name]).values():
            gone.result()

    def producers(self, name: str, count: int, *options: Any) -> list[Child]:
        """Start producers that share a topic's plan."""
        plan = self.work / "plans" / name
        return [
            Child(
                f"producer {number} of {name}", sys.executable,
                ["-m", "bench.kafka_producer", "--servers", self.broker.plain, "--topic", name, "--plan", plan,
                 "--share", f"{number}/{count}", "--schema-id", self.schema_id, *options],
                self.work / f"producer-{name}-{number}.json",
            )
            for number in range(count)
        ]  # fmt: skip

    def close_windows(self, name: str, spec: Spec) -> None:
        """Write the closing event to a topic."""
        producer = Producer({"bootstrap.servers": self.broker.plain})
        producer.produce(name, clicks.closing(spec, self.schema_id), partition=0)
        if producer.flush(30):
            raise SystemExit("the closing event was not acknowledged")


class Child:
    """A process of the benchmark that ends with a report."""

    def __init__(self, name: str, interpreter: Path | str, arguments: list[Any], out: Path) -> None:
        self.name, self.out = name, out
        self.command = [str(part) for part in (interpreter, *arguments, "--out", out)]
        out.unlink(missing_ok=True)
        self._log = out.with_suffix(".log")
        plain = {key: value for key, value in os.environ.items() if not key.startswith("LODESTREAM_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=plain, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def report(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for its end. Ends the benchmark when the process failed, with the end of its log."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            code = "none: it did not end in time"
        except BaseException:
            self.end()
            raise
        if code or not self.out.exists():
            print(self._log.read_text(errors="replace")[-8000:], file=sys.stderr)
            raise FailedError(f"{self.name} failed with exit code {code}")
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found

    def end(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


class FailedError(Exception):
    """A process of the benchmark did not end well."""


@contextlib.contextmanager
def opened(work: Path, heap_mib: int = 1024, *, quick: bool = False) -> Iterator[Stage]:
    """A stage in a new folder, with a broker of its own."""
    authority = Authority(work / "pki", dt.datetime.now(dt.UTC))
    broker = KafkaBroker(work / "kafka", authority, quick=quick, heap_mib=heap_mib).start()
    try:
        with around(broker, work) as stage:
            yield stage
    finally:
        broker.stop()


@contextlib.contextmanager
def around(broker: KafkaBroker, work: Path) -> Iterator[Stage]:
    """A stage with a broker that runs already."""
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lodestream.cli", "registry", "--port", "0", "--store", work / "registry.db"]
    log = work / "registry.log"
    with (
        log.open("wb") as told,
        subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=told, text=True) as server,
    ):
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            if not url:
                raise FailedError(f"the schema registry does not start: {log.read_text(errors='replace')[-2000:]}")
            yield Stage(work, broker, url)
        finally:
            server.terminate()
