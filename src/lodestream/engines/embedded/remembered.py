"""What a flow remembers, made again from the rows that it stands for.

An engine keeps its state in a form that no other reads. What any can begin with is rows: those taken in that may still
matter to a row to come. Which were set aside is told by the quarantine, which windows are over by the watermark, which
sessions are over by the table itself, and which version of a looked-up table a row met by the plan of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.arrivals import Arrivals
from lodestream.engines.embedded.correction import is_made_here
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.frames import positions_of, select
from lodestream.engines.embedded.inputs import Span, StreamInput
from lodestream.engines.embedded.joins import pairs_of, right_source
from lodestream.engines.embedded.kept import is_folded
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.leaving import Positions
from lodestream.engines.embedded.lookups import Lookups
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.rejects import decode_rows
from lodestream.engines.embedded.replay import entries_before, input_schema, mended, open_entries
from lodestream.engines.embedded.sessions import END, OpenSessions, open_windows
from lodestream.engines.embedded.sides import JoinState
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.embedded.windows import START, OpenWindows, assign
from lodestream.errors import DataLossRefused
from lodestream.lake.actions import Commit
from lodestream.lake.layout import table_path
from lodestream.lake.retention import kept_from_us, later_us
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan, Mend
from lodestream.model.digest import position_digest
from lodestream.model.steps import (
    Aggregation,
    Annotate,
    Dedupe,
    Derive,
    FlowPlan,
    LookUp,
    ReadTable,
    RunPython,
    Watermark,
)
from lodestream.model.table import WINDOW_END, WINDOW_START, Session
from lodestream.planning.scope import BATCH

_ENTRY = ("_source", "_position", "_batch", "kind", "reasons")
_AFTER_DEDUP = ("lookup", "unmatched", "enrich:", "group:", "measure:")
"""How reasons begin that set a row aside after it took its key."""
_NEWEST = np.iinfo(np.int64).max

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a flow stands, as its last commit says.

    Attributes:
        batch: its number.
        upto: the upstream version it took in last, -1 for none.
        late_us: W of that batch: what comes then is late at or before it.
        max_event_us: largest event time so far, None before the first.
        joined_upto, joined_max_event_us: the same of the stream that is joined.
        given: how many rows a join has given.
    """

    batch: int
    upto: int
    late_us: int
    max_event_us: int | None
    joined_upto: int = -1
    joined_max_event_us: int | None = None
    given: int = 0

    @classmethod
    def of(cls, commit: Commit, batch: int) -> Point:
        """Read a main commit of either engine."""
        info = commit.info
        upto, joined = (-1 if (found := info.get(name)) is None else found for name in ("upto", "joined_upto"))
        return cls(
            batch, upto, info.get("watermark_us") or 0, info.get("max_event_us"), joined,
            info.get("joined_max_event_us"), info.get("given") or 0,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a flow remembers.

    Attributes:
        keyed: rows whose keys are known: the event time, the columns of the key, `_source`, `_position`.
        inside: rows of open windows: the event time, the columns that windows read, `_source`, `_position`.
        dedup: the keys that those rows take.
        windows: the windows that they make.
        join: the rows of both streams that wait for a partner.
    """

    keyed: pa.Table | None = None
    inside: pa.Table | None = None
    dedup: DedupMap | None = None
    windows: OpenWindows | None = None
    join: JoinState | None = None


class Memory:
    """Makes the state of a flow again.

    Args:
        plan: the flow.
        around: its surroundings.
        connection: a DuckDB.
        store: its plans.
        table: its table.
        quarantine: its quarantine.
    """

    def __init__(
        self, plan: FlowPlan, around: Surroundings, connection: duckdb.DuckDBPyConnection, store: FlowStore,
        table: DeltaTable, quarantine: DeltaTable,
    ) -> None:  # fmt: skip
        self._plan, self._around, self._connection = plan, around, connection
        self._store, self._table, self._quarantine = store, table, quarantine
        self._dedupe, self._join = plan.step(Dedupe), plan.join
        self._window = None if is_folded(plan) else plan.step(Aggregation)
        watermark = plan.step(Watermark)
        self._event = "" if watermark is None else watermark.event_time.column
        self._goes_on = self._window is not None or self._join is not None
        later = [step for step in plan.steps if isinstance(step, LookUp | Annotate)] if self._goes_on else []
        self._lookups, self._completed = [step for step in later if isinstance(step, LookUp)], bool(later)

    def check_kept(self, at: Point) -> None:
        """Raise DataLossRefused when rows that may still matter may have left by retention."""
        disk, lake, names = self._around.disk, self._around.lake, self._plan.streams
        above = [(table, name) for name in names if (table := DeltaTable.open(disk, table_path(lake, name)))]
        found = [*above, (self._quarantine, self._plan.table.name)]
        kept_us = later_us(*(kept_from_us(table, name) for table, name in found))
        stateful = self._event and (self._dedupe or self._goes_on)
        if stateful and kept_us is not None and at.late_us - self._reach_us < kept_us:
            raise DataLossRefused(
                "rows that may still matter may have left by retention; go on with the engine that filled the table, "
                f"or begin it again: lodestream table restore {self._plan.table.name} --version 0 --rewind",
                table=str(self._plan.table.name), since_us=at.late_us - self._reach_us, kept_us=kept_us,
            )  # fmt: skip

    def at(self, at: Point) -> Remembered:
        """The state after a batch.

        Raises:
            DataLossRefused: rows, plans or versions of that time are gone.
        """
        if not self._event or not (self._dedupe or self._goes_on):
            return Remembered()
        dedup = None if self._dedupe is None else DedupMap()
        windows = None if self._window is None else open_windows(self._connection, self._window)
        join = None if self._join is None else JoinState(self._join.join)
        keyed: list[pa.Table] = []
        inside: list[pa.Table] = []
        entries = entries_before(self._quarantine, at.batch + 1, _ENTRY)
        for rows, going in self._taken_in(at, entries):
            if dedup is not None:
                keyed.append(self._claim(dedup, rows, at.late_us))
            if windows is not None:
                inside.append(self._fold(windows, going, at.late_us))
            elif join is not None and len(going):
                join.here.add(going, _times(going, self._event))
        counted = _together(inside)
        if windows is not None and counted is not None and isinstance(windows, OpenSessions):
            windows.close(at.late_us)  # a session that was over, and that the table let go of by retention
            counted = counted.filter(pa.array(self._in_open(windows, counted)))
        if join is not None:
            self._meet(join, at, entries)
        return Remembered(_together(keyed), counted, dedup, windows, join)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _taken_in(self, at: Point, entries: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows taken in that may still count, a file at a time and one piece at least.

        Each piece is given as it stands in front of dedup, and as those of its rows that were not set aside later on
        stand in front of window or join.
        """
        first = self._plan.steps[0]
        assert isinstance(first, ReadTable)
        schema = first.schema.with_columns(BATCH) if self._lookups and BATCH.name not in first.schema else first.schema
        upstream = StreamInput(first.table, schema, self._plan.table.name, self._around, first.windows)
        standing = open_entries(entries)
        after = pa.array([bool(codes) and codes[0].startswith(_AFTER_DEDUP) for codes in
                          standing["reasons"].to_pylist()], pa.bool_())  # fmt: skip
        before, claimed = (Positions(positions_of(standing.filter(which))) for which in (pc.invert(after), after))
        derived, batch = self._stages(RunPython, Derive), BatchPlan(0, at.batch, "data", 0, self._plan.definition)
        arrivals = Arrivals(self._store, self._around, first.table, at.batch, entries) if self._lookups else None
        if at.upto < 0:
            return
        for given in self._given(upstream, at, before, entries):
            bare = given.drop_columns([BATCH.name]) if arrivals is not None else given
            rows = self._with_time(derived.passing(bare, batch, {}))
            if not self._completed:
                yield rows, rows.filter(pa.array(~claimed.among(rows)))
                continue
            stays = pa.array(~claimed.among(given))
            pins, numbers = arrivals.pins_of(given.filter(stays)) if arrivals is not None else ([], None)
            yield rows, self._with_time(self._complete(bare.filter(stays), batch, pins, numbers))

    def _given(self, above: StreamInput, at: Point, aside: Positions, entries: pa.Table) -> Iterator[pa.Table]:
        """Rows of the table above that are not aside; those that were mended, as they were taken in then."""
        again = self._mended(at.batch, entries)
        if again is not None:
            aside = Positions(aside.keys.union(positions_of(again)))
            yield again
        for piece in above.pieces(at.upto, self._span(at.late_us)):
            yield piece.filter(pa.array(~aside.among(piece)))

    def _mended(self, batch: int, entries: pa.Table) -> pa.Table | None:
        """Rows that were taken in another form than the table above has them; None for none."""
        if not any("mended" in reasons for reasons in entries.column("reasons").to_pylist()):
            return None
        rows: dict[tuple[str, int], str] = {}
        found: dict[tuple[str, int], str] = {}
        for entry in entries_before(self._quarantine, batch + 1, (*_ENTRY, "row", "detail")).to_pylist():
            place = entry["_source"], entry["_position"]
            if entry["kind"] == "resolved" and "mended" in entry["reasons"]:
                found[place] = mended(rows[place], Mend.from_json(entry["detail"]))
            elif entry["kind"] != "late_window":
                found.pop(place, None)
            rows[place] = entry["row"] or rows.get(place, "{}")
        made = decode_rows(list(found.values()), input_schema(self._plan))
        made = made.append_column("_source", pa.array([source for source, _ in found], pa.string()))
        made = made.append_column("_position", pa.array([position for _, position in found], pa.int64()))
        return made.append_column(BATCH.name, pa.nulls(len(made), pa.int64())) if self._lookups else made

    def _stages(self, *kinds: type) -> RowStages:
        steps = tuple(step for step in self._plan.steps if isinstance(step, kinds))
        enrichment = Enrichment(self._plan, self._around)
        return RowStages(self._connection, replace(self._plan, steps=steps), self._around.functions, enrichment)

    def _with_time(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.is_valid(rows.column(self._event)))

    def _complete(
        self, rows: pa.Table, batch: BatchPlan, pins: Sequence[Mapping[str, int]], numbers: np.ndarray | None
    ) -> pa.Table:
        """The rows with all columns: what enrichers say, and what they met in the versions of `pins`, by number."""
        stages = self._stages(RunPython, Derive, LookUp, Annotate)
        if numbers is None:
            return stages.passing(rows, batch, {})
        lookups = Lookups(self._connection, Readers(self._around.disk, self._around.lake), self._lookups)
        parts = [
            stages.passing(rows.filter(pa.array(numbers == number)), batch, lookups.at(versions))
            for number, versions in enumerate(pins)
        ]
        return pa.concat_tables(parts)

    @property
    def _reach_us(self) -> int:
        """How far behind the watermark rows may lie that still matter."""
        return max(
            self._dedupe.expiry_us if self._dedupe else 0,
            self._window.window.span_us if self._window else 0,
            self._join.join.high_us - self._join.join.low_us if self._join else 0,
        )

    def _span(self, late_us: int) -> Span | None:
        """Where rows that may still count lie in event time; None when that is made here, or there is no bound."""
        unbounded = self._window is not None and isinstance(self._window.window, Session)
        if unbounded or is_made_here(self._plan, self._event):
            return None
        return self._event, late_us - self._reach_us, _NEWEST

    # --- dedup -------------------------------------------------------------------------------------------------------

    def _claim(self, dedup: DedupMap, rows: pa.Table, late_us: int) -> pa.Table:
        """Have the rows take their keys; those whose key is still known."""
        assert self._dedupe is not None
        keys = list(self._dedupe.dedup.keys)
        expiry_us = _times(rows, self._event) + self._dedupe.expiry_us
        known = expiry_us > late_us
        rows = rows.select(list(dict.fromkeys((self._event, *keys, "_source", "_position")))).filter(pa.array(known))
        high, low = hash_keys([rows.column(key) for key in keys])
        dedup.load(high, low, expiry_us[known], late_us)
        return rows

    # --- windows -----------------------------------------------------------------------------------------------------

    def _fold(self, windows: OpenWindows, rows: pa.Table, late_us: int) -> pa.Table:
        """Fold rows into the windows that are open at the watermark; those of them that belong to one."""
        assert self._window is not None
        names = sorted(windows.needed | {self._event})
        rows = rows.select([*names, *(name for name in ("_source", "_position") if name not in names)])
        if isinstance(self._window.window, Session):
            rows = rows.filter(pa.array(~self._finished(windows, rows, late_us)))
        event_us = _times(rows, self._event)
        row, start_us = assign(pa.array(event_us), self._window.window)
        if not isinstance(self._window.window, Session):
            keep = start_us + self._window.window.span_us > late_us
            row, start_us = row[keep], start_us[keep]
        inside = np.zeros(len(rows), np.bool_)
        inside[row] = True
        if len(row):
            hashes = position_digest(rows.column("_source"), rows.column("_position"))
            spread = rows.select([c for c in rows.column_names if c in windows.needed]).take(pa.array(row))
            windows.fold(spread, start_us, hashes[row])
        return rows.filter(pa.array(inside))

    def _finished(self, windows: OpenWindows, rows: pa.Table, late_us: int) -> Flags:
        """Which rows are in sessions that are over: the table has those, and no row of a later one is among them."""
        assert self._window is not None
        groups = [name for name, _ in self._window.group_by]
        over = self._table.read(self._table.files(), columns=[WINDOW_START, WINDOW_END, *groups])
        over = over.filter(pc.less_equal(over.column(WINDOW_END).cast(pa.int64()), late_us))
        last_us = _times(over, WINDOW_END) - self._window.window.span_us
        values = [over.column(name).cast(windows.schema.field(name).type) for name in groups]
        event_us = _times(rows, self._event)
        return within(self._group_values(windows, rows), event_us, values, _times(over, WINDOW_START), last_us)

    def _in_open(self, windows: OpenSessions, rows: pa.Table) -> Flags:
        """Which rows belong to sessions that are open."""
        assert self._window is not None
        table, values = windows.table, self._group_values(windows, rows)
        start_us, last_us = table.column(START).to_numpy(), table.column(END).to_numpy() - self._window.window.span_us
        groups = [table.column(name) for name, _ in self._window.group_by]
        return within(values, _times(rows, self._event), groups, start_us, last_us)

    def _group_values(self, windows: OpenWindows, rows: pa.Table) -> list[pa.ChunkedArray]:
        assert self._window is not None
        items = [(name, e.duckdb) for name, e in self._window.group_by]
        if not items:
            return []
        made = select(self._connection, rows, items)
        return [made.column(name).cast(windows.schema.field(name).type) for name, _ in items]

    # --- joins -------------------------------------------------------------------------------------------------------

    def _meet(self, held: JoinState, at: Point, entries: pa.Table) -> None:
        """Bring in the rows of the other stream, note who met whom, and let go of those whose time is over."""
        assert self._join is not None
        join = self._join.join
        aside = Positions(positions_of(open_entries(entries)))
        there = StreamInput(join.table, self._join.reads, self._plan.table.name, self._around)
        event = join.event_time.column
        span = (event, at.late_us - (join.high_us - join.low_us), _NEWEST)
        for rows in there.pieces(at.joined_upto, span) if at.joined_upto >= 0 else ():
            place = rows.schema.get_field_index("_source")
            named = rows.set_column(place, "_source", right_source(join.table, rows.column("_source")))
            rows = rows.filter(pa.array(~aside.among(named)))
            rows = rows.filter(pc.is_valid(rows.column(event)))
            if len(rows):
                held.there.add(rows, _times(rows, event))
        if len(held.here) and len(held.there):
            left, right = pairs_of(self._connection, held, join, (0, 0))
            held.here.meet(left)
            held.there.meet(right)
        for side, until_us in held.limits(at.late_us):
            side.evict(until_us)
        held.given = at.given


def within(
    groups: Sequence[pa.ChunkedArray], time_us: np.ndarray, span_groups: Sequence[pa.ChunkedArray],
    first_us: np.ndarray, last_us: np.ndarray,
) -> Flags:  # fmt: skip
    """Which of n times lie in a span of their group, bounds included; the spans of a group do not overlap.

    Args:
        groups: group columns of n values each.
        time_us: n times.
        span_groups: group columns of m values each, in the same types.
        first_us, last_us: m bounds.
    """
    count = len(time_us)
    time = np.concatenate([first_us, time_us])
    hashed = zip(_hashes(span_groups, len(first_us)), _hashes(groups, count), strict=True)
    keys = [np.concatenate(both) for both in hashed]
    row = np.concatenate([np.zeros(len(first_us), np.bool_), np.ones(count, np.bool_)])
    order = np.lexsort((row, time, keys[1], keys[0]))
    span = np.maximum.accumulate(np.where(row[order], -1, np.arange(len(order))))
    found = order[np.maximum(span, 0)]
    same = (span >= 0) & (keys[0][found] == keys[0][order]) & (keys[1][found] == keys[1][order])
    inside = np.zeros(len(time), np.bool_)
    if len(last_us):
        inside[order] = same & (time[order] <= last_us[np.minimum(found, len(last_us) - 1)]) & row[order]
    return inside[len(first_us) :]


def _hashes(groups: Sequence[pa.ChunkedArray], count: int) -> tuple[np.ndarray, np.ndarray]:
    if not groups or not count:
        return np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    return hash_keys(groups)


def _times(rows: pa.Table, event: str) -> np.ndarray:
    found: np.ndarray = rows.column(event).cast(pa.int64()).to_numpy()
    return found


def _together(parts: list[pa.Table]) -> pa.Table | None:
    return pa.concat_tables(parts, promote_options="permissive") if parts else None
