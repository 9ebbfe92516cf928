"""The same definitions on Apache Spark: same rows; crashes double nothing, and a lost checkpoint is told."""

import json
import os
import shutil
import subprocess
import threading

import pytest

from tests.lake.variants import VARIANTS
from tests.stores.conftest import on_azurite, remote_place
from tools.function_rows import ROOT, spark_python

SEED, CHANGES, SOURCED = 60_153, 70_078, 80_635

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")


class Spark:
    """One session in a process of its own, which answers scenarios as they are asked for."""

    def __init__(self, folder):
        self.said = folder / "stderr"
        self.answers = {}
        command = [str(spark_python()), "-m", "tests.engines.spark.scenarios", str(folder)]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=said, text=True,
            )  # fmt: skip

    def ask(self, scenario, seconds=240, **given):
        """The answer, computed once; a scenario that takes longer ends the session."""
        if scenario not in self.answers:
            timer = threading.Timer(seconds, self.process.kill)
            timer.start()
            try:
                self.process.stdin.write(f"{scenario} {json.dumps(given)}\n")
                self.process.stdin.flush()
                told = next((line for line in self.process.stdout if line.startswith('{"scenario"')), None)
            except BrokenPipeError:
                told = None
            finally:
                timer.cancel()
            assert told is not None, (
                f"{scenario}: ended, or took longer than {seconds} s\n{self.said.read_text()[-4000:]}"
            )
            self.answers[scenario] = json.loads(told)
        answer = self.answers[scenario]
        assert "raised" not in answer, answer["raised"]
        return answer


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    session = Spark(tmp_path_factory.mktemp("spark"))
    with session.process:
        yield session
        session.process.stdin.close()


def test_two_rounds_give_the_rows_of_the_embedded_engine(spark):
    answer = spark.ask("rounds")
    first, second = answer["rounds"]
    assert first["differences"] == second["differences"] == []
    assert first["problems"] == second["problems"] == []
    assert second["rows"] > first["rows"] > 100
    fates = {kind: first["counts"].get(kind, 0) + second["counts"].get(kind, 0) for kind in
             ("output", "quarantine", "late", "duplicate", "dropped", "late_window", "rule:known")}  # fmt: skip
    assert min(fates.values()) > 0, fates
    assert answer["corrections"] > 0


def test_a_crash_between_any_two_effects_doubles_and_loses_nothing(spark):
    spark.ask("rounds")  # it goes on from there
    answer = spark.ask("replay")
    assert answer["died"] == ["killed here"] * 4
    assert answer["first"][1] == answer["second"][1] == answer["problems"] == []
    assert answer["unchanged"]


@pytest.mark.long
def test_a_lost_checkpoint_is_an_error(spark):
    spark.ask("rounds")  # it goes on from there
    answer = spark.ask("lost")
    said = answer["said"]
    assert answer["unchanged"]
    for how in ("all", "offsets", "another"):
        assert said[how].startswith("CorruptionError: the checkpoint of Spark is lost or another one"), said
    assert (answer["mended"], answer["problems"]) == (0, [])  # by what the error says


@pytest.mark.long
def test_sessions_chains_and_joins_on_the_same_batches(spark):
    answer = spark.ask("stateful")
    assert answer["differences"] == answer["problems"] == []
    counts = answer["counts"]
    windows, pairs = ("output", "late", "duplicate", "quarantine"), ("output", "late", "dropped", "quarantine")
    assert min(counts.get(f"gold.visits:{fate}", 0) for fate in windows) > 0, counts
    assert min(counts.get(f"silver.pairs:{fate}", 0) for fate in pairs) > 0, counts
    assert answer["rows"] > 300


def test_a_random_stream_means_the_same_on_spark(spark):
    """It goes through dedup, a join, sessions, and sessions of sessions."""
    answer = spark.ask(f"stream:{SEED}")
    assert answer["mistakes"] == []
    assert answer["rows"] > 20
    assert answer["batches"] > 8


ROWS = ("bronze.orders", "silver.orders", "gold.per_minute", "gold.raw_minutes", "gold.by_tier")
FOLDS = (
    "bronze.timed",
    "gold.covered",
    "gold.corrected",
    "gold.visits",
    "gold.spells",
    "gold.spells_per_minute",
    "silver.pairs",
)
STATES = ("bronze.orders", "gold.visits", "gold.visits_per_minute", "gold.minutes_per_visit", "silver.pairs")


@pytest.mark.long
def test_tables_go_from_engine_to_engine(spark):
    in_turn(spark.ask("handover"), ROWS, [False, True])


@pytest.mark.long
def test_joins_sessions_and_windows_of_windows_do_so_too(spark):
    in_turn(spark.ask("handover_stateful", 600), STATES, [False, True])


@pytest.mark.long
def test_windows_that_workers_fold_do_so_too(spark):
    in_turn(spark.ask("handover_folded", 900), FOLDS, [False, True])


