"""The streaming part of a flow: the judged rows, and beside them what Spark's stateful operators let through.

Spark's dedup and windows drop rows without a word. So the same query carries every row past them too, and the batch
writer finds by comparison which rows did not come out and why. Branches are told apart by `BRANCH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.kept import is_folded
from lodestream.engines.spark.chained import MARKER
from lodestream.engines.spark.enrich import annotated
from lodestream.engines.spark.expressions import quoted, value
from lodestream.engines.spark.joins import KEPT_THERE, judged_there, paired
from lodestream.engines.spark.lookups import AMBIGUOUS, with_lookups
from lodestream.engines.spark.marks import PARTITIONS
from lodestream.engines.spark.rows import FATE, WINDOW_ERRORS, judged, with_window_errors
from lodestream.engines.spark.seeds import ALONE, SEED_ASIDE
from lodestream.engines.spark.source import ARRIVED
from lodestream.model.steps import Aggregation, Annotate, Dedupe, FlowPlan, Watermark
from lodestream.model.table import Session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BRANCH, ROWS, FIRSTS, WINDOWS, OTHERS, PAIRS, PULSE = "_branch", 0, 1, 2, 3, 4, 5
"""Which branch a row of the stream is of: every input row, the firsts of their keys by position, finished windows;
every row of the stream that is joined, pairs; rows without a meaning."""
WINDOW = "_window"
"""A finished window's columns."""

TIME = "_event_time"
"""Spark's event-time column."""

_ASIDE, _HASH, _PULSE = "_aside", "_hash", "1 hour"
_DELAY = "spark.watermarkDelayMs"
"""Where Spark keeps the delay of an event-time column; dedup keeps its keys for that long."""


@dataclass(frozen=True)
class Beside:
    """What a query reads beside the rows of its flow.

    Attributes:
        markers: of a flow that follows the watermark of another: what `watermarks_of` gives, with `TIME`.
        joined: the other stream of a join.
        lookups: what `pinned_tables` gives, of a flow whose looked-up rows are counted or joined.
        seed, joined_seed: rows that only make state, of a flow that took the table over, and those of the other stream.
        partitions: into how many parts the state is split; None for what the session says.
    """

    markers: DataFrame | None = None
    joined: DataFrame | None = None
    lookups: tuple[DataFrame, ...] = ()
    seed: DataFrame | None = None
    joined_seed: DataFrame | None = None
    partitions: int | None = None


def stream_of(frame: DataFrame, plan: FlowPlan, beside: Beside) -> DataFrame:
    """What the batch writer is given.

    Args:
        frame: the input, as a streaming frame.
        plan: the flow.
        beside: what else there is.
    """
    from pyspark.sql import functions as fn

    rows = judged(frame, plan)
    watermark = plan.step(Watermark)
    dedupe = plan.step(Dedupe)
    window = plan.step(Aggregation)
    branches = [rows.withColumn(BRANCH, fn.lit(ROWS))]
    if watermark is None or (dedupe is None and window is None and beside.joined is None):
        return branches[0]
    column = watermark.event_time.column
    passing = rows.where(f"{FATE} IS NULL")
    if beside.seed is not None:
        passing = passing.unionByName(beside.seed, allowMissingColumns=True)
    passing = passing.withColumn(TIME, fn.col(quoted(column)))
    if beside.markers is None:
        passing = passing.withWatermark(TIME, f"{watermark.event_time.delay_us} microseconds")
    else:  # the event time of a union is that of its first part
        passing = beside.markers.unionByName(passing.withColumn(MARKER, fn.lit(False)), allowMissingColumns=True)
    if dedupe is not None:
        passing = _firsts(passing, dedupe, beside.partitions)
        branches.append(passing.select("_source", "_position", fn.lit(FIRSTS).alias(BRANCH)))
    if beside.lookups:
        passing = with_lookups(passing, plan, beside.lookups)
    if is_folded(plan):
        if dedupe is None:  # without an operator that waits for it Spark does not move the watermark when it is idle
            hours = passing.groupBy(fn.window(TIME, _PULSE)).count()
            branches.append(hours.select(fn.lit(PULSE).alias(BRANCH)))
    elif window is not None:
        branches.append(windows_made(passing, window))
    if beside.joined is not None:
        assert plan.join is not None
        there = judged_there(beside.joined, plan.join)
        passing = passing.where(f"NOT {AMBIGUOUS}") if beside.lookups else passing
        passing = _enriched(passing, plan, watermark)
        branches.append(there.select(*KEPT_THERE).withColumn(BRANCH, fn.lit(OTHERS)))
        if beside.joined_seed is not None:
            there = judged_there(beside.joined_seed, plan.join).unionByName(there, allowMissingColumns=True)
        branches.append(paired(passing, there, plan, TIME).withColumn(BRANCH, fn.lit(PAIRS)))
    return reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), branches)


