"""The benchmark of state runs, judges what it made, and prints its figures as JSON last."""

import json
from pathlib import Path

from bench import peer, state


def test_a_small_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "_FILE_ROWS", 2_000)
    monkeypatch.setattr(peer, "java_missing", lambda: "Java is not installed")
    assert state.main(["--keys", "5000", "--events", "4000", "--memory", "1 MiB"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "no peer: Java is not installed" in out
    told = json.loads(out[-1])
    dedup, session, join = told["dedup"], told["session"], told["join"]
    assert told["bounded"]["output"] == told["peer"]["output"] == dedup["output"] > 4_500
    assert told["spark"] is told["ratio_wall"] is told["ratio_cpu"] is None
    assert dedup["events"] == 5_000
    assert dedup["curve"][-1]["rows"]["keys"] > 4_500
    assert join["events"] == 8_000
    assert all(
        point["bytes"] > 0 and point["stored_bytes"] > 0 for part in (dedup, session, join) for point in part["curve"]
    )


def test_the_bounded_part_spills(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "_FILE_ROWS", 10_000)
    assert state.main(["--keys", "80000", "--memory", "1 MiB", "--part", "dedup", "--part", "bounded"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["dedup"]["curve"][-1]["spilled_bytes"] == 0
    assert told["bounded"]["curve"][-1]["spilled_bytes"] > 1 << 20
    assert all(point["bytes"] <= 2 << 20 for point in told["bounded"]["curve"])
    assert all(point["own_mib"] <= point["peak_mib"] for point in told["bounded"]["curve"])


def test_the_peer_must_have_the_same_rows(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peer, "java_missing", lambda: None)
    monkeypatch.setattr(peer, "python", lambda: "python")

    def spark(command, **_):
        found = {"version": "4", "wall_s": 1e6, "cpu_s": 1e6, "peak_mib": 1.0, "output": output}
        Path(command[command.index("--out") + 1]).write_text(json.dumps(found))

    monkeypatch.setattr(state.subprocess, "run", spark)
    for output, code in ((2_000, 0), (1_999, 1)):
        assert state.main(["--keys", "2000", "--part", "peer"]) == code
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["ratio_wall"] > 1
        assert told["spark"]["output"] == output


def test_what_is_lost_is_seen():
    assert not state._right("dedup", 10, {"output": 9})
    assert not state._right("join", 10, {"input": 19})
