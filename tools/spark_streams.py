"""Runs small event-time streams through Apache Spark and writes down what it did.

The result, tests/semantics/spark_streams.json, is what tests/semantics/test_spark_streams.py holds the oracle to. Each
stream is files of JSON lines that Spark takes one per micro-batch; `idle` between two files lets Spark run until it
has nothing to do, which brings its no-data batches; `restart` stops the query there and starts it again.

    .venv-spark/bin/python -m tools.spark_streams      needs Java 17 and requirements/spark.txt
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

S = 1_000_000
OUT = Path(__file__).parent.parent / "tests" / "semantics" / "spark_streams.json"


def hand_made():
    """The cases that the rules were first seen in."""
    rows = iter(range(1_000))

    def file(*seconds, key="k"):
        return [{"n": next(rows), "key": f"{key}{s}", "g": "a", "t": round(s * S)} for s in seconds]

    def copies(*pairs):
        return [{"n": next(rows), "key": key, "g": "a", "t": round(s * S)} for key, s in pairs]

    ten = {"delay_ms": 10_000, "every_ms": 10_000, "slide_ms": None}
    yield {"name": "E1 late by the watermark before", "dedup": False, **ten, "files": [file(1, 20), file(9), file(9.5)]}
    yield {
        "name": "E1 the same, updates",
        "dedup": False,
        **ten,
        "emit": "updates",
        "files": [file(1, 20), file(9), file(9.5)],
    }
    yield {"name": "E3 a repeat far away", "dedup": True, **ten, "files": [copies(("a", 20)), copies(("a", 50))]}
    yield {
        "name": "a repeat after eviction", "dedup": True, **ten,
        "files": [copies(("a", 20)), "idle", copies(("b", 45)), "idle", copies(("a", 50))],
    }  # fmt: skip
    yield {
        "name": "E14 restart", "dedup": True, **ten,
        "files": [file(20, 21), file(5, 33), "restart", file(9, 40), "restart", file(22, 41)],
    }  # fmt: skip
    yield {
        "name": "a late first copy leaves no state", "dedup": True, **ten,
        "files": [copies(("x", 60)), "idle", copies(("a", 20)), copies(("a", 55))],
    }  # fmt: skip
    yield {
        "name": "hopping, partly late", "dedup": False, "delay_ms": 0, "every_ms": 10_000, "slide_ms": 4_000,
        "files": [file(16), "idle", file(12, 9), file(-3, 0)],
    }  # fmt: skip
    yield {
        "name": "before 1970 and sub-millisecond", "dedup": True,
        "delay_ms": 1_000, "every_ms": 5_000, "slide_ms": None,
        "files": [file(-7, -0.000001, 0, 0.000001), file(20.001999), "idle", file(19.001, 19.0009995, 19.001001)],
    }  # fmt: skip


def drawn(seed):
    """A stream full of repeats, stragglers, leaps, missing times and idle moments."""
    rng = random.Random(seed)
    delay_ms = rng.choice([0, 2_000, 10_000, 30_000])
    every_ms = rng.choice([5_000, 10_000, 20_000])
    slide_ms = rng.choice([None, None, every_ms // 2, 3_000])
    rows, files, now, seen = 0, [], rng.choice([0, 20, 1_000]) * S, []
    for _ in range(rng.randint(3, 7)):
        batch = []
        for _ in range(rng.choice([0, 2, 6, 14])):
            now += rng.choice([0, 0, 1, 1, 2, 3, 20]) * S
            back = rng.choice([0, 0, 0, 0, 1, 3, 8, 33]) * S + rng.choice([0, 0, 1, 999, 1_000, 500_000])
            row = {"key": f"k{rng.randint(0, 9)}", "g": rng.choice(["a", "b", None]), "t": now - back}
            if rng.random() < 0.06:
                row["t"] = None
            if seen and rng.random() < 0.35:
                row = dict(rng.choice(seen))  # an identical copy
            seen.append(row)
            batch.append({"n": rows, **row})
            rows += 1
        files.append(batch)
        files += [["idle"], ["restart"], [], [], []][rng.randint(0, 4)]
    if files[-1] in ("idle", "restart"):
        files.pop()
    return {
        "name": f"drawn {seed}", "dedup": rng.random() < 0.7, "delay_ms": delay_ms, "every_ms": every_ms,
        "slide_ms": slide_ms, "emit": rng.choice(["final", "updates", None]), "files": files,
    }  # fmt: skip


def run(spark, stream, folder):
    """Add to `stream` the batches that Spark made of it, each with its watermark, file and output."""
    import pyspark.sql.functions as fn

    source, checkpoint = folder / "in", folder / "checkpoint"
    source.mkdir(parents=True)
    emit = stream["emit"]
    frame = (
        spark.readStream.schema("n bigint, key string, g string, t bigint")
        .option("maxFilesPerTrigger", 1)
        .json(str(source))
        .withColumn("t", fn.timestamp_micros("t"))
        .where("t is not null")
        .withWatermark("t", f"{stream['delay_ms']} milliseconds")
    )
    if stream["dedup"]:
        frame = frame.dropDuplicatesWithinWatermark(["key"])
    if emit:
        slide = f"{stream['slide_ms']} milliseconds" if stream["slide_ms"] else None
        window = fn.window("t", f"{stream['every_ms']} milliseconds", slide)
        frame = frame.groupBy(window, "g").agg(fn.array_sort(fn.collect_list("n")).alias("rows"))
        frame = frame.select(fn.unix_micros("window.start").alias("start_us"), "g", "rows")
    else:
        frame = frame.select("n")
    outputs: dict[int, list] = {}

    def keep(batch, number):
        rows = [row.asDict() for row in batch.collect()]
        outputs[number] = sorted(rows, key=lambda r: (r["start_us"], str(r["g"]))) if emit else [r["n"] for r in rows]

    def start():
        writer = frame.writeStream.outputMode("update" if emit == "updates" else "append")
        return writer.option("checkpointLocation", str(checkpoint)).foreachBatch(keep).start()

    query, files = start(), 0
    for item in stream["files"]:
        if item == "restart":
            query.processAllAvailable()
            query.stop()
            query = start()
        elif item == "idle":
            query.processAllAvailable()
        else:
            path, hidden = source / f"{files:04d}.json", source / f".{files:04d}"
            hidden.write_text("".join(json.dumps(row) + "\n" for row in item))
            os.utime(hidden, (1_700_000_000 + files, 1_700_000_000 + files))
            hidden.rename(path)
            files += 1
    query.processAllAvailable()
    query.stop()
    return {**stream, "batches": batches(checkpoint, outputs)}


def batches(checkpoint, outputs):
    """What Spark's offset log says of each batch: its watermark, and how many files it took in."""
    found, taken = [], -1
    for number in sorted(outputs):
        lines = (checkpoint / "offsets" / str(number)).read_text().split("\n")
        upto = json.loads(lines[2])["logOffset"]
        mark = json.loads(lines[1])["batchWatermarkMs"]
        found.append({"files": list(range(taken + 1, upto + 1)), "watermark_ms": mark, "output": outputs[number]})
        taken = upto
    return found


def main():
    """Run all streams and write the file."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    folder = Path(tempfile.mkdtemp(prefix="spark-streams-"))
    settings = {
        "spark.sql.shuffle.partitions": "1", "spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "1g",
        "spark.sql.adaptive.enabled": "false", "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[1]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    streams = []
    for stream in hand_made():
        streams += (
            [stream] if "emit" in stream else [{**stream, "emit": e} for e in (None, "final") if e or stream["dedup"]]
        )
    streams += [drawn(seed) for seed in range(22)]
    done = []
    for i, stream in enumerate(s for s in streams if s["dedup"] or s["emit"]):
        done.append(run(spark, stream, folder / str(i)))
        print(stream["name"], len(done[-1]["batches"]), "batches", flush=True)
    text = ",\n".join(json.dumps(stream) for stream in done)
    OUT.write_text(f'{{"spark": "{spark.version}", "streams": [\n{text}\n]}}\n')
    spark.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
