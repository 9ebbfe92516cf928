"""Taking a table over from the other engine: the state made again from the rows that it stands for.

Spark keeps its state to itself, and this engine keeps hashes and partial sums. What both can begin with is rows: those
taken in whose key is still known, and those of windows that are still open. Here this engine makes its state from
them; Spark is given them as the first batch of its query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.checkpoints import Checkpoint, checkpoint_of
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.frames import conform, positions_of
from lodestream.engines.embedded.inputs import Span, StreamInput
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.leaving import Positions
from lodestream.engines.embedded.replay import entries_before, open_entries
from lodestream.engines.embedded.sessions import open_windows
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.state import Changes, FlowState
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.embedded.windows import START, OpenWindows, assign
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.lake.actions import Commit
from lodestream.lake.layout import app_id
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow_type
from lodestream.model.batch import BatchPlan, SourceRange
from lodestream.model.digest import position_digest
from lodestream.model.steps import (
    Aggregation,
    Annotate,
    ApplyChanges,
    Ask,
    Dedupe,
    Derive,
    FlowPlan,
    LookUp,
    ReadSource,
    ReadTable,
    RunPython,
    Watermark,
)
from lodestream.model.table import Session, TableName

SPARK = "spark"
"""The attempt that a state is of which was made from Spark's last commit."""
TAKES_KEY, IN_WINDOWS = "_takes_key", "_in_windows"
"""Whether a row's key is still known because of it; whether it belongs to windows that are open."""

