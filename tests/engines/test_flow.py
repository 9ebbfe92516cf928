"""A flow as its user sees it: rows in, rows out, rows set aside with reasons, and nothing lost in between."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from lodestream.errors import ConfigError
from lodestream.model.table import TableName
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, at: timestamp, kind: string, amount: "decimal(12,2)"}
"""
SILVER = """
from: stream(bronze.e)
derive: {kind: upper(kind), share: 10 / amount}
expect:
  has_id: {that: id is not null, else: quarantine}
  not_ping: {that: kind <> 'PING', else: drop}
  cheap: {that: amount < 100, else: warn}
event_time: {column: at, delay: 30 seconds}
dedup: {keys: [id]}
"""

GOLD = """
from: stream(silver.e)
event_time: {column: at, delay: 30 seconds}
window: {every: 1 minute}
group_by: [kind]
measures: {c: count(*)}
"""


def event(number: int, **changes: object) -> dict[str, object]:
    at = datetime.fromtimestamp(1_700_000_000 + number, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"id": f"e{number}", "at": at, "kind": "view", "amount": 5, **changes}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    return lab


def test_every_disposition_is_recorded_with_its_reason(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(1), event(1), event(2, id=None), event(3, kind="ping"), event(4, amount=0), event(5, at=None),
                event(6, amount=500), '{"id": "torn'])  # fmt: skip
    lab.run()
    assert lab.rows("silver.e", "id", "kind") == [{"id": "e1", "kind": "VIEW"}, {"id": "e6", "kind": "VIEW"}]
    found = {(r["kind"], tuple(r["reasons"])) for r in lab.quarantine("silver.e", "kind", "reasons")}
    assert found == {
        ("duplicate", ("duplicate",)),
        ("quarantine", ("expect:has_id",)),
        ("dropped", ("drop:not_ping",)),
        ("quarantine", ("derive:share:error",)),
        ("quarantine", ("null_event_time",)),
    }
    assert lab.quarantine("bronze.e", "reasons", "raw") == [{"reasons": ["parse:json"], "raw": b'{"id": "torn'}]
    bronze, silver = lab.reconcile()
    assert (bronze.input, bronze.counts["output"], bronze.counts["quarantine"]) == (8, 7, 1)
    counts = {"output": 2, "quarantine": 3, "late": 0, "duplicate": 1, "dropped": 1, "erased": 0, "open": 0}
    assert silver.counts == counts


def test_late_rows_are_set_aside_and_come_in_only_when_accepted(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(1000)])
    lab.run()
    lab.events([event(1)])
    app = lab.run()
    assert [r["kind"] for r in lab.quarantine("silver.e", "kind")] == ["late"]
    flow = app.pipeline().flow(TableName("silver", "e"))
    flow.open()
    flow.submit_replay([("0001.jsonl", 0)], accept_late=False)
    assert len(lab.rows("silver.e")) == 1
    flow.submit_replay([("0001.jsonl", 0)], accept_late=True)
    flow.close()
    assert [r["id"] for r in lab.rows("silver.e", "id")] == ["e1", "e1000"]
    lab.reconcile()


def test_replay_after_the_rule_is_mended_closes_the_entry(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(1), event(2, id=None)])
    lab.run()
    lab.table("silver.e", SILVER.replace("id is not null", "kind is not null"))
    app = lab.run()
    flow = app.pipeline().flow(TableName("silver", "e"))
    flow.open()
    position = next(r["_position"] for r in lab.quarantine("silver.e", "_position"))
    flow.submit_replay([("0000.jsonl", position)], accept_late=False)
    flow.close()
    assert [r["id"] for r in lab.rows("silver.e", "id")] == ["e1", None][::-1] or len(lab.rows("silver.e")) == 2
    assert [r["kind"] for r in lab.quarantine("silver.e", "kind")] == ["quarantine", "resolved"]
    lab.reconcile()


def test_an_expectation_that_fails_stops_the_flow_and_commits_nothing(lab: Lab) -> None:
    lab.table("silver.e", SILVER.replace("else: warn", "else: fail"))
    lab.events([event(1, amount=5000)])
    with pytest.raises(ConfigError, match="fail"):
        lab.run()
    assert lab.rows("bronze.e", "id") == [{"id": "e1"}]
    assert lab.rows("silver.e") == []


