"""Plans batches from what a cluster says of its partitions, without their messages, which tasks of an engine read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from lodestream.drivers.kafka_reader import Partition
from lodestream.model.batch import SourceRange

Since = Callable[[Sequence[Partition], int], Mapping[Partition, int]]
"""Tells of each partition the first offset with a message at or after a time in milliseconds, -1 for none."""

_FULL = 0.9


def shares(
    positions: Mapping[Partition, int], ends: Mapping[Partition, int], rows_max: int, now_ms: int, since: Since
) -> dict[Partition, int]:
    """How far the next batch goes in each partition that has more: an offset beyond its position.

    Partitions move on together by the time of their messages, as `Buffer.share` has it: each up to its first message
    after one moment, which is the latest with which no more than `rows_max` come together.

    Args:
        positions: where each partition is read to.
        ends: where each ends.
        rows_max: offsets in all; some of them may have no message.
        now_ms: the time of day; messages from the future are of now.
        since: asks the cluster.
    """
    behind = [one for one, end in ends.items() if end > positions[one]]
    least, most = ({one: found[one] for one in behind} for found in (positions, ends))
    before_ms, until_ms = -1, now_ms
    while _count(positions, most) > rows_max > _count(positions, least) / _FULL and until_ms - before_ms > 1:
        middle_ms = (before_ms + until_ms) // 2
        told = since(behind, middle_ms + 1)
        reached = {
            one: ends[one] if told[one] < 0 else min(max(told[one], positions[one]), ends[one]) for one in behind
        }
        if _count(positions, reached) <= rows_max:
            least, before_ms = reached, middle_ms
        else:
            most, until_ms = reached, middle_ms
    if _count(positions, most) <= rows_max:
        chosen = most
    elif _count(positions, least) >= _FULL * rows_max:
        chosen = least
    else:
        chosen = _between(least, most, rows_max - _count(positions, least))
    return {one: end for one, end in chosen.items() if end > positions[one]}


def cut_evenly(planned: SourceRange, rows_max: int) -> list[SourceRange]:
    """The range in parts of about the same size, of `rows_max` offsets at most."""
    size = planned.end - planned.start
    count = max(1, -(-size // rows_max))
    bounds = [planned.start + size * i // count for i in range(count + 1)]
    return [SourceRange(planned.unit, start, end, planned.facts) for start, end in pairwise(bounds)]


def _between(least: Mapping[Partition, int], most: Mapping[Partition, int], room: int) -> dict[Partition, int]:
    """As far as there is room for, in proportion: many messages have the same time."""
    total, found, left = _count(least, most), {}, room
    for one, end in most.items():
        more = min(left, -(-(end - least[one]) * room // total))
        found[one] = least[one] + more
        left -= more
    return found


def _count(starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> int:
    return sum(end - starts[one] for one, end in ends.items())
