"""Which event-time windows a row falls into, which of them still take rows, and when a window is final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from lodestream.model.table import Window
from lodestream.semantics.watermark import Watermark

K = TypeVar("K")
R = TypeVar("R")
Rows = tuple[R, ...]


def starts_of(time_us: int, window: Window) -> list[int]:
    """Starts of all windows that hold `time_us`, ascending.

    Windows are [start, start + every), their starts the multiples of the step from 1970-01-01 UTC on, in both
    directions. Tumbling windows hold each time once; hopping windows hold it every / step times, rounded up or down.
    """
    latest = time_us // window.step_us * window.step_us
    earliest = time_us - window.every_us + 1
    return list(range(latest, earliest - 1, -window.step_us))[::-1]


def open_starts(time_us: int, window: Window, mark: Watermark) -> list[int]:
    """Starts of the windows that hold `time_us` and still take rows: those that end after W(n-1).

    A row is late when there is none; lateness goes by the window, not by the row's own time.
    """
    return [start for start in starts_of(time_us, window) if start + window.every_us > mark.late_us]


def fold(
    added: Sequence[tuple[tuple[int, K], R]], opened: Mapping[tuple[int, K], Rows[R]], window: Window, mark: Watermark
) -> tuple[dict[tuple[int, K], Rows[R]], dict[tuple[int, K], Rows[R]], dict[tuple[int, K], Rows[R]]]:
    """Add one batch's rows to their windows, then close what W(n) has passed.

    Args:
        added: ((window start, group), row) for each row and each window that takes it.
        opened: rows of the open windows before the batch, by (window start, group).
        window: how long windows are.
        mark: this batch's watermarks.

    Returns:
        (touched, closed, opened): windows that got a row, windows that this batch closed (each window closes once,
        and with all its rows, those of this batch too), windows still open. `emit: updates` writes `touched`,
        `emit: final` writes `closed`.
    """
    everything = dict(opened)
    for key, row in added:
        everything[key] = (*everything.get(key, ()), row)
    touched = {key: everything[key] for key, _ in added}
    closed = {key: rows for key, rows in everything.items() if key[0] + window.every_us <= mark.evict_us}
    return touched, closed, {key: rows for key, rows in everything.items() if key not in closed}
