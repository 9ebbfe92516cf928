import dataclasses
import json

import pytest

from bench import compare, events, peer, spine
from lodestream.native import STATE

RUNS = [{"wall_s": wall, "cpu_s": 1.0, "system_s": 0.1, "peak_mib": 100.0} for wall in (1.0, 2.0)]


def side(name, extra=""):
    """A side that ends with the right rows, or with one more."""

    def run(args, dataset, work):
        right = compare.truth(dataset)
        return RUNS, dataclasses.replace(right, name=name, silver=f"select event_id {right.silver} {extra}")

    return run


@pytest.fixture
def bench(monkeypatch, tmp_path):
    monkeypatch.setattr(peer, "java_missing", lambda: None)
    monkeypatch.setattr(spine, "lodestream", side("lodestream"))
    monkeypatch.setattr(spine, "spark", side("spark"))
    return lambda *options: spine.main(["--events", "2000", "--files", "2", "--cache", str(tmp_path), *options])


def test_last_line_is_the_summary(bench, capsys):
    assert bench() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4
    assert list(json.loads(lines[-1])) == ["events", "lodestream", "spark", "ratio_wall", "ratio_cpu"]
    assert json.loads(lines[-1])["events"] == 2000


def test_json_prints_nothing_else(bench, capsys):
    assert bench("--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["lodestream", "spark"])
def test_unequal_rows_fail_and_are_named(bench, capsys, monkeypatch, wrong):
    monkeypatch.setattr(spine, wrong, side(wrong, "union all select 'intruder'"))
    assert bench() == 1
    out = capsys.readouterr().out
    assert f"1 rows of {wrong} are not in truth, such as [('intruder', 1)]" in out
    assert "events_per_s" not in out


def test_without_java_it_says_so_and_goes_on(bench, capsys, monkeypatch):
    monkeypatch.setattr(peer, "java_missing", lambda: "Java is not installed")
    assert bench() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("Java is not installed" in line for line in lines)
    assert json.loads(lines[-1])["spark"] is None


def test_java_is_missed_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java is not installed" in (peer.java_missing() or "")
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n")
    old.chmod(0o755)
    assert "too old" in (peer.java_missing() or "")


@pytest.mark.parametrize(("options", "native"), [((), STATE), (("--portable",), "not installed")])
def test_it_runs_with_and_without_the_native_kernels(options, native, tmp_path):
    args = spine._arguments(["--repeats", "1", "--cache", str(tmp_path), *options])
    dataset = events.ensure(tmp_path, events.Spec(2000, 1, 1))
    runs, rows = spine.lodestream(args, dataset, tmp_path / "work")
    assert [run["native"] for run in runs] == [native]
    assert not compare.compare(rows, compare.truth(dataset)).lines
