"""The benchmark's Kafka job on Spark: Avro messages of a topic through three `availableNow` queries, cold and warm.

Runs in the environment that has PySpark; the connectors' jars are given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from bench import measure, spark_job

SCHEMA = spark_job.SCHEMA.replace("decimal(12,2)", "double")


def main() -> None:
    args = _arguments()
    started = time.perf_counter()
    spark = spark_job.session(args.heap, **{"spark.jars": args.jars})
    start_up = {"wall_s": time.perf_counter() - started, "cpu_s": measure.cpu_s(os.getpid())}
    runs = []
    for number in range(args.runs):
        folder = args.work / f"run{number}"
        shutil.rmtree(folder, ignore_errors=True)
        runs.append(spark_job.measured(spark, args, folder, _bronze))
    layers = {layer: f"{folder / layer}/*.parquet" for layer in ("silver", "gold")}
    args.out.write_text(json.dumps({"version": spark.version, "start_up": start_up, "runs": runs, **layers}))
    spark.stop()


def _bronze(spark, args: argparse.Namespace, folder: Path) -> None:
    from pyspark.sql import functions as f
    from pyspark.sql.avro.functions import from_avro

    events = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", args.servers)
        .option("subscribe", args.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", max(1, args.events // 5))
        .load()
        # Confluent's framing: a zero byte and four bytes of schema id before the record
        .withColumn("event", from_avro(f.expr("substring(value, 6)"), args.avro, {"mode": "PERMISSIVE"}))
        .selectExpr(
            "event.*", "case when event.event_id is null then base64(value) end as _corrupt_record",
            "topic", "partition", "offset",
        )
    )  # fmt: skip
    spark_job.write(events, folder, "bronze")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--avro", required=True, help="the messages' schema")
    parser.add_argument("--jars", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=2, help="the first is the cold one")
    parser.add_argument("--heap", default="3g")
    parser.set_defaults(schema=SCHEMA)
    return parser.parse_args()


if __name__ == "__main__":
    main()
