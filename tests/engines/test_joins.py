"""Tables that join two streams, end to end: rows, quarantine, accounting, traces and restarts."""

import json
import random

import pyarrow as pa
import pytest

from lodestream.cli.root import main
from lodestream.engines.embedded import joins
from lodestream.engines.embedded.sides import JoinState, Side
from lodestream.errors import ConfigError
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.testing.streams import PAIRS, make_stream
from tests.engines.lakes import Lab
from tests.engines.test_differential import Site, drive

ORDERS = """
source: {files: {path: events/o*.jsonl, settle: 0}}
format: json
columns: {id: bigint, amount: int, at: timestamp}
"""
PAYMENTS = """
source: {files: {path: events/p*.jsonl, settle: 0}}
format: json
columns: {order_id: bigint, paid: int, paid_at: timestamp}
"""
PAID = """
from: stream(bronze.orders)
event_time: {{column: at, delay: 0 s}}
join:
  from: stream(bronze.payments)
  kind: {kind}
  on: {{id: order_id}}
  event_time: {{column: paid_at, delay: 0 s}}
  within: {{after: 1 hour}}
  columns: [paid, paid_at]
"""


def at(minute):
    return f"2024-05-01T{12 + minute // 60:02}:{minute % 60:02}:00Z"


def order(number, minute):
    return {"id": number, "amount": 10 * number, "at": at(minute)}


def payment(number, minute):
    return {"order_id": number, "paid": 10 * number, "paid_at": at(minute) if minute is not None else None}


@pytest.fixture(params=["inner", "left"])
def lab(tmp_path, request):
    made = Lab(tmp_path / "lab")
    made.table("bronze.orders", ORDERS)
    made.table("bronze.payments", PAYMENTS)
    made.table("silver.paid", PAID.format(kind=request.param))
    made.kind = request.param
    return made


def put(lab, number, orders, payments):
    """A file of each side, taken in by a run of its own."""
    lab.events([order(*one) for one in orders], f"o{number}.jsonl")
    lab.events([payment(*one) for one in payments], f"p{number}.jsonl")
    lab.run()


def test_pairs_come_as_soon_as_both_are_there_and_the_rest_is_accounted_for(lab):
    put(lab, 1, [(1, 0), (2, 1), (3, 2)], [(1, 5), (9, 6), (8, None)])
    assert [(r["id"], r["paid"]) for r in lab.rows("silver.paid")] == [(1, 10)]
    put(lab, 2, [(4, 10)], [(2, 20), (1, 21)])  # an order may be paid twice
    put(lab, 3, [(5, 200)], [(5, 200)])
    lab.run()
    rows = lab.read("silver.paid").sort_by("_position").to_pylist()
    expected = [(1, 10), (1, 10), (2, 20), (5, 50)]
    if lab.kind == "left":
        expected += [(3, None), (4, None)]
    assert sorted((r["id"], r["paid"] or 0) for r in rows) == sorted((i, p or 0) for i, p in expected)
    assert [r["_position"] for r in rows] == list(range(len(rows)))
    assert {r["_source"] for r in rows} == {"silver.paid"}
    first = rows[0]
    assert (first["_left_source"], first["_right_source"]) == ("o1.jsonl", "p1.jsonl")
    assert first["paid_at"].isoformat() == "2024-05-01T12:05:00+00:00"
    aside = {(q["_source"], q["kind"], q["reasons"][0]) for q in lab.quarantine("silver.paid")}
    right = {
        ("bronze.payments/p1.jsonl", "quarantine", "null_event_time"),
        ("bronze.payments/p1.jsonl", "dropped", "unmatched"),
    }
    left = (
        {("o1.jsonl", "dropped", "unmatched"), ("o2.jsonl", "dropped", "unmatched")} if lab.kind == "inner" else set()
    )
    assert aside == right | left
    report = lab.reconcile()[-1].to_json()
    assert (report["input"], report["open"], report["quarantine"]) == (11, 0, 1)
    assert report["output"] + report["dropped"] == 10


def test_rows_that_wait_are_open_and_survive_a_restart(lab):
    put(lab, 1, [(1, 0), (2, 1)], [(7, 3)])
    assert lab.rows("silver.paid") == []
    assert lab.reconcile()[-1].counts["open"] == 3
    for number in range(2, 9):  # each in a process of its own: the state is read back from its chain
        put(lab, number, [], [(1, number)])
    assert [r["paid_at"].minute for r in lab.rows("silver.paid")] == list(range(2, 9))
    put(lab, 9, [(3, 300)], [(3, 300)])
    left = 1 if lab.kind == "left" else 0
    assert len(lab.rows("silver.paid")) == 8 + left
    assert (
        sorted(q["_source"] for q in lab.quarantine("silver.paid"))
        == ["bronze.payments/p1.jsonl", "o1.jsonl"][: 2 - left]
    )
    lab.reconcile()


def test_a_stream_may_join_itself_and_the_joined_table_streams_on(tmp_path):
    lab = Lab(tmp_path / "lab")
    lab.table("bronze.orders", ORDERS)
    join = PAID.format(kind="inner").replace("bronze.payments", "bronze.orders").replace("{id: order_id}", "id")
    lab.table("silver.paid", join.replace("paid_at", "at").replace("[paid, at]", "{amount: other, at: other_at}"))
    lab.table(
        "gold.paid",
        "from: stream(silver.paid)\nevent_time: {column: at, delay: 0 s}\nwindow: {every: 1 hour}\n"
        "measures: {pairs: count(*), total: sum(other)}\n",
    )
    lab.events([order(1, 0), order(1, 5), order(2, 6)], "o1.jsonl")
    lab.run()
    assert sorted((r["amount"], r["at"].minute, r["other_at"].minute) for r in lab.rows("silver.paid")) == [
        (10, 0, 0), (10, 0, 5), (10, 5, 5), (20, 6, 6),
    ]  # fmt: skip
    assert lab.rows("gold.paid", "pairs", "total") == [{"pairs": 4, "total": 50}]
    assert [r.counts["output"] for r in lab.reconcile()] == [3, 6, 0]


