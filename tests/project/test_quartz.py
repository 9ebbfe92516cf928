"""Quartz schedules: what is refused, and that a cron schedule written as one comes at the same moments."""

from datetime import UTC, datetime, timedelta

import pytest

from lodestream.project.quartz import check_quartz, from_schedule, quartz_values
from lodestream.runtime.schedule import next_after


@pytest.mark.parametrize(
    "text",
    [
        "0 5 * * * ?",
        "0 30 2 * * ?",
        "0 0 4 ? * SUN",
        "0 0/15 8-18 ? * MON-FRI",
        "0 0 0 1,15 * ? 2027-2030",
        "0 0 0 L * ?",
        "0 0 0 L-3 * ?",
        "0 0 0 LW * ?",
        "0 0 0 15W * ?",
        "0 0 0 ? * 6L",
        "0 0 0 ? JAN-MAR fri#2",
        "0 0 22-2 * * ?",
        "0 0 0 29 2 ?",
        "0 0 0 31 1-12 ?",
    ],
)
def test_good(text):
    assert check_quartz(f" {text}  ") == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5 * * * *", "has 5"),
        ("0 0 0 1 1 ? 2027 2028", "has 8"),
        ("", "has 0"),
        ("0 0 2 * * *", "exactly one"),
        ("0 0 2 ? * ?", "exactly one"),
        ("0 0 2 1 * MON", "exactly one"),
        ("? 0 2 * * ?", "exactly one|not for the second"),
        ("? 0 2 ? * MON", "not for the second"),
        ("60 0 2 * * ?", "second is from 0 to 59"),
        ("0 60 2 * * ?", "minute is from 0 to 59"),
        ("0 0 24 * * ?", "hour is from 0 to 23"),
        ("0 0 2 0 * ?", "day of the month is from 1 to 31"),
        ("0 0 2 32 * ?", "day of the month is from 1 to 31"),
        ("0 0 2 * 13 ?", "month is from 1 to 12"),
        ("0 0 2 * JANUARY ?", "month is from"),
        ("0 0 2 ? * 0", "weekday is from 1 to 7"),
        ("0 0 2 ? * 8", "weekday is from 1 to 7"),
        ("0 0 2 ? * MON#6", "not a weekday"),
        ("0 0 2 * * ? 1969", "year is from 1970 to 2099"),
        ("0 0/0 2 * * ?", "step of the minute"),
        ("0 0/60 2 * * ?", "step of the minute"),
        ("0 *-5 2 * * ?", "not a minute"),
        ("0 1, 2 * * ?", "has 5|not a minute"),
        ("0 , 2 * * ?", "not a minute"),
        ("0 -5 2 * * ?", "not a minute"),
        ("0 5L 2 * * ?", "minute"),
        ("0 0 2 31 4 ?", "never comes"),
        ("0 0 2 30 FEB ?", "never comes"),
    ],
)
def test_bad(text, says):
    with pytest.raises(ValueError, match=says):
        check_quartz(text)


def test_ranges_that_overflow_go_round():
    assert quartz_values(2, "22-2") == {22, 23, 0, 1, 2}
    assert quartz_values(4, "NOV-FEB") == {11, 12, 1, 2}
    assert quartz_values(5, "FRI-MON") == {6, 7, 1, 2}


def moments(quartz, start, days):
    """Every minute at which a Quartz schedule of plain values comes."""
    second, minute, hour, day, month, weekday = (quartz_values(i, part) for i, part in enumerate(quartz.split()))
    assert second == {0}
    found = []
    for i in range(days * 1440):
        at = start + timedelta(minutes=i)
        on_day = (day is None or at.day in day) and (weekday is None or at.isoweekday() % 7 + 1 in weekday)
        if at.minute in minute and at.hour in hour and at.month in month and on_day:
            found.append(at)
    return found


@pytest.mark.parametrize(
    "schedule",
    ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "*/7 * * * *", "5 */5 * * *", "0 6 * * 1-5",
     "30 4 1,15 * *", "0 0 */10 * *", "0 0 * 2/5 *", "0 3 * * 0", "0 3 * * 7", "0 3 * * 5-7", "0 3 * * */2",
     "15 10-14/2 3-9 1-6 *", "0 3 * * 1,3"],
)  # fmt: skip
def test_the_same_moments_as_cron(schedule):
    start, days = datetime(2027, 12, 20, tzinfo=UTC), 45
    expected, at = [], int(start.timestamp()) * 1_000_000 - 60_000_000
    while (at := next_after(schedule, at)) < (start + timedelta(days=days)).timestamp() * 1_000_000:
        expected.append(datetime.fromtimestamp(at // 1_000_000, UTC))
    quartz = from_schedule(schedule)
    assert expected or schedule == "0 0 * 2/5 *"
    assert moments(quartz, start, days) == expected, quartz


def test_what_has_no_clock_face():
    assert from_schedule("every 5 minutes") is None
    with pytest.raises(ValueError, match="not both"):
        from_schedule("0 0 1 * 1")
