"""Erasing a subject: nothing of it is left in any file, and what is left still adds up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from lodestream.app import now_us
from lodestream.operations.erase.carry import Carrier
from lodestream.operations.trace import trace
from tests.engines.lakes import Lab

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
    report = erase(lab, f"email={ADA}")
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
