"""Spans are numbered as sessions the way that merging them one by one would."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lodestream.engines.embedded.sessions import numbered_sessions

GAP = 10
times = st.integers(-60, 60)
rows = st.tuples(st.sampled_from([None, "a", "b"]), times)


def merged(spans: list[tuple[str | None, int, int]]) -> list[list[int]]:
    """Numbers of the spans that are one session each, found by merging until nothing touches any more."""
    sessions = [({i}, *span) for i, span in enumerate(spans)]
    while True:
        for one in sessions:
            for other in sessions:
                if one is not other and one[1] == other[1] and one[2] <= other[3] and other[2] <= one[3]:
                    sessions.remove(one)
                    sessions.remove(other)
                    sessions.append((one[0] | other[0], one[1], min(one[2], other[2]), max(one[3], other[3])))
                    break
            else:
                continue
            break
        else:
            return sorted(sorted(found[0]) for found in sessions)


def spans_of(given: list[tuple[str | None, int]]) -> list[tuple[str | None, int, int]]:
    """The sessions of some rows by themselves: what one batch, or the state, holds."""
    alone = [(group, at, at + GAP) for group, at in given]
    return [
        (alone[found[0]][0], min(alone[i][1] for i in found), max(alone[i][2] for i in found))
        for found in merged(alone)
    ]


def numbered(spans: list[tuple[str | None, int, int]], new: list[bool]) -> list[list[int]]:
    groups = [pa.chunked_array([pa.array([g for g, _, _ in spans], pa.string())])]
    start, ends = (np.array([span[i] for span in spans], np.int64) for i in (1, 2))
    session = numbered_sessions(groups, start, ends, np.array(new, np.bool_))
    found: dict[int, list[int]] = {}
    for i, number in enumerate(session.tolist()):
        found.setdefault(number, []).append(i)
    return sorted(found.values())


@given(st.lists(rows, max_size=12))
def test_rows_of_one_batch(given: list[tuple[str | None, int]]) -> None:
    spans = [(group, at, at + GAP) for group, at in given]
    assert numbered(spans, [False] * len(spans)) == merged(spans)


@given(st.lists(rows, max_size=12), st.lists(rows, max_size=12))
@example([("a", 0), ("a", 8), ("a", 16), ("a", 24), ("a", 32)], [("a", 2), ("a", 30)])
def test_new_sessions_and_those_of_the_state(
    state: list[tuple[str | None, int]], batch: list[tuple[str | None, int]]
) -> None:
    old, new = spans_of(state), spans_of(batch)
    assert numbered([*old, *new], [False] * len(old) + [True] * len(new)) == merged([*old, *new])


def test_looking_back_to_the_span_before_is_not_enough() -> None:
    spans = [("a", 0, 42), ("a", 2, 12), ("a", 30, 40)]
    assert numbered(spans, [False, True, True]) == [[0, 1, 2]]
    assert numbered(spans, [True, True, True]) != [[0, 1, 2]]


@pytest.mark.parametrize("count", [0, 1])
def test_without_groups(count: int) -> None:
    start = np.arange(count, dtype=np.int64)
    assert len(numbered_sessions([], start, start + GAP, np.zeros(count, np.bool_))) == count
