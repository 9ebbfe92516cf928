"""Says durations the way a person writes them."""

from __future__ import annotations

_UNITS = (
    (365 * 86_400_000_000, "year"),
    (86_400_000_000, "day"),
    (3_600_000_000, "hour"),
    (60_000_000, "minute"),
    (1_000_000, "second"),
    (1_000, "ms"),
)


def duration_text(micros: int) -> str:
    """Microseconds in the largest unit that divides them: `90 days`, `1 minute`, `500 ms`."""
    for size, unit in _UNITS:
        if micros and micros % size == 0:
            count = micros // size
            return f"{count} {unit}{'s' if count != 1 and unit != 'ms' else ''}"
    return "0 seconds" if micros == 0 else f"{micros} us"
