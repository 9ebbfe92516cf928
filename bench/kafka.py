"""Kafka to bronze to silver to gold: drain rate, catching up, latency, and others at it: `python -m bench.kafka`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import clicks, compare, kafka_lake, kafka_peers, kafka_report, profiling
from bench.events import Spec
from bench.kafka_stage import ROOT, Child, FailedError, Stage, opened

PROJECT = Path(__file__).parent / "kafka_project"
SPAN_MIN_US = 90_000_000
"""Shortest event time of a topic: it has some windows, however few events there are."""
_SETTLE_S = 180.0
_POLL_S = 0.25
_HELD_S = 1.0
_RATE_LEAST = 10_000
_BURST_PER_S = 300_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when a side failed or rows are not what they must be."""
    args = parse(arguments)
    work = args.cache / f"kafka-{os.getpid()}"
    try:
        with opened(work, quick=args.quick) as stage:
            return run(stage, args)
    except FailedError as error:
        say(str(error))
        return 1
    finally:
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)


def run(stage: Stage, args: argparse.Namespace) -> int:
    """Measure on a stage and print what was found; as `main`."""
    bench = Bench(stage, args)
    bench.run()
    if bench.wrong:
        print("THE ROWS ARE NOT WHAT THEY MUST BE", *bench.wrong, sep="\n  ")
        return 1
    if not args.json:
        print(*bench.lines, sep="\n")
    print(json.dumps(kafka_report.summary(bench.found)))
    return 0


