"""The benchmark's Kafka job on Pathway, as far as it goes; runs in `.venv-pathway`."""

from __future__ import annotations

import importlib.metadata
import os

import pathway as pw

from bench import peer_events

MISSING = (
    "no bronze and silver tables, nothing durable, no quarantine; reads the topic as it is at the start; ids are kept"
)


def main() -> None:
    args = peer_events.arguments()
    decoder, rows = peer_events.Decoder(args.avro), {}

    @pw.udf(deterministic=True)
    def decoded(message: bytes) -> tuple[str, int, str, str, float]:
        event = decoder.valid(message)
        if event is None:
            return "", 0, "", "", 0.0
        minute_us = event["event_time"] // peer_events.MINUTE_US * peer_events.MINUTE_US
        return event["event_id"], minute_us, event["type"], event["country"], event["amount"]

    settings = {
        "bootstrap.servers": args.servers,
        "group.id": f"pathway-{os.getpid()}",
        "auto.offset.reset": "earliest",
    }
    messages = pw.io.kafka.read(settings, args.topic, format="raw", mode="static", autogenerate_key=True)
    events = messages.select(e=decoded(pw.this.data))
    events = events.select(
        event_id=pw.this.e[0], minute_us=pw.this.e[1], type=pw.this.e[2], country=pw.this.e[3], amount=pw.this.e[4]
    ).filter(pw.this.event_id != "")
    once = events.groupby(pw.this.event_id).reduce(
        minute_us=pw.reducers.any(pw.this.minute_us), type=pw.reducers.any(pw.this.type),
        country=pw.reducers.any(pw.this.country), amount=pw.reducers.any(pw.this.amount),
    )  # fmt: skip
    counted = once.groupby(pw.this.minute_us, pw.this.type, pw.this.country).reduce(
        pw.this.minute_us, pw.this.type, pw.this.country,
        events=pw.reducers.count(), amount=pw.reducers.sum(pw.this.amount),
    )  # fmt: skip

    def keep(key: pw.Pointer, row: dict[str, object], time: int, is_addition: bool) -> None:
        if is_addition:
            rows[key] = row
        elif rows.get(key) == row:
            del rows[key]

    pw.io.subscribe(counted, on_change=keep)
    watch = peer_events.Stopwatch()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    gold = args.work / "gold.csv"
    peer_events.write_gold(gold, (
        (row["minute_us"], row["type"], row["country"], row["events"], row["amount"]) for row in rows.values()
    ))  # fmt: skip
    peer_events.finish(args, importlib.metadata.version("pathway"), watch.report(), MISSING, gold)


if __name__ == "__main__":
    main()
