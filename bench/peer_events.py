"""What the benchmark's Python peers share: a message to a dict, is it valid, and gold rows to a file.

Runs in the peers' environments, with fastavro and nothing of ours.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastavro

from bench import measure

HEADER_BYTES = 5
MINUTE_US = 60_000_000
UNITS = 64


class Decoder:
    """Confluent-framed Avro to dicts; times stay microseconds."""

    def __init__(self, schema: str) -> None:
        plain = json.loads(schema)
        for field in plain["fields"]:  # a datetime per event costs more, and nobody here needs one
            field["type"] = field["type"]["type"] if isinstance(field["type"], dict) else field["type"]
        self._schema = fastavro.parse_schema(plain)

    def valid(self, message: bytes) -> dict[str, Any] | None:
        """The event, or None when it does not decode or breaks a rule."""
        try:
            event = fastavro.schemaless_reader(io.BytesIO(message[HEADER_BYTES:]), self._schema, None)
        except (EOFError, ValueError, IndexError):
            return None
        return event if event["event_id"] and event["amount"] >= 0 else None


def write_gold(path: Path, rows: Iterable[tuple[int, str, str, int, float]]) -> None:
    """Rows `(minute_us, type, country, events, amount)` for the comparison."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["minute_us", "type", "country", "events", "cents"])
        out.writerows([*row[:4], round(row[4] * UNITS)] for row in rows)


class Stopwatch:
    """Wall and CPU time of this process and its children since now."""

    def __init__(self) -> None:
        self._cpu, self._system, self._wall = measure.cpu_s(os.getpid()), measure.system_s(os.getpid()), time.time()

    def report(self, ended: float | None = None) -> dict[str, float]:
        """What a run took; `ended` is the time of its end when that was earlier."""
        me = os.getpid()
        return {
            "wall_s": (ended or time.time()) - self._wall, "cpu_s": measure.cpu_s(me) - self._cpu,
            "system_s": measure.system_s(me) - self._system, "peak_mib": measure.peak_mib(me),
        }  # fmt: skip


def arguments() -> argparse.Namespace:
    """What every peer is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--avro", required=True, help="the messages' schema")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def finish(args: argparse.Namespace, version: str, run: dict[str, float], missing: str, gold: Path) -> None:
    """Write the report that `bench.kafka` reads."""
    args.out.write_text(json.dumps({"version": version, "runs": [run], "missing": missing, "gold": str(gold)}))
