from lodestream.semantics.dedup import deduplicate, key_of
from lodestream.semantics.watermark import Watermark

S = 1_000_000


def run(batches, delay_s=10, within_s=None):
    """Verdicts of batches of (key, seconds)."""
    expiries, mark, found = {}, Watermark(), []
    for rows in batches:
        timed = [((key,), round(time * S)) for key, time in rows]
        verdicts, expiries = deduplicate(timed, expiries, mark, (delay_s if within_s is None else within_s) * S)
        found.append([v[0] for v in verdicts])
        mark = mark.after([t for _, t in timed], delay_s * S)
    return found, expiries


def test_the_first_copy_in_arrival_order_survives():
    assert run([[("a", 20), ("a", 15), ("b", 20)], [("a", 20)]])[0] == [["o", "d", "o"], ["d"]]


def test_a_row_at_the_late_limit_is_late_and_a_microsecond_after_it_is_not():
    assert run([[("a", 30)], [], [("b", 20), ("c", 20.000001)]])[0] == [["o"], [], ["l", "o"]]


def test_rows_of_one_batch_never_make_each_other_late():
    assert run([[("a", 100), ("b", 1)]])[0] == [["o", "o"]]


def test_a_row_behind_the_new_watermark_but_not_the_old_one_still_counts():
    assert run([[("a", 30)], [("b", 1)], [("c", 1)]])[0] == [["o"], ["o"], ["l"]]


def test_a_repeat_farther_apart_than_the_delay_is_a_duplicate_while_its_key_is_in_state():
    # E3: the key's expiry is 20 s + 10 s; W(1) = 10 s when the repeat at 50 s arrives, so the key is still there.
    assert run([[("a", 20)], [("a", 50)]])[0] == [["o"], ["d"]]


def test_a_repeat_is_new_once_an_earlier_batch_has_evicted_its_key():
    # The batch at 45 s sets W(2) = 35 s >= 30 s: state goes at the end of the empty batch.
    assert run([[("a", 20)], [("b", 45)], [], [("a", 50)]])[0] == [["o"], ["o"], [], ["o"]]


def test_eviction_comes_at_the_end_of_the_batch_whose_watermark_passes_the_expiry():
    assert run([[("a", 20)], [("b", 40)], [("a", 45)]])[0] == [["o"], ["o"], ["d"]]
    assert run([[("a", 20)], [("b", 40)], [("c", 41)], [("a", 45)]])[0][-1] == ["o"]
    assert run([[("a", 20)], [("b", 39.999999)], [("c", 39)], [("a", 45)]])[0][-1] == ["d"]


def test_a_late_first_copy_leaves_no_state():
    found, expiries = run([[("x", 60)], [], [("a", 20)], [("a", 55)]])
    assert found == [["o"], [], ["l"], ["o"]]
    assert set(expiries) == {("x",), ("a",)}


def test_a_late_copy_of_a_known_key_is_late_not_duplicate():
    assert run([[("a", 60)], [], [("a", 20)]])[0] == [["o"], [], ["l"]]


def test_a_duplicate_does_not_prolong_its_key():
    assert run([[("a", 20)], [("a", 29), ("b", 41)], [], [("a", 50)]])[0][-1] == ["o"]


def test_within_is_the_span_that_a_key_holds():
    assert run([[("a", 20)], [("b", 45)], [], [("a", 50)]], within_s=100)[0][-1] == ["d"]
    assert run([[("a", 20)], [("b", 32)], [], [("a", 30)]], within_s=1)[0][-1] == ["o"]


def test_null_and_nan_are_keys_like_any_other():
    assert key_of([float("nan"), None]) == key_of([float("nan"), None])
    assert hash(key_of([float("nan")])) == hash(key_of([-float("nan")]))
    assert key_of([0.0]) == key_of([-0.0])
    assert run([[(None, 20), (None, 21)]])[0] == [["o", "d"]]


def test_what_is_given_is_not_changed():
    expiries = {("a",): 30 * S}
    deduplicate([(("b",), 90 * S)], expiries, Watermark(40 * S, 80 * S), 0)
    assert expiries == {("a",): 30 * S}
