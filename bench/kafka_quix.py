"""The benchmark's Kafka job on Quix Streams, as far as it goes; runs in `.venv-quix`.

State is kept by message key, so messages go through a repartition topic, keyed by type and country (a duplicate has
those of its original), and are deduplicated and counted behind it.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
import warnings
from typing import Any

warnings.simplefilter("ignore")

from quixstreams import Application, State  # noqa: E402
from quixstreams.dataframe.windows.aggregations import Count, Sum  # noqa: E402

from bench import peer_events  # noqa: E402

MISSING = "no bronze and silver tables, no quarantine; at least once; ids are kept for ever"
_SILENT_S = 15.0
_GRACE_MS = 600_000  # partitions are read one after the other: with 30 s many events would be late


def main() -> None:
    args = peer_events.arguments()
    decoder, totals, last = peer_events.Decoder(args.avro), {}, 0.0
    app = Application(
        args.servers, consumer_group=f"quix-{os.getpid()}", auto_offset_reset="earliest", state_dir=args.work / "state",
        loglevel="WARNING",
        producer_extra_config={"compression.type": "lz4", "linger.ms": 20},
    )  # fmt: skip
    topic = app.topic(args.topic, value_deserializer="bytes", timestamp_extractor=None)
    events = app.dataframe(topic).apply(decoder.valid).filter(lambda event: event is not None)
    groups = events.group_by(lambda event: f"{event['type']}|{event['country']}", name="group")
    once = groups.set_timestamp(lambda event, _key, _time, _headers: event["event_time"] // 1000)
    once = once.filter(_first, stateful=True)
    counted = once.tumbling_window(60_000, grace_ms=_GRACE_MS).agg(events=Count(), amount=Sum("amount")).current()

    def keep(window: dict[str, Any], key: Any, _time: Any, _headers: Any) -> None:
        nonlocal last
        totals[window["start"], key] = window["events"], window["amount"]
        last = time.time()

    counted.update(keep, metadata=True)
    watch = peer_events.Stopwatch()
    app.run(timeout=_SILENT_S)
    gold = args.work / "gold.csv"
    peer_events.write_gold(gold, (
        (start * 1000, *(key.decode() if isinstance(key, bytes) else key).split("|"), *total)
        for (start, key), total in totals.items()
    ))  # fmt: skip
    peer_events.finish(args, importlib.metadata.version("quixstreams"), watch.report(last), MISSING, gold)


def _first(event: dict[str, Any], state: State) -> bool:
    if state.exists(event["event_id"]):
        return False
    state.set(event["event_id"], 1)
    return True


if __name__ == "__main__":
    main()
