"""Rows with equal keys are one row, within a span of event time: Spark's dropDuplicatesWithinWatermark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lodestream.semantics.watermark import Watermark

Key = tuple[Any, ...]
Verdict = Literal["output", "late", "duplicate"]
_NAN = math.nan  # tuples compare their members by identity first, so this one object equals itself


def key_of(values: Sequence[Any]) -> Key:
    """The key that `values` make: NULL equals NULL, NaN equals NaN, and 0.0 equals -0.0."""
    return tuple(_NAN if isinstance(v, float) and math.isnan(v) else v for v in values)


def deduplicate(
    rows: Sequence[tuple[Key, int]], expiries: Mapping[Key, int], mark: Watermark, within_us: int
) -> tuple[list[Verdict], dict[Key, int]]:
    """Judge the rows of one batch in arrival order.

    A row at or before W(n-1) is late, whatever its key, and leaves no trace. Else it is a duplicate while its key is
    remembered. Else it is output, and its key is remembered until a batch ends whose W(n) has reached its event time +
    `within_us`: to the next batch, a key that expired at or before its own W(n-1) is absent. A duplicate does not
    prolong that.

    Args:
        rows: (key, event time in microseconds), n.
        expiries: keys remembered from the batches before, with the watermark at which each may be forgotten.
        mark: this batch's watermarks.
        within_us: how long a key holds; by default the watermark's delay.

    Returns:
        n verdicts, and the keys remembered after the batch.
    """
    remembered = dict(expiries)
    verdicts: list[Verdict] = []
    for key, time_us in rows:
        if time_us <= mark.late_us:
            verdicts.append("late")
        elif key in remembered:
            verdicts.append("duplicate")
        else:
            remembered[key] = time_us + within_us
            verdicts.append("output")
    return verdicts, {key: expiry for key, expiry in remembered.items() if expiry > mark.evict_us}
