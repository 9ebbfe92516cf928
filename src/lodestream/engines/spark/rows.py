"""The stateless stages on Spark: derived columns, rules and event time, with the fate of each row beside it.

No row is left out here. A row that does not go on carries what becomes of it in `FATE` and why in `HITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lodestream.engines.spark.expressions import error, literal, quoted, row_error, value
from lodestream.engines.spark.source import REASONS
from lodestream.model.steps import (
    Aggregation,
    Annotate,
    Derive,
    Expect,
    FlowPlan,
    ReadSource,
    ReadTable,
    Rule,
    Watermark,
)
from lodestream.model.table import META_COLUMNS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GIVEN, FATE, HITS = "_given", "_fate", "_hits"
"""The input row as it came; what became of it (NULL: it goes on); why, most important first."""
FAILED, WARNED, WINDOW_ERRORS = "_failed", "_warned", "_window_errors"
"""Rules that stop the batch; rules broken without effect; what errs in groups and measures."""
EVENT_US = "_event_us"
"""Event time of rows that get as far as the watermark, microseconds."""
RAW_FATE = "raw"
"""The fate of a record that did not decode."""
STEP_FATE, STEP_HITS = "_step_fate", "_step_hits"
"""What a python step has decided already, and why; NULL where a row goes on."""

_Flag = tuple[str, str, str]
"""Reason, effect, and Spark SQL that is true where it holds."""


def given_columns(plan: FlowPlan) -> list[str]:
    """Columns of the flow's input rows, in the order in which they are kept for repair."""
    first = plan.steps[0]
    assert isinstance(first, ReadSource | ReadTable)
    names = [
        *first.schema.names,
        *(META_COLUMNS if not isinstance(first, ReadTable) or first.windows is None else ()),
        *(("_raw",) if isinstance(first, ReadSource) and first.keep_raw else ()),
    ]
    return [name for name in dict.fromkeys(names) if name != "_batch"]


def judged(frame: DataFrame, plan: FlowPlan) -> DataFrame:
    """Every input row with its computed columns and its fate so far.

    Args:
        frame: the input, with `given_columns`, and for a source what did not decode; or what a python step made of it.
        plan: the flow.
    """
    derived = [pair for step in plan.steps if isinstance(step, Derive) for pair in step.columns]
    rules = [rule for step in plan.steps if isinstance(step, Expect) for rule in step.rules]
    names = {name for name, _ in derived}
    kept = [name for name in given_columns(plan) if name not in ("_batch", "_raw")]
    items = [] if GIVEN in frame.columns else [f"struct({', '.join(map(quoted, kept))}) AS {GIVEN}"]
    items += [quoted(name) for name in frame.columns if name not in names]
    items += [f"{value(e)} AS {quoted(name)}" for name, e in derived]
    flags: list[_Flag] = []
    for i, (name, e) in enumerate(derived):
        if e.error is not None:
            items.append(f"{error(e.text, e.type)} AS _e{i}")
            flags.append((f"derive:{name}:error", "quarantine", f"_e{i}"))
    for rule in rules:
        flags += _broken(rule)
    frame = frame.selectExpr(*items)
    frame = _with_fate(frame, flags)
    watermark = plan.step(Watermark)
    if watermark is not None:
        frame = _without_time(frame, watermark.event_time.column)
    window = plan.step(Aggregation)
    if window is None or plan.looked_up or plan.step(Annotate) is not None:  # which groups and measures read
        return frame
    return with_window_errors(frame, window)


def listed(reasons: Sequence[tuple[str, str]]) -> str:
    """Spark SQL of the array of those texts whose condition is true; pairs of (text, condition)."""
    if not reasons:
        return "cast(array() AS array<string>)"
    cases = ", ".join(f"CASE WHEN {condition} THEN {literal(text)} END" for text, condition in reasons)
    return f"filter(array({cases}), x -> x IS NOT NULL)"