def in_turn(answer, tables, from_spark, rows=50):
    """Whether each take-over of each table was one from Spark; the first turn has more than so many rows."""
    turns, told = answer["turns"], answer["told"]
    assert [turn["differences"] + turn["problems"] for turn in turns] == [[]] * (len(from_spark) + 1)
    assert turns[-1]["rows"] > turns[0]["rows"] > rows
    for table in tables:
        engines = [text for text in told if text.startswith(f"{table}: taken over from")]
        assert ["Spark" in text for text in engines] == from_spark, told


@pytest.mark.long
@pytest.mark.parametrize(("scenario", "tables"), [("handover", ROWS), ("handover_stateful", STATES)])
def test_a_kill_in_a_handover_and_both_engines_at_once(spark, scenario, tables):
    in_turn(spark.ask(f"{scenario}:4", 1200), tables, [False, True, False])
    answer = spark.ask(f"{scenario}_kills", 2400)
    for side in ("embedded", "spark"):
        assert answer[side]["compared"][1] == answer[side]["problems"] == [], side
    assert answer["embedded"]["died"] > 30
    assert answer["embedded"]["half_done"] == "killed here"
    assert answer["spark"]["half_done"]
    assert answer["spark"]["died"] == ["killed here"] * 10
    both = answer["at_once"]
    assert both["first"][1] == both["second"][1] == both["problems"] == []
    assert both["said"]["spark"].startswith("another engine or process has gone on with this table")
    assert both["said"]["embedded"]
    assert both["again"] is None


@pytest.mark.long
@pytest.mark.parametrize("seed", range(71_000, 71_024))
def test_random_streams_change_engines(spark, seed):
    assert spark.ask(f"handover_stream:{seed}", 600)["mistakes"] == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(72_000, 72_008))
def test_random_changes_change_engines(spark, seed):
    assert spark.ask(f"handover_changes:{seed}", 600)["mistakes"] == []


def test_random_changes_mean_the_same_on_spark(spark):
    answer = spark.ask(f"changes:{CHANGES}")
    assert answer["mistakes"] == []
    assert answer["rows"] > 20
    assert answer["operators"] == 3


def test_a_topic_goes_from_engine_to_engine(spark, kafka):
    answer = spark.ask(f"topics:{kafka.plain.split(':')[1]}")
    in_turn(answer, ["bronze.orders"], [True, False], 80)
    assert answer["died"] == ["killed here"] * 2
    ends = {partition: end - 1 for partition, end in answer["marks"]["ends"].items()}
    assert answer["marks"]["spark"] == answer["marks"]["embedded"] == ends
    assert len(ends) == 4


@pytest.mark.long
def test_a_topic_goes_to_gold(spark, kafka):
    answer = spark.ask(f"topics_to_gold:{kafka.plain.split(':')[1]}", 600)
    in_turn(answer, ["bronze.orders", "silver.orders", "gold.per_minute"], [True, False], 80)


@pytest.mark.long
def test_what_a_broker_does_not_have_is_never_passed_over(spark, kafka):
    answer = spark.ask(f"topic_losses:{kafka.plain.split(':')[1]}", 600)
    said = answer["said"]
    assert said["retention"].startswith("DataLossRefused: the topic no longer has records"), said
    assert "on_data_loss: record_gap" in said["retention"]
    assert said["gone"].startswith("DataLossRefused: a topic that was read is gone"), said
    assert said["nobody"].startswith("TransientError: no Kafka broker answers"), said
    assert "servers" in said["nobody"]
    assert sum(counts.get("input", 0) for counts in answer["counts"]) == 30 + 30 - 8 + 1  # of a gap one is recorded
    assert answer["problems"] == []


@pytest.mark.long
def test_functions_and_enrichers_in_workers(spark):
    answer = spark.ask("workers")
    for found in answer["rounds"]:
        assert found["differences"] == found["problems"] == []
        assert found["rows"] > 100
    tidy, known, last = (answer["counts"][f"silver.{name}"] for name in ("tidy", "known", "last"))
    assert min(tidy[fate] for fate in ("output", "quarantine", "dropped", "duplicate", "rule:worded")) > 0
    assert (known["quarantine"], last["superseded"] > 0) == (1, True)  # a text that is too long; older changes
    assert answer["said"].startswith("ConfigError: python step leaves out declared columns"), answer["said"]


def test_a_random_source_with_event_time_means_the_same_on_spark(spark):
    """Its rows go through dedup there and, below, into sessions that say what they cover and are shown while open."""
    answer = spark.ask(f"sourced:{SOURCED}")
    assert answer["mistakes"] == []
    assert answer["rows"] > 20
    assert answer["operators"] == 2


@pytest.mark.long
def test_windows_that_workers_fold_and_enriched_joins(spark):
    answer = spark.ask("wide", 1200)
    assert answer["differences"] == answer["problems"] == []
    counts = answer["counts"]
    fates = [
        ("bronze.orders", "late"),
        ("bronze.orders", "duplicate"),
        ("gold.covered", "late"),
        ("gold.visits", "late"),
    ]
    fates += [("gold.spells", "output"), ("gold.spells_per_minute", "output"), ("silver.pairs", "dropped")]
    assert min(counts.get(f"{table}:{fate}", 0) for table, fate in fates) > 0, counts
    assert answer["rows"] > 900


