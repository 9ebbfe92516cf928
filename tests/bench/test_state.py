"""The benchmark of state runs, judges what it made, and prints its figures as JSON last."""

import json

from bench import state


def test_a_small_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "_FILE_ROWS", 2_000)
    assert state.main(["--keys", "5000", "--events", "4000"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    dedup, session, join = told["dedup"], told["session"], told["join"]
    assert dedup["events"] == 5_000
    assert dedup["curve"][-1]["rows"]["keys"] > 4_500
    assert join["events"] == 8_000
    assert all(
        point["bytes"] > 0 and point["stored_bytes"] > 0 for part in (dedup, session, join) for point in part["curve"]
    )


def test_what_is_lost_is_seen():
    assert not state._right("dedup", 10, {"output": 9})
    assert not state._right("join", 10, {"input": 19})
