"""Checks sessions against the rows they are made of: none covers a row too few or too many, none ends too early."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Event = tuple[int, int]
"""Event time in microseconds, and position hash."""
Stored = tuple[int, int, int, int]
"""Start, end, number of rows and digest of a session in the table; the digest unsigned."""
Group = tuple[object, ...]


@dataclass
class SessionCheck:
    """What `check_sessions` found.

    Attributes:
        open: rows of sessions that the watermark has not closed.
        problems: what is wrong, with an example.
    """

    open: int = 0
    problems: list[str] = field(default_factory=list)


def check_sessions(
    events: dict[Group, list[Event]], stored: dict[Group, list[Stored]], gap_us: int, watermark_us: int, *, final: bool
) -> SessionCheck:
    """Hold the sessions of a table to its input rows.

    The rows of a session are those of its group from its start up to the gap before its end: sessions of a group may
    overlap, when one began after the other was closed, but their rows never lie between each other. Each session must
    begin and end with a row, have no pause longer than the gap, and count and digest of exactly its rows. Rows in no
    session of the table must make sessions that are open, and only a table of final windows leaves them out.

    Args:
        events: input rows by group.
        stored: sessions in the table by group.
        gap_us: the declared gap.
        watermark_us: the watermark of the flow's last batch.
        final: whether the table holds closed sessions only.
    """
    result = SessionCheck()
    wrong: dict[str, list[tuple[Group, int]]] = defaultdict(list)
    for group in events.keys() | stored.keys():
        given = sorted(events.get(group, ()))
        covered = bytearray(len(given))
        opened: list[tuple[int, int]] = []
        for start, end, rows, digest in sorted(stored.get(group, ())):
            low = bisect_left(given, start, key=_time)
            high = bisect_right(given, end - gap_us, lo=low, key=_time)
            mine, twice = given[low:high], any(covered[low:high])
            covered[low:high] = b"\1" * len(mine)
            if twice or not _matches(mine, start, end, rows, digest, gap_us):
                wrong["session covers other positions than fall into it"].append((group, start))
            if end > watermark_us:
                result.open += len(mine)
                opened.append((start, end))
                if final:
                    wrong["session is in the table before the watermark has closed it"].append((group, start))
        if any(after[0] <= before[1] for before, after in pairwise(opened)):
            wrong["open sessions that should be one"].append((group, opened[0][0]))
        left = [event for event, is_in in zip(given, covered, strict=True) if not is_in]
        for start, end, count in _sessions(left, gap_us):
            result.open += count
            if not final or end <= watermark_us:
                wrong["rows are in no session"].append((group, start))
    for what, places in wrong.items():
        group, start = min(places, key=repr)
        result.problems.append(f"{what}: {len(places)} sessions, such as window_start_us={start} groups={group}")
    return result


def _time(event: Event) -> int:
    return event[0]


def _matches(mine: Sequence[Event], start: int, end: int, rows: int, digest: int, gap_us: int) -> bool:
    if not mine or len(mine) != rows or mine[0][0] != start or mine[-1][0] + gap_us != end:
        return False
    found = 0
    for _, value in mine:
        found ^= value
    pauses = (after[0] - before[0] for before, after in pairwise(mine))
    return found == digest and all(pause <= gap_us for pause in pauses)


def _sessions(events: Sequence[Event], gap_us: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of rows of the sessions that ascending events make."""
    first = 0
    for i, (time_us, _) in enumerate(events):
        if i + 1 == len(events) or events[i + 1][0] - time_us > gap_us:
            yield events[first][0], time_us + gap_us, i + 1 - first
            first = i + 1