def test_a_rule_change_runs_on_and_a_derive_change_needs_the_accepted_plan(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(1)])
    lab.run()
    lab.table("silver.e", SILVER.replace("upper(kind)", "lower(kind)"))
    with pytest.raises(ConfigError, match="--accept") as refusal:
        lab.run()
    accept = str(refusal.value).split("--accept ")[1].split("`")[0]
    lab.run(accept=accept)
    assert lab.rows("silver.e", "kind") == [{"kind": "view"}]
    lab.reconcile()


@pytest.mark.parametrize("handover", [True, False])
def test_streams_below_a_rebuilt_table_begin_with_its_new_rows(lab: Lab, handover: bool) -> None:
    lab.table("silver.e", SILVER)
    lab.table("silver.f", "from: stream(silver.e)\nexpect: {any: id is not null}\n")
    lab.table("gold.g", GOLD)
    lab.events([event(n) for n in range(5)])
    lab.run(handover=handover)
    for old, new in (("upper(kind)", "lower(kind)"), ("upper(kind)", "kind")):
        lab.table("silver.e", SILVER.replace(old, new))
        with pytest.raises(ConfigError, match="--accept") as refusal:
            lab.run()
        accept = str(refusal.value).split("--accept ")[1].split("`")[0]
        lab.events([event(lab.files * 10 + 7)])
        lab.run(accept=accept, handover=handover)
        assert lab.rows("silver.f", "id", "kind") == lab.rows("silver.e", "id", "kind")
        assert {row["kind"] for row in lab.rows("silver.f", "kind")} == {"view"}
        assert sum(row["c"] for row in lab.rows("gold.g", "c")) == 4 + lab.files
        lab.reconcile()


