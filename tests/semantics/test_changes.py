"""What a set of changes makes: by hand, and as laws."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lodestream.model.table import Changes
from lodestream.semantics.changes import DELETES, as_of, table_of, unfit

LAST = Changes(("id",), ("at",))
HISTORY = Changes(("id",), ("at",), history=True)


def change(at, value=None, *, key=1, position=None, source="a", deletes=False):
    position = at if position is None else position
    return {"id": key, "at": at, "v": value, "_source": source, "_position": position, DELETES: deletes}


def values(rows):
    return [(row["id"], row["v"]) for row in rows]


def spans(rows):
    return [(row["v"], row["valid_from"], row["valid_to"]) for row in rows]


def test_the_highest_sequence_stands_whatever_came_last():
    assert values(table_of([change(3, "new"), change(1, "old")], LAST)) == [(1, "new")]


def test_a_deletion_outlives_what_is_older():
    assert table_of([change(3, deletes=True), change(1, "old")], LAST) == []
    assert values(table_of([change(3, deletes=True), change(4, "again")], LAST)) == [(1, "again")]


def test_of_one_sequence_the_last_position_stands():
    assert values(table_of([change(1, "b", position=9), change(1, "a", position=2)], LAST)) == [(1, "b")]
    assert values(table_of([change(1, "b", source="b", position=0), change(1, "a", position=9)], LAST)) == [(1, "b")]
    both = Changes(("id",), ("at", "v"))
    assert values(table_of([change(1, "z", position=0), change(1, "y", position=5)], both)) == [(1, "z")]


def test_history_splits_where_an_older_change_comes_later():
    first, last = change(1, "a"), change(5, "c")
    assert spans(table_of([first, last], HISTORY)) == [("a", 1, 5), ("c", 5, None)]
    assert spans(table_of([first, last, change(3, "b")], HISTORY)) == [("a", 1, 3), ("b", 3, 5), ("c", 5, None)]


def test_a_deletion_ends_a_span():
    rows = [change(1, "a"), change(4, deletes=True), change(9, "b")]
    assert spans(table_of(rows, HISTORY)) == [("a", 1, 4), ("b", 9, None)]
    assert spans(table_of([*rows, change(6, deletes=True), change(5, "c")], HISTORY)) == [
        ("a", 1, 4), ("c", 5, 6), ("b", 9, None),
    ]  # fmt: skip


def test_what_held_at_a_moment():
    rows = table_of([change(1, "a"), change(4, deletes=True), change(9, "b")], HISTORY)
    assert [values(as_of(rows, when)) for when in (0, 1, 3, 4, 8, 9, 99)] == [
        [], [(1, "a")], [(1, "a")], [], [], [(1, "b")], [(1, "b")],
    ]  # fmt: skip
    assert as_of(rows, None) == []


def test_a_row_without_key_or_sequence_is_no_change():
    assert unfit({"id": None, "at": None}, LAST) == ("null_key:id", "null_sequence:at")
    assert unfit({"id": 0, "at": 0}, LAST) == ()


CHANGES = st.lists(
    st.builds(
        change, st.integers(0, 6), st.sampled_from("abc"), key=st.integers(1, 3), position=st.integers(0, 99),
        deletes=st.booleans(),
    ),
    max_size=12, unique_by=lambda row: row["_position"],
)  # fmt: skip


@given(CHANGES, st.randoms(use_true_random=False))
def test_order_of_arrival_decides_nothing(rows, rng):
    for declared in (LAST, HISTORY):
        shuffled = rng.sample(rows, len(rows))
        assert sorted(table_of(shuffled, declared), key=repr) == sorted(table_of(rows, declared), key=repr)


@given(CHANGES)
def test_the_open_rows_of_a_history_are_the_last_values(rows):
    still = [row for row in table_of(rows, HISTORY) if row["valid_to"] is None]
    assert sorted(values(still)) == sorted(values(table_of(rows, LAST)))


@given(CHANGES, st.integers(-1, 7))
def test_a_history_says_at_any_moment_what_the_changes_until_then_made(rows, when):
    until = [row for row in rows if row["at"] <= when]
    assert sorted(values(as_of(table_of(rows, HISTORY), when))) == sorted(values(table_of(until, LAST)))


@given(CHANGES)
def test_spans_of_a_key_do_not_overlap(rows):
    table = sorted(table_of(rows, HISTORY), key=lambda row: (row["id"], row["valid_from"]))
    for one, after in itertools.pairwise(table):
        assert one["id"] != after["id"] or one["valid_to"] <= after["valid_from"]
    assert all(row["valid_to"] is None or row["valid_from"] < row["valid_to"] for row in table)
