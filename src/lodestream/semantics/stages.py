"""What a stream table holds after each batch: the definition that every engine is tested against.

The order of stages is fixed: derive, expectations, null event time, watermark, dedup, lookup, then window or changes. A
row leaves at the first stage that does not pass it on, and where it left is its disposition. Times are whole
microseconds since 1970 UTC; expressions are Python callables that raise ArithmeticError or ValueError where Spark's
ANSI mode would raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

from lodestream.errors import LodestreamError
from lodestream.model.table import (
    JOIN_META,
    Changes,
    Dedup,
    EventTime,
    Join,
    Late,
    Lookup,
    OnFail,
    Session,
    TableName,
    Window,
)
from lodestream.semantics import sessions
from lodestream.semantics.changes import DELETES, unfit
from lodestream.semantics.dedup import Key, deduplicate, key_of
from lodestream.semantics.joins import Held, join_streams
from lodestream.semantics.lookups import Row, look_up
from lodestream.semantics.watermark import Watermark
from lodestream.semantics.windows import Rows, fold, open_starts, starts_of

Position = tuple[str, int]
"""(`_source`, `_position`): what every row is known by."""
WindowKey = tuple[int, Key]
"""(window start in microseconds, values of the group columns)."""
Compute = Callable[[Row], Any]


@dataclass(frozen=True, slots=True)
class Measure:
    """An aggregate: `of` gives each row's value (None is NULL), `fold` one value for all rows of a window and group."""

    of: Compute
    fold: Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """An expectation: met when `that` gives True; False, NULL and an error are not met."""

    name: str
    that: Compute
    otherwise: OnFail = "quarantine"


@dataclass(frozen=True, slots=True)
class Spec:
    """A stream table, with callables for its expressions; the other parts are as declared.

    Attributes:
        derive: columns computed from the input row, all at once: none sees another's result.
        group_by: computed from a row; with `window` only.
        measures: columns of the window table beside bounds and groups; rows come in order of arrival.
    """

    derive: Mapping[str, Compute] = field(default_factory=dict)
    expect: tuple[Rule, ...] = ()
    event_time: EventTime | None = None
    dedup: Dedup | None = None
    lookups: tuple[Lookup, ...] = ()
    join: Join | None = None
    window: Window | Session | None = None
    group_by: Mapping[str, Compute] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    emit: Literal["updates", "final"] = "updates"
    late: Late = "quarantine"
    completeness: bool = False
    changes: Changes | None = None
    delete_when: Compute = lambda row: False


@dataclass(frozen=True, slots=True)
class Batch:
    """Input rows in arrival order, each with `_source` and `_position`; none in a no-data batch.

    `joined` are those of the other stream of a join, which are known as `table/_source`, `_position` to it. `pins` are
    the rows of each lookup table in the version pinned for this batch. `watermark_us` is the watermark of the table
    above, whose windows the rows are: windows of windows have no watermark of their own. Closed windows that begin
    before `kept_us` are not opened again, for rows of them may be gone.
    """

    rows: Sequence[Row] = ()
    pins: Mapping[TableName, Sequence[Row]] = field(default_factory=dict)
    joined: Sequence[Row] = ()
    watermark_us: int | None = None
    kept_us: int | None = None


