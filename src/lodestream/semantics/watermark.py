"""The watermark of a flow: how far event time has certainly come, by batch.

Batch n works with two values. A row is judged late by W(n-1); state leaves by W(n). So a row that only this batch's
W(n) has passed still counts, even into a window that this very batch closes. Rows of one batch never make each other
late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MILLISECOND_US = 1_000


@dataclass(frozen=True, slots=True)
class Watermark:
    """The two watermarks of one batch, in microseconds since 1970 UTC.

    Attributes:
        late_us: W(n-1); what is at or before it comes too late.
        evict_us: W(n); what ends at or before it leaves state when the batch ends.
    """

    late_us: int = 0
    evict_us: int = 0

    def after(self, event_times_us: Iterable[int], delay_us: int) -> Watermark:
        """The watermarks of the next batch, once this batch has seen `event_times_us`.

        W(n+1) = max(W(n), newest event time - delay), floored to milliseconds. It starts at 0 and never falls back;
        a batch without rows leaves it where it is.
        """
        reached = max(event_times_us, default=None)
        if reached is None:
            return Watermark(self.evict_us, self.evict_us)
        return Watermark(self.evict_us, max(self.evict_us, floor_ms(reached - delay_us)))


def floor_ms(time_us: int) -> int:
    """The last whole millisecond at or before `time_us`, in microseconds."""
    return time_us // _MILLISECOND_US * _MILLISECOND_US


def watermarks(batches: Sequence[Sequence[int]], delay_us: int) -> list[Watermark]:
    """The watermarks of every batch, given the event times (microseconds) that each batch holds."""
    marks = [Watermark()]
    for event_times_us in batches:
        marks.append(marks[-1].after(event_times_us, delay_us))
    return marks[:-1]