_ENTRY = ("_source", "_position", "_batch", "kind", "reasons")
_AFTER_DEDUP = ("lookup", "enrich:", "group:", "measure:")
"""How reasons begin that set a row aside after it took its key."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a flow stands, as its last commit says.

    Attributes:
        batch: its number.
        upto: the upstream version it took in last, -1 for none.
        late_us: W of that batch: what comes then is late at or before it.
        max_event_us: largest event time so far, None before the first.
    """

    batch: int
    upto: int
    late_us: int
    max_event_us: int | None

    @classmethod
    def of(cls, commit: Commit, batch: int) -> Point:
        """Read a main commit of either engine."""
        info = commit.info
        upto = info.get("upto")
        return cls(batch, -1 if upto is None else upto, info.get("watermark_us") or 0, info.get("max_event_us"))


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a flow remembers of rows.

    Attributes:
        rows: those that the state stands for: the columns that dedup and windows read, `_source`, `_position`,
            `TAKES_KEY` and `IN_WINDOWS`.
        dedup: the keys that they take.
        windows: the windows that they make.
    """

    rows: pa.Table
    dedup: DedupMap | None
    windows: OpenWindows | None


def is_spark(commit: Commit) -> bool:
    """Whether a main commit is of Spark, which names its query and no state."""
    return "query" in commit.info


def check_handover(plan: FlowPlan) -> None:
    """Raise ConfigError for a table that the other engine cannot take over."""
    first, steps = plan.steps[0], {type(step) for step in plan.steps}
    window = plan.step(Aggregation)
    holds = {
        "a join's waiting rows": plan.join is not None,
        "deletions": ApplyChanges in steps,
        "rows that wait for an answer": Ask in steps,
        "sessions": window is not None and isinstance(window.window, Session),
        "windows of windows": isinstance(first, ReadTable) and first.windows is not None,
        "windows that say what they cover": window is not None and window.completeness,
        "windows over looked-up columns": window is not None and bool(steps & {LookUp, Annotate}),
        "event time of a source": not isinstance(first, ReadTable) and Watermark in steps,
    }
    for what, there in holds.items():
        if there:
            raise _refusal(plan.table.name, what)


def _refusal(table: TableName, what: str) -> ConfigError:
    return ConfigError(
        f"the other engine has filled this table, and {what} cannot be handed over; go on with that engine, or begin "
        f"the table again: lodestream table restore {table} --version 0 --rewind",
        table=str(table),
    )


def remembered(
    plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection, quarantine: DeltaTable, at: Point
) -> Remembered:
    """Make the state after a batch again, from upstream rows and what the quarantine says of them.

    Raises:
        DataLossRefused: the upstream no longer has its rows of that moment.
    """
    dedupe, window, watermark = plan.step(Dedupe), plan.step(Aggregation), plan.step(Watermark)
    dedup = None if dedupe is None else DedupMap()
    windows = None if window is None else open_windows(connection, window)
    if watermark is None or (dedupe is None and window is None):
        return Remembered(pa.table({}), dedup, windows)
    event = watermark.event_time.column
    names = {event, *(dedupe.dedup.keys if dedupe else ()), *(windows.needed if windows else ())}
    columns = [*sorted(names - {"_source", "_position"}), "_source", "_position", TAKES_KEY, IN_WINDOWS]
    found = []
    for rows in _candidates(plan, around, connection, quarantine, at, event):
        event_us = rows.column(event).cast(pa.int64()).to_numpy()
        takes = np.zeros(len(rows), np.bool_)
        if dedupe is not None and dedup is not None:
            expiry_us = event_us + dedupe.expiry_us
            takes = expiry_us > at.late_us
            keys = rows.filter(pa.array(takes))
            high, low = hash_keys([keys.column(key) for key in dedupe.dedup.keys])
            dedup.load(high, low, expiry_us[takes], at.late_us)
        inside = np.zeros(len(rows), np.bool_)
        if window is not None and windows is not None:
            inside = _folded(windows, window, rows, event_us, at.late_us)
        rows = rows.drop_columns([IN_WINDOWS]).append_column(TAKES_KEY, pa.array(takes))
        rows = rows.append_column(IN_WINDOWS, pa.array(inside))
        found.append(rows.select(columns).filter(pa.array(takes | inside)))
    return Remembered(pa.concat_tables(found) if found else _none(plan, columns), dedup, windows)


def _folded(
    windows: OpenWindows, window: Aggregation, rows: pa.Table, event_us: np.ndarray, late_us: int
) -> np.ndarray:
    """Fold rows into the windows that are open at the watermark; which rows belong to one."""
    row, start_us = assign(pa.array(event_us), window.window)
    counts = rows.column(IN_WINDOWS).to_numpy()
    keep = (start_us + window.window.span_us > late_us) & counts[row]
    row, start_us = row[keep], start_us[keep]
    inside = np.zeros(len(rows), np.bool_)
    inside[row] = True
    if len(row):
        hashes = position_digest(rows.column("_source"), rows.column("_position"))
        windows.fold(rows.select([c for c in rows.column_names if c in windows.needed]).take(pa.array(row)), start_us,
                     hashes[row])  # fmt: skip
    return inside


def _candidates(
    plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection, quarantine: DeltaTable, at: Point,
    event: str,
) -> Iterator[pa.Table]:  # fmt: skip
    """Rows taken in that may still count, a file at a time, with derived columns; those set aside are left out.

    `IN_WINDOWS` is false for rows that were set aside after they took their key.
    """
    first = plan.steps[0]
    assert isinstance(first, ReadTable)
    upstream = StreamInput(first.table, first.schema, plan.table.name, around, first.windows)
    steps = tuple(step for step in plan.steps if isinstance(step, RunPython | Derive))
    stages = RowStages(connection, replace(plan, steps=steps), around.functions, Enrichment(plan, around))
    entries = open_entries(entries_before(quarantine, at.batch + 1, _ENTRY))
    after = pa.array([bool(codes) and codes[0].startswith(_AFTER_DEDUP) for codes in entries["reasons"].to_pylist()],
                     pa.bool_())  # fmt: skip
    before, claimed = (Positions(positions_of(entries.filter(which))) for which in (pc.invert(after), after))
    batch = BatchPlan(0, at.batch, "data", 0, plan.definition)
    for piece in upstream.pieces(at.upto, _span(plan, event, at.late_us)):
        rows = piece.filter(pa.array(~before.among(piece)))
        rows = stages.passing(rows, batch, {})
        rows = rows.filter(pc.is_valid(rows.column(event)))
        if len(rows):
            yield rows.append_column(IN_WINDOWS, pa.array(~claimed.among(rows)))


def _span(plan: FlowPlan, event: str, late_us: int) -> Span | None:
    """Where rows that may still count lie in event time; None when that is made here, not in the table above."""
    if plan.table.python is not None or event in {one.name for one in plan.table.derive}:
        return None
    dedupe, window = plan.step(Dedupe), plan.step(Aggregation)
    reach_us = max(dedupe.expiry_us if dedupe else 0, window.window.span_us if window else 0)
    return event, late_us - reach_us, np.iinfo(np.int64).max


def _none(plan: FlowPlan, columns: list[str]) -> pa.Table:
    """No rows, in the types that there would be."""
    first = plan.steps[0]
    assert isinstance(first, ReadTable)
    known = {column.name: to_arrow_type(column.type) for column in first.schema}
    known |= {
        name: to_arrow_type(e.type) for step in plan.steps if isinstance(step, Derive) for name, e in step.columns
    }
    known |= {"_source": pa.string(), "_position": pa.int64(), TAKES_KEY: pa.bool_(), IN_WINDOWS: pa.bool_()}
    return pa.schema([(name, known[name]) for name in columns]).empty_table()


# --- from Spark -------------------------------------------------------------------------------------------------------


def take_over(
    state: FlowState, plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection,
    quarantine: DeltaTable | None, store: FlowStore, table: DeltaTable, commit: Commit,
) -> None:  # fmt: skip
    """Bring `state`, a flow's empty one, to where Spark's last commit stands, durably.

    Raises:
        ConfigError: this table cannot be handed over.
        DataLossRefused: a plan is gone, or rows upstream.
    """
    check_handover(plan)
    table_id, batch = table.snapshot.metadata.id, commit.txns[app_id(plan.table.name, store.epoch)]
    try:
        for link in store.chain(f"{batch:020d}-{SPARK}", table_id, store.epoch, batch):
            state.apply(link)
    except CorruptionError:  # not there yet, or its writer died
        _make(state, plan, around, connection, quarantine, store, Point.of(commit, batch), commit.info["query"])
        link = state.link(table_id, store.epoch, SPARK, Changes())
        state.linked(link, store.put_state(link))
        around.notice(plan.table.name, f"taken over from Spark at batch {batch}")
    state.scattered = True


def _make(
    state: FlowState, plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection,
    quarantine: DeltaTable | None, store: FlowStore, at: Point, query: str,
) -> None:  # fmt: skip
    last = store.plan(at.batch)
    if last is None:
        raise DataLossRefused("the plan of the last batch is gone", table=str(plan.table.name), batch=at.batch)
    state.batch, state.max_event_us, state.late_us, state.upto = at.batch, at.max_event_us, at.late_us, at.upto
    state.pins, state.clock_us = dict(last.pins), last.clock_us
    if isinstance(plan.steps[0], ReadSource):
        state.consumed = _consumed_by_spark(store, at.batch, query)
    if quarantine is not None:
        made = remembered(plan, around, connection, quarantine, at)
        if made.dedup is not None and state.dedup is not None:
            state.dedup.load(*made.dedup.live(state.late_us), state.late_us)
        if made.windows is not None and state.windows is not None:
            state.windows.upsert(made.windows.table)


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
        ConfigError: some were changed on their way (mended, erased) or by another definition.
    """
    if made.dedup is not None and state.dedup is not None:
        ours, theirs = (_keys(dedup, state.late_us) for dedup in (state.dedup, made.dedup))
        if not np.array_equal(ours, theirs):
            raise _refusal(table, "the keys of rows that were mended or erased since")
    if made.windows is not None and state.windows is not None:
        ours, theirs = (_told(windows) for windows in (state.windows, made.windows))
        if not ours.equals(theirs):
            raise _refusal(table, "windows with rows that were mended or erased since")


def _keys(dedup: DedupMap, late_us: int) -> Any:
    high, low, expiry_us = dedup.everything(late_us)
    order = np.lexsort((expiry_us, low, high))
    return np.stack([high[order], low[order], expiry_us[order].view(np.uint64)])


def _told(windows: OpenWindows) -> pa.Table:
    """Windows by start with how many rows they have, and which: the groups' order may differ."""
    columns = [START, "_rows", "_digest"]
    table = windows.table.select(columns).sort_by([(name, "ascending") for name in columns])
    return conform(table.combine_chunks(), pa.schema([(c, windows.schema.field(c).type) for c in columns]))
