"""Window tables on Spark: the open windows lie in hot files that are swapped as a whole, the closed ones stand."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lodestream.engines.embedded.kept import is_folded
from lodestream.engines.spark.chained import windows_as_rows
from lodestream.engines.spark.enrich import annotated
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.files import HOT, reading
from lodestream.engines.spark.folded import Folding
from lodestream.engines.spark.rows import FATE, WINDOW_ERRORS, given_columns, judged, with_window_errors
from lodestream.engines.spark.source import ARRIVED
from lodestream.engines.spark.stream import TIME, WINDOW, windows_made
from lodestream.lake.layout import quarantine_name
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, Annotate, FlowPlan, ReadTable, Watermark
from lodestream.model.table import WINDOW_END, WINDOW_START

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.engines.spark.tables import Tables


def with_open(
    changed: DataFrame, table: DeltaTable, step: Aggregation, evict_us: int, reopened: Collection[int] = ()
) -> DataFrame:
    """The windows that a batch changed, and those that lie open beside them; `HOT` says which are open after it.

    Args:
        changed: windows in the table's columns.
        table: the table before the batch; what comes out replaces its hot files.
        step: the aggregation.
        evict_us: windows that end by then are closed.
        reopened: starts of closed windows that are made again elsewhere.
    """
    from pyspark.sql import functions as fn

    standing = table.hot_files()
    if standing:
        keys = [quoted(name) for name in (WINDOW_START, *(name for name, _ in step.group_by))]
        before = reading(changed.sparkSession, table.disk, table.path, standing, table.snapshot.metadata.schema)
        if reopened:
            before = before.where(f"NOT {_begins_in(reopened)}")
        both = before.selectExpr("*", "0 AS _age").unionByName(changed.selectExpr("*", "1 AS _age"))
        columns = ", ".join(quoted(name) for name in changed.columns)
        newest = fn.expr(f"max_by(struct({columns}), _age)").alias("_newest")
        changed = both.groupBy(*keys).agg(newest).selectExpr("_newest.*")
    return changed.selectExpr("*", f"unix_micros({quoted(WINDOW_END)}) > {evict_us} AS {HOT}")


def corrected(tables: Tables, plan: FlowPlan, batch: BatchPlan, reopened: Collection[int]) -> DataFrame:
    """Closed windows computed again from all rows of the table above that belong to them, those of the batch included.

    Args:
        tables: those of the lake.
        plan: a flow with `late: update`.
        batch: the batch whose late rows open them again.
        reopened: their starts, microseconds.
    """
    first, step, watermark = plan.steps[0], plan.step(Aggregation), plan.step(Watermark)
    assert isinstance(first, ReadTable)
    assert step is not None
    assert watermark is not None
    above = tables.at(first.table, batch.upto)
    if first.windows is not None:
        given = windows_as_rows(above, first, ARRIVED)
    else:
        given = above.selectExpr(*map(quoted, given_columns(plan)), f"_batch AS {ARRIVED}")
    rows = judged(given, plan).where(f"{FATE} IS NULL")
    rows = rows.selectExpr("*", f"{quoted(watermark.event_time.column)} AS {TIME}")
    span = f"unix_micros({TIME}) >= {min(reopened)} AND unix_micros({TIME}) < {max(reopened) + step.window.span_us}"
    rows = rows.where(span).join(_set_aside(tables, plan, batch), ["_source", "_position"], "left_anti")
    if is_folded(plan):
        enrichers = [one for one in plan.steps if isinstance(one, Annotate)]
        rows = with_window_errors(annotated(rows, enrichers), step) if enrichers else rows
        rows = rows.where(f"{FATE} IS NULL AND size({WINDOW_ERRORS}) = 0")
        return Folding(plan).correct(rows, frozenset(reopened)).where(_begins_in(reopened))
    windows = windows_made(rows, step).where(f"{WINDOW} IS NOT NULL").selectExpr(f"{WINDOW}.*")
    return windows.where(_begins_in(reopened))


def _set_aside(tables: Tables, plan: FlowPlan, batch: BatchPlan) -> DataFrame:
    """Positions of the rows that batches before have set aside and that nobody has taken in since."""
    from pyspark.sql import functions as fn

    entries = tables.at(quarantine_name(plan.table.name))
    entries = entries.where(f"_batch < {batch.batch} AND kind <> 'late_window'")
    last = entries.groupBy("_source", "_position").agg(fn.expr("max_by(kind, _batch)").alias("kind"))
    return last.where("kind <> 'resolved'").select("_source", "_position")


def _begins_in(starts: Collection[int]) -> str:
    return f"unix_micros({quoted(WINDOW_START)}) IN ({', '.join(map(str, sorted(starts)))})"
