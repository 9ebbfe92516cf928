"""When a `schedule:` is due, all in UTC; `project.values.check_schedule` says what one may be."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lodestream.project.values import SHORTHANDS, parse_duration

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_LOOK_AHEAD = timedelta(days=366 * 4)


def is_due(schedule: str, last_us: int, now_us: int) -> bool:
    """Whether a moment of `schedule` lies in (last_us, now_us]; one that never ran is due.

    Args:
        schedule: the text as declared.
        last_us: time of the last run in microseconds since 1970, 0 for none.
        now_us: the present.

    Raises:
        ValueError: the text is not a schedule.
    """
    if last_us <= 0:
        return True
    if schedule.startswith("every "):
        return now_us - last_us >= parse_duration(schedule.removeprefix("every "))
    return next_after(schedule, last_us) <= now_us


def next_after(schedule: str, after_us: int) -> int:
    """The first moment of a cron schedule after `after_us`, in microseconds since 1970 UTC."""
    fields = _fields(SHORTHANDS.get(schedule.strip(), schedule))
    moment = datetime.fromtimestamp(after_us // 1_000_000, UTC).replace(second=0) + timedelta(minutes=1)
    limit = moment + _LOOK_AHEAD
    while moment < limit:
        if moment.month not in fields[3] or not _day_matches(fields, moment):
            moment = (moment + timedelta(days=1)).replace(hour=0, minute=0)
        elif moment.hour not in fields[1]:
            moment = (moment + timedelta(hours=1)).replace(minute=0)
        elif moment.minute not in fields[0]:
            moment += timedelta(minutes=1)
        else:
            return int(moment.timestamp()) * 1_000_000
    raise ValueError(f"schedule never comes: {schedule!r}")


def _day_matches(fields: list[set[int]], moment: datetime) -> bool:
    by_date, by_weekday = moment.day in fields[2], (moment.isoweekday() % 7) in fields[4]
    # As cron has it: when both day fields are restricted, either may match.
    if len(fields[2]) < 31 and len(fields[4]) < 7:
        return by_date or by_weekday
    return by_date and by_weekday


def _fields(text: str) -> list[set[int]]:
    parts = text.split()
    if len(parts) != 5:
        raise ValueError(f"not a schedule: {text!r}; write '@hourly', 'every 5 minutes' or five cron fields")
    return [_field(part, low, high) for part, (low, high) in zip(parts, _RANGES, strict=True)]


def _field(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    week = high == 6
    highest = 7 if week else high  # Sunday is 0 and 7
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if not match:
            raise ValueError(f"not a cron field: {text!r}")
        first = int(match[1]) if match[1] else low
        last = int(match[2]) if match[2] else (first if match[1] and not match[3] else max(first, high))
        if not low <= first <= last <= highest or match[3] == "0":
            raise ValueError(f"cron field out of range: {text!r}")
        values.update(range(first, last + 1, int(match[3] or 1)))
    return {value % 7 for value in values} if week else values
