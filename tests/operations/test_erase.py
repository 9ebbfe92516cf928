"""Erasing a subject: nothing of it is left in any file, and what is left still adds up."""

from __future__ import annotations

import json
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lodestream.app import now_us
from lodestream.operations.erase.carry import Carrier
from lodestream.operations.trace import trace
from tests.engines.lakes import Lab, killed_at, points_of, wait_for

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
BRONZE = """
source: {files: {path: events}}
format: json
keep_raw: true
columns: {id: bigint, email: string, amount: double, at: timestamp, country: string}
"""
SILVER = """
from: stream(bronze.orders)
derive: {mail: email, shout: upper(email)}
expect:
  positive: {that: amount >= 0, else: quarantine}
  known: {that: id < 1000, else: drop}
event_time: {column: at, delay: 1 minute}
dedup: {keys: [id]}
"""
PER_MAIL = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
group_by: [mail]
measures: {orders: count(*), spent: sum(amount)}
emit: EMIT
"""
PER_COUNTRY = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
group_by: [country]
measures: {orders: count(*), spent: sum(amount), who: max(mail)}
emit: EMIT
"""
LAST = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
changes: {keys: [mail], sequence_by: [at], type: TYPE}
"""
BY_QUERY = """
sql: select mail, count(*) as orders from silver.orders group by mail
"""


def order(id_: int, email: str, minute: int, amount: float = 1.0, country: str = "DE") -> dict[str, Any]:
    return {"id": id_, "email": email, "amount": amount, "at": f"2026-01-01T00:{minute:02}:00Z", "country": country}


def shop(root: Path, *, emit: str = "updates", kind: int = 1) -> Lab:
    """Orders of three people through every kind of table; each file a batch."""
    lab = Lab(root)
    lab.table("bronze.orders", BRONZE)
    lab.table("silver.orders", SILVER)
    lab.table("gold.per_mail", PER_MAIL.replace("EMIT", emit))
    lab.table("gold.per_country", PER_COUNTRY.replace("EMIT", emit))
    lab.table("silver.last_orders", LAST.replace("TYPE", str(kind)))
    lab.table("gold.by_query", BY_QUERY)
    first = [
        order(1, ADA, 0), order(2, BOB, 0), order(3, ADA, 1, -5.0), order(4, EVE, 1, country="FR"), order(1, ADA, 1),
        order(5, ADA, 2, country="IT"), order(2000, ADA, 2), '{"id": "x", "email": "ada@example.org"}',
    ]  # fmt: skip
    second = [order(10, BOB, 10), order(11, ADA, 10), order(12, ADA, 1), order(13, EVE, 11), order(14, BOB, 1)]
    third = [order(20, ADA, 20), order(21, BOB, 20), order(22, ADA, 21, country="NL")]
    for rows in (first, second, third):
        lab.events(rows)
        lab.run()
    return lab


def erase(lab: Lab, *asked: str) -> dict[str, Any]:
    with lab.app() as app:
        return Carrier(app, asked, now_us()).erase()


def left_by_spark(lab: Lab, table: str, name: str) -> Path:
    """A file such as Spark keeps of a table that it has filled, which another engine has taken over since."""
    path = lab.root / "lake" / "_lodestream" / "flows" / table / "1" / name / "part-0.parquet"
    path.parent.mkdir(parents=True)
    path.write_text(ADA)
    return path


def holders(lab: Lab, text: str) -> list[str]:
    """Tables whose rows, quarantined ones included, show a text anywhere."""
    names = [str(name) for name in lab.app().flows]
    found = []
    for name in [*names, *(f"{name}__quarantine" for name in names if name != "gold.by_query")]:
        if text in repr(lab.read(name).to_pylist()) or text.upper() in repr(lab.read(name).to_pylist()):
            found.append(name)
    return found


@pytest.mark.parametrize(("emit", "kind"), [("updates", 1), ("final", 2)])
def test_nothing_is_left_and_the_rest_adds_up(tmp_path: Path, emit: str, kind: int) -> None:
    lab = shop(tmp_path, emit=emit, kind=kind)
    assert len(holders(lab, ADA)) >= 7
    others = [row for row in lab.rows("silver.orders", "id", "mail", "amount") if row["mail"] != ADA]
    lab.reconcile()
    left = [left_by_spark(lab, "silver.last_orders", name) for name in ("deletions", "spark-1/seed-1")]
    report = erase(lab, f"email={ADA}")
    assert not any(path.exists() for path in left)
    assert report["left"] == []
    assert report["proven"], report
    assert holders(lab, ADA) == []
    assert ADA not in repr(report)
    assert lab.rows("silver.orders", "id", "mail", "amount") == others
    lab.reconcile()
    lab.events([order(30, BOB, 30), order(31, ADA, 30), order(32, EVE, 45)])
    lab.run()
    assert holders(lab, ADA) == []
    lab.reconcile()
    assert {row["kind"] for row in lab.quarantine("bronze.orders")} == {"erased"}


def test_trace_says_erased_and_no_more(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    erase(lab, f"email={ADA}")
    app = lab.app()
    (gone,) = [
        row for row in lab.quarantine("bronze.orders") if row["_source"] == "0000.jsonl" and row["_position"] == 0
    ]
    assert (gone["kind"], gone["row"], gone["raw"], gone["reasons"]) == ("erased", None, None, ["erased"])
    for table in ("bronze.orders", "silver.orders", "silver.last_orders", "gold.per_country", "gold.per_mail"):
        told = trace(app, table, "0000.jsonl:0")
        assert not told.found
        assert told.absence is not None
        assert told.absence.reason == "erased", (table, told)
        assert told.record is None
        assert told.hops == ()
        assert ADA not in repr(told.to_json())
    kept = trace(app, "silver.orders", f"mail={BOB}")
    assert kept.found
    windows = trace(app, "gold.per_country", "window_start=2026-01-01T00:00:00Z,country=DE")
    assert windows.found
    assert all(one.to_json()["agrees"] if hasattr(one, "to_json") else one.agrees for one in windows.windows)


def test_a_new_table_and_a_rebuild_begin_without_the_subject(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    erase(lab, f"email={ADA}")
    lab.table("silver.copy", "from: stream(silver.orders)\n")
    lab.run()
    assert len(lab.rows("silver.copy")) == len(lab.rows("silver.orders"))
    lab.table("bronze.orders", BRONZE.replace("email: string", "email: string, more: string"))
    app = lab.app()
    from lodestream.planning.diff import accept_hash

    lab.run(accept=accept_hash(app.changes()))
    assert holders(lab, ADA) == []
    assert len(lab.rows("silver.copy")) == len(lab.rows("silver.orders")) > 0
    lab.reconcile()


def test_two_erasures_one_after_the_other(tmp_path: Path) -> None:
    lab = shop(tmp_path, kind=2)
    for who in (ADA, BOB):
        assert erase(lab, f"silver.orders.mail={who}")["proven"]
        lab.reconcile()
        lab.events([order(100, who, 40), order(101, EVE, 41)], f"more-{who[:3]}.jsonl")
        lab.run()
    assert holders(lab, ADA) == holders(lab, BOB) == []
    lab.reconcile()


def test_a_reader_that_is_behind_goes_on_without_the_subject(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    lab.events([order(50, ADA, 50), order(51, BOB, 50), order(52, ADA, 51)])
    lab.run(tables=["bronze.orders"])
    lab.events([order(60, BOB, 55), order(61, ADA, 55)])
    lab.run(tables=["bronze.orders", "silver.orders"])
    lab.events([order(70, EVE, 58), order(71, ADA, 58)])
    lab.run(tables=["bronze.orders"])
    assert erase(lab, f"email={ADA}")["proven"]
    lab.run()
    assert holders(lab, ADA) == []
    assert {row["id"] for row in lab.rows("silver.orders", "id")} >= {51, 60, 70}
    lab.reconcile()


PAYMENTS = """
source: {files: {path: payments}}
format: json
columns: {order_id: bigint, payer: string, paid: double, paid_at: timestamp}
"""
PAID = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
join:
  from: stream(bronze.payments)
  kind: inner
  on: {id: order_id}
  event_time: {column: paid_at, delay: 1 minute}
  within: {after: 5 minutes}
  columns: [payer, paid, paid_at]
"""
PAID_PER_MINUTE = """
from: stream(silver.paid)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
group_by: [country]
measures: {pairs: count(*)}
emit: final
"""
PER_HOUR = """
from: stream(gold.paid_per_minute)
window: {every: 10 minutes}
group_by: [country]
measures: {minutes: count(*), pairs: sum(pairs)}
"""


