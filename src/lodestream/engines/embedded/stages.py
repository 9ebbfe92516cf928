"""The row stages of a flow, in their order: python, derive, expect, event time, dedup, lookup, enrich, window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.aggregate import aggregate
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.expect import derive_and_expect
from lodestream.engines.embedded.joins import join_streams
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.merge import DELETES
from lodestream.engines.embedded.passing import INDEX, Outcome, Pass
from lodestream.engines.embedded.python_step import PythonFunction, run_python
from lodestream.engines.embedded.screen import screen
from lodestream.engines.embedded.state import DEDUP_SCHEMA, FlowState
from lodestream.model.arrow import to_arrow_type
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import (
    Aggregation,
    Annotate,
    ApplyChanges,
    Ask,
    Dedupe,
    Derive,
    Expect,
    FlowPlan,
    JoinStreams,
    LookUp,
    RunPython,
    Select,
    Watermark,
)
from lodestream.model.table import JOIN_META, META_COLUMNS, Lookup


class RowStages:
    """Runs the stages of one flow.

    Args:
        connection: the flow's DuckDB.
        plan: the flow.
        functions: finds the user's function of a `python:` step.
        enrichment: the flow's enrichers.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, plan: FlowPlan, functions: Callable[[str], PythonFunction],
        enrichment: Enrichment,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._plan = plan
        self._functions = functions
        self._enrichment = enrichment

    def run(
        self,
        rows: pa.Table,
        batch: BatchPlan,
        state: FlowState,
        lookups: Mapping[Lookup, LookupTable],
        joined: pa.Table | None = None,
    ) -> Outcome:
        """Take n input rows through all stages; `state` is moved on, so it must be that of the batch before.

        `joined` are the batch's rows of the other stream, where there is one.
        """
        out = Outcome(rows.append_column(INDEX, pa.array(np.arange(len(rows), dtype=np.int64))))
        passing = Pass(self._connection, rows, batch, state, out, self._plan.table.name)
        derive: Derive | None = None
        for step in self._plan.steps:
            match step:
                case RunPython():
                    passing.settle()
                    run_python(passing, step, self._functions(step.step.function))
                case Derive():
                    derive = step
                case Expect():
                    derive_and_expect(passing, derive, step)
                    derive = None
                case _:
                    if derive is not None:
                        derive_and_expect(passing, derive, None)
                        derive = None
                    if isinstance(step, JoinStreams):
                        assert joined is not None
                        join_streams(passing, step, joined)
                    self._run(passing, step, lookups)
        if derive is not None:
            derive_and_expect(passing, derive, None)
        out.rows = passing.settle().drop_columns([INDEX])
        return out

    def passing(self, rows: pa.Table, batch: BatchPlan, lookups: Mapping[Lookup, LookupTable]) -> pa.Table:
        """The rows as they stand before event time is looked at, without touching any state."""
        stateful = (Watermark, Dedupe, Aggregation)
        steps = tuple(step for step in self._plan.steps if not isinstance(step, stateful))
        stages = RowStages(self._connection, replace(self._plan, steps=steps), self._functions, self._enrichment)
        return stages.run(rows, batch, FlowState(), lookups).rows

    def before(
        self, kind: type, rows: pa.Table, batch: BatchPlan, lookups: Mapping[Lookup, LookupTable]
    ) -> pa.Table:  # fmt: skip
        """The rows as they stand in front of the first step of a kind, without touching any state."""
        steps = tuple(itertools.takewhile(lambda step: not isinstance(step, kind), self._plan.steps))
        stages = RowStages(self._connection, replace(self._plan, steps=steps), self._functions, self._enrichment)
        return stages.passing(rows, batch, lookups)

    def _run(self, passing: Pass, step: object, lookups: Mapping[Lookup, LookupTable]) -> None:
        match step:
            case Watermark():
                _watermark(passing, step)
            case Dedupe():
                _dedupe(passing, step)
            case LookUp():
                _look_up(passing, step, lookups[step.lookup])
            case Annotate():
                self._enrichment.annotate(passing, step)
            case Ask():
                self._enrichment.ask(passing, step)
            case Aggregation():
                aggregate(passing, step)
            case ApplyChanges():
                screen(passing, step)
            case Select():
                kept = [
                    *step.columns,
                    *(c for c in (*META_COLUMNS, *JOIN_META, "_raw", DELETES) if c in passing.out.rows.column_names),
                ]
                passing.out.rows = passing.out.rows.select([*dict.fromkeys([*kept, INDEX])])
            case _:
                pass  # reading and writing are the flow's


def _watermark(passing: Pass, step: Watermark) -> None:
    passing.event_column = step.event_time.column
    passing.reject_missing_time()
    events = passing.events()
    if len(events):
        newest = int(events.max())
        seen = passing.state.max_event_us
        passing.state.max_event_us = newest if seen is None else max(seen, newest)


def _dedupe(passing: Pass, step: Dedupe) -> None:
    assert passing.state.dedup is not None
    if not passing.batch.accept_late:
        passing.reject_late(passing.events() <= passing.batch.late_us)
    events = passing.events()
    if not len(events):
        return
    high, low = hash_keys([passing.column(key) for key in step.dedup.keys])
    expiry_us = events + step.expiry_us
    first = passing.state.dedup.claim(high, low, expiry_us, passing.batch.late_us)
    kept = first & (expiry_us > passing.batch.evict_us)  # what expires by W(n) leaves the state in this batch
    passing.out.changes.dedup = pa.table([high[kept], low[kept], expiry_us[kept]], schema=DEDUP_SCHEMA)
    if not first.all():
        passing.reject(~first, "duplicate", [["duplicate"]] * int((~first).sum()))


def _look_up(passing: Pass, step: LookUp, table: LookupTable) -> None:
    found, ambiguous = table.find(passing.settle())
    for column, values in zip(step.schema, found, strict=True):
        passing.put(column.name, values.cast(to_arrow_type(column.type)))
    if ambiguous.any():
        reason = [["lookup_ambiguous", f"lookup:{step.lookup.table}"]]
        passing.reject(ambiguous, "quarantine", reason * int(ambiguous.sum()))
