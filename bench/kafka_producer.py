"""Writes click messages to a topic, as fast as it can or at a steady rate; run by `bench.kafka`, several at once.

Idempotent, all replicas' acknowledgement, batches of up to a mebibyte, lz4. Each producer has some of the partitions.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bench import clicks, events, measure

CHUNK = 20_000
WAITING_MAX = 200_000  # messages handed over and not acknowledged yet
_TICK_S = 0.01
_AHEAD = 5_000


def main() -> None:
    args = _arguments()
    spec = events.Spec(**json.loads((args.plan / "spec.json").read_text()))
    order, invalid = np.load(args.plan / "order.npy", mmap_mode="r"), np.load(args.plan / "invalid.npy")
    number, count = map(int, args.share.split("/"))
    mine = np.asarray(order) if count == 1 else order[clicks.partitions(order) % count == number]
    times = np.zeros(spec.originals, np.int64) if args.live else None
    started = time.time()
    sent = _send(Topic(args.servers, args.topic), spec, mine, invalid, times, args)
    if times is not None:
        np.save(args.plan / "times.npy", times)
    args.out.write_text(json.dumps({
        "sent": sent, "partitions": np.bincount(clicks.partitions(mine[:sent]), minlength=clicks.PARTITIONS).tolist(),
        "started": started, "ended": time.time(), "cpu_s": measure.cpu_s(os.getpid()),
    }))  # fmt: skip


class Topic:
    """The way into a topic; ends the process when a message is refused."""

    def __init__(self, servers: str, topic: str) -> None:
        self.name = topic
        self.producer = Producer({
            "bootstrap.servers": servers, "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 5,
            "batch.size": 1 << 20, "batch.num.messages": 10_000, "queue.buffering.max.messages": 2 * WAITING_MAX,
            "delivery.report.only.error": True,
        })  # fmt: skip

    def put(self, rows: events.I64, times_us: events.I64, messages: list[bytes]) -> None:
        """Hand messages over, each to its row's partition and with its event time; waits while too many are under way.

        One by one, for `produce_batch` takes no timestamps. Without them the messages of a topic that is filled in
        seconds would all be of the same age, and nothing would tell a reader which partition is behind.
        """
        while len(self.producer) > WAITING_MAX:
            self.producer.poll(0.005)
        where, made_ms = clicks.partitions(rows).tolist(), (times_us // 1000).tolist()
        for value, partition, time_ms in zip(messages, where, made_ms, strict=True):
            self.producer.produce(self.name, value, partition=partition, timestamp=time_ms, on_delivery=_delivered)
        self.producer.poll(0)

    def flush(self) -> None:
        """Wait until all are acknowledged."""
        if left := self.producer.flush(120):
            raise SystemExit(f"{left} messages were not acknowledged")


def _delivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        raise KafkaException(error)


def _send(
    topic: Topic, spec: events.Spec, rows: events.I64, invalid: events.I64, times: events.I64 | None,
    args: argparse.Namespace,
) -> int:  # fmt: skip
    """Send all rows, or those that fit in the time. Returns how many."""
    made = Messages(spec, rows, invalid, times, args.schema_id)
    began, sent = time.perf_counter(), 0
    while sent < len(rows):
        passed = time.perf_counter() - began
        if args.seconds and passed >= args.seconds:
            break
        due = min(sent + CHUNK, len(rows), int(passed * args.per_second) if args.per_second else 1 << 62)
        if due > sent:
            topic.put(rows[sent:due], *made.take(sent, due))
            sent = due
        if args.per_second and sent >= int((time.perf_counter() - began) * args.per_second):
            time.sleep(_TICK_S)
    topic.flush()
    return sent


class Messages:
    """Messages of rows in their order, with the event times of the plan or, live, of now.

    Live ones are encoded ahead and stamped when they are taken: a duplicate with the time of its original.
    """

    def __init__(
        self, spec: events.Spec, rows: events.I64, invalid: events.I64, times: events.I64 | None, schema_id: int
    ) -> None:
        self._spec, self._rows, self._invalid, self._times, self._schema_id = spec, rows, invalid, times, schema_id
        self._ahead: list[bytes] = []
        self._encoded = 0

    def take(self, first: int, stop: int) -> tuple[events.I64, list[bytes]]:
        """Event times and messages of `rows[first:stop]`, which follow those that were taken last."""
        rows = self._rows[first:stop]
        if self._times is None:
            at_us = events.event_times(self._spec, rows)
            return at_us, clicks.messages(self._spec, rows, at_us, self._invalid, self._schema_id)
        while self._encoded < stop:
            some = self._rows[self._encoded : self._encoded + _AHEAD]
            at_us = np.full(len(some), events.START_US)
            self._ahead += clicks.messages(self._spec, some, at_us, self._invalid, self._schema_id)
            self._encoded += len(some)
        self._times[rows[self._times[rows] == 0]] = time.time_ns() // 1000
        found = clicks.stamped(self._ahead[: len(rows)], self._times[rows])
        del self._ahead[: len(rows)]
        return self._times[rows], found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--plan", type=Path, required=True, help="folder with spec.json, order.npy and invalid.npy")
    parser.add_argument("--share", default="0/1", help="which of how many producers this is")
    parser.add_argument("--schema-id", type=int, required=True)
    parser.add_argument("--per-second", type=float, default=0, help="messages per second, 0 for as many as it can")
    parser.add_argument("--seconds", type=float, default=0, help="end then, 0 for when all are sent")
    parser.add_argument("--live", action="store_true", help="event time is when a message is made")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
