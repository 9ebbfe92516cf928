"""Random events and users as files of JSON lines, full of what real feeds do wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lodestream.semantics.lookups import Row
from lodestream.semantics.stages import Position

SECOND_US = 1_000_000
EVENT_COLUMNS = {
    "key": "string", "at": "timestamp", "seen": "timestamp", "region": "string", "user_id": "bigint",
    "amount": "bigint", "qty": "int", "code": "string",
}  # fmt: skip
USER_COLUMNS = {"id": "bigint", "tier": "string"}
_TIMES = ("at", "seen")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, without its end: its bytes, and the row that it is, or None when it does not decode."""

    text: bytes
    row: Row | None


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source: its unit id (its name in the source folder) and its lines."""

    unit: str
    lines: tuple[Line, ...]

    @property
    def content(self) -> bytes:
        """What the file holds."""
        return b"".join(line.text + b"\n" for line in self.lines)

    def records(self) -> Iterator[tuple[Position, Row | None]]:
        """Each line's position, which is the offset of its first byte, and its row."""
        offset = 0
        for line in self.lines:
            yield (self.unit, offset), line.row
            offset += len(line.text) + 1


def event_files(rng: random.Random, files: int, delay_s: int) -> tuple[File, ...]:
    """So many files of events, most of which are late by less than a delay, some by up to five."""
    return tuple(File(f"{i:03d}.jsonl", tuple(lines)) for i, lines in enumerate(_events(rng, files, delay_s)))


def user_files(rng: random.Random, files: int) -> tuple[File, ...]:
    """So many files of users, most of whom are in the first one."""
    return tuple(File(f"{i:03d}.jsonl", tuple(_users(rng, first=i == 0))) for i in range(files))


def _events(rng: random.Random, files: int, delay_s: int) -> Iterator[list[Line]]:
    now_us = rng.choice([0, 40, 1_700_000_000, 1_700_000_000, -90]) * SECOND_US
    keys = rng.choice([4, 12, 40])
    seen: list[dict[str, Any]] = []
    lateness = rng.choice([0.0, 0.1, 0.4])
    for _ in range(files):
        lines: list[Line] = []
        if rng.random() < 0.15:
            now_us += rng.randint(5, 20) * delay_s * SECOND_US  # a leap: most of what is open closes
        for _ in range(rng.choice([0, 2, 10, 25, 40])):
            now_us += rng.choice([0, 0, 1, 1, 2, 7]) * SECOND_US // rng.choice([1, 1, 10])
            row = _event(rng, now_us, keys, delay_s, lateness)
            if seen and rng.random() < 0.3:
                row = dict(rng.choice(seen[-30:]))
                if rng.random() < 0.2:
                    row["amount"] = 77  # a copy that is not identical
                if rng.random() < 0.2:
                    row["at"] = now_us  # the key again, at another time
            seen.append(row)
            lines.append(Line(_torn(rng, row), None) if rng.random() < 0.04 else Line(_json(row), row))
        yield lines


def _event(rng: random.Random, now_us: int, keys: int, delay_s: int, lateness: float) -> dict[str, Any]:
    at_us: int | None = now_us - rng.randint(0, delay_s * SECOND_US * 4 // 5)
    if rng.random() < lateness:
        at_us = now_us - rng.randint(0, 5 * delay_s) * SECOND_US
    if rng.random() < 0.02:
        at_us = rng.choice([-62_135_596_800, -1, 0]) * SECOND_US + rng.randint(0, 1)
    elif rng.random() < 0.05:
        at_us = None
    return {
        "key": _some(rng, f"k{rng.randrange(keys)}"),
        "at": at_us,
        "seen": _some(rng, now_us, 0.4),
        "region": rng.choice(["eu", "Us", "ap", "eu", "xx", "", None]),
        "user_id": _some(rng, rng.randint(1, 9)),
        "amount": _some(rng, rng.choice([-3, 0, 1, 5, 100, 10**15])),
        "qty": _some(rng, rng.choice([0, 1, 2, 7])),
        "code": _some(rng, rng.choice(["7", "12", "55", "abc", ""] if rng.random() < 0.3 else ["1", "2"])),
    }


def _some(rng: random.Random, value: Any, missing: float = 0.05) -> Any:
    return None if rng.random() < missing else value


def _users(rng: random.Random, *, first: bool) -> Iterator[Line]:
    """New users; now and then one who is there already, which makes the key ambiguous from then on."""
    for _ in range(rng.randint(3, 6) if first else rng.choice([0, 0, 1])):
        row = {"id": _some(rng, rng.randint(1, 9 if rng.random() < 0.5 else 40)), "tier": rng.choice(["a", "b", None])}
        yield Line(_json(row), row)


def _json(row: Row) -> bytes:
    shown = {name: _iso(value) if name in _TIMES else value for name, value in row.items()}
    return json.dumps({name: value for name, value in shown.items() if value is not None}).encode()


def _iso(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
    )


def _torn(rng: random.Random, row: Row) -> bytes:
    text = _json(row)
    wrong = json.dumps({"key": "k1", "amount": "many"}).encode()
    return rng.choice([text[: rng.randint(1, len(text) - 1)], wrong, b'{"key": "\xff\xfe"}', b"[1, 2]", b"nonsense"])
