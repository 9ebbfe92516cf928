"""Sessions, windows of windows, corrections by late rows and completeness, as tables show them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lodestream.engines.embedded import correction, inputs, outputs
from lodestream.errors import ConfigError
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.operations.status import read_status
from lodestream.runtime.replaying import take_again
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, at: timestamp, kind: string, code: string}
"""
WINDOW = """
from: stream(bronze.e)
event_time: {column: at, delay: 10 seconds}
group_by: [kind]
measures: {n: count(*)}
"""
VISITS = TableName("gold", "visits")


def at(seconds: int, kind: str = "a", **more: object) -> dict[str, object]:
    shown = f"2024-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
    return {"id": f"e{seconds}", "at": shown, "kind": kind, "code": "1", **more}


def spans(lab: Lab, name: str = "gold.visits", *more: str) -> list[tuple[Any, ...]]:
    """Start and end in seconds of the day, the group, and further columns."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = lab.rows(name, "window_start", "window_end", *(more or ("n",)))
    return sorted(
        (*((row[c] - start).total_seconds() for c in ("window_start", "window_end")), *(row[c] for c in more or ("n",)))
        for row in rows
    )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path / "p")
    made.table("bronze.e", BRONZE)
    return made


def batches(lab: Lab, *files: list[Any]) -> None:
    """One run for each file, with the no-data batch that follows it."""
    for rows in files:
        lab.events(rows)
        lab.run()
    lab.reconcile()


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_grows_merges_and_ends_a_gap_after_its_last_row(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {gap: 10 seconds}\n")
    batches(lab, [at(100), at(115)])
    assert spans(lab) == [(100, 110, 1), (115, 125, 1)]
    batches(lab, [at(108)])
    assert spans(lab) == [(100, 125, 3)]
    batches(lab, [at(200)])
    assert spans(lab) == [(100, 125, 3), (200, 210, 1)]


def test_final_sessions_come_once_and_a_row_may_begin_one_inside_another(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW.replace("10 seconds", "0 seconds") + "window: {gap: 10 seconds}\nemit: final\n")
    batches(lab, [at(100), at(112, "b")])
    assert spans(lab) == [(100, 110, 1)]
    batches(lab, [at(105), at(101, "b")])
    assert [row["kind"] for row in lab.quarantine("gold.visits", "kind")] == ["late"]
    batches(lab, [at(300)])
    assert spans(lab) == [(100, 110, 1), (105, 115, 1), (112, 122, 1)]


def test_sessions_of_all_rows_without_groups(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW.replace("group_by: [kind]\n", "") + "window: {gap: 10 seconds}\n")
    batches(lab, [at(100), at(105, "b"), at(120)], [at(112, "c")])
    assert spans(lab) == [(100, 130, 4)]


def test_a_session_that_never_ends_stays_open_as_one_row_of_state(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {gap: 1 minute}\nemit: final\n")
    lab.table("gold.now", WINDOW + "window: {gap: 1 minute}\n")
    for hour in range(6):
        lab.events([at(hour * 3600 + 50 * n) for n in range(72)])
    app = lab.run()
    assert spans(lab) == []
    assert [row["n"] for row in lab.rows("gold.now", "n")] == [432]
    (status,) = read_status(app.disk, app.lake, [VISITS], now_us=0)
    assert status.state_rows == {"windows": 1}
    (report,) = [found for found in lab.reconcile() if found.table == VISITS]
    assert (report.counts["open"], report.counts["output"]) == (432, 0)


@pytest.mark.parametrize("emit", ["updates", "final"])
def test_event_times_of_1900_and_of_the_year_9999(lab: Lab, emit: str) -> None:
    """What lies before 1970 is late from the start; one row of the year 9999 makes all that comes after it late."""
    lab.table("gold.visits", WINDOW + f"window: {{gap: 10 seconds}}\nemit: {emit}\n")
    old, far = at(1) | {"at": "1900-01-01T00:00:00Z"}, at(2) | {"at": "9999-12-31T23:59:59Z"}
    batches(lab, [old, at(100), far], [at(200)])
    kinds = [(row["kind"], row["reasons"]) for row in lab.quarantine("gold.visits", "kind", "reasons")]
    assert kinds == [("late", ["late"])] * 2
    ends = [str(value) for value in lab.read("gold.visits").column("window_end").cast("int64").to_pylist()]
    # Python's datetime ends with the year 9999, tables do not
    assert sorted(ends) == ["1704067310000000", *(["253402300809000000"] if emit == "updates" else [])]


def test_many_keys_in_one_instant(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {gap: 10 seconds}\nemit: final\n")
    batches(
        lab, [at(100, f"k{n % 5000}") for n in range(10_000)], [at(109, f"k{n}") for n in range(0, 5000, 2)], [at(500)]
    )
    found = spans(lab)
    assert found.count((100, 119, 3)) == found.count((100, 110, 2)) == 2_500


def test_late_rows_of_sessions_are_not_taken_again(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {gap: 10 seconds}\n")
    batches(lab, [at(100), at(300)], [at(150)])
    late = [(row["_source"], row["_position"]) for row in lab.quarantine("gold.visits", "_source", "_position")]
    with pytest.raises(ConfigError, match="closed sessions"):
        take_again(lab.app().pipeline(), VISITS, late, accept_late=True)


# --- windows of windows ----------------------------------------------------------------------------------------------


def test_windows_of_windows_close_with_the_watermark_of_the_table_above(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {every: 10 seconds}\nemit: final\n")
    below = "from: stream(gold.visits)\nmeasures: {n: sum(n), windows: count(*)}\nwindow: {every: 1 minute}\n"
    lab.table("gold.minutes", below + "emit: final\n")
    batches(lab, [at(1), at(2, "b"), at(59)], [at(69)])
    assert spans(lab, "gold.minutes", "n", "windows") == []
    batches(lab, [at(70)])  # the watermark is 60 s: the last ten seconds and the minute close together
    assert spans(lab, "gold.minutes", "n", "windows") == [(0, 60, 3, 3)]
    batches(lab, [at(3600)])  # no window lies between, and the watermark closes the next minute none the less
    assert spans(lab, "gold.minutes", "n", "windows") == [(0, 60, 3, 3), (60, 120, 2, 2)]


def test_windows_of_windows_of_windows(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {gap: 5 seconds}\nemit: final\n")
    lab.table("gold.b", "from: stream(gold.visits)\nmeasures: {n: sum(n)}\nwindow: {every: 20 seconds}\nemit: final\n")
    lab.table("gold.c", "from: stream(gold.b)\nmeasures: {n: sum(n)}\nwindow: {every: 1 minute}\n")
    batches(lab, [at(n) for n in (1, 2, 9, 30, 61, 62)], [at(500)])
    assert spans(lab, "gold.c") == [(0, 60, 4), (60, 120, 2)]


def test_a_group_may_hold_any_text(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {every: 10 seconds}\nemit: final\n")
    lab.table(
        "gold.minutes",
        "from: stream(gold.visits)\nmeasures: {n: sum(n)}\nwindow: {every: 1 minute}\ncompleteness: true\n",
    )
    kinds = ["a/b", "a", "", "\\N", "ä\\/", None]
    batches(lab, [at(1, kind) for kind in kinds], [at(500)])  # type: ignore[arg-type]
    (row, *_) = lab.rows("gold.minutes", "n", "_covers")
    assert row["n"] == len(kinds)
    assert [one["source"] for one in row["_covers"]] == sorted(
        f"gold.visits/{text}" for text in ("a\\/b", "a", "", "\\\\N", "ä\\\\\\/", "\\N")
    )


def test_what_is_a_stream_is_not_changed_by_accepted_late_rows(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {every: 10 seconds}\nemit: final\n")
    lab.table("gold.minutes", "from: stream(gold.visits)\nmeasures: {n: sum(n)}\nwindow: {every: 1 minute}\n")
    batches(lab, [at(100), at(300)], [at(150)])
    late = [(row["_source"], row["_position"]) for row in lab.quarantine("gold.visits", "_source", "_position")]
    with pytest.raises(ConfigError, match="are a stream"):
        take_again(lab.app().pipeline(), VISITS, late, accept_late=True)


# --- late rows that correct ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emit", ["updates", "final"])
def test_a_late_row_corrects_its_closed_window_in_its_own_batch(lab: Lab, emit: str) -> None:
    lab.table("gold.visits", WINDOW + f"window: {{every: 1 minute}}\nemit: {emit}\nlate: update\n")
    batches(lab, [at(1), at(2), at(90), at(300)])
    before = lab.delta("gold.visits").snapshot.version
    open_rows = [(300, 360, 1)] if emit == "updates" else []
    assert spans(lab) == [(0, 60, 2), (60, 120, 1), *open_rows]
    batches(lab, [at(3), at(130), at(3, "b")])
    assert spans(lab) == [(0, 60, 1), (0, 60, 3), (60, 120, 1), (120, 180, 1), *open_rows]
    assert lab.delta("gold.visits").snapshot.version == before + 1
    assert lab.quarantine("gold.visits") == []


def test_hopping_windows_are_corrected_all(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {every: 20 seconds, slide: 10 seconds}\nlate: update\n")
    batches(lab, [at(15), at(40)], [at(16)])
    assert spans(lab) == [(0, 20, 2), (10, 30, 2), (30, 50, 1), (40, 60, 1)]


def test_a_correction_counts_no_row_that_its_batch_sets_aside(lab: Lab) -> None:
    text = WINDOW.replace("n: count(*)", "n: count(*), codes: sum(cast(code as int))")
    lab.table("gold.visits", text + "window: {every: 1 minute}\nemit: final\nlate: update\n")
    batches(lab, [at(1), at(300)])
    batches(lab, [at(2), at(3, code="x"), at(4) | {"at": None}])
    assert spans(lab, "gold.visits", "n", "codes") == [(0, 60, 2, 2)]
    reasons = [row["reasons"] for row in lab.quarantine("gold.visits", "reasons")]
    assert sorted(reasons) == [["measure:codes:error"], ["null_event_time"]]


def forget_to_take_the_old_row_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outputs, "without_windows", lambda *given: ((), []))


def count_what_the_batch_sets_aside(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(correction, "_set_aside", lambda rejects: set())


def read_no_file_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inputs, "_any_within", lambda times, low_us, high_us: len(times) == 3)


@pytest.mark.parametrize(
    "bug",
    [forget_to_take_the_old_row_away, count_what_the_batch_sets_aside, read_no_file_again, None],
    ids=lambda b: b and b.__name__,
)
def test_a_bug_in_a_correction_is_seen(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None] | None
) -> None:
    text = WINDOW.replace("n: count(*)", "n: count(*), codes: sum(cast(code as int))")
    lab.table("gold.visits", text + "window: {every: 1 minute}\nlate: update\n")
    if bug is not None:
        bug(monkeypatch)
    for rows in ([at(1), at(300)], [at(2), at(3, code="x"), at(4)]):
        lab.events(rows)
        lab.run()
    app = lab.app()
    ok = reconcile(app.project.root, app.lake, app.flows[VISITS], app.resolve).ok
    assert ok == (bug is None)


# --- completeness ----------------------------------------------------------------------------------------------------


def test_a_window_says_whether_it_is_final_and_what_it_covers(lab: Lab) -> None:
    lab.table("gold.visits", WINDOW + "window: {every: 1 minute}\ncompleteness: true\n")
    batches(lab, [at(1), at(70), at(71)], [at(80), at(110)])
    first, second = lab.rows("gold.visits", "window_start", "_final", "_rows", "_covers")
    assert (first["_final"], second["_final"]) == (True, False)
    assert [(one["source"], one["rows"]) for one in second["_covers"]] == [("0000.jsonl", 2), ("0001.jsonl", 2)]
    places = {row["id"]: row["_position"] for row in lab.rows("bronze.e", "id", "_position")}
    assert [(one["first"], one["last"]) for one in second["_covers"]] == [
        (places["e70"], places["e71"]), (places["e80"], places["e110"])
    ]  # fmt: skip
    batches(lab, [at(300)])
    assert [row["_final"] for row in lab.rows("gold.visits", "window_start", "_final")] == [True, True, False]