def test_a_reader_that_comes_after_the_log_was_cleaned_gets_every_row(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    for n in range(3):
        lab.events([event(3 * n + i) for i in range(3)] + [event(0)])
        lab.run()
    silver = lab.delta("silver.e")
    for last in (False, True):
        version = silver.checkpoint()
        if not last:
            lab.events([event(50)])
            lab.run()
            silver.refresh()
    assert silver.clean_log(keep_versions=1, needed_from=version)
    assert not (lab.root / "lake/silver/e/_delta_log/00000000000000000000.json").exists()
    lab.table("silver.f", "from: stream(silver.e)\nexpect: {any: id is not null}\n")
    lab.table("gold.g", GOLD)
    lab.run()
    lab.events([event(60)])
    lab.run()
    assert len(lab.rows("silver.f")) == 11
    assert lab.rows("silver.f", "id", "_position") == lab.rows("silver.e", "id", "_position")
    assert sum(row["c"] for row in lab.rows("gold.g", "c")) == 11
    lab.reconcile()


def test_new_columns_are_added_in_the_batch_that_shows_them(lab: Lab) -> None:
    lab.table("bronze.e", BRONZE + "drift: add\n")
    lab.events([event(1)])
    lab.run()
    lab.events([event(2, color="red", size=3)])
    lab.run()
    assert lab.rows("bronze.e", "id", "color", "size") == [
        {"id": "e1", "color": None, "size": None},
        {"id": "e2", "color": "red", "size": 3},
    ]
    lab.reconcile()


def test_narrow_columns_are_widened_and_their_rows_rewritten(lab: Lab) -> None:
    lab.table("bronze.e", BRONZE.replace('amount: "decimal(12,2)"', "amount: int") + "drift: widen\n")
    lab.table("silver.e", "from: stream(bronze.e)\nselect: [id]\n")
    lab.events([event(1)])
    lab.run()
    lab.events([event(3, amount=5_000_000_000)])
    lab.run()
    assert [r["amount"] for r in lab.rows("bronze.e", "id", "amount")] == [5, 5_000_000_000]
    assert str(lab.delta("bronze.e").snapshot.metadata.schema["amount"].type) == "bigint"
    assert len(lab.rows("silver.e")) == 2
    lab.reconcile()


def test_lookups_pin_one_version_and_ambiguous_keys_are_set_aside(lab: Lab) -> None:
    lab.table(
        "bronze.kinds",
        """
source: {files: {path: kinds, settle: 0 seconds}}
format: json
columns: {code: string, label: string}
""",
    )
    lab.table(
        "silver.e",
        """
from: stream(bronze.e)
enrich: {lookup: {table: bronze.kinds, on: {kind: code}, columns: [label]}}
""",
    )
    (lab.root / "kinds").mkdir()
    (lab.root / "kinds" / "k.jsonl").write_text(
        '{"code": "a", "label": "A"}\n{"code": "b", "label": "B"}\n{"code": "b", "label": "B2"}\n'
    )
    lab.events([event(1, kind="a"), event(2, kind="b"), event(3, kind="c"), event(4, kind=None)])
    lab.run()
    assert lab.rows("silver.e", "id", "label") == [
        {"id": "e1", "label": "A"},
        {"id": "e3", "label": None},
        {"id": "e4", "label": None},
    ]
    assert [r["reasons"][0] for r in lab.quarantine("silver.e", "reasons")] == ["lookup_ambiguous"]
    lab.reconcile()


def test_windows_update_while_open_and_stay_when_closed(lab: Lab) -> None:
    lab.table(
        "gold.w",
        """
from: stream(bronze.e)
event_time: {column: at, delay: 30 seconds}
window: {every: 1 minute}
group_by: [kind]
measures: {events: count(*), amount: sum(amount), mean: avg(cast(amount as double))}
""",
    )
    lab.events([event(0), event(1), event(50, kind="buy", amount=7)])
    lab.run()
    files = {add.path: add.hot for add in lab.delta("gold.w").files()}
    assert list(files.values()) == [True]
    lab.events([event(2), event(200), event(900)])
    lab.run()
    rows = lab.rows("gold.w", "window_start", "kind", "events", "amount", "mean")
    assert [(r["window_start"].minute, r["kind"], r["events"], r["amount"], r["mean"]) for r in rows] == [
        (13, "view", 3, Decimal("15.00"), 5.0),
        (14, "buy", 1, Decimal("7.00"), 7.0),
        (16, "view", 1, Decimal("5.00"), 5.0),
        (28, "view", 1, Decimal("5.00"), 5.0),
    ]
    assert sorted(add.hot for add in lab.delta("gold.w").files()) == [False, True]
    (_, report) = lab.reconcile()
    assert (report.input, report.counts["open"]) == (6, 1)


def test_moments_of_a_window_merge_across_batches(lab: Lab) -> None:
    lab.table(
        "gold.w",
        """
from: stream(bronze.e)
event_time: {column: at, delay: 30 seconds}
window: {every: 1 minute}
measures:
  spread: stddev_pop(amount)
  lean: skewness(amount)
  together: covar_pop(amount, length(id))
  bits: bit_or(length(id))
""",
    )
    amounts = [[2, 4, 4], [4, 5], [5, 7, 9]]
    batches = [[event(10 * i + k, amount=amount) for k, amount in enumerate(part)] for i, part in enumerate(amounts)]
    batches[-1].append(event(8, id="long", amount=5))
    for batch in batches:
        lab.events(batch)
        lab.run()
    (row,) = lab.rows("gold.w", "spread", "lean", "together", "bits")
    assert row["spread"] == pytest.approx(1.8856180831641267, rel=1e-12)
    assert row["lean"] == pytest.approx(0.6960582377305078, rel=1e-12)
    assert row["together"] == pytest.approx(5 / 9, rel=1e-12)
    assert row["bits"] == 2 | 3 | 4


def test_arrays_maps_and_structs_are_derived_and_stored(lab: Lab) -> None:
    lab.table(
        "silver.n",
        """
from: stream(bronze.e)
derive:
  parts: transform(split(kind, '-'), v -> upper(v))
  pair: named_struct('kind', kind, 'amount', amount)
  by_kind: map(kind, amount, id, 100 / amount)
  total: aggregate(array(1, 2, 3), 0, (t, v) -> t + v)
""",
    )
    lab.events([event(1, kind="a-b"), event(2, amount=0), event(3, kind="e3")])
    lab.run()
    (row,) = lab.rows("silver.n", "parts", "pair", "by_kind", "total")
    assert (row["parts"], row["total"]) == (["A", "B"], 6)
    assert row["pair"] == {"kind": "a-b", "amount": Decimal("5.00")}
    assert [key for key, _ in row["by_kind"]] == ["a-b", "e1"]
    assert [r["reasons"] for r in lab.quarantine("silver.n", "reasons")] == [["derive:by_kind:error"]] * 2


def test_an_accepted_late_row_corrects_its_closed_window(lab: Lab) -> None:
    lab.table(
        "gold.w",
        """
from: stream(bronze.e)
event_time: {column: at, delay: 30 seconds}
window: {every: 2 minutes, slide: 1 minute}
group_by: [kind]
measures: {events: count(*), amount: sum(amount)}
""",
    )
    lab.events([event(0), event(130, kind="buy")])
    lab.run()
    lab.events([event(2000)])
    lab.run()
    lab.events([event(10, amount=7), event(3000)])
    app = lab.run()
    (late,) = lab.quarantine("gold.w", "kind", "_source", "_position")
    assert late["kind"] == "late"
    before = {(r["window_start"], r["kind"]): r for r in lab.rows("gold.w")}
    flow = app.pipeline().flow(TableName("gold", "w"))
    flow.open()
    flow.submit_replay([(late["_source"], late["_position"])], accept_late=True)
    flow.close()
    after = {(r["window_start"], r["kind"]): r for r in lab.rows("gold.w")}
    assert after.keys() == before.keys()
    changed = {
        key: (after[key]["events"], after[key]["amount"])
        for key in after
        if after[key]["events"] != before[key]["events"]
    }
    assert [(start.minute, n) for (start, _), n in sorted(changed.items())] == [(12, (2, 12)), (13, (2, 12))]
    lab.reconcile()


def test_a_query_table_is_refreshed_when_its_inputs_change(lab: Lab) -> None:
    lab.table("gold.q", "sql: select kind, count(*) as n, sum(amount) as total from bronze.e group by kind\n")
    lab.events([event(1), event(2, kind="buy")])
    lab.run()
    assert lab.rows("gold.q", "kind", "n") == [{"kind": "buy", "n": 1}, {"kind": "view", "n": 1}]
    version = lab.delta("gold.q").snapshot.version
    lab.run()
    assert lab.delta("gold.q").snapshot.version == version
    lab.events([event(3)])
    lab.run()
    assert lab.rows("gold.q", "kind", "n") == [{"kind": "buy", "n": 1}, {"kind": "view", "n": 2}]


def test_python_steps_are_held_to_their_positions(lab: Lab) -> None:
    (lab.root / "functions").mkdir()
    (lab.root / "functions" / "clean.py").write_text(
        "import pyarrow.compute as pc\n"
        "def only_views(table):\n"
        "    if 'boom' in table.column('kind').to_pylist():\n"
        "        raise ValueError('boom')\n"
        "    return table.filter(pc.equal(table.column('kind'), 'view'))\n"
    )
    lab.table(
        "silver.e",
        """
from: stream(bronze.e)
python: clean:only_views
columns: {id: string, kind: string}
""",
    )
    lab.events([event(1), event(2, kind="buy"), event(3, kind="boom"), event(4)])
    lab.run()
    assert lab.rows("silver.e", "id") == [{"id": "e1"}, {"id": "e4"}]
    found = {(r["kind"], r["reasons"][0]) for r in lab.quarantine("silver.e", "kind", "reasons")}
    assert found == {("dropped", "drop:python"), ("quarantine", "python:error")}
    lab.reconcile()


def test_flows_in_processes_of_their_own_give_the_same_rows(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(n) for n in range(50)])
    lab.run(tables=["bronze.e"])
    lab.run(tables=["silver.e"], handover=False)
    assert len(lab.rows("silver.e")) == 50
    lab.reconcile()


