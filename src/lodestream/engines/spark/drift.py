"""Drift on Spark: a batch whose rows show new columns is read again with those, and they are committed with it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.drift import drifted, evolved, stored_columns
from lodestream.engines.spark.rows import judged
from lodestream.engines.spark.source import ARRIVED, FOUND, PlannedSource, Recipe
from lodestream.engines.spark.stream import BRANCH, ROWS
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.types import Schema
from lodestream.model.widening import unify_schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MakeRecipe = Callable[[FlowPlan], Recipe]


@dataclass(frozen=True)
class Drifted:
    """A batch as it is to be taken in.

    Attributes:
        stream: the micro-batch.
        plan: the flow, with the columns that its source was decoded to.
        schema: the table's columns.
    """

    stream: DataFrame
    plan: FlowPlan
    schema: Schema


def decoding(plan: FlowPlan, stored: Schema) -> FlowPlan:
    """The flow with the columns that its source is decoded to, by those that its table has now."""
    first = plan.steps[0]
    if not isinstance(first, ReadSource):
        return plan
    return _with(plan, stored_columns(first.schema, stored, plan.schema))


def with_drift(
    stream: DataFrame, batch: BatchPlan, read: FlowPlan, planned: FlowPlan, stored: Schema, make: MakeRecipe
) -> Drifted:
    """The batch with the columns that drift found in it; what was decoded without them is read again.

    Args:
        stream: the micro-batch, kept in memory by the caller.
        batch: its plan.
        read: the flow with the columns that the query decodes to.
        planned: the flow as it was planned.
        stored: the table's columns before the batch.
        make: makes what a reader needs.

    Raises:
        ConfigError: the table would have more than a thousand columns.
    """
    if FOUND not in stream.columns or not batch.ranges:
        return Drifted(stream, read, stored)
    plan = decoding(planned, stored)
    if plan.steps[0] != read.steps[0]:  # the query began before columns came in
        stream = _again(stream, plan, batch.batch, make)
    found = _found(stream)
    if len(found):
        plan = _with(plan, drifted(_columns(plan), found))
        stream = _again(stream, plan, batch.batch, make)
    return Drifted(stream, plan, evolved(stored, _columns(plan)) or stored)


def _found(stream: DataFrame) -> Schema:
    """The columns that are new or wider, in order of first sight."""
    from pyspark.sql import functions as fn

    pieces = stream.where(f"{FOUND} IS NOT NULL").groupBy(FOUND)
    first = fn.expr(f"min(struct({ARRIVED}, _position))").alias("first")
    return unify_schemas(pickle.loads(row[FOUND]) for row in pieces.agg(first).orderBy("first").collect())


def _again(stream: DataFrame, plan: FlowPlan, batch: int, make: MakeRecipe) -> DataFrame:
    """The micro-batch with all its input rows read anew."""
    from pyspark.sql import functions as fn

    session, name = stream.sparkSession, plan.table.name
    source = PlannedSource.named(f"lodestream_{name.layer}_{name.name}_again", make(plan))
    session.dataSource.register(source)
    reader: Any = session.read.format(source.name()).option("batch", batch)
    rows = judged(reader.load(), plan).withColumn(BRANCH, fn.lit(ROWS))
    return rows.unionByName(stream.where(f"{BRANCH} <> {ROWS}"), allowMissingColumns=True)


def _columns(plan: FlowPlan) -> Schema:
    first = plan.steps[0]
    assert isinstance(first, ReadSource)
    return first.schema


def _with(plan: FlowPlan, columns: Schema) -> FlowPlan:
    first = plan.steps[0]
    assert isinstance(first, ReadSource)
    return replace(plan, steps=(replace(first, schema=columns), *plan.steps[1:]))
