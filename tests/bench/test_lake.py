"""The benchmark of the lake runs, judges what it made, and prints its figures as JSON last."""

import json
from pathlib import Path

import deltalake
import pyarrow as pa

from bench import lake, lake_log
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow

SIZES = [
    "--marks", "2", "12", "--window", "5", "--entries", "400", "--files", "60", "--events", "2000", "--changes", "500",
    "--peer-seconds", "1",
]  # fmt: skip
SCHEMA = from_arrow(pa.schema([("id", pa.int64())]))


def test_a_small_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lake, "_CHECKPOINTED", 5)
    assert lake.main(SIZES) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["wrong"] == []
    assert set(told["commit_ms"]) == set(told["delta_rs"]["commit_ms"]) == {"2", "12"}
    measured = [*told["commit_ms"].values(), *told["delta_rs"]["commit_ms"].values(), told["old"]["commit_ms"]]
    assert all(0 < ms["p50"] <= ms["p99"] for ms in measured)
    assert told["open_ms"] > 0
    assert told["merge_peak_mib"] > 50
    assert all(told["bytes_per_event"][layer] > 0 for layer in ("bronze", "silver", "gold"))
    assert not list(Path(".cache/bench").iterdir())


def test_a_lost_commit_is_seen(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commit = lake.Writer._commit

    def losing(self):
        taken = commit(self)
        if self.commits == 3:
            self._table.commit(removes=[self._table.files()[-1]], clock_us=10**15)
        return taken

    monkeypatch.setattr(lake.Writer, "_commit", losing)
    assert lake.main([*SIZES, "--part", "commits"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["wrong"] == ["17000 rows were committed, delta-rs reads [{'n': 16000, 'ids': 16000}]"]


def test_a_made_up_log_is_one_that_others_read(tmp_path):
    path = tmp_path / "t"
    lake_log.write_log(path, SCHEMA, entries=20_003, files=30, now_ms=10**12, application="a", tail=3, file_bytes=7)
    assert len(list((path / "_delta_log").glob("*.json"))) == 20_003
    ours, theirs = DeltaTable.open(LocalDisk(), str(path)), deltalake.DeltaTable(path)
    assert ours.snapshot.version == theirs.version() == 20_002
    assert {add.path for add in ours.files()} == {Path(uri).name for uri in theirs.file_uris()}
    assert len(ours.files()) == 30
    assert theirs.transaction_version("a") == ours.snapshot.txns["a"] == 20_002
    assert theirs.history(2)[0]["operation"] == "WRITE"