def pay(lab: Lab, name: str, *rows: dict[str, Any]) -> None:
    (lab.root / "payments").mkdir(exist_ok=True)
    (lab.root / "payments" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def payment(order_id: int, payer: str, minute: int) -> dict[str, Any]:
    return {"order_id": order_id, "payer": payer, "paid": 1.0, "paid_at": f"2026-01-01T00:{minute:02}:30Z"}


def test_pairs_and_windows_of_windows_go_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.table("bronze.orders", BRONZE)
    lab.table("silver.orders", SILVER)
    lab.table("bronze.payments", PAYMENTS)
    lab.table("silver.paid", PAID)
    lab.table("gold.paid_per_minute", PAID_PER_MINUTE)
    lab.table("gold.paid_per_hour", PER_HOUR)
    lab.events([order(1, ADA, 0), order(2, BOB, 0), order(3, EVE, 1, country="FR"), order(4, ADA, 2, country="IT")])
    pay(lab, "0.jsonl", payment(1, EVE, 0), payment(2, ADA, 1), payment(3, EVE, 1), payment(4, BOB, 3))
    lab.run()
    lab.events([order(10, ADA, 20), order(11, BOB, 20), order(12, EVE, 21), order(13, BOB, 22)])
    pay(lab, "1.jsonl", payment(10, BOB, 21), payment(11, EVE, 21), payment(13, ADA, 23))
    lab.run()
    lab.events([order(20, BOB, 40), order(21, ADA, 41)])
    pay(lab, "2.jsonl", payment(20, BOB, 40))
    lab.run()
    lab.reconcile()
    before = lab.read("silver.paid").num_rows
    once = erase(lab, f"email={ADA}")
    assert not once["proven"]
    assert {one["file"].split("/")[1] for one in once["left"]} >= {"payments", "paid"}
    lab.reconcile()
    assert erase(lab, f"email={ADA}", f"payer={ADA}")["proven"]
    assert holders(lab, ADA) == []
    assert 0 < lab.read("silver.paid").num_rows < before
    assert {row["_rows"] for row in lab.rows("gold.paid_per_hour", "_rows")} == {1}  # what they cover; measures stay
    lab.reconcile()
    lab.events([order(30, BOB, 50), order(31, ADA, 50)])
    pay(lab, "3.jsonl", payment(30, EVE, 50), payment(31, BOB, 51))
    lab.run()
    assert holders(lab, ADA) == []
    lab.reconcile()


SESSIONS = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
window: {gap: 2 minutes}
group_by: [country]
measures: {orders: count(*), spent: sum(amount)}
emit: EMIT
"""


@pytest.mark.parametrize("emit", ["updates", "final"])
def test_sessions_are_parted(tmp_path: Path, emit: str) -> None:
    lab = Lab(tmp_path)
    lab.table("bronze.orders", BRONZE)
    lab.table("silver.orders", SILVER)
    lab.table("gold.sessions", SESSIONS.replace("EMIT", emit))
    lab.events([order(1, BOB, 0), order(2, ADA, 1), order(3, EVE, 3), order(4, ADA, 10, country="FR")])
    lab.run()
    lab.events([order(5, BOB, 20), order(6, ADA, 21), order(7, EVE, 23), order(8, ADA, 24)])
    lab.run()
    lab.reconcile()
    assert erase(lab, f"email={ADA}")["proven"]
    lab.reconcile()
    held = [(row["orders"], row["window_start"].minute) for row in lab.rows("gold.sessions") if row["orders"]]
    assert sorted(held)[:2] == [(1, 0), (1, 3)]
    lab.events([order(9, BOB, 24), order(10, BOB, 40)])
    lab.run()
    lab.reconcile()


def test_while_the_pipeline_runs(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    app = lab.app()
    pipeline = app.pipeline()
    failed: list[object] = []
    thread = threading.Thread(target=lambda: pipeline.run(on_error=failed.append), daemon=True)
    thread.start()
    try:
        for number in range(3):
            lab.events([order(100 + 2 * number, ADA, 30 + number), order(101 + 2 * number, BOB, 30 + number)])
            time.sleep(0.2)
        report = erase(lab, f"email={ADA}")
        lab.events([order(200, ADA, 50), order(201, BOB, 50)])
        wait_for(lambda: any(row["id"] == 201 for row in lab.rows("silver.orders", "id")), 30)
        wait_for(lambda: any(row["id"] == 201 for row in lab.rows("silver.last_orders", "id")), 30)
        assert all(status.state not in ("failed", "retrying") for status in pipeline.status), pipeline.status
    finally:
        pipeline.stop()
        thread.join(30)
    assert not failed
    lab.run()
    assert report["proven"], report
    assert holders(lab, ADA) == []
    lab.reconcile()


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_broken_off_anywhere_it_is_finished_by_the_same_command(tmp_path: Path, every: int) -> None:
    lab = shop(tmp_path / "shop")
    copy = tmp_path / "count"
    shutil.copytree(lab.root, copy)
    names = points_of(lambda: erase(Lab.at(copy), f"email={ADA}"))
    assert {"erase.begun", "erase.batch", "quarantine.staged", "state.after", "main.after", "erase.purged"} <= set(
        names
    )
    steps = sorted(range(len(names)), key=lambda i: (names[: i + 1].count(names[i]), i))
    first = len(set(names))  # every named point once, then some of the others
    for step in [*steps[:first:every], *steps[first :: 11 * every]]:
        copy = tmp_path / f"killed-{step}"
        shutil.copytree(lab.root, copy)
        killed = Lab.at(copy)
        killed_at(step, partial(erase, killed, f"email={ADA}"))
        if step % 2:
            killed.run()
        report = erase(killed, f"email={ADA}")
        assert report["proven"], (names[step], report)
        assert holders(killed, ADA) == [], names[step]
        killed.reconcile()
        shutil.rmtree(copy)
