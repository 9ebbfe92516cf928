"""What Spark's offset log says of a batch: its watermarks, and how far it reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lodestream.engines.embedded.checkpoints import Checkpoint
from lodestream.engines.spark.source import next_watermark, version_of
from lodestream.model.steps import Aggregation, Dedupe, FlowPlan, Watermark

PARTITIONS = "spark.sql.shuffle.partitions"
_PATIENCE_S, _LOOK_S = 10.0, 0.05


@dataclass(frozen=True, slots=True)
class Marks:
    """W(n-1), W(n), and the versions of the tables that a batch reads up to."""

    late_us: int
    evict_us: int
    upto: int = -1
    joined_upto: int = -1


def is_stateful(plan: FlowPlan) -> bool:
    """Whether an operator of Spark keeps state, and with it the watermark."""
    return plan.step(Aggregation) is not None or plan.step(Dedupe) is not None or plan.join is not None


def ranges(checkpoint: Checkpoint, number: int, plan: FlowPlan, info: Mapping[str, Any]) -> tuple[Marks, Marks]:
    """Of a query's batch before one, and of that one.

    Args:
        checkpoint: the query's.
        number: Spark's number of the batch.
        plan: the flow.
        info: what the flow's last commit says.
    """
    marks, before = _marks(checkpoint, number, plan, info), _marks(checkpoint, number - 1, plan, info)
    upto, joined_upto = max(marks.upto, before.upto), max(marks.joined_upto, before.joined_upto)
    return before, replace(marks, upto=upto, joined_upto=joined_upto)


def reads_commits(checkpoint: Checkpoint) -> bool:
    """Whether the query has read tables above with the lake's own reader."""
    number = checkpoint.number_of(checkpoint.started)
    return number >= 0 and any('"upto"' in offset for offset in _offset_log(checkpoint, number)[2:])


def partitions_of(checkpoint: Checkpoint) -> int | None:
    """Into how many parts Spark has split the query's state, for good; None when it has none yet."""
    number = checkpoint.number_of(checkpoint.started)
    if number < 0:
        return None
    return int(json.loads(_offset_log(checkpoint, number)[1])["conf"][PARTITIONS])


def _marks(checkpoint: Checkpoint, number: int, plan: FlowPlan, info: Mapping[str, Any]) -> Marks:
    """What the log says; where no operator of Spark keeps the watermark, it is kept here by the same rule."""
    if number < 0:
        return Marks(0, 0)
    _, told, *offsets = _offset_log(checkpoint, number)
    # In the order in which `stream_of` reads them: first the upstream table, last the one that is joined.
    upto = [version_of(offset) for offset in (offsets[0], *(offsets[-1:] if plan.join is not None else ()))]
    if is_stateful(plan):
        before = json.loads(_offset_log(checkpoint, number - 1)[1])["batchWatermarkMs"] if number else 0
        return Marks(int(before) * 1000, int(json.loads(told)["batchWatermarkMs"]) * 1000, *upto)
    late_us, watermark = info.get("watermark_us") or 0, plan.step(Watermark)
    if watermark is None:
        return Marks(late_us, late_us, *upto)
    return Marks(late_us, next_watermark(late_us, info.get("max_event_us"), watermark.event_time.delay_us), *upto)


def _offset_log(checkpoint: Checkpoint, number: int) -> list[str]:
    """What Spark has written of a batch; a folder that is not of this machine may show it a moment later."""
    path, deadline = os.path.join(checkpoint.path, "offsets", str(number)), time.monotonic() + _PATIENCE_S
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    with open(path, encoding="utf-8") as file:
        return file.read().rstrip("\n").split("\n")
