"""The same definitions on Apache Spark: same rows; crashes double nothing, and a lost checkpoint is told."""

import json
import os
import shutil
import subprocess

import pytest

from tools.function_rows import ROOT, spark_python

SEEDS = (60_003,)
CHANGES = 70_078
SCENARIOS = ("rounds", "replay", "lost", "stateful", "functions", "handover", "workers", f"changes:{CHANGES}",
             *(f"stream:{seed}" for seed in SEEDS))  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")


def ask(folder, scenarios, seconds):
    """What each scenario answers; all of them in one process with one session."""
    command = [str(spark_python()), "-m", "tests.engines.spark.scenarios", str(folder), *scenarios]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"scenario"')]
    assert len(found) == len(scenarios), done.stdout[-2000:] + done.stderr[-4000:]
    assert not [answer["raised"] for answer in found if "raised" in answer]
    return {answer["scenario"]: answer for answer in found}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return ask(tmp_path_factory.mktemp("spark"), SCENARIOS, 900)


def test_two_rounds_give_the_rows_of_the_embedded_engine(answers):
    first, second = answers["rounds"]["rounds"]
    assert first["differences"] == second["differences"] == []
    assert first["problems"] == second["problems"] == []
    assert second["rows"] > first["rows"] > 100
    fates = {kind: first["counts"].get(kind, 0) + second["counts"].get(kind, 0) for kind in
             ("output", "quarantine", "late", "duplicate", "dropped", "late_window", "rule:known")}  # fmt: skip
    assert min(fates.values()) > 0, fates
    assert answers["rounds"]["corrections"] > 0


def test_a_crash_between_any_two_effects_doubles_and_loses_nothing(answers):
    answer = answers["replay"]
    assert answer["died"] == ["killed here"] * 4
    assert answer["first"][1] == answer["second"][1] == answer["problems"] == []
    assert answer["unchanged"]


def test_a_lost_checkpoint_is_an_error(answers):
    said = answers["lost"]["said"]
    assert answers["lost"]["unchanged"]
    for how in ("all", "offsets", "another"):
        assert said[how].startswith("CorruptionError: the checkpoint of Spark is lost or another one"), said
    assert (answers["lost"]["mended"], answers["lost"]["problems"]) == (0, [])  # by what the error says


def test_sessions_chains_and_joins_on_the_same_batches(answers):
    answer = answers["stateful"]
    assert answer["differences"] == answer["problems"] == []
    counts = answer["counts"]
    windows, pairs = ("output", "late", "duplicate", "quarantine"), ("output", "late", "dropped", "quarantine")
    assert min(counts.get(f"gold.visits:{fate}", 0) for fate in windows) > 0, counts
    assert min(counts.get(f"silver.pairs:{fate}", 0) for fate in pairs) > 0, counts
    assert answer["rows"] > 300


@pytest.mark.parametrize("seed", SEEDS)
def test_random_streams_mean_the_same_on_spark(answers, seed):
    answer = answers[f"stream:{seed}"]
    assert answer["mistakes"] == []
    assert answer["rows"] > 20
    assert answer["batches"] > 8


def test_tables_go_from_engine_to_engine(answers):
    in_turn(answers["handover"], 3)


def in_turn(answer, count):
    turns, told = answer["turns"], answer["told"]
    assert [turn["differences"] + turn["problems"] for turn in turns] == [[]] * count
    assert turns[-1]["rows"] > turns[0]["rows"] > 50
    for table in ("bronze.orders", "silver.orders", "gold.per_minute", "gold.raw_minutes", "gold.by_tier"):
        engines = [text for text in told if text.startswith(f"{table}: taken over from")]
        assert ["Spark" in text for text in engines] == [number % 2 == 1 for number in range(count - 1)], told


@pytest.mark.long
def test_a_kill_in_a_handover_and_both_engines_at_once(tmp_path):
    answers = ask(tmp_path, ["handover:4", "handover_kills"], 3600)
    in_turn(answers["handover:4"], 4)
    answer = answers["handover_kills"]
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
def test_random_streams_change_engines(tmp_path):
    names = [f"handover_stream:{seed}" for seed in range(71_000, 71_024)]
    for name, answer in ask(tmp_path, names, 7200).items():
        assert answer["mistakes"] == [], name


def test_random_changes_mean_the_same_on_spark(answers):
    answer = answers[f"changes:{CHANGES}"]
    assert answer["mistakes"] == []
    assert answer["rows"] > 20
    assert answer["operators"] == 3


def test_functions_and_enrichers_in_workers(answers):
    answer = answers["workers"]
    for found in answer["rounds"]:
        assert found["differences"] == found["problems"] == []
        assert found["rows"] > 100
    tidy, known, last = (answer["counts"][f"silver.{name}"] for name in ("tidy", "known", "last"))
    assert min(tidy[fate] for fate in ("output", "quarantine", "dropped", "duplicate", "rule:worded")) > 0
    assert (known["quarantine"], last["superseded"] > 0) == (1, True)  # a text that is too long; older changes
    assert answer["said"].startswith("ConfigError: python step leaves out declared columns"), answer["said"]


@pytest.mark.long
def test_changes_survive_a_crash_in_front_of_each_commit(tmp_path):
    answer = ask(tmp_path, ["crashing:70079"], 1800)["crashing:70079"]
    assert answer["died"] == ["killed here"] * 6
    assert answer["unchanged"]
    assert answer["mistakes"] == answer["problems"] == []
    assert min(answer["remembered"]) > 0
    assert answer["rows"] > 50


def test_expressions_do_not_raise_and_say_where_spark_would(answers):
    assert answers["functions"]["wrong"] == []
    assert answers["functions"]["errs"] > 500


@pytest.mark.long
def test_nor_do_they_when_spark_compiles_them(tmp_path):
    answer = ask(tmp_path, ["compiled_functions"], 1800)["compiled_functions"]
    assert answer["wrong"] == []
    assert answer["errs"] > 500


@pytest.mark.long
def test_the_demo_runs_unchanged(tmp_path):
    answer = ask(tmp_path, ["demo"], 3600)["demo"]
    assert answer["problems"] == []
    for compared, differences in answer["rounds"]:
        assert differences == []
        assert compared > 700_000
