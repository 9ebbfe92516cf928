"""One micro-batch: the fate of every row, and the rows that the table and its quarantine get."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.kept import is_folded
from lodestream.engines.embedded.rejects import rejected, rejected_raw
from lodestream.engines.spark.enrich import annotated
from lodestream.engines.spark.expressions import literal, quoted
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
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import Aggregation, Annotate, ApplyChanges, Dedupe, Expect, FlowPlan, LookUp, Watermark
from lodestream.model.table import Session
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.engines.spark.tables import Tables

_KEPT, _LATE_STARTS, _REOPENED = "_first_of_key", "_late_starts", "_reopened"
_JOINED_US = "_joined_us"
_FATES = (FATE, HITS, WARNED, FAILED)
_KINDS = ("quarantine", "late", "duplicate", "dropped", RAW_FATE)


@dataclass
class Batch:
    """A batch with every row's fate decided.

    Attributes:
        output: rows that the table gets, windows or joined rows, in the table's columns but `_batch`, if any; None for
            none.
        aside: frames of rows for the quarantine, as `encoded` takes them.
        counts: rows by fate, `rule:<name>` for broken rules.
        max_event_us: largest event time, None when no row got as far as the watermark.
        joined_max_event_us: the same of the stream that is joined.
        reopened: starts of closed windows that late rows belong to, which are to be computed again.
        going: rows that go on to windows that are folded; then there is no output yet.
    """

    output: DataFrame | None
    aside: tuple[DataFrame, ...]
    counts: dict[str, int] = field(default_factory=dict)
    max_event_us: int | None = None
    joined_max_event_us: int | None = None
    reopened: frozenset[int] = frozenset()
    going: DataFrame | None = None


def decide(
    stream: DataFrame, plan: FlowPlan, batch: BatchPlan, tables: Tables, held: ExitStack, given: int = 0
) -> Batch:
    """Decide a batch.

    Args:
        stream: the micro-batch of `stream_of`, kept in memory by the caller.
        plan: the flow.
        batch: the batch's plan.
        tables: those of the lake.
        held: lets go of what is kept in memory.
        given: how many rows the table of a join has been given before.

    Raises:
        ConfigError: a row does not meet a rule with `else: fail`.
    """
    rows = stream.where(f"{BRANCH} = {ROWS}")
    window = plan.step(Aggregation)
    watermark = plan.step(Watermark)
    rows = rows.selectExpr("*", f"cast(NULL AS string) AS {DETAIL}") if DETAIL not in rows.columns else rows
    if plan.step(Dedupe) is not None:
        assert watermark is not None
        firsts = stream.where(f"{BRANCH} = {FIRSTS}").selectExpr("_source", "_position", f"true AS {_KEPT}")
        rows = rows.join(firsts, ["_source", "_position"], "left")
        late = f"unix_micros({quoted(watermark.event_time.column)}) <= {batch.late_us}"
        rows = aside(rows, late, "'late'", "array('late')")
        rows = aside(rows, f"{_KEPT} IS NULL", "'duplicate'", "array('duplicate')")
    for number, step in enumerate(step for step in plan.steps if isinstance(step, LookUp)):
        rows = _looked_up(rows, step, number, batch.pins, tables)
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
        rows = _windows_missed(rows, window, watermark.event_time.column, batch)
    if plan.join is not None:
        return _joined(rows, stream, plan, batch, held, given)
    counts, max_event_us, _ = _counts(rows, batch, rules=_rules(plan), windows=window is not None)
    reopened = _reopened(rows) if window is not None and window.late == "update" else frozenset[int]()
    output, going = None, rows.where(f"{FATE} IS NULL")
    if is_folded(plan):
        return Batch(None, (_quarantine(rows, noted=True),), counts, max_event_us, None, reopened, going)
    if window is None and counts.get("output"):
        output = going
    elif window is not None:
        output = stream.where(f"{BRANCH} = {WINDOWS} AND {WINDOW} IS NOT NULL").select(f"{WINDOW}.*")
        if window.emit == "updates" and not reopened and output.isEmpty():  # what lies open stays as it is
            output = None
    quarantine = _quarantine(rows, noted=window is not None)
    return Batch(output, (quarantine,), counts, max_event_us, reopened=reopened)


def _joined(rows: DataFrame, stream: DataFrame, plan: FlowPlan, batch: BatchPlan, held: ExitStack, given: int) -> Batch:
    """A batch of a join: the rows of both streams that do not go on, and what comes out at the other end of it."""
    others = stream.where(f"{BRANCH} = {OTHERS}").select(*KEPT_THERE)
    pairs = stream.where(f"{BRANCH} = {PAIRS}").select(HERE, THERE)
    late = f"{EVENT_US} <= {batch.late_us}"
    rows, others = (aside(side, late, "'late'", "array('late')") for side in (rows, others))
    both = rows.select(*_FATES, EVENT_US).unionByName(
        others.selectExpr(*_FATES, f"cast(NULL AS bigint) AS {EVENT_US}", f"{EVENT_US} AS {_JOINED_US}"),
        allowMissingColumns=True,
    )
    counts, max_event_us, joined_max_event_us = _counts(both, batch, rules=_rules(plan), windows=False)
    joined, alone = joined_in(pairs, plan), alone_in(pairs, plan)
    counts["output"], unmatched = joined.count(), alone.count()
    counts["dropped"] = counts.get("dropped", 0) + unmatched
    set_aside = (
        _quarantine(rows, noted=False),
        _quarantine(others.withColumnRenamed(GIVEN_THERE, GIVEN), noted=False),
        alone.selectExpr(
            f"struct(_source, _position) AS {GIVEN}", "'dropped' AS kind", "array('unmatched') AS reasons",
            "cast(NULL AS string) AS detail", "cast(NULL AS binary) AS record",
        ),
    )  # fmt: skip
    counts = {kind: number for kind, number in counts.items() if number}
    if "output" not in counts:
        return Batch(None, set_aside, counts, max_event_us, joined_max_event_us)
    ordered, output = output_of(joined, plan, given)
    held.callback(ordered.unpersist)
    return Batch(output, set_aside, counts, max_event_us, joined_max_event_us)


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


def _looked_up(rows: DataFrame, step: LookUp, number: int, pins: Mapping[str, int], tables: Tables) -> DataFrame:
    """A left join to the pinned version; a key that stands there more than once sets the row aside."""
    table, many = step.lookup.table, f"_l{number}_many"
    there = tables.at(table, pins[str(table)])
    joined = looked_up(rows, there, step, number, many)
    return aside(joined, many, "'quarantine'", f"array('lookup_ambiguous', 'lookup:{table}')").drop(many)


def _windows_missed(rows: DataFrame, step: Aggregation, column: str, batch: BatchPlan) -> DataFrame:
    """Rows late for all their windows are late; those late for some go on, with the starts that they missed.

    With `late: update` they go on, with the starts of the closed windows that they open again, unless rows of all of
    those may be gone.
    """
    time, late_us = f"unix_micros({quoted(column)})", batch.late_us
    if isinstance(step.window, Session):  # what counts is the session that a row would be by itself
        rows = aside(rows, f"{time} + {step.window.gap_us} <= {late_us}", "'late'", "array('late')")
        none = "cast(NULL AS array<bigint>)"
        return rows.selectExpr("*", f"{none} AS {_LATE_STARTS}", f"{none} AS {_REOPENED}")
    every, slide = step.window.every_us, step.window.step_us
    starts = f"transform(sequence(0, {-(-every // slide) - 1}), k -> {time} - pmod({time}, {slide}) - k * {slide})"
    again = "false"
    if step.late == "update":
        again = "true" if batch.kept_us is None else f"s >= {batch.kept_us}"
    closed = f"s + {every} > {time} AND s + {every} <= {late_us}"
    taken = f"exists({starts}, s -> s + {every} > {time} AND (s + {every} > {late_us} OR {again}))"
    rows = aside(rows, f"NOT {taken}", "'late'", "array('late')")
    missed, reopened = (f"array_sort(filter({starts}, s -> {closed} AND {which}))" for which in (f"NOT {again}", again))
    return rows.selectExpr(
        "*", *(f"CASE WHEN {FATE} IS NULL THEN {found} END AS {name}"
               for found, name in ((missed, _LATE_STARTS), (reopened, _REOPENED))),
    )  # fmt: skip


def _reopened(rows: DataFrame) -> frozenset[int]:
    starts = rows.selectExpr(f"explode({_REOPENED}) AS start").distinct()
    return frozenset(row["start"] for row in starts.collect())


def _counts(
    rows: DataFrame, batch: BatchPlan, *, rules: Collection[str], windows: bool
) -> tuple[dict[str, int], int | None, int | None]:
    """Rows by fate and by broken rule, and the largest event time of them and of those of a stream that is joined.

    It is the first thing computed, so it fills the cache for what follows.
    """
    from pyspark.sql import functions as fn

    noted, times = f"size({_LATE_STARTS}) > 0" if windows else "false", (EVENT_US, _JOINED_US)
    told = rows.selectExpr(
        f"coalesce(CASE {FATE} WHEN '{RAW_FATE}' THEN 'quarantine' ELSE {FATE} END, 'output') AS fate",
        f"concat(CASE WHEN {FATE} IN ('quarantine', 'dropped') THEN {HITS} ELSE array() END, {WARNED},"
        f" transform({FAILED}, x -> concat('fail:', x)), CASE WHEN {noted} THEN array('late_window:') ELSE array() END)"
        " AS reasons", *(name if name in rows.columns else f"cast(NULL AS bigint) AS {name}" for name in times),
    ).select("fate", *times, fn.expr("explode_outer(array_append(reasons, 'row:'))").alias("reason"))  # fmt: skip
    counts: dict[str, int] = {}
    newest: dict[str, list[int]] = {name: [] for name in times}
    figures = (fn.count("*").alias("count"), *(fn.max(name).alias(name) for name in times))
    failed: list[tuple[str, int]] = []
    for row in told.groupBy("fate", "reason").agg(*figures).collect():
        prefix, _, rest = row["reason"].partition(":")
        number = int(row["count"])
        for name in times:
            newest[name] += [] if row[name] is None else [row[name]]
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
    return counts, max(newest[EVENT_US], default=None), max(newest[_JOINED_US], default=None)


def _rules(plan: FlowPlan) -> set[str]:
    return {rule.name for step in plan.steps if isinstance(step, Expect) for rule in step.rules}


def _quarantine(rows: DataFrame, *, noted: bool) -> DataFrame:
    """What is set aside and why, with the input row or the record itself; `encoded` makes quarantine rows of it."""
    missed = f"size({_LATE_STARTS}) > 0" if noted else "false"
    starts = f"array_join(cast({_LATE_STARTS} AS array<string>), ', ')"
    note = f"concat('{{\"window_starts_us\": [', {starts}, ']}}')" if noted else "NULL"
    raw = REASONS in rows.columns
    undecoded = f"WHEN {FATE} = {literal(RAW_FATE)} THEN {REASONS}" if raw else ""
    return rows.where(f"{FATE} IN {_KINDS} OR {missed}").selectExpr(
        GIVEN, f"coalesce({FATE}, 'late_window') AS kind",
        f"CASE WHEN {FATE} IS NULL THEN array('late_window') {undecoded} ELSE {HITS} END AS reasons",
        f"CASE WHEN {FATE} IS NULL THEN {note} ELSE {DETAIL if raw else 'NULL'} END AS detail",
        f"{RECORD if raw else 'cast(NULL AS binary)'} AS record",
    )  # fmt: skip


def encoded(aside: pa.Table, batch: int, clock_us: int) -> pa.Table:
    """Quarantine rows of `Batch.aside`, with the same texts as the embedded engine writes."""
    found = []
    kinds = aside.column("kind")
    for kind in pc.unique(kinds).to_pylist():
        chosen = aside.filter(pc.equal(kinds, kind))
        given = chosen.column(GIVEN).combine_chunks()
        given = given if isinstance(given, pa.StructArray) else given.chunk(0)
        rows = pa.Table.from_arrays(given.flatten(), names=[f.name for f in given.type])
        if kind == RAW_FATE:
            named = {"_reasons": chosen.column("reasons"), "_detail": chosen.column("detail")}
            for name, column in {**named, "_raw": chosen.column("record")}.items():
                rows = rows.drop_columns([name] if name in rows.column_names else []).append_column(name, column)
            found.append(rejected_raw(rows, batch=batch, clock_us=clock_us))
            continue
        found.append(
            rejected(
                rows, kind, chosen.column("reasons").to_pylist(), batch=batch, clock_us=clock_us,
                keep_row=kind not in ("duplicate", "dropped"), details=chosen.column("detail").to_pylist(),
            )
        )  # fmt: skip
    return pa.concat_tables(found)
