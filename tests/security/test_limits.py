"""A caller gets its rate, no more, and its records of the day."""

from hypothesis import given
from hypothesis import strategies as st

from lodestream.security.limits import Limits, admit, charge, spend

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


@given(st.floats(0.5, 50), st.lists(st.integers(0, 3 * SECOND_US), min_size=1, max_size=60))
def test_never_more_than_the_rate(rate, pauses):
    caller = Limits().caller("a", rate, None, None)
    now, admitted = 0, []
    for pause in pauses:
        now += pause
        if admit(caller, now) == 0:
            admitted.append(now)
    for i, first in enumerate(admitted):
        for j in range(i, len(admitted)):
            assert j - i + 1 <= max(rate, 1) + (admitted[j] - first) / SECOND_US * rate + 1e-6


def test_who_waits_as_told_is_admitted():
    caller = Limits().caller("a", 2.0, None, None)
    now = 0
    assert [admit(caller, now) for _ in range(2)] == [0, 0]
    wait = admit(caller, now)
    assert 0 < wait <= 0.5
    assert admit(caller, now + int(wait * SECOND_US) + 1) == 0


def test_a_large_body_passes_and_leaves_debt():
    caller = Limits().caller("a", None, 100.0, None)
    assert admit(caller, 0) == 0
    charge(caller, 1000)
    assert 9 <= admit(caller, 0) <= 10
    assert admit(caller, 10 * SECOND_US) == 0


def test_records_of_the_day_and_their_file(tmp_path):
    path = str(tmp_path / "usage.json")
    limits = Limits(path)
    caller = limits.caller("a", None, None, 10)
    assert admit(caller, DAY_US) == 0
    assert spend(caller, 8, DAY_US) == 0
    assert spend(caller, 3, DAY_US) == 86_400
    assert spend(caller, 2, DAY_US) == 0
    limits.save()
    again = Limits(path).caller("a", None, None, 10)
    assert admit(again, 2 * DAY_US - SECOND_US) == 1
    assert admit(again, 2 * DAY_US) == 0
    (tmp_path / "usage.json").write_text("{torn")
    assert admit(Limits(path).caller("a", None, None, 10), DAY_US) == 0
