"""Quartz schedules, which Databricks has in place of cron: reads them, and writes a table's `schedule:` as one.

A Quartz schedule is six or seven fields: second, minute, hour, day of the month, month, weekday and, perhaps, year.
Weekdays run from 1 (Sunday) to 7, and exactly one of the two day fields is `?`.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lodestream.project.values import SHORTHANDS

_MONTHS = {
    "JAN": 1, "FEB": 2, "MAR": 3, "APR": 4, "MAY": 5, "JUN": 6, "JUL": 7, "AUG": 8, "SEP": 9, "OCT": 10, "NOV": 11,
    "DEC": 12,
}  # fmt: skip
_WEEKDAYS = {"SUN": 1, "MON": 2, "TUE": 3, "WED": 4, "THU": 5, "FRI": 6, "SAT": 7}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int]
    special: str = ""


_FIELDS = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}, r"L(-([1-9]|[12]\d|30))?|LW|([1-9]|[12]\d|3[01])W"),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 1, 7, _WEEKDAYS, r"L|([1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)(L|#[1-5])"),
    _Field("year", 1970, 2099, {}),
)
_DAY, _MONTH, _WEEKDAY = 3, 4, 5
_PART = re.compile(r"(\*|[A-Z0-9]+)(?:-([A-Z0-9]+))?(?:/(\d+))?")


def check_quartz(text: str) -> str:
    """The schedule with single blanks.

    Raises:
        ValueError: it is not one that Quartz takes, or one that never comes; says what is wrong.
    """
    parts = text.split()
    if len(parts) not in (6, 7):
        raise ValueError(f"a Quartz schedule has six or seven fields, this has {len(parts)}")
    if (parts[_DAY] == "?") == (parts[_WEEKDAY] == "?"):
        raise ValueError("exactly one of the day of the month and the weekday is ?")
    found = [quartz_values(i, part) for i, part in enumerate(parts)]
    days, months = found[_DAY], found[_MONTH]
    if days is not None and months is not None and min(days) > max(calendar.monthrange(2000, m)[1] for m in months):
        raise ValueError("no such day in that month: it never comes")
    return " ".join(parts)


def quartz_values(position: int, text: str) -> set[int] | None:
    """The values that a field allows; None where they depend on the calendar (`?`, `L`, `15W`, `6#3`).

    Args:
        position: 0 is the second, 6 the year.
        text: of the field.

    Raises:
        ValueError: it is not one.
    """
    field = _FIELDS[position]
    text = text.upper()
    if text == "?":
        if position not in (_DAY, _WEEKDAY):
            raise ValueError(f"? is for the day of the month and the weekday, not for the {field.name}")
        return None
    if field.special and re.fullmatch(field.special, text):
        return None
    values: set[int] = set()
    for part in text.split(","):
        values |= _part(field, part)
    return values


def _part(field: _Field, text: str) -> set[int]:
    match = _PART.fullmatch(text)
    if match is None or (match[1] == "*" and match[2]):
        raise ValueError(f"not a {field.name}: {text!r}")
    step = int(match[3] or 1)
    if not 1 <= step <= field.high:
        raise ValueError(f"a step of the {field.name} is from 1 to {field.high}: {text!r}")
    every = match[1] == "*"
    first = field.low if every else _number(field, match[1])
    last = _number(field, match[2]) if match[2] else field.high if every or match[3] else first
    if last < first:  # from Friday to Monday
        last += field.high - field.low + 1
    size = field.high - field.low + 1
    return {field.low + (value - field.low) % size for value in range(first, last + 1, step)}


def _number(field: _Field, text: str) -> int:
    value = field.names.get(text, int(text) if text.isdigit() else -1)
    if not field.low <= value <= field.high:
        raise ValueError(f"the {field.name} is from {field.low} to {field.high}: {text!r}")
    return value


def from_schedule(schedule: str) -> str | None:
    """A table's `schedule:` as Quartz has it; None for `every …`, which no clock face says.

    Raises:
        ValueError: it restricts both the day of the month and the weekday, which cron takes as either and Quartz
            cannot say.
    """
    if schedule.startswith("every "):
        return None
    minute, hour, day, month, weekday = SHORTHANDS.get(schedule, schedule).split()
    if weekday == "*":
        weekday = "?"
    elif day == "*":
        day, weekday = "?", _weekdays(weekday)
    else:
        raise ValueError("Quartz takes the day of the month or the weekday, not both")
    return check_quartz(f"0 {minute} {hour} {day} {month} {weekday}")


def _weekdays(text: str) -> str:
    """Cron's weekdays (0 and 7 are Sunday) by name."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\d)(?:-(\d))?)(?:/(\d+))?", part)
        if match is None:
            raise ValueError(f"not a weekday: {part!r}")
        first = int(match[1] or 0)
        last = int(match[2]) if match[2] else (first if match[1] and not match[3] else max(first, 6))
        found |= {value % 7 for value in range(first, last + 1, int(match[3] or 1))}
    return ",".join(name for name, i in _WEEKDAYS.items() if i - 1 in found)
