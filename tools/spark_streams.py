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


def sessions():
    """Sessions at their edges: what touches, what bridges, what is late, what begins inside a closed one."""
    rows = iter(range(1_000))

    def file(*seconds, g="a"):
        return [{"n": next(rows), "key": f"k{s}", "g": g, "t": round(s * S)} for s in seconds]

    ten = {"dedup": False, "delay_ms": 10_000, "gap_ms": 10_000, "emit": "final"}
    yield {"name": "a session ends a gap after its last row", **ten, "files": [file(1, 5, 40), "idle", file(90)]}
    yield {
        "name": "rows exactly a gap apart, and a microsecond more", **ten,
        "files": [file(20, 30, 40.000001), file(60, 49.999999), "idle", file(120)],
    }  # fmt: skip
    yield {"name": "a row bridges two sessions", **ten, "files": [file(20, 36), file(28), "idle", file(99)]}
    yield {"name": "one row touches both", **ten, "files": [file(20, 40), file(30), "idle", file(99)]}
    yield {
        "name": "late by its own session, though it reaches an open one", **ten,
        "files": [file(20, 35), "idle", file(24, 12), "idle", file(14.9, 15, 15.1), "idle", file(99)],
    }  # fmt: skip
    yield {
        "name": "a session begins inside a closed one", **ten, "delay_ms": 0,
        "files": [file(20), file(30.5, g="b"), "idle", file(25), file(21, g="b"), "idle", file(99)],
    }  # fmt: skip
    yield {
        "name": "behind W(n) but not behind W(n-1), into a closing session", **ten,
        "files": [file(21, 25), file(62), file(31), file(20), "restart", file(99)],
    }  # fmt: skip
    yield {
        "name": "before 1970 and in the year 9999", **ten,
        "files": [file(-15, -9.5, 0), file(3, 253_402_300_799), "idle", file(40)],
    }  # fmt: skip


def chained():
    """Windows of windows: they take the time, and the watermark, of the windows below them."""
    rows = iter(range(1_000))

    def file(*seconds, g="a"):
        return [{"n": next(rows), "key": f"k{s}", "g": g, "t": round(s * S)} for s in seconds]

    five = {"dedup": False, "delay_ms": 5_000, "every_ms": 5_000, "slide_ms": None, "emit": "final"}
    minute = {"every_ms": 20_000, "slide_ms": None}
    yield {
        "name": "the last window of an outer one", **five, "then": minute,
        "files": [file(1, 14.9, 15, 19.9), file(20, 24.9), "idle", file(25), "idle", file(26, 50), "idle", file(99)],
    }  # fmt: skip
    yield {
        "name": "an outer window closes with the watermark, not with a row", **five, "then": minute,
        "files": [file(1, 2), file(80), "idle", file(3, 81), "restart", file(200)],
    }  # fmt: skip
    yield {
        "name": "sessions of windows", **five, "then": {"gap_ms": 7_000},
        "files": [file(1, 4), file(9, 22, 23), "idle", file(31, 60), "idle", file(150)],
    }  # fmt: skip
    yield {
        "name": "windows of sessions", **five, "gap_ms": 6_000, "then": minute,
        "files": [file(1, 4), file(9, 22, 23), "idle", file(31, 60), "idle", file(150)],
    }  # fmt: skip


def drawn_windows(seed):
    """A drawn stream with sessions, or with windows of windows, or both."""
    rng = random.Random(1_000 + seed)
    stream = {**drawn(seed), "name": f"drawn windows {seed}", "emit": "final", "dedup": rng.random() < 0.3}
    if seed % 2 == 0 or rng.random() < 0.3:
        stream["gap_ms"] = rng.choice([1_000, 3_000, 8_000, 20_000])
    if seed % 2 == 1:
        outer = rng.choice([10_000, 30_000, 60_000])
        slides = {"every_ms": outer, "slide_ms": rng.choice([None, None, outer // 2, 7_000])}
        stream["then"] = rng.choice([slides, slides, {"gap_ms": rng.choice([2_000, 15_000])}])
    return stream


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


def window(fn, time, shape):
    """A window column of Spark, named `window`."""
    if "gap_ms" in shape:
        return fn.session_window(time, f"{shape['gap_ms']} milliseconds").alias("window")
    slide = f"{shape['slide_ms']} milliseconds" if shape["slide_ms"] else None
    return fn.window(time, f"{shape['every_ms']} milliseconds", slide).alias("window")


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
        frame = frame.groupBy(window(fn, "t", stream), "g").agg(fn.array_sort(fn.collect_list("n")).alias("rows"))
        bounds = [fn.unix_micros("window.start").alias("start_us")]
        if "then" in stream:
            outer = window(fn, fn.window_time("window"), stream["then"])
            rows = fn.array_sort(fn.flatten(fn.collect_list("rows"))).alias("rows")
            if "gap_ms" in stream["then"]:  # Spark has no sessions of a stream without a group
                frame = frame.groupBy(outer, "g").agg(rows)
            else:
                frame = frame.groupBy(outer).agg(rows).withColumn("g", fn.lit(None).cast("string"))
        if "gap_ms" in stream or "then" in stream:
            bounds.append(fn.unix_micros("window.end").alias("end_us"))
        frame = frame.select(*bounds, "g", "rows")
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
    streams += [*sessions(), *chained(), *(drawn_windows(seed) for seed in range(24))]
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
