import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import kafka_lake

T0 = 1_772_323_200


@pytest.fixture
def project(tmp_path):
    """A lake of hand-made versions: `add(layer, version, rows, …)`."""

    def add(layer, version, rows, taken=0, upto=-1, name=None, at=0.0):
        table = tmp_path / "lake" / layer / (name or kafka_lake.LAYERS[layer])
        (table / "_delta_log").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), table / f"{version}.parquet")
        actions = [
            {"commitInfo": {"counts": {"input": taken}, "upto": upto}},
            {"add": {"path": f"{version}.parquet", "dataChange": True}},
            {"add": {"path": "compacted.parquet", "dataChange": False}},
        ]
        text = "\n".join(map(json.dumps, actions))
        (table / "_delta_log" / f"{version:020d}.json").write_text(text)
        with (tmp_path / "commits.jsonl").open("a") as file:
            file.write(json.dumps([layer, version, at]) + "\n")

    add.root = tmp_path
    return add


def timed(*after_s):
    return {"event_time": pa.array([int((T0 + s) * 1e6) for s in after_s], pa.timestamp("us"))}


def placed(source, *positions):
    return {"_source": [source] * len(positions), "_position": positions}


def test_latency_is_from_the_event_to_the_version_that_has_it(project):
    project("bronze", 0, timed(-100, 0), at=T0 + 1)  # the first tenth of a run does not count
    project("bronze", 1, timed(1, 2), at=T0 + 2)
    project("silver", 0, timed(0), at=T0 + 1.5)
    project("silver", 1, timed(1, 2), at=T0 + 4)
    project("gold", 0, {"n": [1]}, upto=0, at=T0 + 2)
    project("gold", 1, {"n": [1]}, upto=0, at=T0 + 3)
    project("gold", 2, {"n": [1]}, upto=1, at=T0 + 5)
    found = kafka_lake.latencies(project.root)
    assert found["bronze"]["mean"] == pytest.approx(667, abs=1)  # 1000, 1000, 0
    assert found["silver"]["p50"] == 2000  # 1500, 3000, 2000
    assert found["gold"] == {"mean": 3000.0, "p50": 3000.0, "p99": pytest.approx(3980)}  # 2000, 4000, 3000


def test_complete_is_the_gold_version_that_has_the_last_message(project):
    progress = kafka_lake.Progress(project.root / "lake")
    project("bronze", 0, timed(0), taken=3)
    project("bronze", 1, timed(0), taken=2)
    project("silver", 0, timed(0), upto=0)
    progress.look()
    assert (progress.taken(), progress.complete(5), progress.complete(6)) == (5, None, None)
    project("silver", 1, timed(0), upto=1)
    project("gold", 0, timed(0), upto=0)
    progress.look()
    assert (progress.complete(3), progress.complete(5)) == (0, None)
    project("gold", 1, timed(0), upto=1)
    progress.look()
    assert progress.complete(5) == 1


@pytest.mark.parametrize(
    ("positions", "right"),
    [((0, 1, 2, 3), True), ((0, 1, 3), False), ((0, 1, 1, 3), False), ((0, 1, 2, 3, 4), False), ((1, 1, 1, 3), False)],
    ids=["all", "lost", "doubled and lost", "too many", "first lost"],
)
def test_what_is_lost_or_doubled_is_found(project, positions, right):
    project("bronze", 0, placed("t/0", *positions[:2]))
    project("bronze", 1, placed("t/0", *positions[2:-1]))
    project("bronze", 0, placed("t/0", positions[-1]), name="events__quarantine")
    found = kafka_lake.lost_or_doubled(project.root / "lake", {"t/0": 4, "t/1": 0})
    assert (found == []) is right


def test_a_partition_that_was_not_read_is_found(project):
    project("bronze", 0, placed("t/0", 0))
    (project.root / "lake" / "bronze" / "events__quarantine" / "_delta_log").mkdir(parents=True)
    assert len(kafka_lake.lost_or_doubled(project.root / "lake", {"t/0": 1, "t/1": 2})) == 1
