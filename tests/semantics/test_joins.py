"""The rules of a stream-stream join, one at a time."""

from lodestream.model.table import EventTime, Join, TableName
from lodestream.semantics.joins import Held, join_streams
from lodestream.semantics.watermark import Watermark

S = 1_000_000


def run(batches, kind="inner", low_s=-5, high_s=10, delay_s=0):
    """Pairs and rows left alone by batch; a batch is (rows here, rows there), a row (key, name, seconds)."""
    join = Join(TableName("silver", "b"), kind, (("k", "k"),), EventTime("t", 0), low_s * S, high_s * S, (("n", "m"),))
    held, mark, newest, found = Held(), Watermark(), [None, None], []
    for sides in batches:
        rows = [[({"k": key, "n": name}, round(time * S)) for key, name, time in side] for side in sides]
        joined = join_streams(*rows, held, mark, join)
        pairs = sorted(here["n"] + (there["n"] if there else "-") for here, there in joined.pairs)
        alone = sorted(row["n"] for side in joined.alone for row in side)
        late = sorted(row["n"] for side in joined.late for row in side)
        found.append((pairs, alone, late))
        held = joined.after
        for i in (0, 1):
            newest[i] = max([t for _, t in rows[i]] + [newest[i]] * (newest[i] is not None), default=None)
        reached = [] if None in newest else [min(newest) - delay_s * S]
        mark = mark.after(reached, 0)
    return found


def pairs(batches, **settings):
    return [one[0] for one in run(batches, **settings)]


def test_rows_meet_within_the_bounds_which_belong_to_it():
    here = [("k", "a", 100)]
    there = [("k", "1", 95), ("k", "2", 94.999999), ("k", "3", 110), ("k", "4", 110.000001), ("x", "5", 100)]
    assert pairs([(here, there)]) == [["a1", "a3"]]


def test_whoever_comes_first_waits_for_the_other():
    assert pairs([([("k", "a", 10)], []), ([], [("k", "1", 12)]), ([("k", "b", 11)], [])]) == [[], ["a1"], ["b1"]]


def test_null_meets_nobody():
    assert pairs([([(None, "a", 1)], [(None, "1", 1)])]) == [[]]


def test_a_row_meets_many():
    assert pairs([([("k", "a", 1), ("k", "b", 2)], [("k", "1", 1)]), ([], [("k", "2", 3)])]) == [
        ["a1", "b1"],
        ["a2", "b2"],
    ]


def test_a_side_without_rows_holds_the_watermark():
    """So nothing is late and nothing leaves, however far the other side has come."""
    assert run([([("k", "a", 1)], []), ([("k", "z", 9_999)], []), ([("k", "b", 1)], []), ([], [])])[-1] == ([], [], [])


def test_a_row_at_the_late_limit_meets_nobody_and_a_microsecond_after_it_does():
    batches = [
        ([("z", "z", 50)], [("z", "0", 50)]),
        ([], []),
        ([("k", "a", 50), ("k", "b", 50.000001)], [("k", "1", 51)]),
    ]
    assert run(batches)[2] == (["b1"], [], ["a"])


def test_a_row_leaves_when_its_last_partner_would_be_late():
    """Here until time there can no longer be within 10 s after it; there until 5 s before it is over."""
    batches = [([("k", "a", 40)], [("k", "1", 40)]), ([("z", "z", 50)], [("y", "y", 50)]), ([], []), ([], [])]
    batches[0] = ([("k", "a", 40)], [("q", "1", 40)])
    assert [alone for _, alone, _ in run(batches)] == [[], [], ["1", "a"], []]


def test_a_left_join_keeps_who_met_nobody_when_its_time_is_over():
    batches = [([("k", "a", 40), ("k", "b", 41)], [("k", "1", 36)]), ([("z", "z", 90)], [("y", "y", 90)]), ([], [])]
    assert run(batches, kind="left") == [(["a1", "b1"], [], []), ([], [], []), ([], [], [])]
    batches[0] = ([("k", "a", 40), ("k", "b", 41)], [("k", "1", 35.5)])
    assert pairs(batches, kind="left") == [["a1"], [], ["b-"]]


def test_a_row_may_meet_in_the_batch_in_which_it_leaves():
    """W(n) takes state away, W(n-1) makes late."""
    batches = [([("k", "a", 40)], [("z", "0", 40)]), ([("z", "z", 90)], [("z", "1", 90)]), ([], [("k", "2", 45)])]
    assert [(met, late) for met, _, late in run(batches)][2] == (["a2"], [])