def test_a_record_that_did_not_decode_is_replayed_once_drift_is_allowed(lab: Lab) -> None:
    lab.table("bronze.e", BRONZE + "keep_raw: true\n")
    lab.events([event(1), event(2, color="red"), '{"torn'])
    lab.run()
    assert [r["reasons"] for r in lab.quarantine("bronze.e", "reasons")] == [["drift:color"], ["parse:json"]]
    lab.table("bronze.e", BRONZE + "keep_raw: true\ndrift: add\n")
    app = lab.run()
    flow = app.pipeline().flow(TableName("bronze", "e"))
    flow.open()
    positions = [(r["_source"], r["_position"]) for r in lab.quarantine("bronze.e", "_source", "_position")]
    flow.submit_replay([*positions, ("0000.jsonl", 0), ("nowhere", 1)], accept_late=False)
    flow.close()
    assert lab.rows("bronze.e", "id", "color") == [{"id": "e1", "color": None}, {"id": "e2", "color": "red"}]
    kinds = sorted(r["kind"] for r in lab.quarantine("bronze.e", "kind"))
    assert kinds == ["quarantine", "quarantine", "quarantine", "resolved"]
    lab.reconcile()


def test_duplicates_and_dropped_rows_are_not_replayed(lab: Lab) -> None:
    lab.table("silver.e", SILVER)
    lab.events([event(1), event(1), event(3, kind="ping")])
    app = lab.run()
    flow = app.pipeline().flow(TableName("silver", "e"))
    flow.open()
    positions = [(r["_source"], r["_position"]) for r in lab.quarantine("silver.e", "_source", "_position")]
    flow.submit_replay(positions, accept_late=True)
    flow.close()
    assert sorted(r["kind"] for r in lab.quarantine("silver.e", "kind")) == ["dropped", "duplicate"]
    lab.reconcile()
