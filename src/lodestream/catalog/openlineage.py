"""The lineage of a project as OpenLineage events, which Marquez, DataHub and others take in.

One JobEvent per table (spec 2-0-2): its inputs, and its schema, comment and column lineage as facets. Its time is that
of the export, for a declaration has none of its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from lodestream.catalog.lineage import Lineage, Sees, everything
from lodestream.model.steps import FlowPlan, ReadSource, RunQuery
from lodestream.model.table import TableName
from lodestream.planning.explain import explain, influences
from lodestream.version import VERSION

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/JobEvent"
_FACETS = "https://openlineage.io/spec/facets"
_SUBTYPES = {"filter": "FILTER", "join": "JOIN", "group": "GROUP_BY", "window": "WINDOW", "dedup": "FILTER"}


def job_events(
    flows: Mapping[TableName, FlowPlan], project: str, time_us: int, known: Lineage, sees: Sees | None = None
) -> Iterator[dict[str, Any]]:
    """One event per table, inputs before their readers.

    Args:
        flows: the project's plans.
        project: its name; part of the namespace.
        time_us: when, microseconds since 1970 UTC.
        known: the project's lineage.
        sees: what the reader of the events may know of; everything when not given.
    """
    return _Export(project, time_us, sees or everything(known)).events(flows)


class _Export:
    def __init__(self, project: str, time_us: int, sees: Sees) -> None:
        self._namespace = f"lodestream://{project}"
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)
        self._time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._producer = f"https://pypi.org/project/lodestream/{VERSION}"
        self._sees = sees

    def events(self, flows: Mapping[TableName, FlowPlan]) -> Iterator[dict[str, Any]]:
        for name, plan in flows.items():
            if self._sees(name) is None:
                continue
            yield {
                "eventTime": self._time,
                "producer": self._producer,
                "schemaURL": SPEC,
                "job": {"namespace": self._namespace, "name": f"flow.{name}", "facets": self._job(plan)},
                "inputs": self._inputs(plan),
                "outputs": [self._output(name, plan)],
            }

    def _job(self, plan: FlowPlan) -> dict[str, Any]:
        first = plan.steps[0]
        kind = "BATCH" if isinstance(first, RunQuery) else "STREAMING"
        told = {"processingType": kind, "integration": "LODESTREAM", "jobType": "FLOW"}
        facets = {"jobType": self._facet("JobTypeJobFacet", "2-0-3", told)}
        if isinstance(first, RunQuery) and all(self._sees(table) is not None for table in first.inputs):
            facets["sql"] = self._facet("SQLJobFacet", "1-1-0", {"query": first.text, "dialect": "spark"})
        return facets

    def _inputs(self, plan: FlowPlan) -> list[dict[str, Any]]:
        tables = [*plan.streams, *plan.waits_for]
        found = [self._dataset(table) for table in dict.fromkeys(tables) if self._sees(table) is not None]
        if isinstance(plan.steps[0], ReadSource):
            source = plan.steps[0].source.name
            found.append({"namespace": f"{self._namespace}/sources", "name": f"{source}.{plan.table.name}"})
        return found

    def _dataset(self, table: TableName) -> dict[str, Any]:
        return {"namespace": self._namespace, "name": str(table)}

    def _output(self, name: TableName, plan: FlowPlan) -> dict[str, Any]:
        columns = [column for column in plan.schema if column.name in (self._sees(name) or ())]
        fields = [
            {"name": c.name, "type": str(c.type), **({"description": c.comment} if c.comment else {})} for c in columns
        ]
        facets = {"schema": self._facet("SchemaDatasetFacet", "1-1-1", {"fields": fields})}
        if plan.table.comment:
            facets["documentation"] = self._facet(
                "DocumentationDatasetFacet", "1-1-0", {"description": plan.table.comment}
            )
        lineage = self._columns(plan, [column.name for column in columns])
        if lineage["fields"] or lineage["dataset"]:
            facets["columnLineage"] = self._facet("ColumnLineageDatasetFacet", "1-2-0", lineage)
        return self._dataset(name) | {"facets": facets}

    def _columns(self, plan: FlowPlan, names: list[str]) -> dict[str, Any]:
        origins = explain(plan).columns
        fields = {}
        for name in names:
            used = [self._input(*one, {"type": "DIRECT"}) for one in sorted(origins[name]) if self._may(*one)]
            if used:
                fields[name] = {"inputFields": used}
        deciding = [
            self._input(table, column, {"type": "INDIRECT", "subtype": _SUBTYPES.get(how, "CONDITIONAL")})
            for table, column, how in sorted(influences(plan))
            if self._may(table, column)
        ]
        return {"fields": fields, "dataset": deciding}

    def _may(self, table: TableName, column: str) -> bool:
        return column in (self._sees(table) or ())

    def _input(self, table: TableName, column: str, how: dict[str, str]) -> dict[str, Any]:
        return self._dataset(table) | {"field": column, "transformations": [how]}

    def _facet(self, name: str, version: str, told: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{_FACETS}/{version}/{name}.json#/$defs/{name}"
        return {"_producer": self._producer, "_schemaURL": url, **told}
