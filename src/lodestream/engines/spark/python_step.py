"""A user's function on Spark: called with the whole batch in one of Spark's Python workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.python_step import DROPPED, PythonFunction, call
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.rows import GIVEN, STEP_FATE, STEP_HITS, given_columns
from lodestream.engines.spark.source import ARRIVED
from lodestream.engines.spark.workers import with_columns
from lodestream.model.arrow import to_arrow
from lodestream.model.steps import FlowPlan, ReadTable, RunPython
from lodestream.model.table import META_COLUMNS
from lodestream.model.types import STRING, Column, parse_type

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Find = Callable[[str], PythonFunction]


def called(frame: DataFrame, plan: FlowPlan, step: RunPython, functions: Find) -> DataFrame:
    """Every input row with what the function made of it, or with its fate.

    The function sees the whole batch, in order of arrival, as on the embedded engine: what it gives may depend on more
    than a row. So there is one task.

    Args:
        frame: the input, as `rows.judged` takes it.
        plan: the flow.
        step: the function, and the columns that it gives back.
        functions: finds it; can be sent to other processes.
    """
    first, given = plan.steps[0], given_columns(plan)
    assert isinstance(first, ReadTable)
    arrives = pa.schema([field.with_nullable(True) for field in to_arrow(first.schema) if field.name in given])
    kept = [name for name in given if name != "_raw"]
    beside = [name for name in frame.columns if name not in given]
    whole = frame.selectExpr(f"struct({', '.join(map(quoted, kept))}) AS {GIVEN}", *map(quoted, frame.columns))
    shown = whole.select(GIVEN, *(quoted(c) for c in META_COLUMNS if c != "_batch"), *map(quoted, beside))
    made = [*step.schema, Column(STEP_FATE, STRING), Column(STEP_HITS, parse_type("array<string>"))]
    order = [(name, "ascending") for name in (ARRIVED, "_source", "_position") if name in frame.columns]
    schema = with_columns(shown, made)
    names = schema.names

    def run(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        arrived = list(pieces)
        if arrived:
            rows = pa.Table.from_batches(arrived).sort_by(order)
            yield from _apply(rows, arrives, step, functions).select(names).to_batches()

    return whole.repartition(1).mapInArrow(run, schema)


def _apply(rows: pa.Table, given: pa.Schema, step: RunPython, functions: Find) -> pa.Table:
    """N rows with the columns that the function gives, its fates and reasons; runs in a worker."""
    found = call(conform(rows, given), step, functions(step.step.function))
    places = np.full(len(rows), -1, np.int64)
    places[found.numbers] = np.arange(len(found.numbers))
    taken = pa.array(places, mask=places < 0)
    ingested = pc.coalesce(_taken(found.rows, "_ingest_time", taken), rows.column("_ingest_time").combine_chunks())
    rows = rows.drop_columns([name for name in given.names if name not in ("_source", "_position")])
    rows = rows.append_column("_ingest_time", ingested)
    for name in step.schema.names:
        rows = rows.append_column(name, _taken(found.rows, name, taken))
    fates: list[str | None] = [None] * len(rows)
    hits: list[list[str] | None] = [None] * len(rows)
    for i, reasons in found.failed:
        fates[i], hits[i] = "quarantine", reasons
    for i in np.flatnonzero(found.gone).tolist():
        fates[i], hits[i] = "dropped", [DROPPED]
    rows = rows.append_column(STEP_FATE, pa.array(fates, pa.string()))
    return rows.append_column(STEP_HITS, pa.array(hits, pa.list_(pa.string())))


def _taken(rows: pa.Table, name: str, numbers: pa.Array) -> pa.Array:
    return rows.column(name).combine_chunks().take(numbers)
