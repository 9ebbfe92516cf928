import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.model.table import Window
from lodestream.semantics.watermark import Watermark
from lodestream.semantics.windows import fold, open_starts, starts_of

S = 1_000_000


def seconds(starts):
    return [start / S for start in starts]


@pytest.mark.parametrize(
    ("time_s", "start_s"),
    [(0, 0), (9.999999, 0), (10, 10), (-0.000001, -10), (-10, -10), (-10.000001, -20)],
)
def test_tumbling_windows_hold_their_start_and_not_their_end(time_s, start_s):
    assert seconds(starts_of(round(time_s * S), Window(10 * S))) == [start_s]


def test_hopping_windows_are_every_overlapping_one():
    assert seconds(starts_of(12 * S, Window(10 * S, 5 * S))) == [5, 10]
    assert seconds(starts_of(-1 * S, Window(10 * S, 5 * S))) == [-10, -5]


def test_a_step_that_does_not_divide_the_length():
    assert seconds(starts_of(12 * S, Window(10 * S, 4 * S))) == [4, 8, 12]
    assert seconds(starts_of(14 * S, Window(10 * S, 4 * S))) == [8, 12]


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_windows_of_a_time_are_those_that_hold_it(time_us, every_us, step_us):
    every_us, step_us = max(every_us, step_us), max(min(every_us, step_us), every_us // 50 + 1, 1)
    found = starts_of(time_us, Window(every_us, step_us))
    near = range((time_us - every_us) // step_us - 2, time_us // step_us + 3)
    assert found == [n * step_us for n in near if n * step_us <= time_us < n * step_us + every_us]


def test_late_goes_by_the_window_and_not_by_the_row():
    window = Window(10 * S)
    assert open_starts(1 * S, window, Watermark(9 * S, 30 * S)) == [0]
    assert open_starts(9_999_999, window, Watermark(10 * S, 30 * S)) == []


def test_a_row_counts_only_in_those_hopping_windows_that_still_take_rows():
    assert seconds(open_starts(12 * S, Window(10 * S, 5 * S), Watermark(15 * S, 15 * S))) == [10]


def test_a_window_closes_once_with_the_rows_of_the_closing_batch():
    # E1: a row at 9 s joins [0, 10), which this batch closes, for it is behind W(n) = 10 s but not behind W(n-1).
    opened = {(0, "k"): ("row 1",)}
    touched, closed, opened = fold([((0, "k"), "row 9")], opened, Window(10 * S), Watermark(0, 10 * S))
    assert touched == closed == {(0, "k"): ("row 1", "row 9")}
    assert opened == {}


def test_windows_of_other_groups_and_later_windows_stay_open():
    before = {(0, "a"): (1,), (10 * S, "a"): (2,)}
    touched, closed, opened = fold([((10 * S, "b"), 3)], before, Window(10 * S), Watermark(0, 19_999_999))
    assert touched == {(10 * S, "b"): (3,)}
    assert closed == {(0, "a"): (1,)}
    assert opened == {(10 * S, "a"): (2,), (10 * S, "b"): (3,)}
    assert before == {(0, "a"): (1,), (10 * S, "a"): (2,)}
