"""What the Spark engine does not run, told where it is declared."""

from __future__ import annotations

from lodestream.model.steps import Aggregation, FlowPlan, LookUp, ReadSource, RunPython, Watermark
from lodestream.planning.scope import Scope

_SOURCES = ("files", "generator", "kafka", "replay")


def refuse_on_spark(scope: Scope, plan: FlowPlan | None) -> None:
    """Note, as P207, everything about a table that keeps it from running on Spark."""
    table = scope.table

    def no(message: str, fix: str, *path: str | int) -> None:
        scope.mistakes.add(scope.place(*path), "P207", message, table=table.name, fix=fix)

    if table.engine == "embedded":
        no("this table runs on the embedded engine only", "run it there, or use portable functions only", "engine")
    if plan is None:
        return
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
    if RunPython in steps:
        no("a python step", "run this table on the embedded engine", "python")
    if LookUp in steps and Aggregation in steps:
        no("a lookup and a window in one table", "look up in the table below, and window over that", "lookups")
    if plan.sinks:
        no("a sink", "publish from the embedded engine: lodestream run --table", "sinks")