def test_a_late_order_meets_those_that_wait_when_it_is_accepted(lab):
    put(lab, 1, [(1, 0), (2, 98)], [(1, 5), (3, 99)])
    put(lab, 2, [(3, 97)], [])
    (late,) = [q for q in lab.quarantine("silver.paid") if q["kind"] == "late"]
    flow = lab.app().pipeline().flow(TableName.parse("silver.paid"))
    flow.open()
    flow.submit_replay([(late["_source"], late["_position"])], accept_late=True)
    flow.close()
    assert [r["id"] for r in lab.rows("silver.paid") if r["paid"]] == [1, 3]
    lab.reconcile()


def test_a_row_of_the_other_side_is_mended_where_it_came_from(lab):
    put(lab, 1, [(1, 0)], [(1, None)])
    (aside,) = lab.quarantine("silver.paid")
    flow = lab.app().pipeline().flow(TableName.parse("silver.paid"))
    flow.open()
    with pytest.raises(ConfigError, match="mend it where it came from"):
        flow.submit_replay([(aside["_source"], aside["_position"])], accept_late=False)
    flow.close()


def test_what_an_enricher_sets_aside_is_the_row_that_came(lab):
    """Enrichers come before the join: a joined row is no row that came in."""
    lab.table("bronze.orders", ORDERS.replace("at: timestamp", "at: timestamp, note: string"))
    paid = PAID.format(kind=lab.kind) + "enrich: {language: {column: note}}\n"
    lab.table("silver.paid", paid)
    notes = ["It rained all week long.", "x" * 2_000_000, "Il a plu toute la semaine."]
    lab.events([{**order(n, n), "note": note} for n, note in enumerate(notes)], "o1.jsonl")
    lab.events([payment(n, 10) for n in (0, 0, 0, 1, 2)], "p1.jsonl")
    lab.run()
    assert [(r["id"], r["language"]) for r in lab.rows("silver.paid")] == [(0, "en")] * 3 + [(2, "fr")]
    (aside,) = lab.quarantine("silver.paid")
    assert (json.loads(aside["row"])["id"], aside["reasons"]) == (1, ["enrich:language:too_long"])
    lab.reconcile()


def ask(lab, capsys, *arguments):
    main(["-C", str(lab.root), *arguments])
    return capsys.readouterr().out


def test_explain_and_trace(lab, capsys):
    put(lab, 1, [(1, 0), (2, 1)], [(1, 5)])
    put(lab, 2, [(3, 300)], [(3, 300)])
    said = ask(lab, capsys, "explain", "silver.paid")
    assert "join paid, paid_at of new rows of bronze.payments on id = order_id, paid_at from" in said
    told = json.loads(ask(lab, capsys, "trace", "silver.paid", "id=1", "--json"))
    assert [hop["table"] for hop in told["hops"]] == ["silver.paid", "bronze.orders"]
    assert told["hops"][0]["lookups"][0]["row"]["paid"] == 10
    said = ask(lab, capsys, "trace", "silver.paid", "bronze.payments/p1.jsonl:0")
    assert "bronze.payments" in said


@pytest.mark.parametrize("seed", range(0, 60, 6))
def test_random_joins_add_up(tmp_path, seed):
    site = Site(tmp_path, make_stream(seed))
    drive(site, random.Random(seed), handover=True)
    plan = site.pipeline().flows[PAIRS]
    report = reconcile(str(tmp_path), str(tmp_path / "lake"), plan)
    assert report.problems == []
    assert report.input > 0


def pairs_meet_too_early(patch):
    pairs = joins.pairs_of
    patch.setattr(
        joins, "pairs_of", lambda connection, held, join, old: tuple(p[1:] for p in pairs(connection, held, join, old))
    )


def rows_leave_too_early(patch):
    limits = JoinState.limits
    patch.setattr(JoinState, "limits", lambda self, mark: tuple((s, t + 20_000_000) for s, t in limits(self, mark)))


def who_met_is_forgotten(patch):
    patch.setattr(Side, "meet", lambda self, numbers: None)


def old_rows_are_lost(patch):
    patch.setattr(Side, "evict", lambda self, until_us: self.__dict__.update(rows=self.rows.slice(0, 0)) or self.rows)


@pytest.mark.parametrize(
    "bug", [pairs_meet_too_early, rows_leave_too_early, old_rows_are_lost], ids=lambda b: b.__name__
)
def test_reconcile_sees_a_planted_bug(tmp_path, bug):
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        for seed in range(0, 90, 6):
            site = Site(tmp_path / str(seed), make_stream(seed))
            drive(site, random.Random(seed), handover=True)
            plan = site.pipeline().flows[PAIRS]
            if reconcile(str(site.root), str(site.root / "lake"), plan).problems:
                return
    pytest.fail("nothing was seen")


def test_serials_go_on_after_a_restart():
    side = Side()
    rows = pa.table({"k": [1, 2]})
    side.add(rows, pa.array([1, 2]).to_numpy())
    again = Side()
    again.put(side.rows)
    again.add(rows, pa.array([3, 4]).to_numpy())
    assert again.rows.column("_serial").to_pylist() == [0, 1, 2, 3]
