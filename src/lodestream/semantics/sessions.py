"""Which session a row belongs to, which rows come too late for one, and when a session is final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from lodestream.model.table import Session
from lodestream.semantics.watermark import Watermark

K = TypeVar("K")
R = TypeVar("R")
Timed = tuple[tuple[int, R], ...]
"""Rows with their event times in microseconds."""


def is_late(time_us: int, session: Session, mark: Watermark) -> bool:
    """Whether a row comes too late: the session that it would be by itself ends at or before W(n-1).

    A session that is still open and that such a row would reach does not save it.
    """
    return time_us + session.gap_us <= mark.late_us


def span_of(rows: Timed[R], session: Session) -> tuple[int, int]:
    """Bounds of the session that holds `rows`: from the first up to the gap after the last."""
    times_us = [time_us for time_us, _ in rows]
    return min(times_us), max(times_us) + session.gap_us


def fold(
    added: Sequence[tuple[K, int, R]], opened: Mapping[tuple[int, K], Timed[R]], session: Session, mark: Watermark
) -> tuple[dict[tuple[int, K], Timed[R]], dict[tuple[int, K], Timed[R]], dict[tuple[int, K], Timed[R]]]:
    """Add one batch's rows to the sessions of their groups, then close what W(n) has passed.

    Two sessions of a group that overlap, or of which one ends where the other begins, are one: Spark merges a session
    that starts at the very end of another. Closed sessions take no rows, so a row may begin a session inside one.

    Args:
        added: (group, event time, row) of each row that is not late.
        opened: rows of the open sessions before the batch, by (start, group).
        session: the gap.
        mark: this batch's watermarks.

    Returns:
        (touched, closed, opened) as `windows.fold` gives them; a session that others became part of is in none.
    """
    everything = dict(opened)
    grown: set[tuple[int, K]] = set()
    for group, time_us, row in added:
        held: Timed[R] = ((time_us, row),)
        for key in [key for key in everything if key[1] == group]:
            start_us, end_us = span_of(everything[key], session)
            if start_us <= time_us + session.gap_us and time_us <= end_us:
                held = (*everything.pop(key), *held)
                grown.discard(key)
        key = (span_of(held, session)[0], group)
        everything[key] = held
        grown.add(key)
    closed = {key: rows for key, rows in everything.items() if span_of(rows, session)[1] <= mark.evict_us}
    touched = {key: everything[key] for key in grown}
    return touched, closed, {key: rows for key, rows in everything.items() if key not in closed}