def _firsts(passing: DataFrame, step: Dedupe, partitions: int | None) -> DataFrame:
    """The first row of each key; in a batch that is the first in arrival order, whatever order tasks end in.

    The rows are split as the state is, or Spark would split them once more, and forget their order.
    """
    from pyspark.sql import functions as fn

    within = fn.col(TIME).alias(TIME, metadata={_DELAY: step.expiry_us // 1000})
    keys = [*step.dedup.keys, *([ALONE] if ALONE in passing.columns else [])]
    order = [ARRIVED] if ARRIVED in passing.columns else []
    partitions = partitions or int(str(passing.sparkSession.conf.get(PARTITIONS)))
    others = [fn.col(quoted(name)) for name in passing.columns if name != TIME]
    spread = passing.select(*others, within).repartition(partitions, *map(quoted, keys))
    return spread.sortWithinPartitions(*order, "_source", "_position").dropDuplicatesWithinWatermark(keys)


def _enriched(passing: DataFrame, plan: FlowPlan, watermark: Watermark) -> DataFrame:
    """The rows that in-line enrichers let through, with their columns; the batch writer asks them again for reasons."""
    from pyspark.sql import functions as fn

    enrichers = [step for step in plan.steps if isinstance(step, Annotate)]
    if not enrichers:
        return passing
    rows = annotated(passing, enrichers).where(f"{FATE} IS NULL")
    delay = {_DELAY: watermark.event_time.delay_us // 1000}  # a function over Arrow gives plain columns back
    others = [fn.col(quoted(name)) for name in rows.columns if name != TIME]
    return rows.select(*others, fn.col(TIME).alias(TIME, metadata=delay))


def windows_made(passing: DataFrame, step: Aggregation) -> DataFrame:
    """Windows as Spark finishes them, each whole in `WINDOW`, of rows with `TIME`.

    Rows that err in a group or a measure still move the watermark, so they are grouped apart instead of filtered out;
    what they err on is NULL. So are markers, and rows whose lookup is ambiguous.
    """
    from pyspark.sql import functions as fn

    needed = sorted({column for _, measure in step.measures for column in measure.columns})
    groups = [f"_group{i}" for i in range(len(step.group_by))]
    items = [f"CASE WHEN NOT {_ASIDE} THEN {quoted(name)} END AS {quoted(name)}" for name in needed]
    items += [f"{value(e)} AS {name}" for name, (_, e) in zip(groups, step.group_by, strict=True)]
    if WINDOW_ERRORS not in passing.columns:
        passing = with_window_errors(passing, step)
    apart = [name for name in (MARKER, AMBIGUOUS, SEED_ASIDE) if name in passing.columns]
    apart.append(f"size({WINDOW_ERRORS}) > 0")
    aside = " OR ".join(f"coalesce({condition}, false)" for condition in apart)
    marked = passing.withColumn(_ASIDE, fn.expr(aside))
    marked = marked.withColumn(_HASH, _position_hash()("_source", "_position"))
    marked = marked.selectExpr(*items, TIME, _ASIDE, _HASH)
    if isinstance(step.window, Session):
        span = fn.session_window(TIME, f"{step.window.gap_us} microseconds").alias("_span")
    else:
        slide = f"{step.window.step_us} microseconds"
        span = fn.window(TIME, f"{step.window.every_us} microseconds", slide).alias("_span")
    measures = [fn.expr(measure.text).alias(f"_measure{i}") for i, (_, measure) in enumerate(step.measures)]
    made = marked.groupBy(span, *groups, _ASIDE).agg(
        *measures, fn.expr("count(1)").alias("_rows"), fn.expr(f"bit_xor({_HASH})").alias("_digest")
    )
    columns = ["_span.start AS window_start", "_span.end AS window_end"]
    columns += [f"{made_as} AS {quoted(name)}" for made_as, (name, _) in zip(groups, step.group_by, strict=True)]
    columns += [f"_measure{i} AS {quoted(name)}" for i, (name, _) in enumerate(step.measures)]
    shown = made.selectExpr(*columns, "_rows", "_digest", _ASIDE)
    names = ", ".join(quoted(name) for name in shown.columns if name != _ASIDE)
    return shown.selectExpr(f"CASE WHEN NOT {_ASIDE} THEN struct({names}) END AS {WINDOW}", f"{WINDOWS} AS {BRANCH}")


def _position_hash() -> Any:
    """A UDF: the hash of a row's position, as `model.digest` has it."""
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql.functions import pandas_udf

    from lodestream.model.digest import position_digest

    def hashed(source, position):  # type: ignore[no-untyped-def]
        found = position_digest(pa.array(source, pa.string()), pa.array(position, pa.int64()))
        return pd.Series(found.view("int64"))

    hashed.__annotations__ = {"source": pd.Series, "position": pd.Series, "return": pd.Series}
    return pandas_udf(hashed, "bigint")
