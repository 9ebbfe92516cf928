"""What the Spark engine does not run, told where it is declared."""

from __future__ import annotations

from collections.abc import Mapping

from lodestream.model.project import Project
from lodestream.model.steps import (
    Aggregation,
    ApplyChanges,
    FlowPlan,
    JoinStreams,
    LookUp,
    ReadSource,
    ReadTable,
    RunPython,
    Watermark,
)
from lodestream.model.table import Session, TableName
from lodestream.project.mistakes import Mistakes

_SOURCES = ("files", "generator", "kafka", "replay")


def refuse_on_spark(project: Project, flows: Mapping[TableName, FlowPlan]) -> None:
    """Raise ProjectError with everything, as P210, that keeps tables from running on Spark."""
    mistakes = Mistakes()
    for plan in flows.values():
        _refuse(project, plan, mistakes)
    mistakes.raise_any()


def _refuse(project: Project, plan: FlowPlan, mistakes: Mistakes) -> None:
    table = plan.table

    def no(message: str, fix: str, *path: str | int) -> None:
        mistakes.add(project.place(table.name, *path), "P210", message, table=table.name, fix=fix)

    if table.engine == "embedded":
        no("this table runs on the embedded engine only", "run it there, or use portable functions only", "engine")
    steps = {type(step): step for step in plan.steps}
    first = plan.steps[0]
    if isinstance(first, ReadSource):
        if first.source.name not in _SOURCES:
            no(f"Spark does not read {first.source.name}", "run this table on the embedded engine", "source")
        if first.source.settings.get("share") is True:
            no("a shared source", "take share out: on Spark the cluster shares the work", "source")
        if first.drift in ("add", "widen"):
            no(f"drift: {first.drift} on Spark", "declare the columns, or set drift: quarantine", "drift")
        if Watermark in steps:
            no("event time on a table that reads a source", "move it to the table above", "event_time")
    for i, enricher in enumerate(table.enrichers):
        no(f"an enricher: {enricher.name}", "run this table on the embedded engine", "enrichers", i, enricher.name)
    if JoinStreams in steps:
        no("a join of two streams", "run this table on the embedded engine", "join")
    window = steps.get(Aggregation)
    if isinstance(window, Aggregation):
        here = "run this table on the embedded engine"
        if isinstance(window.window, Session):
            no("session windows", here, "window")
        if window.late != "quarantine":
            no("late rows that correct a window", here, "late")
        if window.completeness:
            no("completeness", here, "completeness")
    if isinstance(first, ReadTable) and first.windows is not None:
        no("windows of windows", "run this table on the embedded engine", "from")
    if ApplyChanges in steps:
        no("a table from change events", "run this table on the embedded engine", "changes")
    for i, lookup in enumerate(table.lookups):
        if lookup.as_of is not None:
            no("a lookup as of a moment", "run this table on the embedded engine", "lookups", i, "as_of")
    if RunPython in steps:
        no("a python step", "run this table on the embedded engine", "python")
    if LookUp in steps and Aggregation in steps:
        no("a lookup and a window in one table", "look up in the table below, and window over that", "lookups")
    if plan.sinks:
        no("a sink", "publish from the embedded engine: lodestream run --table", "sinks")
