"""Rows that were set aside, mended and taken again: the same batch whoever runs it, and on record."""

import json

import pytest

from lodestream.errors import ConfigError
from lodestream.model.batch import BatchPlan, Mend
from lodestream.model.table import TableName
from lodestream.runtime.replaying import take_again
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, amount: "decimal(12,2)", n: int, at: timestamp}
"""
SILVER = """
from: stream(bronze.e)
expect:
  positive: {that: amount > 0, else: quarantine}
event_time: {column: at, delay: 1 minute}
dedup: {keys: [id]}
"""
GOLD = """
from: stream(silver.e)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
measures: {n: count(*), amount: sum(amount)}
"""
NAME = TableName("silver", "e")


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", SILVER)
    lab.table("gold.e", GOLD)
    lab.events([
        {"id": "a", "amount": 1, "n": 1, "at": "2024-01-01T00:00:00Z"},
        {"id": "b", "amount": -5, "n": 2, "at": "2024-01-01T00:00:01Z"},
        {"id": "c", "amount": -6, "n": 3, "at": None},
    ])  # fmt: skip
    lab.run()
    return lab


def keys(lab, table="silver.e", kind="quarantine"):
    rows = lab.quarantine(table, "_source", "_position", "kind")
    return sorted((row["_source"], row["_position"]) for row in rows if row["kind"] == kind)


def test_a_mended_row_passes_and_the_resolution_says_how(lab):
    b, c = keys(lab)
    mends = {b: Mend({"amount": "5.00"}, by="ana"), c: Mend({"amount": "6", "at": "2024-01-01T00:00:02Z"}, by="ana")}
    done = take_again(lab.app().pipeline(), NAME, [b, c], accept_late=False, mends=mends)
    assert (done.chosen, done.passed, done.counts["output"]) == (2, 2, 2)
    rows = {row["id"]: (str(row["amount"]), row["n"]) for row in lab.rows("silver.e", "id", "amount", "n")}
    assert rows == {"a": ("1.00", 1), "b": ("5.00", 2), "c": ("6.00", 3)}
    closed = [
        row for row in lab.quarantine("silver.e", "kind", "reasons", "detail", "row") if row["kind"] == "resolved"
    ]
    assert [row["reasons"] for row in closed] == [["replayed", "mended"]] * 2
    assert json.loads(closed[0]["detail"]) == {"values": {"amount": "5.00"}, "raw": None, "by": "ana"}
    lab.run()
    (window,) = lab.rows("gold.e", "n", "amount")
    assert (window["n"], str(window["amount"])) == (3, "12.00")
    lab.reconcile()


def test_a_row_that_is_still_wrong_is_set_aside_as_it_is_now(lab):
    (b, *_) = keys(lab)
    done = take_again(lab.app().pipeline(), NAME, [b], accept_late=False, mends={b: Mend({"amount": "-4"}, by="ana")})
    assert (done.chosen, done.passed) == (1, 0)
    row = max(lab.quarantine("silver.e", "_batch", "row", "kind"), key=lambda one: one["_batch"])
    assert (row["kind"], json.loads(row["row"])["amount"]) == ("quarantine", "-4.00")
    lab.reconcile()


def test_a_record_that_did_not_decode_is_taken_in_another_form(lab):
    lab.events(['{"id": "d", "amount": 4, "at": "2024-01-01T00:00:03Z"', '{"id": "e'])
    lab.run()
    d, e = keys(lab, "bronze.e")
    text = '{"id": "d", "amount": 4, "n": 4, "at": "2024-01-01T00:00:03Z"}'
    name = TableName("bronze", "e")
    done = take_again(lab.app().pipeline(), name, [d], accept_late=False, mends={d: Mend(raw=text, by="ana")})
    assert (done.chosen, done.passed) == (1, 1)
    assert lab.rows("bronze.e", "id")[-1] == {"id": "d"}
    lab.run()
    assert {row["id"] for row in lab.rows("silver.e", "id")} == {"a", "d"}
    pipeline = lab.app().pipeline()
    with pytest.raises(ConfigError, match="whole record"):
        take_again(pipeline, name, [e], accept_late=False, mends={e: Mend({"id": "e"})})
    lab.reconcile()


@pytest.mark.parametrize(
    "mend",
    [
        Mend({"amuont": 1}), Mend({"_source": "x"}), Mend({"n": "many"}), Mend({"amount": "x"}), Mend({"at": 5}),
        Mend({"at": "soon"}), Mend({"n": 1 << 40}), Mend({"id": {"a": 1}}), Mend(raw="{}"), Mend({"n": 1}, raw="{}"),
    ],
    ids=lambda mend: mend.to_json(),
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_planned(lab, mend):
    before = lab.delta("silver.e").snapshot.version
    (b, *_) = keys(lab)
    with pytest.raises(ConfigError):
        take_again(lab.app().pipeline(), NAME, [b], accept_late=False, mends={b: mend})
    assert lab.delta("silver.e").snapshot.version == before
    take_again(lab.app().pipeline(), NAME, [b], accept_late=False, mends={b: Mend({"amount": 2})})
    assert len(lab.rows("silver.e")) == 2


def test_a_table_of_windows_is_mended_where_its_rows_are(lab):
    lab.events([{"id": "z", "amount": 1, "n": 1, "at": "2024-01-01T01:00:00Z"}])
    lab.run()
    lab.events([{"id": "late", "amount": 1, "n": 1, "at": "2024-01-01T00:00:30Z"}])
    lab.run()
    (late,) = keys(lab, kind="late")
    take_again(lab.app().pipeline(), NAME, [late], accept_late=True)
    lab.run()
    (late,) = keys(lab, "gold.e", kind="late")
    with pytest.raises(ConfigError, match="windows"):
        take_again(
            lab.app().pipeline(), TableName("gold", "e"), [late], accept_late=True, mends={late: Mend({"amount": "2"})}
        )


def test_whoever_finds_the_plan_runs_it_with_the_same_mends(lab, monkeypatch):
    (b, *_) = keys(lab)
    mend = Mend({"amount": "5.00"}, by="ana")

    class DiedError(Exception):
        pass

    pipeline = lab.app().pipeline()
    flow = pipeline.flow(NAME)
    flow.open()
    monkeypatch.setattr(type(flow), "_run", lambda *_: (_ for _ in ()).throw(DiedError))
    with pytest.raises(DiedError):
        flow.submit_replay([b], accept_late=False, mends={b: mend})
    flow.close()
    monkeypatch.undo()
    lab.run()
    assert {row["id"]: str(row["amount"]) for row in lab.rows("silver.e", "id", "amount")} == {"a": "1.00", "b": "5.00"}
    lab.reconcile()


def test_a_plan_keeps_its_mends_and_old_plans_have_none():
    plan = BatchPlan(1, 2, "replay", 3, "d", replay=(("s", 1),), mended=(("s", 1, Mend({"a": 1}, by="x").to_json()),))
    assert BatchPlan.from_json(plan.to_json()) == plan
    old = json.loads(plan.to_json())
    del old["mended"]
    assert BatchPlan.from_json(json.dumps(old).encode()).mended == ()
