import json

import pyarrow.parquet as pq

from bench import clicks, events, kafka_lake, kafka_stage
from bench import kafka as benchmark

SMALL = [
    "--events", "4000", "--seconds", "0", "--burst-seconds", "1", "--burst-events", "4000", "--rate", "1000",
    "--latency-seconds", "2", "--producers", "1", "--burst-producers", "1", "--peers", "",
]  # fmt: skip


def test_the_quick_form_measures_all_and_checks_the_rows(kafka, tmp_path, capsys):
    args = benchmark.parse(SMALL)
    with kafka_stage.around(kafka, tmp_path) as stage:
        assert benchmark.run(stage, args) == 0
        lake = tmp_path / "project-drain" / "lake"
        taken = sum(commit.taken for commit in kafka_lake.commits(lake / "bronze" / "events"))
        broken = wrong_after_losing_rows(benchmark.Bench(stage, args), lake)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1] if not line.startswith(" ")] == [
        "preload", "drain_bronze", "drain_all", "catch_up", "latency",
    ]  # fmt: skip
    told = json.loads(lines[-1])
    assert list(told) == [
        "bronze_events_per_s", "gold_events_per_s", "cpu_ns_per_event", "latency_ms", "latency_rate",
        "held_events_per_s", "catch_up_s", "broker_cpu_s", "cores", "native", "same_topic", "peers",
    ]  # fmt: skip
    assert taken == 4000
    assert told["gold_events_per_s"] > 0 < told["bronze_events_per_s"]
    assert told["broker_cpu_s"] > 0 < told["cores"]
    assert told["latency_rate"] == 1000
    layers = told["latency_ms"]
    assert 0 < layers["bronze"]["mean"] <= layers["silver"]["mean"] <= layers["gold"]["mean"]
    assert all(0 < layer["p50"] <= layer["p99"] for layer in layers.values())
    assert isinstance(told["native"], bool)
    assert told["peers"] == {}
    assert [line.split(":")[1] for line in broken] == [" bronze", " silver"]


def wrong_after_losing_rows(bench, lake):
    """What the check says when the last row of a bronze and of a silver file is gone."""
    for table in (lake / "bronze" / "events", lake / "silver" / "events"):
        path = next(commit.files[0] for commit in kafka_lake.commits(table) if commit.files)
        rows = pq.read_table(path)
        pq.write_table(rows.slice(0, len(rows) - 1), path)
    spec = events.Spec(4000, 1, 1, 50_000, benchmark.SPAN_MIN_US)
    bench.check("drain", clicks.truth(bench.stage.work / "truth-drain", spec))
    return bench.wrong
