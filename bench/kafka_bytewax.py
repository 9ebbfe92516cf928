"""The benchmark's Kafka job on Bytewax, as far as it goes; runs in `.venv-bytewax`.

One worker: its operators are Python, and more workers of a process share one interpreter lock.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as windowing
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from bench import peer_events

MISSING = "no bronze and silver tables, nothing durable, no quarantine; ids are kept for ever"
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
Total = tuple[int, float]


class Seen(StatefulBatchLogic[Any, Any, set[str]]):
    """Lets the first event of each id through."""

    def __init__(self, ids: set[str] | None) -> None:
        self._ids = ids or set()

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        fresh = []
        for event in values:
            if event["event_id"] not in self._ids:
                self._ids.add(event["event_id"])
                fresh.append(event)
        return fresh, False

    def snapshot(self) -> set[str]:
        return self._ids


class Collected(StatelessSinkPartition[Any], DynamicSink[Any]):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def build(self, _step: str, _worker: int, _count: int) -> Collected:
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.rows += items


def main() -> None:
    args = peer_events.arguments()
    decoder, sink, flow = peer_events.Decoder(args.avro), Collected(), Dataflow("clicks")
    messages = kafka.input("in", flow, brokers=[args.servers], topics=[args.topic], tail=False, batch_size=1000)
    events = op.filter_map("valid", messages.oks, lambda message: decoder.valid(message.value))
    by_id = op.key_on("by_id", events, lambda event: event["event_id"][:2])
    once = op.key_rm("once", op.stateful_batch("dedup", by_id, Seen))
    groups = op.key_on("by_group", once, lambda event: f"{event['type']}|{event['country']}")
    counted = windowing.fold_window(
        "minute", groups,
        windowing.EventClock(
            lambda event: dt.datetime.fromtimestamp(event["event_time"] / 1e6, dt.UTC),
            wait_for_system_duration=dt.timedelta(seconds=30),
        ),
        windowing.TumblingWindower(length=dt.timedelta(minutes=1), align_to=START),
        lambda: (0, 0.0),
        lambda total, event: (total[0] + 1, total[1] + event["amount"]),
        lambda one, other: (one[0] + other[0], one[1] + other[1]),
        ordered=False,
    )  # fmt: skip
    op.output("out", counted.down, sink)
    watch = peer_events.Stopwatch()
    run_main(flow)
    gold = args.work / "gold.csv"
    start_us = int(START.timestamp()) * 1_000_000
    peer_events.write_gold(gold, (
        (start_us + window * peer_events.MINUTE_US, *key.split("|"), *total) for key, (window, total) in sink.rows
    ))  # fmt: skip
    peer_events.finish(args, importlib.metadata.version("bytewax"), watch.report(), MISSING, gold)


if __name__ == "__main__":
    main()