class Bench:
    """The measurements, one after another.

    Attributes:
        found: figures by measurement; `kafka_report` says what is in them.
        lines: what people read of them.
        wrong: rows that are missing, too many or not right.
    """

    def __init__(self, stage: Stage, args: argparse.Namespace) -> None:
        self.stage, self.args = stage, args
        self.found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
        self.lines: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """All that is asked for."""
        args = self.args
        if "drain" in args.only:
            self.drain()
        if "burst" in args.only:
            self.burst()
        if "latency" in args.only:
            self.latency()
        if args.peers:
            self.peers()
        self.found["broker_cpu_s"] = round(self.stage.broker.cpu_s(), 2)

    # --- measurements ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """A full topic into bronze, and through all layers, each time into a new lake, for as long as asked."""
        spec = self._spec(self.args.events, 0)
        told = self._preload("drain", spec)
        self._tell("preload", told)
        truth = clicks.truth(self.stage.work / "truth-drain", spec)
        if self.args.profile:
            profiled = self._job("drain", "all", "--profile", self.args.profile).report()
            print(profiled["profile"])
        for layers in ("bronze", "all"):
            runs: list[dict[str, Any]] = []
            while not runs or sum(run["wall_s"] for run in runs) < self.args.seconds:
                os.sync()
                broker_s = self.stage.broker.cpu_s()
                job = self._job("drain", layers)
                runs.append({**job.report(), "broker_cpu_s": self.stage.broker.cpu_s() - broker_s})
                say(f"drain {layers}: {spec.events / runs[-1]['wall_s']:,.0f} events/s")
            self.check("drain", truth if layers == "all" else None)
            self._tell(f"drain_{layers}", {
                **_figures(runs, spec.events), "runs": len(runs),
                "wall_s": round(sum(run["wall_s"] for run in runs), 1),
                "native": runs[0]["native"], "command": " ".join(job.command[1:]),
            })  # fmt: skip
        self.stage.drop("drain")

    def burst(self) -> None:
        """Producers write for a while as fast as they can while the engine runs: how long until it has all?"""
        most = self.args.burst_events or int(self.args.burst_seconds * _BURST_PER_S)
        spec = self._spec(most, 1)
        self.stage.topic("burst", spec)
        broker_s = self.stage.broker.cpu_s()
        job = self._ready(self._job("burst", "all", "--on"))
        producers = self.stage.producers("burst", self.args.burst_producers, "--seconds", self.args.burst_seconds)
        told = [producer.report() for producer in producers]
        sent, ended = sum(one["sent"] for one in told), max(one["ended"] for one in told)
        progress = kafka_lake.Progress(self._project("burst") / "lake")
        progress.look()
        behind = sent - progress.taken()
        caught_up = self._settle(job, progress, sent)
        took = ended - min(one["started"] for one in told)
        self.check("burst", None)
        self._tell("catch_up", {
            "produced_per_s": round(sent / took), "produced_s": round(took, 1), "behind": behind,
            "taken_per_s": round((sent - behind) / took),
            "catch_up_s": round(caught_up - ended, 2), "broker_cpu_s": round(self.stage.broker.cpu_s() - broker_s, 2),
            "producers_cpu_s": round(sum(one["cpu_s"] for one in told), 1), "command": " ".join(job.command[1:]),
        })  # fmt: skip
        self.stage.drop("burst")

    def latency(self) -> None:
        """Event to bronze, silver and gold at a steady rate; where the machine cannot hold it, at half of it, too."""
        rate, seconds, number = self.args.rate, self.args.latency_seconds, 0
        if self.args.profile:
            self._live("profiled", rate, min(seconds, 30), "--profile", self.args.profile)
        while True:
            told = self._live(f"live{number}", rate, seconds)
            self._tell("latency" if not number else f"latency_{rate}", told)
            self.found["held_per_s"] = rate if told["held"] else None
            if told["held"] or rate <= _RATE_LEAST:
                return
            rate, seconds, number = rate // 2, min(seconds, 30), number + 1

    def peers(self) -> None:
        """Others, and Lodestream once more, on topics of their own: a small one for those who are very slow."""
        found: dict[str, Any] = {}
        for topic, share, names in kafka_peers.heats(self.args.peers):
            spec = self._spec(self.args.peer_events // share, 2)
            self._preload(topic, spec)
            truth = clicks.truth(self.stage.work / f"truth-{topic}", spec)
            if share == 1:
                broker_s = self.stage.broker.cpu_s()
                runs = [self._job(topic, "all").report()]
                runs[0]["broker_cpu_s"] = self.stage.broker.cpu_s() - broker_s
                self.check(topic, truth)
                self._tell("same_topic", _figures(runs, spec.events))
            found |= kafka_peers.run(self.stage, topic, spec, names, truth, say)
        for name, told in found.items():
            self._tell(f"peer_{name}", told)
        self.found["peers"] = found

    def _spec(self, events: int, number: int) -> Spec:
        return Spec(events, 1, self.args.seed + number, self.args.event_rate, SPAN_MIN_US)

    # --- parts of them -----------------------------------------------------------------------------------------------

    def _preload(self, topic: str, spec: Spec) -> dict[str, Any]:
        say(f"writing {spec.events:,} events to {topic}")
        self.stage.topic(topic, spec)
        broker_s = self.stage.broker.cpu_s()
        producers = self.stage.producers(topic, self.args.producers)
        told = [producer.report() for producer in producers]
        took = max(one["ended"] for one in told) - min(one["started"] for one in told)
        return {
            "events": spec.events, "events_per_s": round(spec.events / took),
            "cpu_ns_per_event": round(sum(one["cpu_s"] for one in told) * 1e9 / spec.events),
            "broker_cpu_s": round(self.stage.broker.cpu_s() - broker_s, 2),
            "command": " ".join(producers[0].command[1:]),
        }  # fmt: skip

    def _live(self, topic: str, rate: int, seconds: float, *options: str) -> dict[str, Any]:
        spec = self._spec(int(rate * seconds), 3)
        plan = self.stage.topic(topic, spec, lag_us=0)
        broker_s = self.stage.broker.cpu_s()
        job = self._ready(self._job(topic, "all", "--on", *options))
        (producer,) = self.stage.producers(topic, 1, "--live", "--per-second", rate)
        told = producer.report()
        progress = kafka_lake.Progress(self._project(topic) / "lake")
        caught_up = self._settle(job, progress, told["sent"])
        ran = job.report()
        if options:
            print(ran["profile"])
        truth = clicks.truth(self.stage.work / f"truth-{topic}", spec, np.load(plan / "times.npy"))
        self.check(topic, truth)
        took = told["ended"] - told["started"]
        return {
            "rate": rate, "seconds": round(took, 1), "sent_per_s": round(told["sent"] / took),
            "held": bool(told["sent"] / took > 0.97 * rate and caught_up - told["ended"] < _HELD_S),
            "latency_ms": kafka_lake.latencies(self._project(topic)),
            "after_end_s": round(caught_up - told["ended"], 2),
            "cpu_ns_per_event": round(ran["cpu_s"] * 1e9 / told["sent"]),
            "producer_cpu_ns_per_event": round(told["cpu_s"] * 1e9 / told["sent"]),
            "broker_cpu_s": round(self.stage.broker.cpu_s() - broker_s, 2), "command": " ".join(job.command[1:]),
        }  # fmt: skip

    def _job(self, topic: str, layers: str, *options: str) -> Child:
        """Start Lodestream on a topic, with a new lake."""
        project = self._project(topic)
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(PROJECT, project)
        bronze = project / "tables" / "bronze" / "events.yaml"
        text = bronze.read_text().replace("BROKER", self.stage.broker.plain).replace("TOPIC", topic)
        bronze.write_text(text.replace("REGISTRY", self.stage.registry))
        if self.args.portable:
            options = (*options, "--portable")
        return Child(
            f"lodestream on {topic}", sys.executable,
            ["-m", "bench.kafka_job", "--project", project, "--layers", layers, *options],
            self.stage.work / f"lodestream-{topic}.json",
        )  # fmt: skip

    def _ready(self, job: Child) -> Child:
        """Wait until a job has begun to run; its consumer may take a little longer."""
        commits = self._project(job.name.rpartition(" ")[2]) / "commits.jsonl"
        deadline = time.monotonic() + _SETTLE_S
        while not commits.exists():
            if job.process.poll() is not None or time.monotonic() > deadline:
                job.end()
                job.report()
            time.sleep(0.05)
        return job

    def _project(self, topic: str) -> Path:
        return self.stage.work / f"project-{topic}"

    def _settle(self, job: Child, progress: kafka_lake.Progress, messages: int) -> float:
        """Wait until gold has all messages, then end the job. Returns when it had them, in seconds since 1970."""
        deadline = time.monotonic() + _SETTLE_S + self.args.burst_seconds * 4
        while (version := progress.complete(messages)) is None:
            if job.process.poll() is not None or time.monotonic() > deadline:
                job.end()
                job.report()
            time.sleep(_POLL_S)
            progress.look()
        job.process.send_signal(signal.SIGTERM)
        job.report()
        return kafka_lake.commit_times(self._project(job.name.rpartition(" ")[2]))["gold", version]

    def check(self, topic: str, truth: compare.Result | None) -> None:
        """Hold a lake to its topic: every message once in bronze, and in silver and gold what the truth says."""
        lake = self._project(topic) / "lake"
        told = [json.loads(file.read_text()) for file in self.stage.work.glob(f"producer-{topic}-*.json")]
        counts = np.sum([one["partitions"] for one in told], axis=0).tolist()
        ends = {f"{topic}/{number}": count for number, count in enumerate(counts)}
        found = kafka_lake.lost_or_doubled(lake, ends)
        if truth is not None:
            silver, gold = (_files(lake, layer) for layer in ("silver", "gold"))
            ours = clicks.tables(
                "lodestream", f"select event_id from read_parquet({silver}, hive_partitioning=false)",
                f"from read_parquet({gold}, hive_partitioning=false)",
            )  # fmt: skip
            verdict = compare.compare(truth, ours)
            found += verdict.lines
            say(f"{topic}: {verdict.silver_rows:,} silver and {verdict.gold_rows:,} gold rows compared")
        self.wrong += [f"{topic}: {line}" for line in found]

    def _tell(self, name: str, told: dict[str, Any]) -> None:
        self.found[name] = told
        load = os.getloadavg()[0]
        self.lines.append(kafka_report.line(name, told, self.found["cores"], load))
        say(self.lines[-1])


def say(text: str) -> None:
    """Progress, apart from what the benchmark prints as its result."""
    print(text, file=sys.stderr, flush=True)


def _figures(runs: Sequence[dict[str, Any]], events: int) -> dict[str, Any]:
    return {
        "events_per_s": round(events / median(run["wall_s"] for run in runs)),
        "cpu_ns_per_event": round(median(run["cpu_s"] for run in runs) * 1e9 / events),
        "system_ns_per_event": round(median(run["system_s"] for run in runs) * 1e9 / events),
        "peak_mib": round(median(run["peak_mib"] for run in runs)),
        "broker_cpu_s": round(median(run["broker_cpu_s"] for run in runs), 2),
    }


def _files(lake: Path, layer: str) -> list[str]:
    from deltalake import DeltaTable

    table = DeltaTable(str(lake / layer / kafka_lake.LAYERS[layer]))
    return [uri.removeprefix("file://") for uri in table.file_uris()]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.kafka", description=__doc__)
    parser.add_argument("--events", type=int, default=12_000_000, help="events to drain (default 12,000,000)")
    parser.add_argument("--seconds", type=float, default=60, help="drain again until so much work is done (default 60)")
    parser.add_argument(
        "--event-rate", type=int, default=50_000, help="events per second of event time in a full topic (50,000)"
    )
    parser.add_argument("--burst-seconds", type=float, default=60, help="how long producers write (default 60)")
    parser.add_argument("--burst-events", type=int, help="most that they write (default 300,000 for each second)")
    parser.add_argument("--rate", type=int, default=50_000, help="events/s while latency is measured (default 50,000)")
    parser.add_argument("--latency-seconds", type=float, default=120, help="for how long (default 120)")
    parser.add_argument("--peer-events", type=int, default=2_000_000, help="events for the peers (default 2,000,000)")
    parser.add_argument(
        "--peers", type=lambda text: [name for name in text.split(",") if name], default=list(kafka_peers.NAMES),
        metavar="WHO", help="which: " + ",".join(kafka_peers.NAMES) + "; empty for none",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=["drain", "burst", "latency"],
        metavar="WHICH", help="which of drain,burst,latency; empty for none",
    )  # fmt: skip
    parser.add_argument("--producers", type=int, default=2, help="processes that fill a topic (default 2)")
    parser.add_argument(
        "--burst-producers", type=int, default=5, help="processes that write the burst (default 5: more than it drains)"
    )
    parser.add_argument("--quick", action="store_true", help="start the broker fast, for trials")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", nargs="?", const="cpu", choices=profiling.TIMERS, help="one more run, profiled")
    parser.add_argument("--portable", action="store_true", help="run Lodestream without its native kernels")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    parser.add_argument("--keep", action="store_true", help="leave topics and lakes for a look")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where everything goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
