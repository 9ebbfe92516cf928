"""The ingest benchmark runs, counts what it sent, and prints its figures as JSON last."""

import json

from bench import ingest


def test_a_small_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ingest, "to_bronze", lambda folder, apart: {"p50": 1.0})
    assert ingest.main(["--rate", "50", "--seconds", "1", "--connections", "4"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["missing"] == 0
    for part in ("plain_starlette", "ingest", "ingest_and_run"):
        assert told[part]["failed"] == 0
        assert told[part]["latency_ms"]["p50"] > 0
    assert told["fsync_ms"]["p50"] > 0


def test_quantiles():
    assert ingest.quantiles([3.0, 1.0, 2.0]) == {"mean": 2.0, "p50": 2.0, "p99": 3.0, "max": 3.0}
