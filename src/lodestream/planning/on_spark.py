"""What the Spark engine does not run, told where it is declared."""

from __future__ import annotations

from collections.abc import Mapping

from lodestream.model.project import Project
from lodestream.model.steps import (
    Aggregation,
    Dedupe,
    FlowPlan,
    JoinStreams,
    LookUp,
    ReadSource,
)
from lodestream.model.table import TableName
from lodestream.project.mistakes import Mistakes

_SOURCES = ("files", "generator", "kafka", "replay")
_HERE = "run this table on the embedded engine"


def refuse_on_spark(project: Project, flows: Mapping[TableName, FlowPlan]) -> None:
    """Raise ProjectError with everything, as P210, that keeps tables from running on Spark.

    Args:
        project: where they are declared.
        flows: the tables.
    """
    mistakes = Mistakes()
    for plan in flows.values():
        _refuse(project, plan, mistakes)
    mistakes.raise_any()


def _refuse(project: Project, plan: FlowPlan, mistakes: Mistakes) -> None:
    no, first = _Refusals(project, plan, mistakes), plan.steps[0]
    if plan.table.engine == "embedded":
        no("this table runs on the embedded engine only", "run it there, or use portable functions only", "engine")
    if isinstance(first, ReadSource):
        if first.source.name not in _SOURCES:
            no(f"Spark does not read {first.source.name}", _HERE, "source")
        if first.source.settings.get("share") is True:
            no("a shared source", "take share out: on Spark the cluster shares the work", "source")
    refuse_stages(project, plan, mistakes)


def refuse_stages(project: Project, plan: FlowPlan, mistakes: Mistakes) -> None:
    """Note, as P210, the stages of a table that Spark does not run."""
    no, table, first = _Refusals(project, plan, mistakes), plan.table, plan.steps[0]
    steps = {type(step) for step in plan.steps}
    if isinstance(first, ReadSource) and first.drift == "widen" and Dedupe in steps:
        no("drift: widen and dedup in one table", "dedup in a table that reads this one", "drift")
    if table.late == "update" and (table.lookups or table.python is not None):
        no(
            "late rows that correct closed windows, with a lookup or a python step",
            "do that in the table below",
            "late",
        )
    for i, lookup in enumerate(step for step in plan.steps if isinstance(step, LookUp)):
        native = Aggregation in steps or JoinStreams in steps
        if native and lookup.lookup.as_of is not None and not lookup.unique:
            message = "a lookup as of a moment by a part of the history's key, and a window or a join in one table"
            no(message, "look up in the table below", "lookups", i, "as_of")


class _Refusals:
    def __init__(self, project: Project, plan: FlowPlan, mistakes: Mistakes) -> None:
        self._project, self._name, self._mistakes = project, plan.table.name, mistakes

    def __call__(self, message: str, fix: str, *path: str | int) -> None:
        place = self._project.place(self._name, *path)
        self._mistakes.add(place, "P210", message, table=self._name, fix=fix)
