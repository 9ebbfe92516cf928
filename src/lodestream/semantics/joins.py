"""Two streams joined by key and distance in event time: Spark's stream-stream join with a watermark on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from lodestream.model.table import Join
from lodestream.semantics.dedup import Key, key_of
from lodestream.semantics.watermark import Watermark

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row whose partner may still come, its event time in microseconds, and whether it has had one."""

    row: Row
    time_us: int
    matched: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """The rows of both sides that wait, in order of arrival."""

    here: tuple[Waiting, ...] = ()
    there: tuple[Waiting, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """What one batch of a join gave.

    Attributes:
        pairs: (row here, row there), None there for a row of a left join whose time is over without a partner.
        late: rows of each side at or before W(n-1), which meet nobody.
        alone: rows of each side whose time is over without a partner and that are in no pair.
        after: what waits after the batch.
    """

    pairs: tuple[tuple[Row, Row | None], ...]
    late: tuple[tuple[Row, ...], tuple[Row, ...]]
    alone: tuple[tuple[Row, ...], tuple[Row, ...]]
    after: Held


def join_streams(
    here: Sequence[tuple[Row, int]], there: Sequence[tuple[Row, int]], held: Held, mark: Watermark, join: Join
) -> Joined:
    """Join one batch of both sides with each other and with the rows that wait.

    Rows meet when their keys are equal, none of them NULL, and `low_us` <= time there - time here <= `high_us`. A row
    waits until the watermark, which is the lower one of both sides, rules out every partner that is to come.

    Args:
        here: (row, event time in microseconds) of the batch, in order of arrival.
        there: the same of the other side.
        held: what waited after the batch before.
        mark: the batch's watermarks.
        join: which keys and which distance.
    """
    late_here = tuple(row for row, time_us in here if time_us <= mark.late_us)
    late_there = tuple(row for row, time_us in there if time_us <= mark.late_us)
    old_here, old_there = len(held.here), len(held.there)
    left = [*held.here, *(Waiting(row, time_us) for row, time_us in here if time_us > mark.late_us)]
    right = [*held.there, *(Waiting(row, time_us) for row, time_us in there if time_us > mark.late_us)]
    met = [
        (i, j)
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if (i >= old_here or j >= old_there) and _meet(one, other, join)
    ]
    pairs: list[tuple[Row, Row | None]] = [(left[i].row, right[j].row) for i, j in met]
    left_met, right_met = {i for i, _ in met}, {j for _, j in met}
    left = [replace(one, matched=one.matched or i in left_met) for i, one in enumerate(left)]
    right = [replace(one, matched=one.matched or j in right_met) for j, one in enumerate(right)]
    still_here = [one.time_us + join.high_us > mark.evict_us for one in left]
    still_there = [one.time_us - join.low_us > mark.evict_us for one in right]
    alone_here = tuple(one.row for one, still in zip(left, still_here, strict=True) if not (still or one.matched))
    alone_there = tuple(one.row for one, still in zip(right, still_there, strict=True) if not (still or one.matched))
    if join.kind == "left":
        pairs += [(row, None) for row in alone_here]
        alone_here = ()
    after = Held(tuple(compress(left, still_here)), tuple(compress(right, still_there)))
    return Joined(tuple(pairs), (late_here, late_there), (alone_here, alone_there), after)


def _meet(here: Waiting, there: Waiting, join: Join) -> bool:
    keys: list[Key] = [
        key_of([here.row[name] for name, _ in join.on]),
        key_of([there.row[name] for _, name in join.on]),
    ]
    return None not in keys[0] and keys[0] == keys[1] and join.low_us <= there.time_us - here.time_us <= join.high_us
