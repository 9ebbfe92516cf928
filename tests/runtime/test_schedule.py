from datetime import UTC, datetime

import pytest

from lodestream.runtime.schedule import is_due, next_after


def us(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("schedule", "after", "moment"),
    [
        ("@hourly", "2024-02-28 23:00:00", "2024-02-29 00:00:00"),
        ("@hourly", "2024-02-28 22:59:59", "2024-02-28 23:00:00"),
        ("@daily", "2023-12-31 00:00:00", "2024-01-01 00:00:00"),
        ("@weekly", "2024-02-26 09:00:00", "2024-03-03 00:00:00"),
        ("@monthly", "2024-02-01 00:00:00", "2024-03-01 00:00:00"),
        ("*/20 * * * *", "2024-02-28 10:20:00", "2024-02-28 10:40:00"),
        ("5,50 8-9 * * *", "2024-02-28 09:50:00", "2024-02-29 08:05:00"),
        ("0 0 29 2 *", "2024-02-29 00:00:00", "2028-02-29 00:00:00"),
        ("0 12 * * 7", "2024-02-28 00:00:00", "2024-03-03 12:00:00"),
        ("0 12 * * 5-7", "2024-03-02 12:00:00", "2024-03-03 12:00:00"),
        ("0 12 * * */6", "2024-03-02 12:00:00", "2024-03-03 12:00:00"),
        ("@yearly", "2024-01-01 00:00:00", "2025-01-01 00:00:00"),
        ("0 12 * * 1-5", "2024-03-01 12:00:00", "2024-03-04 12:00:00"),
        ("0 0 13 * 5", "2024-09-07 00:00:00", "2024-09-13 00:00:00"),
        ("0 0 13 * 5", "2024-09-13 00:00:00", "2024-09-20 00:00:00"),
    ],
)
def test_the_next_moment_of_a_schedule(schedule, after, moment):
    assert next_after(schedule, us(after)) == us(moment)


@pytest.mark.parametrize("schedule", ["@hourly", "every 5 minutes"])
def test_what_never_ran_is_due(schedule):
    assert is_due(schedule, 0, us("2024-02-28 10:00:01"))


@pytest.mark.parametrize(
    ("schedule", "last", "now", "due"),
    [
        ("every 5 minutes", "2024-02-28 10:00:00", "2024-02-28 10:04:59", False),
        ("every 5 minutes", "2024-02-28 10:00:00", "2024-02-28 10:05:00", True),
        ("every 1 day", "2024-02-28 10:00:00", "2024-02-29 09:59:59", False),
        ("every 1 week", "2024-02-28 10:00:00", "2024-03-06 09:59:59", False),
        ("every 1.5 hours", "2024-02-28 10:00:00", "2024-02-28 11:30:00", True),
        ("every 30 s", "2024-02-28 10:00:00", "2024-02-28 10:00:29", False),
        ("@hourly", "2024-02-28 10:00:00", "2024-02-28 10:59:59", False),
        ("@hourly", "2024-02-28 10:59:59", "2024-02-28 11:00:00", True),
    ],
)
def test_a_schedule_is_due_when_its_moment_has_come(schedule, last, now, due):
    assert is_due(schedule, us(last), us(now)) is due


@pytest.mark.parametrize("schedule", ["* * * *", "61 * * * *", "x * * * *", "*/0 * * * *", "5-1 * * * *", "0 0 31 2 *"])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(ValueError, match=r"schedule|cron field"):
        next_after(schedule, us("2024-02-28 10:00:00"))
