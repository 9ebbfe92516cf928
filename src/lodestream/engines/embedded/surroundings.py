"""What a flow is given, and what it gives back: its surroundings, a batch that is ready, a batch that is durable."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lodestream.engines.embedded.handover import Handover
from lodestream.engines.embedded.outputs import Prepared
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.python_step import PythonFunction
from lodestream.engines.embedded.spill import Spill, StateBudget
from lodestream.lake.disk import Disk
from lodestream.lake.layout import flow_folder
from lodestream.lake.standing import refuse_written
from lodestream.model.batch import BatchLimit, BatchPlan
from lodestream.model.steps import Aggregation, Dedupe, FlowPlan, JoinStreams
from lodestream.model.table import Component, TableName
from lodestream.ports.enricher import Enricher
from lodestream.ports.plugins import make_enricher

Notice = Callable[[TableName, str], None]
"""Told what a person should know of a table that is no error."""


def untold(table: TableName, text: str) -> None:
    """A notice that nobody hears."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a flow needs from outside, handed in by the runtime.

    Attributes:
        disk: seam for every effect.
        lake: root folder of the lake.
        clock: gives microseconds since 1970 UTC.
        handover: cache shared by the flows of this process, or None.
        limit: bound of one batch.
        functions: finds the user's function of a `python:` step.
        code: version of the software, written into each commit.
        enricher: makes an enricher, references in its settings resolved.
        notice: told what a person should know of a table that is no error.
        budget: how much state the flows of this process may hold in memory; None for any amount.
    """

    disk: Disk
    lake: str
    clock: Callable[[], int]
    handover: Handover | None
    limit: BatchLimit
    functions: Callable[[str], PythonFunction]
    code: str = ""
    enricher: Callable[[Component], Enricher] = make_enricher
    notice: Notice = untold
    budget: StateBudget | None = None

    def written(self) -> Disk:
        """The disk, for who is about to write. Raises ConfigError when the lake is not to be written."""
        refuse_written(self.disk, self.lake)
        return self.disk

    def spill(self, plan: FlowPlan) -> Spill | None:
        """Where a flow puts state that has no room in memory; None for one without state, or without a bound."""
        if self.budget is None or not has_state(plan):
            return None
        name = plan.table.name
        return Spill(os.path.join(flow_folder(self.disk.beside(self.lake), name), "spill"), str(name), self.budget)


def has_state(plan: FlowPlan) -> bool:
    """Whether a flow keeps rows, keys or windows from batch to batch."""
    return any(isinstance(step, Dedupe | Aggregation | JoinStreams) for step in plan.steps)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A batch that was computed and written, but for its commits, while batches before it were on their way."""

    plan: BatchPlan
    attempt: str
    outcome: Outcome
    staged: Prepared


@dataclass(frozen=True, slots=True)
class Committed:
    """One batch that is durable now."""

    batch: int
    kind: str
    version: int
    counts: Mapping[str, int] = field(default_factory=dict)
