import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.errors import LodestreamError
from lodestream.model.table import Dedup, EventTime, Lookup, TableName, Window
from lodestream.semantics.stages import (
    Batch,
    Disposition,
    Measure,
    Rule,
    Spec,
    State,
    position_of,
    run_batch,
    run_stream,
)

S = 1_000_000
COUNT = Measure(lambda r: 1, len)
USERS = TableName("silver", "users")


def batches(*groups, pins=None):
    """Batches of rows given as dicts; positions count up over the whole stream."""
    made, at = [], 0
    for rows in groups:
        numbered = [{**row, "_source": "f", "_position": at + i} for i, row in enumerate(rows)]
        made.append(Batch(numbered, pins or {}))
        at += len(rows)
    return made


def at(*seconds, **more):
    return [{"t": round(s * S), **more} for s in seconds]


def kinds(outcomes):
    return [[d.kind for d in o.dispositions.values()] for o in outcomes]


def table(outcome):
    return {(k[0] // S, *k[1]): row["_rows"] for k, row in outcome.after.table.items()}


COUNTED = Spec(
    event_time=EventTime("t", 10 * S), window=Window(10 * S), group_by={}, measures={"n": COUNT}, emit="final"
)
UPDATED = Spec(event_time=EventTime("t", 10 * S), window=Window(10 * S), measures={"n": COUNT}, emit="updates")


def test_e1_a_row_joins_the_window_that_its_own_batch_closes():
    out = run_stream(COUNTED, batches(at(1, 20), at(9), at(9)))
    assert [(o.mark.late_us // S, o.mark.evict_us // S) for o in out] == [(0, 0), (0, 10), (10, 10)]
    assert [table(o) for o in out] == [{}, {(0,): 2}, {(0,): 2}]
    assert kinds(out) == [["output", "output"], ["output"], ["late"]]


def test_updates_show_a_window_in_every_batch_that_touches_it():
    out = run_stream(UPDATED, batches(at(1, 20), at(9), at(9)))
    assert [table(o) for o in out] == [{(0,): 1, (20,): 1}, {(0,): 2, (20,): 1}, {(0,): 2, (20,): 1}]


def test_e4_a_batch_without_rows_holds_the_watermark_and_closes_what_it_has_passed():
    out = run_stream(COUNTED, batches(at(1), at(30), []))
    assert [table(o) for o in out] == [{}, {}, {(0,): 1}]
    assert set(out[-1].after.opened) == {(30 * S, ())}


def test_e14_continuing_from_state_equals_one_run():
    given = batches(at(20, 21), at(5, 33), at(9, 40), [], at(22, 41))
    spec = Spec(
        event_time=EventTime("t", 10 * S), dedup=Dedup(("t",)), window=Window(10 * S, 5 * S), measures={"n": COUNT}
    )
    whole = run_stream(spec, given)
    for cut in range(len(given) + 1):
        head = run_stream(spec, given[:cut])
        assert head + run_stream(spec, given[cut:], head[-1].after if head else None) == whole


def test_e5_rows_that_leave_before_the_watermark_do_not_move_it():
    spec = Spec(expect=(Rule("ok", lambda r: r["ok"], "drop"),), event_time=EventTime("t", 0), dedup=Dedup(("t",)))
    out = run_stream(
        spec, batches([{"t": 100 * S, "ok": False}], [{"t": 5 * S, "ok": True}], [{"t": 4 * S, "ok": True}])
    )
    assert kinds(out) == [["dropped"], ["output"], ["output"]]
    assert out[-1].after.mark.evict_us == 5 * S


def test_late_rows_and_duplicates_are_seen_by_the_watermark():
    spec = Spec(event_time=EventTime("t", 0), dedup=Dedup(("k",)))
    out = run_stream(spec, batches([{"t": 5 * S, "k": 1}], [{"t": 90 * S, "k": 1}], []))
    assert kinds(out) == [["output"], ["duplicate"], []]
    assert out[-1].mark.evict_us == 90 * S


def test_a_row_without_event_time_does_not_take_the_key():
    spec = Spec(event_time=EventTime("t", 10 * S), dedup=Dedup(("k",)))
    out = run_stream(spec, batches([{"t": None, "k": 1}, {"t": S, "k": 1}]))
    assert list(out[0].dispositions.values()) == [
        Disposition("quarantine", ("null_event_time",)),
        Disposition("output"),
    ]


def test_ancient_rows_are_late_from_the_first_batch_on():
    spec = Spec(event_time=EventTime("t", 10 * S), dedup=Dedup(("t",)))
    assert kinds(run_stream(spec, batches(at(-5, 0, 0.000001)))) == [["late", "late", "output"]]
    assert kinds(run_stream(COUNTED, batches(at(-11, -1, 0)))) == [["late", "late", "output"]]


def test_derived_columns_see_input_columns_only():
    spec = Spec(derive={"a": lambda r: r["a"] + 1, "b": lambda r: r["a"] * 10})
    (out,) = run_stream(spec, batches([{"a": 1}]))
    assert (out.accepted[0]["a"], out.accepted[0]["b"]) == (2, 10)


def test_every_reason_is_kept_and_errors_are_told_from_false():
    spec = Spec(
        derive={"r": lambda r: r["x"] // r["y"]},
        expect=(
            Rule("small", lambda r: r["x"] < 5),
            Rule("known", lambda r: None if r["z"] is None else r["z"] > 0),
            Rule("number", lambda r: int(r["s"]) > 0),
            Rule("quiet", lambda r: False, "warn"),
            Rule("kept", lambda r: r["x"] != 9, "drop"),
        ),
    )
    rows = [
        {"x": 9, "y": 0, "z": None, "s": "a"},
        {"x": 1, "y": 1, "z": 1, "s": "1"},
        {"x": 4, "y": 1, "z": 1, "s": "0"},
    ]
    (out,) = run_stream(spec, batches(rows))
    assert [(d.kind, d.reasons) for d in out.dispositions.values()] == [
        ("quarantine", ("derive:r:error", "expect:small", "expect:known", "expect:number:error", "drop:kept")),
        ("output", ()),
        ("quarantine", ("expect:number",)),
    ]


def test_a_row_that_breaks_rules_of_both_kinds_is_kept_in_quarantine():
    spec = Spec(expect=(Rule("a", lambda r: 1 // r["x"] > 0, "drop"), Rule("b", lambda r: r["x"] is None)))
    (out,) = run_stream(spec, batches([{"x": 0}]))
    assert list(out.dispositions.values()) == [Disposition("quarantine", ("expect:b", "drop:a:error"))]


def test_a_row_whose_group_or_measure_errs_goes_to_quarantine_before_it_can_be_late():
    spec = Spec(
        event_time=EventTime("t", 0),
        window=Window(10 * S),
        group_by={"g": lambda r: 1 // r["x"]},
        measures={"m": Measure(lambda r: 1 // r["y"], sum)},
    )
    (out,) = run_stream(spec, batches([{"t": -99 * S, "x": x, "y": y} for x, y in ((0, 1), (0, 0), (1, 1))]))
    assert list(out.dispositions.values()) == [
        Disposition("quarantine", ("group:g:error",)),
        Disposition("quarantine", ("group:g:error", "measure:m:error")),
        Disposition("late", ("late",)),
    ]


def test_a_row_that_only_some_hopping_windows_take_is_output_and_the_others_are_named():
    spec = Spec(event_time=EventTime("t", 0), window=Window(10 * S, 5 * S), measures={"n": COUNT})
    out = run_stream(spec, batches(at(16), [], at(12)))
    assert kinds(out) == [["output"], [], ["output"]]
    assert out[-1].missed == {("f", 1): (5 * S,)}
    assert table(out[-1]) == {(10,): 2, (15,): 1}


def test_a_rule_that_fails_stops_the_batch():
    with pytest.raises(LodestreamError, match="rule='never'"):
        run_stream(Spec(expect=(Rule("never", lambda r: False, "fail"),)), batches([{"a": 1}]))


def test_a_lookup_comes_after_dedup_and_an_ambiguous_key_goes_to_quarantine():
    spec = Spec(
        event_time=EventTime("t", S),
        dedup=Dedup(("k",)),
        lookups=(Lookup(USERS, (("k", "id"),), (("tier", "tier"),)),),
    )
    pins = {USERS: [{"id": 1, "tier": "a"}, {"id": 2, "tier": "b"}, {"id": 2, "tier": "b"}]}
    rows = [{"t": S, "k": k} for k in (1, 2, 2, 3)]
    (out,) = run_stream(spec, batches(rows, pins=pins))
    assert [d.kind for d in out.dispositions.values()] == ["output", "quarantine", "duplicate", "output"]
    assert [r["tier"] for r in out.accepted] == ["a", None]


def test_null_and_nan_are_groups():
    spec = Spec(
        event_time=EventTime("t", S), window=Window(10 * S), group_by={"g": lambda r: r["g"]}, measures={"n": COUNT}
    )
    (out,) = run_stream(spec, batches([{"t": S, "g": g} for g in (None, float("nan"), -math.nan, None, 0.0, -0.0)]))
    assert sorted(str(k[1][0]) for k in out.after.table) == ["0.0", "None", "nan"]
    assert {row["n"] for row in out.after.table.values()} == {2}


# --- laws -----------------------------------------------------------------------------------------------------------

rows_of_a_batch = st.lists(
    st.fixed_dictionaries(
        {
            "t": st.none() | st.integers(-20, 120).map(lambda s: s * S // 2),
            "k": st.integers(0, 3),
            "v": st.integers(-1, 5),
            "g": st.sampled_from(["a", "b", None]),
        }
    ),
    max_size=6,
)
streams = st.lists(rows_of_a_batch, max_size=7).map(lambda groups: batches(*groups))


@st.composite
def specs(draw):
    step = draw(st.sampled_from([None, 3 * S, 5 * S]))
    return Spec(
        derive={"w": lambda r: 10 // (r["v"] - 1)},
        expect=(Rule("positive", lambda r: r["v"] >= 0, draw(st.sampled_from(["quarantine", "drop", "warn"]))),),
        event_time=EventTime("t", draw(st.sampled_from([0, 5 * S, 20 * S]))),
        dedup=draw(st.sampled_from([None, Dedup(("k",)), Dedup(("k", "g"), 15 * S)])),
        window=draw(st.sampled_from([None, Window(10 * S, step)])),
        group_by={"g": lambda r: r["g"]},
        measures={"total": Measure(lambda r: 100 // r["v"], sum)},
        emit=draw(st.sampled_from(["updates", "final"])),
    )


@given(specs(), streams)
def test_conservation_every_input_position_has_exactly_one_disposition(spec, stream):
    for batch, out in zip(stream, run_stream(spec, stream), strict=True):
        assert list(out.dispositions) == [position_of(row) for row in batch.rows]
        kept = [p for p, d in out.dispositions.items() if d.kind == "output"]
        assert [position_of(row) for row in out.accepted] == kept


@given(specs(), streams)
def test_replay_gives_the_same_outcome(spec, stream):
    state = State()
    for batch, out in zip(stream, run_stream(spec, stream), strict=True):
        assert run_batch(spec, state, batch) == run_batch(spec, state, batch) == out
        state = out.after


@given(specs(), streams)
def test_a_batch_without_rows_accepts_nothing_and_leaves_updated_windows_alone(spec, stream):
    (*head, idle) = run_stream(spec, [*stream, Batch()])
    assert head == run_stream(spec, stream)
    assert (idle.accepted, dict(idle.dispositions)) == ((), {})
    if spec.emit == "updates" and head:
        assert idle.after.table == head[-1].after.table


@given(specs(), streams)
def test_windows_cover_exactly_the_accepted_positions(spec, stream):
    if spec.window is None or not stream:
        return
    out = run_stream(spec, stream)
    last = out[-1].after
    covered = {p for row in last.table.values() for p in row["_positions"]}
    opened = {position_of(row) for rows in last.opened.values() for row in rows}
    accepted = {position_of(row) for o in out for row in o.accepted}
    assert covered | opened == accepted
    if spec.emit == "updates":
        assert covered == accepted
    if spec.window.slide_us is None:
        closed = [row for key, row in last.table.items() if key not in last.opened]
        counted = sum(row["_rows"] for row in closed) + sum(len(rows) for rows in last.opened.values())
        assert counted == len(accepted)


@given(specs(), streams)
def test_a_closed_window_never_changes(spec, stream):
    if spec.window is None:
        return
    closed = {}
    for out in run_stream(spec, stream):
        assert {key: out.after.table[key] for key in closed} == closed
        closed = {key: row for key, row in out.after.table.items() if key not in out.after.opened}


@st.composite
def punctual_streams(draw):
    """Rows in arrival order, none as much as 20 s behind the newest before it; equal keys are copies of one row."""
    rows, newest, first = [], 0, {}
    for lag, key, ahead in draw(
        st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9), st.integers(0, 15)), max_size=25)
    ):
        row = first.setdefault(key, {"t": max(newest - lag, 1) * S, "k": key, "v": 1, "g": "a"})
        if row["t"] <= (newest - 20) * S:
            continue
        rows.append(row)
        newest = max(newest, row["t"] // S)
        newest_row = {"t": (newest + ahead) * S, "k": 100 + len(rows), "v": 1, "g": None}
        rows.append(newest_row)
        newest += ahead
    return rows


@given(specs(), punctual_streams(), st.data())
def test_batch_boundaries_do_not_matter_when_no_row_is_later_than_the_delay_and_duplicates_are_identical(
    spec, rows, data
):
    spec = Spec(
        event_time=EventTime("t", 20 * S), dedup=spec.dedup, window=spec.window, group_by=spec.group_by,
        measures=spec.measures, emit=spec.emit,
    )  # fmt: skip
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    edges = [0, *cuts, len(rows)]
    pieces = [rows[a:b] for a, b in itertools.pairwise(edges)]
    one = run_stream(spec, batches(rows, []))
    many = run_stream(spec, batches(*pieces, []))
    assert [r for o in many for r in o.accepted] == list(one[0].accepted)
    merged = {p: d for o in many for p, d in o.dispositions.items()}
    assert merged == one[0].dispositions
    assert "late" not in {d.kind for d in merged.values()}
    assert (many[-1].after.table, many[-1].after.opened) == (one[-1].after.table, one[-1].after.opened)
