"""The same topic and job by others: each in an environment of its own, its rows held to the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import clicks, compare, events, peer
from bench.kafka_stage import Child, FailedError, Stage
from lodestream.testing.maven import class_path

NAMES = {"spark": "pyspark", "quix": "quixstreams", "bytewax": "bytewax", "pathway": "pathway"}
SPARK = ("org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0", "org.apache.spark:spark-avro_2.13:4.2.0")
_BUNDLED = ("hadoop-client", "scala-library", "slf4j-api", "spark-tags", "scala-parallel", "jsr305")
_SLOW = {"quix": 10}
"""Who gets one of so many events only, to end in about a minute."""
_TIMEOUT_S = 900.0


def heats(names: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    """Topic, which share of the events is in it, and who runs on it."""
    usual = [name for name in names if name not in _SLOW]
    slow = [(f"peers-{name}", _SLOW[name], [name]) for name in names if name in _SLOW]
    return ([("peers", 1, usual)] if usual else []) + slow


def run(
    stage: Stage, topic: str, spec: events.Spec, names: Sequence[str], truth: compare.Result, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Run peers one after another on a topic that holds `spec`.

    Returns:
        By name: `events_per_s`, `cpu_ns_per_event`, `peak_mib`, `broker_cpu_s`, `missing` (what it does not do), or
        `error`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names, key=lambda name: name == "spark"):  # Spark last: it wants the closing event
        if name == "spark" and (missing := peer.java_missing()):
            found[name] = {"error": missing}
            continue
        say(f"running {name}")
        try:
            found[name] = _one(stage, topic, spec, name, truth)
        except FailedError as error:
            found[name] = {"error": str(error)}
    return found


def _one(stage: Stage, topic: str, spec: events.Spec, name: str, truth: compare.Result) -> dict[str, Any]:
    work = stage.work / name
    work.mkdir()
    arguments = [
        "-m", f"bench.kafka_{name}", "--servers", stage.broker.plain, "--topic", topic, "--events", spec.events,
        "--avro", clicks.SCHEMA, "--work", work,
    ]  # fmt: skip
    if name == "spark":
        stage.close_windows(topic, spec)
        jars = [jar for jar in class_path(SPARK).split(os.pathsep) if not Path(jar).name.startswith(_BUNDLED)]
        arguments += ["--jars", ",".join(jars)]
    broker_s = stage.broker.cpu_s()
    told = Child(name, peer.python(name, NAMES[name]), arguments, work / "report.json").report(_TIMEOUT_S)
    cold, warm = told["runs"][0], told["runs"][-1]
    more = {"cold_events_per_s": round(spec.events / cold["wall_s"]), "layers_s": warm.get("layers")}
    return {
        "version": told["version"],
        "events_per_s": round(spec.events / warm["wall_s"]),
        "cpu_ns_per_event": round(warm["cpu_s"] * 1e9 / spec.events),
        "peak_mib": round(warm["peak_mib"]),
        "broker_cpu_s": round((stage.broker.cpu_s() - broker_s) / len(told["runs"]), 2),
        **(more if "layers" in warm else {}),
        "missing": told.get("missing", "fsync, quarantine"),
        "wrong": _wrong(name, told, truth),
    }  # fmt: skip


def _wrong(name: str, told: dict[str, Any], truth: compare.Result) -> list[str]:
    """Where its rows are not the truth; of those that have no silver, gold alone."""
    if "silver" in told:
        theirs = clicks.tables(name, f"from read_parquet('{told['silver']}')", f"from read_parquet('{told['gold']}')")
    else:
        theirs = compare.Result(name, truth.silver, f"from read_csv('{told['gold']}')")
    return compare.compare(truth, theirs).lines