def aside(rows: DataFrame, condition: str, kind: str, reasons: str) -> DataFrame:
    """Give the rows that still go on, and that meet the condition, their fate."""
    met = f"({FATE} IS NULL AND coalesce({condition}, false))"
    others = [quoted(name) for name in rows.columns if name not in (FATE, HITS)]
    return rows.selectExpr(
        *others, f"CASE WHEN {met} THEN {kind} ELSE {FATE} END AS {FATE}",
        f"CASE WHEN {met} THEN {reasons} ELSE {HITS} END AS {HITS}",
    )  # fmt: skip


def _with_fate(frame: DataFrame, flags: list[_Flag]) -> DataFrame:
    """The fate by the flags, but for what did not decode, and what a python step has decided on already."""
    stopping = sorted((flag for flag in flags if flag[1] != "warn"), key=lambda flag: flag[1] != "quarantine")
    kept = " OR ".join(condition for _, effect, condition in stopping if effect == "quarantine")
    anything = " OR ".join(condition for _, _, condition in stopping)
    decided = {
        name: fate for name, fate in ((REASONS, f"'{RAW_FATE}'"), (STEP_FATE, STEP_FATE)) if name in frame.columns
    }
    cases = [f"WHEN {name} IS NOT NULL THEN {fate}" for name, fate in decided.items()]
    cases += [f"WHEN {kept} THEN 'quarantine'"] if kept else []
    cases += [f"WHEN {anything} THEN 'dropped'"] if anything else []
    fate = f"CASE {' '.join(cases)} END" if cases else "cast(NULL AS string)"
    undecided = " AND ".join(["true", *(f"{name} IS NULL" for name in decided)])
    failing, warned = (
        listed([(reason, f"{undecided} AND {condition}") for reason, effect, condition in flags if effect == wanted])
        for wanted in ("fail", "warn")
    )
    hits = listed([(reason, condition) for reason, _, condition in stopping])
    hits = f"coalesce({STEP_HITS}, {hits})" if STEP_FATE in decided else hits
    return frame.selectExpr(
        "*", f"{fate} AS {FATE}", f"{hits} AS {HITS}", f"{failing} AS {FAILED}", f"{warned} AS {WARNED}"
    )


def _without_time(frame: DataFrame, column: str) -> DataFrame:
    missing = f"({FATE} IS NULL AND {quoted(column)} IS NULL)"
    others = [quoted(name) for name in frame.columns if name not in (FATE, HITS)]
    return frame.selectExpr(
        *others, f"CASE WHEN {missing} THEN 'quarantine' ELSE {FATE} END AS {FATE}",
        f"CASE WHEN {missing} THEN array('null_event_time') ELSE {HITS} END AS {HITS}",
        f"CASE WHEN {FATE} IS NULL THEN unix_micros({quoted(column)}) END AS {EVENT_US}",
    )  # fmt: skip


def with_window_errors(frame: DataFrame, step: Aggregation) -> DataFrame:
    """With `WINDOW_ERRORS`."""
    found = [(f"group:{name}:error", error(e.text, e.type)) for name, e in step.group_by if e.error is not None]
    found += [(f"measure:{name}:error", bad) for name, m in step.measures if (bad := row_error(m)) is not None]
    return frame.selectExpr("*", f"{listed(found)} AS {WINDOW_ERRORS}")


def _broken(rule: Rule) -> list[_Flag]:
    """The flags of a rule: not met, and, where it can, err."""
    condition, prefix = rule.condition, "drop" if rule.otherwise == "drop" else "expect"
    broken = f"(NOT coalesce({value(condition)}, false))"
    if condition.error is None:
        return [(f"{prefix}:{rule.name}", rule.otherwise, broken)]
    errs = error(condition.text, condition.type)
    return [
        (f"{prefix}:{rule.name}:error", rule.otherwise, errs),
        (f"{prefix}:{rule.name}", rule.otherwise, f"({broken} AND NOT {errs})"),
    ]
