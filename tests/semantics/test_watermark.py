from hypothesis import given
from hypothesis import strategies as st

from lodestream.semantics.watermark import Watermark, floor_ms, watermarks

S = 1_000_000


def marks(batches, delay_us):
    return [(m.late_us, m.evict_us) for m in watermarks(batches, delay_us)]


def test_batch_n_judges_late_by_the_watermark_before_the_one_it_evicts_by():
    assert marks([[20 * S], [9 * S], []], 10 * S) == [(0, 0), (0, 10 * S), (10 * S, 10 * S)]


def test_it_starts_at_zero_and_never_falls_back():
    assert marks([[5 * S], [50 * S], [20 * S], []], 10 * S) == [(0, 0), (0, 0), (0, 40 * S), (40 * S, 40 * S)]


def test_ancient_times_leave_it_at_zero():
    assert marks([[-50 * S], [-1]], 0) == [(0, 0), (0, 0)]


def test_milliseconds_are_floored():
    assert marks([[20_001_999], []], 1 * S)[1] == (0, 19_001_000)
    assert floor_ms(-1) == -1_000


def test_a_batch_without_rows_lets_the_late_limit_catch_up():
    assert marks([[20 * S], [], []], 0) == [(0, 0), (0, 20 * S), (20 * S, 20 * S)]


@given(
    st.lists(st.lists(st.integers(-(10**13), 10**13), max_size=4), max_size=8),
    st.integers(0, 10**9),
)
def test_it_is_the_maximum_over_earlier_batches(batches, delay_us):
    found = watermarks(batches, delay_us)
    for n, mark in enumerate(found):
        seen = [t - delay_us for batch in batches[:n] for t in batch]
        assert mark.evict_us == max([0, *(floor_ms(t) for t in seen)])
        assert mark.late_us == (found[n - 1].evict_us if n else 0)
    assert all(isinstance(mark, Watermark) for mark in found)
