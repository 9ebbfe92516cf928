"""The same three layers on Spark Structured Streaming, several times in one JVM; run by `bench.spine` in `.venv-spark`.

Settings are those that suit Spark best here: two shuffle partitions for two cores, no adaptive planning, the default
in-memory state store, big batches, each query run to the end by itself (`availableNow`). Checkpoints and parquet files
are written as Spark writes them, which is without fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from bench import measure

SCHEMA = (
    "event_id string, event_time timestamp, user_id bigint, type string, amount decimal(12,2), country string, "
    "url string, _corrupt_record string"
)
DELAY = "30 seconds"


def main() -> None:
    args = _arguments()
    started = time.perf_counter()
    spark = session(args.heap)
    start_up = {"wall_s": time.perf_counter() - started, "cpu_s": measure.cpu_s(os.getpid())}
    runs = []
    for number in range(args.runs):
        folder = args.work / f"run{number}"
        shutil.rmtree(folder, ignore_errors=True)
        runs.append(measured(spark, args, folder, _bronze))
        if number + 1 < args.runs:
            shutil.rmtree(folder)
    args.out.write_text(json.dumps({
        "version": spark.version, "start_up": start_up, "runs": runs,
        "silver": str(folder / "silver"), "gold": str(folder / "gold"),
    }))  # fmt: skip
    spark.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, required=True, help="the first is the cold one")
    parser.add_argument("--files-per-batch", type=int, default=4)
    parser.add_argument("--heap", default="3g")
    parser.set_defaults(schema=SCHEMA)
    return parser.parse_args()


def session(heap: str, **more: str):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("spine").config("spark.driver.memory", heap)
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
    }
    for name, value in {**settings, **more}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def measured(spark, args: argparse.Namespace, folder: Path, bronze: Any) -> dict[str, object]:
    """One run of the three queries; `bronze` is the first."""
    me = os.getpid()
    measure.reset_peak(me)
    layers, cpu, system, wall = {}, measure.cpu_s(me), measure.system_s(me), time.perf_counter()
    for layer, step in (("bronze", bronze), ("silver", silver), ("gold", gold)):
        began = time.perf_counter()
        step(spark, args, folder)
        layers[layer] = time.perf_counter() - began
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": measure.cpu_s(me) - cpu,
        "system_s": measure.system_s(me) - system,
        "peak_mib": measure.peak_mib(me),
        "layers": layers,
    }


def _bronze(spark, args: argparse.Namespace, folder: Path) -> None:
    events = (
        spark.readStream.schema(SCHEMA)
        .option("maxFilesPerTrigger", args.files_per_batch)
        .option("columnNameOfCorruptRecord", "_corrupt_record")
        .json(str(args.source))
    )
    write(events, folder, "bronze")


def silver(spark, args: argparse.Namespace, folder: Path) -> None:
    events = read(spark, folder / "bronze", args.schema)
    valid = events.where("_corrupt_record is null and event_id is not null and amount >= 0 and event_time is not null")
    once = valid.drop("_corrupt_record").withWatermark("event_time", DELAY).dropDuplicatesWithinWatermark(["event_id"])
    write(once, folder, "silver")


def gold(spark, args: argparse.Namespace, folder: Path) -> None:
    from pyspark.sql import functions as f

    events = read(spark, folder / "silver", args.schema.replace(", _corrupt_record string", ""))
    counted = (
        events.withWatermark("event_time", DELAY)
        .groupBy(f.window("event_time", "1 minute"), "type", "country")
        .agg(f.count("*").alias("events"), f.sum("amount").alias("amount"))
        .selectExpr("window.start as window_start", "type", "country", "events", "amount")
    )
    write(counted, folder, "gold")


def read(spark, path: Path, schema: str):
    """A layer's files, two per batch, as `_write` makes them: a batch must not be cut in two, since its halves are not
    in event-time order to each other."""
    return spark.readStream.schema(schema).option("maxFilesPerTrigger", 2).parquet(str(path))


def write(rows, folder: Path, layer: str) -> None:
    query = (
        rows.coalesce(2)
        .writeStream.format("parquet")
        .option("checkpointLocation", str(folder / "checkpoints" / layer))
        .outputMode("append")
        .trigger(availableNow=True)
        .start(str(folder / layer))
    )
    query.awaitTermination()


if __name__ == "__main__":
    main()
