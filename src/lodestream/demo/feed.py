"""The demo's second source: real flights sent by a bad line, every fault seeded, marked and counted."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

SEED = 2013
ONE_IN = 64
"""Every 64th flight of the year, in event-time order, is also sent through the feed."""

CALM_FROM = "2013-12-01T00:00:00Z"
"""Faults end here, so the newest event is always a good one and every late row is late by weeks."""

STRAGGLERS = "feed/2014-02-stragglers.jsonl"
"""Where the late rows are published once the rest of the feed was taken in."""

DUPLICATE_LAG = timedelta(hours=3)
"""A repeat comes at most this much event time after its original: half the watermark delay of silver.flights_feed."""

UNDECODABLE = {"torn": 60, "not_json": 40, "wrong_type": 60, "bad_utf8": 40}
UNTRUE = {"unknown_origin": 80, "negative_distance": 60, "zero_air_time": 40, "no_event_time": 50}
TEST_FLIGHTS, LATE, DUPLICATES = 70, 300, 400

REASONS = {
    "unknown_origin": "expect:known_origin",
    "negative_distance": "expect:positive_distance",
    "zero_air_time": "derive:mph:error",
    "no_event_time": "null_event_time",
}
"""What silver.flights_feed must say of each kind of untrue row."""

_KEPT = ("carrier", "flight", "tailnum", "origin", "dest", "dep_time", "dep_delay", "arr_delay", "air_time",
         "distance", "time_hour")  # fmt: skip
_ISO = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Sent:
    """One line of the feed: the kind it was made as, when it arrives (ISO event time), its bytes without newline."""

    kind: str
    at: str
    line: bytes


def make_feed(flights: Sequence[Mapping[str, Any]]) -> tuple[list[Sent], list[Sent]]:
    """Send real flights with faults: the lines in the order they arrive, and the stragglers that come last.

    Args:
        flights: rows of the flights file, oldest first, `time_hour` as ISO text; the same rows give the same bytes.

    Raises:
        ValueError: there are too few flights before `CALM_FROM` for the faults that the recipe makes.
    """
    chance = random.Random(SEED)
    kinds = _assign(flights, chance)
    arriving: list[tuple[str, int, Sent]] = []
    stragglers: list[Sent] = []
    for i, (flight, kind) in enumerate(zip(flights, kinds, strict=True)):
        at = str(flight["time_hour"])
        if kind == "duplicate":
            arriving.append((at, i, Sent("on_time", at, _line(flight, "on_time", chance))))
            again = (datetime.fromisoformat(at) + DUPLICATE_LAG * chance.random()).strftime(_ISO)
            arriving.append((again, len(flights) + i, Sent(kind, again, _line(flight, kind, chance))))
        elif kind == "late":
            stragglers.append(Sent(kind, at, _line(flight, kind, chance)))
        else:
            arriving.append((at, i, Sent(kind, at, _line(flight, kind, chance))))
    arriving.sort(key=lambda entry: entry[:2])
    return [sent for _, _, sent in arriving], stragglers


def expected(arriving: Iterable[Sent], stragglers: Iterable[Sent]) -> dict[str, Any]:
    """Where each line of the feed must end: counts per kind, and per table and fate, as the manifest holds them."""
    kinds = Counter(sent.kind for sent in (*arriving, *stragglers))
    undecodable = sum(kinds[kind] for kind in UNDECODABLE)
    untrue = sum(kinds[kind] for kind in UNTRUE)
    lines = kinds.total()
    return {
        "kinds": dict(sorted(kinds.items())),
        "bronze.flights_feed": {"input": lines, "output": lines - undecodable, "quarantine": undecodable},
        "silver.flights_feed": {
            "input": lines - undecodable,
            "output": kinds["on_time"],
            "quarantine": untrue,
            "late": kinds["late"],
            "duplicate": kinds["duplicate"],
            "dropped": kinds["test_flight"],
            "reasons": {reason: kinds[kind] for kind, reason in sorted(REASONS.items())},
        },
    }


def _assign(flights: Sequence[Mapping[str, Any]], chance: random.Random) -> list[str]:
    """A kind for each flight: exactly as many of each as the recipe says, in random places."""
    wanted = {**UNDECODABLE, **UNTRUE, "test_flight": TEST_FLIGHTS, "late": LATE, "duplicate": DUPLICATES}
    before = [i for i, flight in enumerate(flights) if flight["time_hour"] < CALM_FROM]
    order = [i for _, i in sorted((chance.random(), i) for i in before)]
    faults = [kind for kind, count in wanted.items() for _ in range(count)]
    if len(order) <= len(faults):
        raise ValueError(f"too few flights for the feed: {len(order)}, it needs more than {len(faults)}")
    kinds = ["on_time"] * len(flights)
    for i, kind in zip(order, faults, strict=False):
        kinds[i] = kind
    return kinds


def _line(flight: Mapping[str, Any], kind: str, chance: random.Random) -> bytes:
    row = {name: flight[name] for name in _KEPT} | {"mark": kind}
    if kind == "not_json":
        return b"<html><body>502 Bad Gateway</body></html>"
    if kind == "wrong_type":
        row["distance"] = "far"
    elif kind == "unknown_origin":
        row["origin"] = "XXX"
    elif kind == "negative_distance":
        row["distance"] = -flight["distance"]
    elif kind == "zero_air_time":
        row["air_time"] = 0
    elif kind == "no_event_time":
        row["time_hour"] = None
    elif kind == "test_flight":
        row["carrier"] = "ZZ"
    text = json.dumps(row, separators=(",", ":")).encode()
    if kind == "torn":
        return text[: int(len(text) * (0.1 + 0.8 * chance.random()))]
    if kind == "bad_utf8":
        return text.replace(b'"carrier":"', b'"carrier":"\xff', 1)
    return text
