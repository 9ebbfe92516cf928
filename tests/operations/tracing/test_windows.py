"""A window is counted again from its input rows, and every row that is in none is accounted for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.lake.actions import RemoveFile
from lodestream.model.table import TableName
from lodestream.operations.trace import Trace, trace
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, at: timestamp, kind: string, amount: int}
"""
WINDOW = """
from: stream(silver.e)
event_time: {column: at, delay: 30 seconds}
group_by: [kind]
measures: {n: count(*), total: sum(amount)}
"""


def event(seconds: int, kind: str | None = "view", **more: object) -> dict[str, object]:
    at = f"2024-01-01T00:{seconds // 60:02}:{seconds % 60:02}Z"
    return {"id": f"e{seconds}", "at": at, "kind": kind, "amount": seconds, **more}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Has run; tests do not change it."""
    lab = Lab(tmp_path_factory.mktemp("windows") / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", "from: stream(bronze.e)\nexpect: {known: {that: kind is null or kind <> 'bad'}}\n")
    lab.table("gold.now", WINDOW + "window: {every: 1 minute}\nemit: updates\n")
    lab.table("gold.done", WINDOW + "window: {every: 1 minute}\nemit: final\n")
    lab.table("gold.hop", WINDOW + "window: {every: 2 minutes, slide: 1 minute}\nemit: updates\n")
    lab.events([event(1), event(2), event(3, "sale"), event(4, None), event(5, "bad"), event(65), event(200)])
    lab.run()  # the watermark is 170 s now
    lab.events([event(6), event(7, "rent"), event(66), event(140)])
    lab.run()
    return lab


@pytest.fixture
def lab(ran: Lab, tmp_path: Path) -> Lab:
    """A copy to be changed."""
    shutil.copytree(ran.root, tmp_path / "p")
    copy = Lab.__new__(Lab)
    copy.root, copy.files = tmp_path / "p", ran.files
    return copy


def ask(lab: Lab, table: str, key: str) -> Trace:
    told = trace(lab.app(), table, key)
    json.dumps(told.to_json())
    assert told.lines()
    return told


def reason(told: Trace) -> str:
    assert not told.found
    assert told.absence is not None
    return told.absence.reason


def place_of(lab: Lab, name: str) -> str:
    row = next(r for r in lab.rows("bronze.e", "id", "_source", "_position") if r["id"] == name)
    return f"{row['_source']}:{row['_position']}"


@pytest.mark.parametrize("table", ["gold.now", "gold.done"])
def test_a_window_covers_the_rows_that_are_counted_again(ran: Lab, table: str) -> None:
    told = ask(ran, table, "window_start=2024-01-01T00:00:00Z,kind=view")
    (window,) = told.windows
    assert (told.found, told.matches, told.hops[0].row and told.hops[0].row["n"]) == (True, 1, 2)
    assert (window.rows, window.stored_rows, window.digest == window.stored_digest, window.agrees) == (2, 2, True, True)
    assert (window.start, window.end, window.state) == ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z", "closed")
    assert [one["trace"] for one in window.sample] == [
        f"lodestream trace silver.e {place_of(ran, 'e1')}", f"lodestream trace silver.e {place_of(ran, 'e2')}",
    ]  # fmt: skip
    assert [hop.table for hop in told.hops] == [table, "silver.e", "bronze.e"]
    assert told.record is not None
    assert json.loads(told.record.text or "") == event(1)
    assert told.hops[0].written is not None
    assert told.hops[0].written.declaration["window"] == {"every": 60_000_000, "slide": None}
    assert told.to_json()["windows"][0]["agrees"] is True


def test_groups_of_null_and_open_windows(ran: Lab) -> None:
    assert ask(ran, "gold.now", "window_start=2024-01-01,kind=null").windows[0].rows == 1
    latest = ask(ran, "gold.now", "window_start=2024-01-01T00:03:00")
    assert (latest.found, latest.windows[0].state, latest.windows[0].agrees) == (True, "open", True)
    many = ask(ran, "gold.now", "kind=view")
    assert (many.matches, len(many.others)) == (4, 3)
    assert many.others[0].startswith("lodestream trace gold.now window_start=")


def test_hopping_windows_hold_a_row_more_than_once(ran: Lab) -> None:
    told = ask(ran, "gold.hop", place_of(ran, "e65"))
    assert (told.found, told.matches) == (True, 2)
    assert [window.start for window in told.windows] == ["2024-01-01T00:01:00Z", "2024-01-01T00:00:00Z"]
    assert all(window.agrees for window in told.windows)
    missed = ask(ran, "gold.hop", place_of(ran, "e66"))  # late for the first of its two windows
    assert missed.absence is not None
    assert (missed.found, missed.absence.reason) == (True, "late_window")
    assert missed.absence.entries[0].detail == {"window_starts_us": [1_704_067_200_000_000]}
    last = ask(ran, "gold.hop", "window_start=2024-01-01T00:01:00Z,kind=view").windows[0]
    assert (last.rows, last.agrees) == (3, True)
    first = ask(ran, "gold.hop", "window_start=2024-01-01T00:00:00Z,kind=view").windows[0]
    assert (first.rows, first.agrees) == (3, True)  # the row that missed it is not in it


def test_a_row_that_is_in_no_window_says_why(ran: Lab) -> None:
    late = ask(ran, "gold.done", place_of(ran, "e6"))
    assert reason(late) == "late"
    assert late.absence is not None
    assert "--accept-late" in late.absence.next[0]
    waiting = ask(ran, "gold.done", place_of(ran, "e200"))
    assert reason(waiting) == "window_open"
    assert waiting.windows[0].rows == 1
    assert ask(ran, "gold.now", place_of(ran, "e200")).found
    bad = ask(ran, "gold.done", place_of(ran, "e5"))
    assert reason(bad) == "quarantine"
    assert bad.absence is not None
    assert bad.absence.table == "silver.e"
    assert reason(ask(ran, "gold.done", "0000.jsonl:3")) == "inside_a_record"


def test_a_window_that_is_not_there_says_why(ran: Lab) -> None:
    assert reason(ask(ran, "gold.done", "window_start=2024-01-01T00:03:00Z,kind=view")) == "window_open"
    late = ask(ran, "gold.done", "window_start=2024-01-01T00:00:00Z,kind=rent")
    assert reason(late) == "late"
    assert late.absence is not None
    assert "1 input row of this window came, and none is in it (1 late)" in late.absence.message
    unaligned = ask(ran, "gold.done", "window_start=2024-01-01T00:00:30Z,kind=view")
    assert unaligned.absence is not None
    assert unaligned.absence.next == ("lodestream trace gold.done window_start=2024-01-01T00:00:00Z,kind=view",)
    assert reason(ask(ran, "gold.done", "window_start=2023-01-01T00:00:00Z,kind=view")) == "no_such_row"
    assert reason(ask(ran, "gold.done", "kind=never")) == "no_such_row"
    other = ask(ran, "gold.done", "window_start=2024-01-01T00:00:00Z,kind=view,n=77")
    assert other.absence is not None
    assert other.absence.next == ("lodestream trace gold.done window_start=2024-01-01T00:00:00Z,kind=view",)
    upstream = ask(ran, "gold.done", "window_end=2024-01-01T00:01:00Z,kind=bad")
    assert reason(upstream) == "quarantine"
    assert upstream.absence is not None
    assert upstream.absence.table == "silver.e"


def test_rows_that_the_window_flow_has_not_read(lab: Lab) -> None:
    lab.events([event(300, "new")])
    lab.run(tables=["bronze.e", "silver.e"])
    assert reason(ask(lab, "gold.now", place_of(lab, "e300"))) == "not_read_yet"
    assert reason(ask(lab, "gold.now", "window_start=2024-01-01T00:05:00Z,kind=new")) == "not_read_yet"
    assert ask(lab, "gold.now", "window_start=2024-01-01T00:00:00Z,kind=view").windows[0].agrees
    lab.run()
    assert ask(lab, "gold.now", "window_start=2024-01-01T00:05:00Z,kind=new").found


def test_a_window_with_another_row_in_it_does_not_agree(lab: Lab) -> None:
    table = lab.delta("gold.done")
    file = next(add for add in table.files() if not add.hot)
    rows = table.read([file])
    digests = pa.array([value ^ 1 for value in rows.column("_digest").to_pylist()], pa.int64())
    forged = rows.set_column(rows.column_names.index("_digest"), "_digest", digests)
    staged = table.stage(forged, name="forged")
    table.commit(adds=staged.adds, removes=[RemoveFile.of(file)], clock_us=1)
    told = ask(lab, "gold.done", "window_start=2024-01-01T00:00:00Z,kind=view")
    (window,) = told.windows
    assert (window.rows == window.stored_rows, window.agrees) == (True, False)
    assert any("DOES NOT AGREE" in line for line in told.lines())


def test_an_accepted_late_row_is_counted(lab: Lab) -> None:
    source, _, position = place_of(lab, "e6").rpartition(":")
    flow = lab.app().pipeline().flow(TableName("gold", "done"))
    flow.open()
    flow.submit_replay([(source, int(position))], accept_late=True)
    flow.close()
    told = ask(lab, "gold.done", f"{source}:{position}")
    assert (told.found, told.windows[0].rows, told.windows[0].agrees) == (True, 3, True)
    assert told.hops[0].written is not None
    assert told.hops[0].written.kind == "replay"


def test_windows_over_python_derived_times_and_lookups(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    (lab.root / "functions").mkdir()
    (lab.root / "functions/f.py").write_text("def same(rows):\n    return rows\n")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", "from: stream(bronze.e)\n")
    lab.table("silver.kinds", "sql: select distinct kind, upper(kind) as big from bronze.e where kind is not null\n")
    lab.table(
        "gold.made",
        "from: stream(silver.e)\npython: f:same\ncolumns: {id: string, at: timestamp, kind: string, amount: int}\n"
        "derive: {later: at + interval 1 minute}\nevent_time: {column: later, delay: 1 second}\n"
        "enrich: {lookup: {table: silver.kinds, on: kind, columns: [big]}}\n"
        "window: {every: 1 minute}\ngroup_by: [big]\nmeasures: {n: count(*)}\nemit: updates\n",
    )
    lab.events([event(1), event(2), event(3, "sale")])
    try:
        lab.run()
    except ConfigError as error:
        pytest.fail(str(error))
    told = ask(lab, "gold.made", "window_start=2024-01-01T00:01:00Z,big=VIEW")
    assert (told.found, told.windows[0].rows, told.windows[0].agrees) == (True, 2, True)
    assert any("lookups are those of the last batch" in note for note in told.windows[0].notes)
    assert ask(lab, "gold.made", "0000.jsonl:0").found


def test_the_sample_is_short_and_says_how_many_more(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("gold.now", WINDOW.replace("silver.e", "bronze.e") + "window: {every: 1 hour}\nemit: updates\n")
    lab.events([event(second) for second in range(25)])
    lab.run()
    told = ask(lab, "gold.now", "kind=view")
    (window,) = told.windows
    assert (window.rows, len(window.sample), window.agrees) == (25, 10, True)
    assert any("and 15 more" in line for line in told.lines())
    assert replace(window, digest=0).agrees is False


# --- sessions, and windows of windows --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Sessions, those that are closed, and windows of these."""
    lab = Lab(tmp_path_factory.mktemp("sessions") / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", "from: stream(bronze.e)\n")
    lab.table("gold.visits", WINDOW + "window: {gap: 20 seconds}\n")
    lab.table("gold.done", WINDOW + "window: {gap: 20 seconds}\nemit: final\n")
    above = "from: stream(gold.done)\ngroup_by: [kind]\nmeasures: {visits: count(*), n: sum(n)}\n"
    lab.table("gold.per_minute", above + "window: {every: 1 minute}\n")
    lab.events([event(1), event(15), event(50), event(3, "sale"), event(140), event(150)])
    lab.run()
    lab.events([event(8), event(151)])
    lab.run()
    return lab


def test_a_session_covers_the_rows_that_are_counted_again(sessions: Lab) -> None:
    for table in ("gold.visits", "gold.done"):
        told = ask(sessions, table, "window_start=2024-01-01T00:00:01Z,kind=view")
        (window,) = told.windows
        assert (window.rows, window.agrees, window.state) == (2, True, "closed")
        assert (window.start, window.end) == ("2024-01-01T00:00:01Z", "2024-01-01T00:00:35Z")
        assert [hop.table for hop in told.hops] == [table, "silver.e", "bronze.e"]


def test_a_row_is_found_in_its_session_open_or_not(sessions: Lab) -> None:
    told = ask(sessions, "gold.visits", place_of(sessions, "e150"))
    assert told.found
    assert [(w.start, w.end, w.state, w.rows) for w in told.windows] == [
        ("2024-01-01T00:02:20Z", "2024-01-01T00:02:51Z", "open", 3)
    ]
    told = ask(sessions, "gold.done", place_of(sessions, "e150"))
    assert reason(told) == "window_open"
    assert [(w.start, w.end, w.rows) for w in told.windows] == [("2024-01-01T00:02:20Z", "2024-01-01T00:02:51Z", 3)]
    assert reason(ask(sessions, "gold.done", place_of(sessions, "e8"))) == "late"


def test_a_session_that_is_not_there(sessions: Lab) -> None:
    assert reason(ask(sessions, "gold.visits", "window_start=2024-01-01T00:10:00Z,kind=view")) == "no_such_row"
    assert reason(ask(sessions, "gold.visits", "window_end=2024-01-01T00:00:02Z")) == "no_such_row"


def test_a_window_of_windows_goes_down_to_the_record(sessions: Lab) -> None:
    told = ask(sessions, "gold.per_minute", "window_start=2024-01-01T00:00:00Z,kind=view")
    (window,) = told.windows
    assert (window.rows, window.agrees, window.state) == (1, True, "closed")
    assert [hop.table for hop in told.hops] == ["gold.per_minute", "gold.done", "silver.e", "bronze.e"]
    assert told.record is not None
    assert window.sample[0]["trace"] == "lodestream trace gold.done window_start=2024-01-01T00:00:01Z,kind=view"


def test_a_source_row_is_found_in_windows_of_windows(sessions: Lab) -> None:
    told = ask(sessions, "gold.per_minute", place_of(sessions, "e15"))
    assert told.found
    assert [(w.start, w.rows) for w in told.windows] == [("2024-01-01T00:00:00Z", 1)]
    assert [hop.table for hop in told.hops] == ["gold.per_minute", "gold.done", "silver.e", "bronze.e"]
    assert reason(ask(sessions, "gold.per_minute", place_of(sessions, "e150"))) == "window_open"
    start_us = 1_704_067_201_000_000
    assert ask(sessions, "gold.per_minute", f"gold.done/view:{start_us}").found
    assert reason(ask(sessions, "gold.per_minute", f"gold.done/view:{start_us + 1}")) == "no_such_row"
