"""Taking a table over from the other engine: the state made again from the rows that it stands for.

Spark keeps its state to itself, and this engine keeps hashes and partial sums. What both can begin with is rows
(`remembered.py`). Here this engine makes its state from them; Spark is given them as the first batch of its query.
"""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.checkpoints import DELETIONS, Checkpoint, checkpoint_of
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.deletions import Deletions
from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.kept import WINDOWS, is_folded, kept_before, unsigned
from lodestream.engines.embedded.remembered import Memory, Point, Remembered
from lodestream.engines.embedded.sides import MATCHED
from lodestream.engines.embedded.state import Changes, FlowState
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.lake.actions import Commit
from lodestream.lake.layout import app_id
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import SourceRange
from lodestream.model.steps import FlowPlan, ReadSource, ReadTable, Watermark
from lodestream.model.table import TableName

SPARK = "spark"
"""The attempt that a state is of which was made from Spark's last commit."""
_WAITS = ["_source", "_position", MATCHED]


def is_spark(commit: Commit) -> bool:
    """Whether a main commit is of Spark, which names its query and no state."""
    return "query" in commit.info


def check_handover(plan: FlowPlan) -> None:
    """Raise ConfigError for a table that the other engine cannot take over."""
    if not isinstance(plan.steps[0], ReadTable) and plan.step(Watermark) is not None:
        raise _refusal(plan.table.name, "the event time of a source", "go on with that engine")


def _refusal(table: TableName, what: str, fix: str) -> ConfigError:
    return ConfigError(
        f"the other engine has filled this table, and {what} cannot be handed over; {fix}, or begin the table again: "
        f"lodestream table restore {table} --version 0 --rewind",
        table=str(table),
    )


# --- from Spark -------------------------------------------------------------------------------------------------------


def take_over(
    state: FlowState, plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection,
    quarantine: DeltaTable | None, store: FlowStore, table: DeltaTable, commit: Commit,
) -> None:  # fmt: skip
    """Bring `state`, a flow's empty one, to where Spark's last commit stands, durably.

    Raises:
        ConfigError: this table cannot be handed over.
        DataLossRefused: a plan is gone, or rows upstream, or versions that they looked up.
    """
    check_handover(plan)
    table_id, batch = table.snapshot.metadata.id, commit.txns[app_id(plan.table.name, store.epoch)]
    try:
        for link in store.chain(f"{batch:020d}-{SPARK}", table_id, store.epoch, batch):
            state.apply(link)
    except CorruptionError:  # not there yet, or its writer died
        at = Point.of(commit, batch)
        _stand(state, plan, store, at, commit.info["query"])
        if quarantine is not None:
            memory = Memory(plan, around, connection, store, table, quarantine)
            memory.check_kept(at)
            _take_in(state, memory.at(at), at.late_us)
        if state.deletions is not None:
            _remember(state.deletions, around, plan.table.name, store.epoch, at)
        if state.windows is not None and is_folded(plan):
            _hold(state.windows, around, plan.table.name, store.epoch, at)
        link = state.link(table_id, store.epoch, SPARK, Changes())
        state.linked(link, store.put_state(link))
        around.notice(plan.table.name, f"taken over from Spark at batch {batch}")
    state.scattered = True


def _stand(state: FlowState, plan: FlowPlan, store: FlowStore, at: Point, query: str) -> None:
    """Have the state stand where the commit says."""
    last = store.plan(at.batch)
    if last is None:
        raise DataLossRefused("the plan of the last batch is gone", table=str(plan.table.name), batch=at.batch)
    state.batch, state.max_event_us, state.late_us, state.upto = at.batch, at.max_event_us, at.late_us, at.upto
    state.joined_max_event_us, state.joined_upto = at.joined_max_event_us, at.joined_upto
    state.pins, state.clock_us = dict(last.pins), last.clock_us
    if isinstance(plan.steps[0], ReadSource):
        state.consumed = _consumed_by_spark(store, at.batch, query)


def _take_in(state: FlowState, made: Remembered, late_us: int) -> None:
    """What is remembered of rows goes into the flow's own state, which may spill."""
    if made.dedup is not None and state.dedup is not None:
        state.dedup.load(*made.dedup.live(late_us), late_us)
    if made.windows is not None and state.windows is not None:
        state.windows.upsert(made.windows.table)
    if made.join is not None and state.join is not None:
        state.join.apply(made.join.everything(), late_us)
        state.join.given = made.join.given


def _remember(deletions: Deletions, around: Surroundings, name: TableName, epoch: int, at: Point) -> None:
    """The deletions that Spark remembers, but for those that the watermark has passed."""
    found = kept_before(around, name, epoch, at.batch + 1, DELETIONS)
    if found is not None:
        deletions.table = conform(found, deletions.schema)
    deletions.forget(at.late_us)


def _hold(windows: OpenWindows, around: Surroundings, name: TableName, epoch: int, at: Point) -> None:
    """The open windows that Spark keeps."""
    found = kept_before(around, name, epoch, at.batch + 1, WINDOWS)
    if found is None:
        raise CorruptionError("the open windows that Spark kept are lost", table=str(name), batch=at.batch)
    windows.refill(unsigned(found, windows.schema))


def _consumed_by_spark(store: FlowStore, batch: int, query: str) -> dict[str, SourceRange]:
    """Where reading of each source unit goes on: from where that query began, and the plans since."""
    began = checkpoint_of(store.disk, store.root, query) or Checkpoint("")
    found = {one.unit: one for one in began.consumed}
    for number in range(began.batch + 1, batch + 1):
        plan = store.plan(number)
        if plan is None:
            raise DataLossRefused(
                "Spark's checkpoint and a plan are gone, which say what was read", folder=store.root, batch=number
            )
        found.update({planned.unit: planned for planned in plan.ranges})
    return found


# --- to Spark ---------------------------------------------------------------------------------------------------------


def check_same(made: Remembered, state: FlowState, table: TableName) -> None:
    """Refuse a handover when the rows do not make the very state that this engine has.

    Raises:
        ConfigError: some were erased on their way, or changed by another definition.
    """
    changed, wait = (
        "rows that were erased since",
        "go on with that engine until the watermark has passed them",
    )
    if made.dedup is not None and state.dedup is not None:
        ours, theirs = (_keys(dedup, state.late_us) for dedup in (state.dedup, made.dedup))
        if not np.array_equal(ours, theirs):
            raise _refusal(table, f"the keys of {changed}", wait)
    if made.windows is not None and state.windows is not None:
        # The groups' order may differ, so windows are known by how many rows they have, and which.
        shown = [*made.windows.bounds, "_rows", "_digest"]
        if not _same(state.windows.table.select(shown), made.windows.table.select(shown)):
            raise _refusal(table, f"windows with {changed}", wait)
    if made.join is not None and state.join is not None:
        for one, other in ((state.join.here, made.join.here), (state.join.there, made.join.there)):
            if len(one) != len(other) or (len(one) and not _same(one.rows.select(_WAITS), other.rows.select(_WAITS))):
                raise _refusal(table, f"{changed} and wait for a partner", wait)


def _keys(dedup: DedupMap, late_us: int) -> Any:
    high, low, expiry_us = dedup.everything(late_us)
    order = np.lexsort((expiry_us, low, high))
    return np.stack([high[order], low[order], expiry_us[order].view(np.uint64)])


def _same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same rows, in any order."""
    columns = [(name, "ascending") for name in one.column_names]
    one, other = (table.sort_by(columns).combine_chunks() for table in (one, conform(other, one.schema)))
    return bool(one.equals(other))
