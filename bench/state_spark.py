"""The benchmark's dedup on Spark Structured Streaming, state in RocksDB; run by `bench.state` in `.venv-spark`.

One file is one batch, as on our side, and no key expires. A quarter of the files is taken in first, with a checkpoint
of its own, so that the compilers of the JVM have warmed up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from bench import measure, spark_job


def main() -> None:
    args = _arguments()
    rocks = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    spark = spark_job.session(args.heap, **{"spark.sql.streaming.stateStore.providerClass": rocks})
    files = sorted(args.source.glob("*.parquet"))
    warm = args.work / "warm"
    warm.mkdir(parents=True)
    for file in files[: max(1, len(files) // 4)]:
        (warm / file.name).symlink_to(file)
    _dedup(spark, warm, args.work / "warmed")
    measure.reset_peak(os.getpid())
    cpu, wall = measure.cpu_s(os.getpid()), time.perf_counter()
    _dedup(spark, args.source, args.work / "run")
    found = {
        "version": spark.version, "wall_s": time.perf_counter() - wall, "cpu_s": measure.cpu_s(os.getpid()) - cpu,
        "peak_mib": measure.peak_mib(os.getpid()), "output": spark.read.parquet(str(args.work / "run" / "out")).count(),
    }  # fmt: skip
    args.out.write_text(json.dumps(found))
    spark.stop()
    shutil.rmtree(args.work)


def _dedup(spark, source: Path, folder: Path) -> None:
    events = spark.readStream.schema("id bigint, at timestamp").option("maxFilesPerTrigger", 1).parquet(str(source))
    once = events.withWatermark("at", "30 days").dropDuplicatesWithinWatermark(["id"])
    query = (
        once.writeStream.format("parquet")
        .option("checkpointLocation", str(folder / "checkpoint"))
        .trigger(availableNow=True)
        .start(str(folder / "out"))
    )
    query.awaitTermination()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heap", default="2g")
    return parser.parse_args()


if __name__ == "__main__":
    main()