@pytest.mark.long
def test_folded_windows_survive_a_crash_in_front_of_each_commit(spark):
    answer = spark.ask("folding_crashes", 1800)
    assert answer["differences"] == answer["problems"] == []
    assert answer["died"] == ["killed here"] * 6


@pytest.mark.long
def test_drift_is_taken_in_with_its_batch(spark):
    answer = spark.ask("drift", 1200)
    assert answer["differences"] == answer["problems"] == []
    assert answer["rows"] > 60


@pytest.mark.long
def test_rows_that_ask_and_sinks(spark):
    answer = spark.ask("asking", 1200)
    assert answer["differences"] == answer["problems"] == []
    assert list(answer["asked"].values()) == [1] * 9, answer["asked"]
    scored, labels = answer["published"]
    assert sorted(row["id"] for *_, row in scored) == sorted(row["id"] for row in answer["tables"][0])
    last = {tuple(key): row for *key, row in labels}
    assert sorted(map(str, (row for row in last.values() if row))) == sorted(map(str, answer["tables"][1]))


@pytest.mark.long
def test_changes_survive_a_crash_in_front_of_each_commit(spark):
    answer = spark.ask("crashing:70079", 1800)
    assert answer["died"] == ["killed here"] * 6
    assert answer["unchanged"]
    assert answer["mistakes"] == answer["problems"] == []
    assert min(answer["remembered"]) > 0
    assert answer["rows"] > 50


def test_expressions_do_not_raise_and_say_where_spark_would(spark):
    answer = spark.ask("functions")
    assert answer["wrong"] == []
    assert answer["errs"] > 500


@pytest.mark.long
def test_nor_do_they_when_spark_compiles_them(spark):
    answer = spark.ask("compiled_functions", 1800)
    assert answer["wrong"] == []
    assert answer["errs"] > 500


@pytest.mark.long
def test_the_demo_runs_unchanged(spark):
    answer = spark.ask("demo", 3600)
    assert answer["problems"] == []
    for compared, differences in answer["rounds"]:
        assert differences == []
        assert compared > 700_000


def test_a_lake_in_a_store_has_the_same_rows(spark, azurite_url, tmp_path):
    """The first round runs as on Databricks; the second is killed between its two commits."""
    place = on_azurite(azurite_url, tmp_path)
    answer = spark.ask("stores:azurite", lake=place.lake, store=place.store)
    assert answer["words"][:7] == [
        "run", "--engine", "spark", "--project", answer["words"][4], "--lake", place.lake
    ]  # fmt: skip
    assert answer["folder"].startswith("volume/_lodestream/flows/silver.orders/"), "where the bundle says"
    assert answer["died"] == ["killed here"]
    first, second = answer["compared"]
    assert first[1] == second[1] == []
    assert second[0] > first[0] > 50


@pytest.mark.long
def test_tables_in_a_store_go_from_engine_to_engine(spark, azurite_url, tmp_path):
    place = on_azurite(azurite_url, tmp_path)
    answer = spark.ask("stores:switched", 1200, lake=place.lake, store=place.store, switched=True)
    assert [text.partition(" at batch")[0] for text in sorted(answer["told"])] == [
        f"{table}: taken over from Spark" for table in ("bronze.orders", "gold.per_minute", "silver.orders")
    ]
    assert [differences for _, differences in answer["turns"]] == [[], []]
    assert answer["turns"][1][0] > answer["turns"][0][0] > answer["compared"][1][0]
    assert answer["cleaned"]["gone"]
    assert answer["cleaned"]["compared"][1] == []
    assert answer["cleaned"]["compared"][0] > answer["turns"][1][0]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["azurite", "moto"])
def test_every_stage_in_a_store(spark, kind, request, tmp_path):
    place = remote_place(request, tmp_path, kind)
    answer = spark.ask(f"stores:{kind}-wide", 1200, lake=place.lake, store=place.store, wide=True)
    first, second = answer["compared"]
    assert first[1] == second[1] == []
    assert second[0] > first[0] > 200
    assert answer["unchanged"]
    assert answer["lost"].startswith("CorruptionError: the checkpoint of Spark is lost or another one")


def test_spark_reads_a_table_of_every_kind(spark):
    answer = spark.ask("variants")
    assert answer["differences"] == answer["broken"] == []
    assert set(VARIANTS) <= set(answer["read"])
    assert answer["rows"] > 400


@pytest.mark.long
def test_spark_reads_whatever_was_written_before(spark):
    """By whichever of the tests above have run."""
    spark.ask("variants")
    answer = spark.ask("whatever_was_written", 1200)
    assert answer["differences"] == []
    assert answer["rows"] > 400