@dataclass(frozen=True, slots=True)
class Disposition:
    """What became of one input row.

    In a window table `output` means that at least one window holds it, in a table of changes that it was taken in.
    """

    kind: Literal["output", "quarantine", "late", "duplicate", "dropped"]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """All that one batch hands to the next.

    Attributes:
        mark: watermarks of the next batch.
        expiries: dedup keys remembered.
        opened: rows of the open windows.
        table: rows of the window table, by window and group.
        newest: newest event time of each side of a join, None before the first row.
        held: rows of both sides of a join that wait.
        changes: all changes taken in so far, with `DELETES`: what `table_of` makes the table of.
        covered: input rows of the windows in there that are closed, with `late: update` only: they may open again.
    """

    mark: Watermark = field(default_factory=Watermark)
    expiries: Mapping[Key, int] = field(default_factory=dict)
    opened: Mapping[WindowKey, Rows[Row]] = field(default_factory=dict)
    table: Mapping[WindowKey, Row] = field(default_factory=dict)
    newest: tuple[int | None, int | None] = (None, None)
    held: Held = field(default_factory=Held)
    changes: tuple[Row, ...] = ()
    covered: Mapping[WindowKey, Rows[Row]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one batch did.

    Attributes:
        mark: the watermarks it ran with.
        accepted: rows that passed every stage, with their derived and looked-up columns: what a row-level table
            appends, and what a window table has counted. Those of a join are known by `JOIN_META`.
        dispositions: one for each input position; for a join those of rows that left in this batch, and what stays is
            in a pair or waits for one.
        missed: of rows that some hopping windows took, starts of those that no longer did, by position.
        closed: keys of the windows that this batch closed.
        after: state after the batch, which holds the window table and the open windows.
    """

    mark: Watermark
    accepted: tuple[Row, ...]
    dispositions: Mapping[Position, Disposition]
    missed: Mapping[Position, tuple[int, ...]]
    closed: tuple[WindowKey, ...]
    after: State


def run_stream(spec: Spec, batches: Iterable[Batch], state: State | None = None) -> list[Outcome]:
    """Run all batches in order, from nothing or from the `state` that an earlier run ended with."""
    start = Outcome(Watermark(), (), {}, {}, (), state or State())
    return list(accumulate(batches, lambda last, batch: run_batch(spec, last.after, batch), initial=start))[1:]


def run_batch(spec: Spec, state: State, batch: Batch) -> Outcome:
    """Run one batch. Nothing given is changed, so the same batch from the same state is the same outcome.

    Raises:
        LodestreamError: a row breaks a rule with `otherwise: fail`.
    """
    gone: dict[Position, Disposition] = {}
    rows: list[Row] = []
    for given in batch.rows:
        row, disposition = _judge(spec, given)
        if disposition is None:
            rows.append(row)
        else:
            gone[position_of(row)] = disposition

    joined = _judge_joined(spec.join, batch.joined, gone) if spec.join is not None else []
    if batch.watermark_us is None:
        mark, state = state.mark, _advance(spec, state, rows, joined)
    else:
        mark = Watermark(state.mark.evict_us, max(state.mark.evict_us, batch.watermark_us))
        state = replace(state, mark=Watermark(mark.evict_us, mark.evict_us))
    rows, state = _dedup(spec, rows, state, mark, gone)
    rows = _join(spec, rows, batch.pins, gone)
    if spec.join is not None:
        return _join_streams(spec, spec.join, (rows, joined), state, mark, gone)
    rows = _compute_groups(spec, rows, gone)
    missed: dict[Position, tuple[int, ...]] = {}
    rows, state, closed = _window(spec, rows, state, mark, batch.kept_us, gone, missed)
    rows, state = _change(spec, rows, state, mark, gone)

    kept = {position_of(row): Disposition("output") for row in rows}
    dispositions = {position: (kept | gone)[position] for position in map(position_of, batch.rows)}
    return Outcome(mark, tuple(rows), dispositions, missed, closed, state)


def position_of(row: Row) -> Position:
    """The position that a row is known by."""
    return row["_source"], row["_position"]


def _judge(spec: Spec, given: Row) -> tuple[Row, Disposition | None]:
    """Derive, check expectations and event time; no disposition means that the row passes.

    A row that breaks rules of both kinds is quarantined, for that keeps it; the reasons to drop it come last.
    """
    broken: list[str] = []
    dropped: list[str] = []
    derived = {}
    for name, compute in spec.derive.items():
        derived[name], failed = _attempt(compute, given)
        if failed:
            broken.append(f"derive:{name}:error")
    row = {**given, **derived}
    for rule in spec.expect:
        met, failed = _attempt(rule.that, row)
        suffix = ":error" if failed else ""
        if met is True or rule.otherwise == "warn":
            continue
        if rule.otherwise == "fail":
            raise LodestreamError("row breaks a rule that stops the table", rule=rule.name, position=position_of(row))
        if rule.otherwise == "drop":
            dropped.append(f"drop:{rule.name}{suffix}")
        else:
            broken.append(f"expect:{rule.name}{suffix}")
    if broken:
        return row, Disposition("quarantine", (*broken, *dropped))
    if dropped:
        return row, Disposition("dropped", tuple(dropped))
    if spec.event_time and row[spec.event_time.column] is None:
        return row, Disposition("quarantine", ("null_event_time",))
    return row, None


def _attempt(compute: Compute, row: Row) -> tuple[Any, bool]:
    try:
        return compute(row), False
    except (ArithmeticError, ValueError):
        return None, True


def _advance(spec: Spec, state: State, rows: Sequence[Row], joined: Sequence[Row]) -> State:
    """Watermarks of the next batch: every row that got this far counts, late ones and duplicates too.

    The side of a join that is further behind decides; while it has given no row, the watermark stays where it is.
    """
    if spec.event_time is None:
        return state
    times_us = [row[spec.event_time.column] for row in rows]
    if spec.join is None:
        return replace(state, mark=state.mark.after(times_us, spec.event_time.delay_us))
    other = spec.join.event_time
    here = max((*times_us, *(t for t in state.newest[:1] if t is not None)), default=None)
    there = max((*(row[other.column] for row in joined), *(t for t in state.newest[1:] if t is not None)), default=None)
    reached = [] if here is None or there is None else [min(here - spec.event_time.delay_us, there - other.delay_us)]
    return replace(state, mark=state.mark.after(reached, 0), newest=(here, there))


def _dedup(
    spec: Spec, rows: list[Row], state: State, mark: Watermark, gone: dict[Position, Disposition]
) -> tuple[list[Row], State]:
    if spec.dedup is None or spec.event_time is None:
        return rows, state
    within_us = spec.event_time.delay_us if spec.dedup.within_us is None else spec.dedup.within_us
    keyed = [(key_of([row[name] for name in spec.dedup.keys]), row[spec.event_time.column]) for row in rows]
    verdicts, expiries = deduplicate(keyed, state.expiries, mark, within_us)
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict != "output":
            gone[position_of(row)] = Disposition(verdict, (verdict,))
    kept = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict == "output"]
    return kept, replace(state, expiries=expiries)


def _join(
    spec: Spec, rows: list[Row], pins: Mapping[TableName, Sequence[Row]], gone: dict[Position, Disposition]
) -> list[Row]:
    for lookup in spec.lookups:
        joined: list[Row] = []
        for row in rows:
            found = look_up(row, lookup, pins[lookup.table])
            if found is None:
                gone[position_of(row)] = Disposition("quarantine", ("lookup_ambiguous", f"lookup:{lookup.table}"))
            else:
                joined.append(found)
        rows = joined
    return rows


def _judge_joined(join: Join, rows: Sequence[Row], gone: dict[Position, Disposition]) -> list[Row]:
    """The other stream's rows that have an event time."""
    missing = [row for row in rows if row[join.event_time.column] is None]
    gone |= {_joined_position(join, row): Disposition("quarantine", ("null_event_time",)) for row in missing}
    return [row for row in rows if row[join.event_time.column] is not None]


def _joined_position(join: Join, row: Row) -> Position:
    return f"{join.table}/{row['_source']}", row["_position"]


def _join_streams(
    spec: Spec,
    join: Join,
    rows: tuple[Sequence[Row], Sequence[Row]],
    state: State,
    mark: Watermark,
    gone: dict[Position, Disposition],
) -> Outcome:
    assert spec.event_time is not None
    here = [(row, row[spec.event_time.column]) for row in rows[0]]
    there = [(row, row[join.event_time.column]) for row in rows[1]]
    found = join_streams(here, there, state.held, mark, join)
    late, unmatched = Disposition("late", ("late",)), Disposition("dropped", ("unmatched",))
    for disposition, (left, right) in ((late, found.late), (unmatched, found.alone)):
        gone |= {position_of(row): disposition for row in left}
        gone |= {_joined_position(join, row): disposition for row in right}
    pairs = tuple(_pair(join, *pair) for pair in found.pairs)
    return Outcome(mark, pairs, gone, {}, (), replace(state, held=found.after))


def _pair(join: Join, here: Row, there: Row | None) -> Row:
    """A joined row; it is known by the two rows that it was made from."""
    places = (here["_source"], here["_position"], there and there["_source"], there and there["_position"])
    taken = {name: there and there[other] for other, name in join.columns}
    later = max(row["_ingest_time"] for row in (here, there) if row is not None)
    kept = {name: value for name, value in here.items() if name not in ("_source", "_position")}
    return {**kept, **taken, "_ingest_time": later, **dict(zip(JOIN_META, places, strict=True))}


def _compute_groups(spec: Spec, rows: list[Row], gone: dict[Position, Disposition]) -> list[Row]:
    """Rows with their group and measured values under `_group` and `_measured`; a row whose values err leaves."""
    if spec.window is None:
        return rows
    kept: list[Row] = []
    for row in rows:
        groups = {name: _attempt(compute, row) for name, compute in spec.group_by.items()}
        measured = {name: _attempt(measure.of, row) for name, measure in spec.measures.items()}
        errors = [f"group:{name}:error" for name, (_, failed) in groups.items() if failed]
        errors += [f"measure:{name}:error" for name, (_, failed) in measured.items() if failed]
        if errors:
            gone[position_of(row)] = Disposition("quarantine", tuple(errors))
            continue
        group = key_of([value for value, _ in groups.values()])
        kept.append({**row, "_group": group, "_measured": {name: value for name, (value, _) in measured.items()}})
    return kept


def _window(
    spec: Spec,
    rows: list[Row],
    state: State,
    mark: Watermark,
    kept_us: int | None,
    gone: dict[Position, Disposition],
    missed: dict[Position, tuple[int, ...]],
) -> tuple[list[Row], State, tuple[WindowKey, ...]]:
    if spec.window is None or spec.event_time is None:
        return rows, state, ()
    if isinstance(spec.window, Session):
        return _sessions(spec, spec.window, spec.event_time.column, rows, state, mark, gone)
    kept, added = [], []
    corrected: dict[WindowKey, Rows[Row]] = {}
    for row in rows:
        time_us = row[spec.event_time.column]
        starts = open_starts(time_us, spec.window, mark)
        past = tuple(start for start in starts_of(time_us, spec.window) if start not in starts)
        again = tuple(start for start in past if spec.late == "update" and (kept_us is None or start >= kept_us))
        past = tuple(start for start in past if start not in again)
        for key in [(start, row["_group"]) for start in again]:
            corrected[key] = (*corrected.get(key, state.covered.get(key, ())), row)
        if not starts and not again:
            gone[position_of(row)] = Disposition("late", ("late",))
            continue
        kept.append(row)
        added += [((start, row["_group"]), row) for start in starts]
        if past:
            missed[position_of(row)] = past
    touched, closed, opened = fold(added, state.opened, spec.window, mark)
    written = {**(touched if spec.emit == "updates" else closed), **corrected}
    covered = {**state.covered, **closed, **corrected} if spec.late == "update" else {}
    ends = spec.window.every_us
    table = {**state.table, **{key: _window_row(spec, key[0] + ends, key, held) for key, held in written.items()}}
    return kept, replace(state, opened=opened, table=table, covered=covered), tuple(closed)


def _change(
    spec: Spec, rows: list[Row], state: State, mark: Watermark, gone: dict[Position, Disposition]
) -> tuple[list[Row], State]:
    """Take in the changes; with event time one at or behind W(n-1) is late, as no deletion so old is remembered."""
    if spec.changes is None:
        return rows, state
    kept: list[Row] = []
    for row in rows:
        deletes, failed = _attempt(spec.delete_when, row)
        reasons = (*unfit(row, spec.changes), *(("delete_when:error",) if failed else ()))
        if reasons:
            gone[position_of(row)] = Disposition("quarantine", reasons)
        elif spec.event_time is not None and row[spec.event_time.column] <= mark.late_us:
            gone[position_of(row)] = Disposition("late", ("late",))
        else:
            kept.append({**row, DELETES: deletes is True})
    return kept, replace(state, changes=(*state.changes, *kept))


def _sessions(
    spec: Spec, session: Session, column: str, rows: list[Row], state: State, mark: Watermark,
    gone: dict[Position, Disposition],
) -> tuple[list[Row], State, tuple[WindowKey, ...]]:  # fmt: skip
    kept = [row for row in rows if not sessions.is_late(row[column], session, mark)]
    late = {position_of(row) for row in rows} - {position_of(row) for row in kept}
    gone |= dict.fromkeys(late, Disposition("late", ("late",)))

    def timed(held: Rows[Row]) -> sessions.Timed[Row]:
        return tuple((row[column], row) for row in held)

    added = [(row["_group"], row[column], row) for row in kept]
    before = {key: timed(held) for key, held in state.opened.items()}
    touched, closed, opened = sessions.fold(added, before, session, mark)
    table = {key: row for key, row in state.table.items() if key not in state.opened}
    table |= {key: state.table[key] for key in opened if key in state.table and key not in touched}
    written = {**touched, **closed} if spec.emit == "updates" else closed
    for key, held in written.items():
        end_us = sessions.span_of(held, session)[1]
        table[key] = _window_row(spec, end_us, key, [row for _, row in held])
    rows_of = {key: tuple(row for _, row in held) for key, held in opened.items()}
    return kept, replace(state, opened=rows_of, table=table), tuple(closed)


def _window_row(spec: Spec, end_us: int, key: WindowKey, rows: Sequence[Row]) -> Row:
    """A row of the window table; `_positions` are the input rows it covers, of which engines store count and digest."""
    return {
        "window_start": key[0],
        "window_end": end_us,
        **dict(zip(spec.group_by, key[1], strict=True)),
        **{name: measure.fold([row["_measured"][name] for row in rows]) for name, measure in spec.measures.items()},
        "_rows": len(rows),
        "_positions": frozenset(map(position_of, rows)),
    }
