"""Answers for `sql:` tables: the refresh and the input rows behind a row, and why the result has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.model.steps import Aggregation, FlowPlan, RunQuery
from lodestream.model.table import TableName
from lodestream.operations.tracing.findings import Absence, Hop, Record
from lodestream.operations.tracing.keys import Test
from lodestream.operations.tracing.plain import number
from lodestream.operations.tracing.queries import Asked, QueryFlow
from lodestream.operations.tracing.search import missing
from lodestream.operations.tracing.view import View

_RUN = "lodestream run --until-idle"


@dataclass(frozen=True)
class QueryAnswer:
    """The query behind a row, the row's refresh, or why there is no such row."""

    query: Asked
    hops: tuple[Hop, ...] = ()
    record: Record | None = None
    absence: Absence | None = None


def behind(view: View, plan: FlowPlan, tests: Sequence[Test], row: Mapping[str, Any] | None) -> QueryAnswer:
    """What is behind a row of a query's result, or behind a key that the result does not have."""
    name, flow = plan.table.name, QueryFlow(view, plan)
    if row is not None:
        written = view.written(name, row["_batch"])
        return QueryAnswer(flow.asked(flow.tests(row), written.pins), (Hop(str(name), row=row, written=written),))
    asked = flow.asked(tests, view.last(name).get("pins") or {})
    return _no_result(view, plan, asked, tests)


def _no_result(view: View, plan: FlowPlan, asked: Asked, tests: Sequence[Test]) -> QueryAnswer:
    name = str(plan.table.name)

    def answer(reason: str, message: str, *steps: str) -> QueryAnswer:
        return QueryAnswer(asked, absence=Absence(name, reason, message, next=steps))

    if not view.committed(plan.table.name):
        return answer("not_in_lake", f"{name} was never refreshed", _RUN)
    followed = [one for one in asked.inputs if one.by]
    if grown := [one for one in followed if one.newest and not one.rows]:
        said = (
            f"{one.table} got {number(one.newest or 0, 'such row')} after version {one.version}, the last one read"
            for one in grown
        )
        return answer("not_refreshed", "; ".join(said), _RUN)
    empty = [one for one in followed if not one.rows]
    if followed and not empty:
        return answer(
            "left_out",
            "the inputs have such rows; the query leaves them out (conditions, joins, limit) or gives other values",
        )
    for one in empty:
        renamed = _renamed(plan, one.table, [test for test in tests if test.column in one.by])
        if renamed and _is_row_level(view.flows.get(TableName.parse(one.table))):
            found = missing(view, TableName.parse(one.table), renamed)
            if found.record is not None:
                return QueryAnswer(asked, found.hops, found.record, found.absence)
    where = f"{' and '.join(one.table for one in empty)} has no such rows"
    return answer("no_such_row", f"the result has no such row: {where if empty else 'the key names no input rows'}")


def _renamed(plan: FlowPlan, table: str, tests: Sequence[Test]) -> list[Test]:
    """The tests under the names that the columns have in an input; only those that come from one column of it."""
    first = plan.steps[0]
    assert isinstance(first, RunQuery)
    origin = {c: o[0][1] for c, o in first.lineage if len(o) == 1 and str(o[0][0]) == table}
    return [Test(origin[t.column], t.value, t.text, t.quoted) for t in tests if t.column in origin]


def _is_row_level(plan: FlowPlan | None) -> bool:
    return plan is not None and not any(isinstance(step, RunQuery | Aggregation) for step in plan.steps)
