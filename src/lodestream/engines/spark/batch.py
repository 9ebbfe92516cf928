"""One micro-batch: the fate of every row, then the quarantine commit and the main commit, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.rejects import QUARANTINE, rejected
from lodestream.engines.spark.enrich import annotated
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.joins import GIVEN_THERE, HERE, KEPT_THERE, THERE, alone_in, joined_in, output_of
from lodestream.engines.spark.lookups import looked_up
from lodestream.engines.spark.rows import (
    EVENT_US,
    FAILED,
    FATE,
    GIVEN,
    HITS,
    RAW_FATE,
    WARNED,
    WINDOW_ERRORS,
    aside,
    with_window_errors,
)
from lodestream.engines.spark.screen import screened
from lodestream.engines.spark.source import DETAIL, REASONS, RECORD
from lodestream.engines.spark.stream import BRANCH, FIRSTS, OTHERS, PAIRS, ROWS, WINDOW, WINDOWS
from lodestream.errors import ConfigError
from lodestream.lake.layout import table_path
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, Annotate, ApplyChanges, Dedupe, Expect, FlowPlan, LookUp, Watermark
from lodestream.model.table import Session
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_KEPT, _LATE_STARTS = "_first_of_key", "_late_starts"
_FATES = (FATE, HITS, WARNED, FAILED)
_KINDS = ("quarantine", "late", "duplicate", "dropped")


@dataclass
class Batch:
    """A batch with every row's fate decided.

    Attributes:
        output: rows that the table gets, finished windows or joined rows, in the table's columns but `_batch`; None for
            none.
        aside: rows for the quarantine, in its columns.
        counts: rows by fate, `rule:<name>` for broken rules.
        max_event_us: largest event time, None when no row got as far as the watermark.
    """

    output: DataFrame | None
    aside: DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    max_event_us: int | None = None


def decide(stream: DataFrame, plan: FlowPlan, batch: BatchPlan, lake: str, held: ExitStack, given: int = 0) -> Batch:
    """Decide a batch.

    Args:
        stream: the micro-batch of `stream_of`, kept in memory by the caller.
        plan: the flow.
        batch: the batch's plan.
        lake: root folder of the lake.
        held: lets go of what is kept in memory.
        given: how many rows the table of a join has been given before.

    Raises:
        ConfigError: a row does not meet a rule with `else: fail`.
    """
    rows = stream.where(f"{BRANCH} = {ROWS}")
    window = plan.step(Aggregation)
    watermark = plan.step(Watermark)
    rows = rows.selectExpr("*", f"cast(NULL AS string) AS {DETAIL}") if DETAIL not in rows.columns else rows
    if any(isinstance(step, Dedupe) for step in plan.steps):
        assert watermark is not None
        firsts = stream.where(f"{BRANCH} = {FIRSTS}").selectExpr("_source", "_position", f"true AS {_KEPT}")
        rows = rows.join(firsts, ["_source", "_position"], "left")
        late = f"unix_micros({quoted(watermark.event_time.column)}) <= {batch.late_us}"
        rows = aside(rows, late, "'late'", "array('late')")
        rows = aside(rows, f"{_KEPT} IS NULL", "'duplicate'", "array('duplicate')")
    for number, step in enumerate(step for step in plan.steps if isinstance(step, LookUp)):
        rows = _looked_up(rows, step, number, batch.pins, lake)
    enrichers = [step for step in plan.steps if isinstance(step, Annotate)]
    if enrichers:
        rows = keep(annotated(rows, enrichers), held)
    changes = plan.step(ApplyChanges)
    if changes is not None:
        rows = screened(rows, changes, batch.late_us)
    if window is not None:
        assert watermark is not None
        if WINDOW_ERRORS not in rows.columns:
            rows = with_window_errors(rows, window)
        rows = aside(rows, f"size({WINDOW_ERRORS}) > 0", "'quarantine'", WINDOW_ERRORS)
        rows = _windows_missed(rows, window, watermark.event_time.column, batch.late_us)
    if plan.join is not None:
        return _joined(rows, stream, plan, batch, held, given)
    counts, max_event_us = _counts(rows, stream, batch, rules=_rules(plan), windows=window is not None)
    output = None
    if window is None and counts.get("output"):
        output = rows.where(f"{FATE} IS NULL")
    elif window is not None and counts.pop("windows", 0):
        output = stream.where(f"{BRANCH} = {WINDOWS} AND {WINDOW} IS NOT NULL").select(f"{WINDOW}.*")
    return Batch(output, _quarantine(rows, batch, noted=window is not None), counts, max_event_us)


def _joined(rows: DataFrame, stream: DataFrame, plan: FlowPlan, batch: BatchPlan, held: ExitStack, given: int) -> Batch:
    """A batch of a join: the rows of both streams that do not go on, and what comes out at the other end of it."""
    others = stream.where(f"{BRANCH} = {OTHERS}").select(*KEPT_THERE)
    pairs = stream.where(f"{BRANCH} = {PAIRS}").select(HERE, THERE)
    late = f"{EVENT_US} <= {batch.late_us}"
    rows, others = (aside(side, late, "'late'", "array('late')") for side in (rows, others))
    both = rows.select(*_FATES, EVENT_US).unionByName(others.selectExpr(*_FATES, f"cast(NULL AS bigint) AS {EVENT_US}"))
    counts, max_event_us = _counts(both, stream, batch, rules=_rules(plan), windows=False)
    joined, alone = joined_in(pairs, plan), alone_in(pairs, plan)
    counts["output"], unmatched = joined.count(), alone.count()
    counts["dropped"] = counts.get("dropped", 0) + unmatched
    set_aside = _quarantine(rows, batch, noted=False)
    set_aside = set_aside.unionByName(_quarantine(others.withColumnRenamed(GIVEN_THERE, GIVEN), batch, noted=False))
    set_aside = set_aside.unionByName(
        alone.selectExpr(
            "_source", "_position", f"{batch.batch}L AS _batch", f"timestamp_micros({batch.clock_us}) AS _time",
            "'dropped' AS kind", "array('unmatched') AS reasons", "cast(NULL AS string) AS rule",
            "cast(NULL AS string) AS detail", "cast(NULL AS string) AS row", "cast(NULL AS binary) AS raw",
        )
    )  # fmt: skip
    counts = {kind: number for kind, number in counts.items() if number}
    if "output" not in counts:
        return Batch(None, set_aside, counts, max_event_us)
    ordered, output = output_of(joined, plan, given)
    held.callback(ordered.unpersist)
    return Batch(output, set_aside, counts, max_event_us)


def keep(frame: DataFrame, held: ExitStack) -> DataFrame:
    """The frame, kept in memory once it is computed and until `held` is closed."""
    held.callback(frame.persist().unpersist)
    return frame


def stored(frame: DataFrame, schema: Schema, plan: FlowPlan, batch: int, beside: Sequence[str] = ()) -> DataFrame:
    """The columns of the table, in their types, with `_batch` and the partition columns, and those of `beside`."""
    computed = {p.name: p.expression.text for step in plan.steps for p in getattr(step, "partitions", ())}
    have = set(frame.columns)
    items = []
    for column in schema:
        if column.name == "_batch":
            text = str(batch)
        elif column.name in have:
            text = quoted(column.name)
        else:
            text = computed.get(column.name, "NULL")
        items.append(f"cast({text} AS {column.type}) AS {quoted(column.name)}")
    return frame.selectExpr(*items, *map(quoted, beside))


def _looked_up(rows: DataFrame, step: LookUp, number: int, pins: Mapping[str, int], lake: str) -> DataFrame:
    """A left join to the pinned version; a key that stands there more than once sets the row aside."""
    table, many = step.lookup.table, f"_l{number}_many"
    there = rows.sparkSession.read.format("delta").option("versionAsOf", pins[str(table)]).load(table_path(lake, table))
    joined = looked_up(rows, there, step, number, many)
    return aside(joined, many, "'quarantine'", f"array('lookup_ambiguous', 'lookup:{table}')").drop(many)


def _windows_missed(rows: DataFrame, step: Aggregation, column: str, late_us: int) -> DataFrame:
    """Rows late for all their windows are late; those late for some go on, with the starts that they missed."""
    time = f"unix_micros({quoted(column)})"
    if isinstance(step.window, Session):  # what counts is the session that a row would be by itself
        rows = aside(rows, f"{time} + {step.window.gap_us} <= {late_us}", "'late'", "array('late')")
        return rows.selectExpr("*", f"cast(NULL AS array<bigint>) AS {_LATE_STARTS}")
    every, slide = step.window.every_us, step.window.step_us
    starts = f"transform(sequence(0, {-(-every // slide) - 1}), k -> {time} - pmod({time}, {slide}) - k * {slide})"
    late = f"filter({starts}, s -> s + {every} > {time} AND s + {every} <= {late_us})"
    on_time = f"exists({starts}, s -> s + {every} > {time} AND s + {every} > {late_us})"
    rows = aside(rows, f"NOT {on_time}", "'late'", "array('late')")
    return rows.selectExpr("*", f"CASE WHEN {FATE} IS NULL THEN array_sort({late}) END AS {_LATE_STARTS}")


def _counts(
    rows: DataFrame, stream: DataFrame, batch: BatchPlan, *, rules: Collection[str], windows: bool
) -> tuple[dict[str, int], int | None]:
    """Rows by fate and by broken rule, and the largest event time.

    It is the first thing computed, so it fills the cache for what follows.
    """
    from pyspark.sql import functions as fn

    noted = f"size({_LATE_STARTS}) > 0" if windows else "false"
    told = rows.selectExpr(
        f"coalesce(CASE {FATE} WHEN '{RAW_FATE}' THEN 'quarantine' ELSE {FATE} END, 'output') AS fate",
        f"concat(CASE WHEN {FATE} IN ('quarantine', 'dropped') THEN {HITS} ELSE array() END, {WARNED},"
        f" transform({FAILED}, x -> concat('fail:', x)), CASE WHEN {noted} THEN array('late_window:') ELSE array() END)"
        " AS reasons", EVENT_US if EVENT_US in rows.columns else f"cast(NULL AS bigint) AS {EVENT_US}",
    ).select("fate", EVENT_US, fn.expr("explode_outer(array_append(reasons, 'row:'))").alias("reason"))  # fmt: skip
    counts: dict[str, int] = {}
    newest: list[int] = []
    figures = (fn.count("*").alias("count"), fn.max(EVENT_US).alias("newest"))
    failed: list[tuple[str, int]] = []
    for row in told.groupBy("fate", "reason").agg(*figures).collect():
        prefix, _, rest = row["reason"].partition(":")
        number = int(row["count"])
        newest += [] if row["newest"] is None else [row["newest"]]
        if prefix == "row":
            counts[row["fate"]] = number
            counts["input"] = counts.get("input", 0) + number
        elif prefix == "fail":
            failed.append((rest, number))
        elif prefix == "late_window":
            counts["late_window"] = counts.get("late_window", 0) + number
        elif prefix in ("expect", "drop") and rest.split(":")[0] in rules:
            name = f"rule:{rest.split(':')[0]}"
            counts[name] = counts.get(name, 0) + number
    if failed:
        reason, number = min(failed)
        raise ConfigError(
            "an expectation with `else: fail` is not met; mend the rows or the rule",
            rule=reason, rows=number, batch=batch.batch,
        )  # fmt: skip
    if windows:
        counts["windows"] = stream.where(f"{BRANCH} = {WINDOWS} AND {WINDOW} IS NOT NULL").count()
    return counts, max(newest, default=None)


def _rules(plan: FlowPlan) -> set[str]:
    return {rule.name for step in plan.steps if isinstance(step, Expect) for rule in step.rules}


def _quarantine(rows: DataFrame, batch: BatchPlan, *, noted: bool) -> DataFrame:
    """What is set aside, in the quarantine's columns; the same texts as the embedded engine writes."""
    ddl = ", ".join(f"`{column.name}` {column.type}" for column in QUARANTINE)
    kinds = rows.where(f"{FATE} IN {_KINDS}").selectExpr(
        GIVEN, f"{FATE} AS kind", f"{HITS} AS reasons", "cast(NULL AS string) AS detail"
    )
    if noted:
        missed = rows.where(f"size({_LATE_STARTS}) > 0").selectExpr(
            GIVEN, "'late_window' AS kind", "array('late_window') AS reasons",
            f"concat('{{\"window_starts_us\": [', array_join(cast({_LATE_STARTS} AS array<string>), ', '), ']}}')"
            " AS detail",
        )  # fmt: skip
        kinds = kinds.unionByName(missed)
    number, clock_us = batch.batch, batch.clock_us

    def encoded(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            yield from _rejected(pa.table(piece), number, clock_us).to_batches()

    set_aside = kinds.mapInArrow(encoded, ddl)
    if REASONS not in rows.columns:
        return set_aside
    raw = rows.where(f"{FATE} = '{RAW_FATE}'").selectExpr(
        "_source", "_position", f"{number}L AS _batch", f"timestamp_micros({clock_us}) AS _time",
        "'quarantine' AS kind", f"{REASONS} AS reasons", "cast(NULL AS string) AS rule", f"{DETAIL} AS detail",
        "cast(NULL AS string) AS row", f"{RECORD} AS raw",
    )  # fmt: skip
    return set_aside.unionByName(raw)


def _rejected(rows: pa.Table, batch: int, clock_us: int) -> pa.Table:
    """Quarantine rows of any kinds. Runs in Spark's Python workers."""
    found = []
    kinds = rows.column("kind")
    for kind in pc.unique(kinds).to_pylist():
        chosen = rows.filter(pc.equal(kinds, kind))
        given = chosen.column(GIVEN).combine_chunks()
        given = given if isinstance(given, pa.StructArray) else given.chunk(0)
        table = pa.Table.from_arrays(given.flatten(), names=[f.name for f in given.type])
        found.append(
            rejected(
                table, kind, chosen.column("reasons").to_pylist(), batch=batch, clock_us=clock_us,
                keep_row=kind not in ("duplicate", "dropped"), details=chosen.column("detail").to_pylist(),
            )
        )  # fmt: skip
    return pa.concat_tables(found)
