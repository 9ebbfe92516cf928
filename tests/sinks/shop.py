"""A small project whose tables are published: orders that join, and revenue whose rows change."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

from lodestream.testing.kafka import KafkaBroker
from tests.engines.lakes import Lab
from tests.sinks.reading import Message, compacted, messages

_names = itertools.count()
COUNTRIES = ("de", "fr", "it")

ORDERS = """
source: {{files: {{path: events, settle: 0}}}}
format: json
columns: {{order_id: bigint, country: string, amount: 'decimal(10,2)', ordered_at: timestamp}}
sink: {{kafka: {{{more}topic: {orders}, key: country, create: {{partitions: 3}}}}}}
"""
REVENUE = """
from: stream(bronze.orders)
event_time: {{column: ordered_at, delay: 30 seconds}}
window: {{every: 1 minute}}
group_by: [country]
measures: {{orders: count(*), revenue: sum(amount)}}
emit: {emit}
sink: {{kafka: {{{more}topic: {revenue}, create: {{partitions: 2}}}}}}
"""


class Shop(Lab):
    """Writes events, runs, and compares topics with tables."""

    def __init__(self, root: Path, broker: KafkaBroker, *, emit: str = "updates", more: str = "") -> None:
        super().__init__(root)
        tag = f"{id(self):x}-{next(_names)}"
        self.broker, self.orders, self.revenue = broker, f"orders-{tag}", f"revenue-{tag}"
        servers = f"servers: '{broker.plain}', "
        (root / "lodestream.yaml").write_text("project: shop\nlake: lake\n")
        self.table("bronze.orders", ORDERS.format(orders=self.orders, more=servers + more))
        self.table("gold.revenue", REVENUE.format(revenue=self.revenue, more=servers + more, emit=emit))
        self.sold = 0

    def sell(self, count: int) -> None:
        """More orders, one a second."""
        rows = []
        for i in range(self.sold, self.sold + count):
            minute, second = divmod(i, 60)
            at = f"2024-01-01T{minute // 60:02}:{minute % 60:02}:{second:02}Z"
            rows.append({"order_id": i, "country": COUNTRIES[i % 3], "amount": f"{i}.25", "ordered_at": at})
        self.sold += count
        self.events(rows)

    def check(self) -> tuple[int, int]:
        """Hold both topics to the tables; the numbers of messages."""
        orders = messages(self.broker.plain, self.orders)
        found = [json.loads(one.value or b"null")["order_id"] for one in orders]
        lost, doubled = set(range(self.sold)) - set(found), Counter(found) - Counter(range(self.sold))
        assert not lost, f"lost: {sorted(lost)}"
        assert not doubled, f"doubled: {sorted(doubled)}"
        in_order(orders)
        revenue = messages(self.broker.plain, self.revenue)
        held = compacted(revenue)
        assert {one["window_start"]: one for one in map(json.loads, held)}  # keys are JSON objects
        assert sorted(map(shown, held.values())) == sorted(map(told, self.rows("gold.revenue")))
        growing(revenue)
        return len(orders), len(revenue)


def in_order(found: list[Message]) -> None:
    """Messages of a key come in the order of its rows."""
    last: dict[bytes | None, int] = {}
    for one in found:
        number = json.loads(one.value or b"null")["order_id"]
        assert number > last.get(one.key, -1), f"{one.key!r}: {number} after {last[one.key]}"
        last[one.key] = number


def growing(found: list[Message]) -> None:
    """A window only ever grows, and no message says again what the one before it said."""
    last: dict[bytes | None, int] = {}
    for one in found:
        orders = json.loads(one.value or b"null")["orders"]
        assert orders > last.get(one.key, 0), f"{one.key!r}: {orders} after {last.get(one.key)}"
        last[one.key] = orders


def shown(value: bytes) -> tuple[object, ...]:
    row = json.loads(value, parse_float=str)
    return row["window_start"], row["country"], row["orders"], row["revenue"]


def told(row: dict[str, object]) -> tuple[object, ...]:
    start = row["window_start"].strftime("%Y-%m-%dT%H:%M:%SZ")  # type: ignore[attr-defined]
    return start, row["country"], row["orders"], str(row["revenue"])
