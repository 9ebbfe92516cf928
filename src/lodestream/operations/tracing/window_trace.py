"""Answers for tables of windows: what a window covers, in which windows a source row is, and why one is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lodestream.model.steps import FlowPlan
from lodestream.model.table import WINDOW_END, WINDOW_START, TableName, Window
from lodestream.model.types import BIGINT, TIMESTAMP
from lodestream.operations.tracing.absence import counted, not_read, set_aside, unaccounted, why
from lodestream.operations.tracing.findings import Absence, Entry, Hop, Record
from lodestream.operations.tracing.keys import Test, all_of, equal, place
from lodestream.operations.tracing.plain import command, moment, number
from lodestream.operations.tracing.rows import trace_of, walk
from lodestream.operations.tracing.search import explained_aside, input_tests, missing, set_aside_like
from lodestream.operations.tracing.view import View
from lodestream.operations.tracing.windows import SAMPLE, Covered, WindowFlow, instant

_RUN = "lodestream run --until-idle"


@dataclass(frozen=True)
class Answer:
    """What is said about windows: those found, the way to the source, and why what is missing is missing."""

    hops: tuple[Hop, ...] = ()
    windows: tuple[Covered, ...] = ()
    record: Record | None = None
    absence: Absence | None = None
    others: tuple[str, ...] = ()


def by_values(view: View, plan: FlowPlan, tests: Sequence[Test], rows: Sequence[Mapping[str, Any]]) -> Answer:
    """Windows named by their columns.

    Args:
        view: the lake.
        plan: a window flow.
        tests: the key.
        rows: the rows found by it.
    """
    if not rows:
        return _no_window(view, plan, tests)
    flow = WindowFlow(view, plan)
    first = flow.covered(rows[0])
    below, record = tuple[Hop, ...](), None
    if first.sample:
        below, record = _below(view, plan, first.sample[0]["source"], first.sample[0]["position"])
    return Answer(
        (flow.hop(rows[0]), *below),
        (first,),
        record,
        others=tuple(trace_of(view, plan.table.name, row) for row in rows[1:]),
    )


def _below(view: View, plan: FlowPlan, source: str, position: int) -> tuple[tuple[Hop, ...], Record | None]:
    """From an input row of a window table down to the source."""
    above = view.flows[_upstream(plan)]
    if above.table.window is None:
        return walk(view, above.table.name, source, position)
    row = view.window_at(above.table.name, source, position)
    if row is None:
        return (Hop(str(above.table.name), source, position),), None
    answer = by_values(view, above, (), [row])
    return answer.hops, answer.record


def by_position(view: View, plan: FlowPlan, source: str, position: int) -> Answer:
    """The windows that a source row is in, or why it is in none."""
    name = plan.table.name
    above = view.flows[_upstream(plan)]
    if above.table.window is not None and source.partition("/")[0] != str(above.table.name):
        return _through(view, plan, above, by_position(view, above, source, position))
    hops, record = _below(view, plan, source, position)
    own = Hop(str(name), source, position)
    entries = view.entries(name, source, position)
    standing = [entry for entry in entries if entry.state in ("open", "not committed")]
    if standing:
        return Answer((own, *hops), record=record, absence=set_aside(view, plan, entries))
    if record is None:
        message = f"{above.table.name} has no window at {source}:{position}"
        return Answer((own, *hops), absence=Absence(str(above.table.name), "no_such_row", message))
    if hops[0].row is None:
        return Answer((own, *hops), record=record, absence=why(view, hops, record, _upstream(plan)))
    if view.table(name) is None:
        absence = Absence(str(name), "not_in_lake", f"{name} is not in the lake yet", next=(_RUN,))
        return Answer((own, *hops), record=record, absence=absence)
    if waiting := not_read(view, plan, hops[0]):
        return Answer((own, *hops), record=record, absence=waiting)
    flow = WindowFlow(view, plan)
    mine = flow.spread(flow.files(), tests=place(source, position), everything=True).to_pylist()
    found, windows = list[Hop](), list[Covered]()
    gone: Absence | None = None if mine else unaccounted(plan, entries)
    for one in mine:
        covered, hop = _window_of(flow, one)
        if hop is not None:
            found.append(replace(hop, source=source, position=position))
        windows.append(covered)
        if gone is None and hop is None:
            gone = _not_in(flow, one, covered, entries)
    return Answer((*(found or [own]), *hops), tuple(windows), record, gone)


def _through(view: View, plan: FlowPlan, above: FlowPlan, inner: Answer) -> Answer:
    """The windows that the windows of a row are in; `inner` says which those are."""
    name, own = above.table.name, Hop(str(plan.table.name))
    mine = [hop.row for hop in inner.hops if hop.table == str(name) and hop.row is not None]
    if not mine:
        return replace(inner, hops=(own, *inner.hops), windows=())
    answers = [by_position(view, plan, *key) for key in view.windows_as_rows(name, mine)]
    found = [hop for answer in answers for hop in answer.hops if hop.table == own.table and hop.row is not None]
    windows = tuple(window for answer in answers for window in answer.windows)
    absence = next((answer.absence for answer in answers if answer.absence is not None), None)
    return Answer((*(found or [own]), *inner.hops), windows, inner.record, absence)


def _window_of(flow: WindowFlow, one: Mapping[str, Any]) -> tuple[Covered, Hop | None]:
    """The window of one (row, window) pair, and the row of it that a reader sees; None when the pair is not in it."""
    group = {name: one[name] for name, _ in flow.step.group_by}
    start = equal(WINDOW_START, pa.scalar(one["_start"], pa.timestamp("us", tz="UTC")).as_py(), TIMESTAMP)
    table = flow.view.table(flow.name)
    assert table is not None
    schema = table.snapshot.metadata.schema
    _, rows = flow.view.find(table, [start, *(equal(n, v, schema[n].type) for n, v in group.items())], limit=1)
    if rows:
        covered = flow.covered(rows[0])
    else:
        inside = flow.spread(flow.files(), between=(one["_start"], one["_start"] + 1))
        same = all_of([equal(n, v, flow.kind(n)) for n, v in group.items()], inside)
        covered = flow.window(one["_start"], group, inside.filter(same), None)
    missed = (one["_source"], one["_position"], one["_start"]) in flow.missed
    return covered, flow.hop(rows[0]) if rows and not missed else None


def _not_in(flow: WindowFlow, one: Mapping[str, Any], covered: Covered, entries: tuple[Entry, ...]) -> Absence:
    if (one["_source"], one["_position"], one["_start"]) in flow.missed:
        message = f"it came too late for the window that begins at {covered.start}, which was closed by then"
        return Absence(str(flow.name), "late_window", message, entries)
    if covered.state == "open" and flow.step.emit == "final":
        return _still_open(flow, covered)
    return unaccounted(flow.plan, entries)


def _still_open(flow: WindowFlow, covered: Covered) -> Absence:
    message = (
        f"the window from {covered.start} to {covered.end} is still open, and {flow.name} shows closed windows only "
        f"(emit: final): the watermark is {covered.watermark}; {number(covered.rows, 'row')} so far"
    )
    return Absence(str(flow.name), "window_open", message)


def _no_window(view: View, plan: FlowPlan, tests: Sequence[Test]) -> Answer:
    """Nothing has these values: is there a window of that kind at all?"""
    name = plan.table.name
    for absent in (name, _upstream(plan)):
        if view.table(absent) is None:
            return Answer(absence=Absence(str(absent), "not_in_lake", f"{absent} is not in the lake yet", next=(_RUN,)))
    flow = WindowFlow(view, plan)
    asked = {test.column: test for test in tests}
    between = _between(flow, asked)
    if between and isinstance(flow.step.window, Window) and between[0] % flow.step.window.step_us:
        near = moment(between[0] // flow.step.window.step_us * flow.step.window.step_us)
        groups = ",".join(f"{t.column}={t.text}" for t in tests if t.column not in (WINDOW_START, WINDOW_END))
        key = f"{WINDOW_START}={near}" + (f",{groups}" if groups else "")
        message = (
            f"no window of {name} begins at {moment(between[0])}; the one that holds this instant begins at {near}"
        )
        return Answer(absence=Absence(str(name), "no_such_row", message, next=(command(name, key),)))
    groups_of = [test for test in tests if test.column in dict(flow.step.group_by)]
    if between is None and not groups_of:
        return Answer(absence=_nothing(flow, "no window has these values"))
    inside = flow.spread(flow.files(), between=between)
    inside = inside.filter(all_of(groups_of, inside))
    if len(inside):
        return _exists(flow, inside)
    late = flow.spread(flow.files(), between=between, everything=True)
    positions = _positions(late.filter(all_of(groups_of, late)))
    if absence := explained_aside(view, plan, positions):
        came = number(len(positions), "input row")
        words = f"{came} of this window came, and none is in it ({_fates(view, plan, positions)}). "
        return Answer(absence=replace(absence, message=words + absence.message), others=_traces(name, positions[1:]))
    fresh = flow.spread(flow.unread(), between=between)
    fresh = fresh.filter(all_of(groups_of, fresh))
    if len(fresh):
        came = f"{number(len(fresh), 'row')} of {plan.upstream} came after version {flow.upto}"
        message = f"{name} has not read its rows yet: {came}"
        return Answer(
            absence=Absence(str(name), "not_read_yet", message, next=(_RUN,)), others=_traces(name, _positions(fresh))
        )
    return _elsewhere(flow, between, groups_of)


def _exists(flow: WindowFlow, inside: pa.Table) -> Answer:
    """Input rows are there; their windows are open, or other columns of the key were not met."""
    names = [name for name, _ in flow.step.group_by]
    keys = inside.select(["_start", *names]).slice(0, 1).to_pylist()[0]
    group = {name: keys[name] for name in names}
    same = all_of(
        [equal("_start", keys["_start"], BIGINT), *(equal(n, v, flow.kind(n)) for n, v in group.items())], inside
    )
    pair = inside.filter(same).slice(0, 1).to_pylist()[0]
    covered, hop = _window_of(flow, pair)
    if hop is not None:
        assert hop.row is not None
        message = "there is such a window, with other values in the other columns of the key"
        steps = (trace_of(flow.view, flow.name, hop.row),)
        return Answer(windows=(covered,), absence=Absence(str(flow.name), "no_such_row", message, next=steps))
    return Answer(windows=(covered,), absence=_not_in(flow, pair, covered, ()))


def _elsewhere(flow: WindowFlow, between: tuple[int, int] | None, groups: Sequence[Test]) -> Answer:
    """No row of the upstream table falls into it: look at what was set aside, here and further up."""
    asked, _ = input_tests(flow.plan, groups)
    if between is not None:
        low, high = (
            pa.scalar(us, pa.timestamp("us", tz="UTC"))
            for us in (between[0], between[1] - 1 + flow.step.window.span_us)
        )
        timed, _ = input_tests(flow.plan, [Test(flow.event, low, f"{moment(between[0])} …", until=high)])
        asked = [*asked, *timed]
    positions = set_aside_like(flow.view, flow.plan, asked)
    if absence := explained_aside(flow.view, flow.plan, positions):
        return Answer(absence=absence, others=_traces(flow.name, positions[1:]))
    nothing = _nothing(flow, "no input row falls into such a window")
    if asked:
        further = missing(flow.view, _upstream(flow.plan), asked)
        if further.record is not None:
            return Answer(further.hops, (), further.record, further.absence, further.others)
    return Answer(absence=nothing)


def _nothing(flow: WindowFlow, words: str) -> Absence:
    steps = (f'lodestream query "select * from {flow.name} order by window_start desc limit 10"',)
    return Absence(str(flow.name), "no_such_row", f"{words}; watermark {moment(flow.watermark_us)}", next=steps)


def _between(flow: WindowFlow, asked: Mapping[str, Test]) -> tuple[int, int] | None:
    """The window starts that a key allows."""
    if WINDOW_START in asked and asked[WINDOW_START].value.is_valid:
        start = instant(asked[WINDOW_START].value.as_py())
    elif WINDOW_END in asked and asked[WINDOW_END].value.is_valid and isinstance(flow.step.window, Window):
        start = instant(asked[WINDOW_END].value.as_py()) - flow.step.window.every_us
    else:
        return None
    return start, start + 1


def _positions(rows: pa.Table) -> list[tuple[str, int]]:
    pairs = zip(rows.column("_source").to_pylist(), rows.column("_position").to_pylist(), strict=True)
    return list(dict.fromkeys(pairs))


def _fates(view: View, plan: FlowPlan, positions: Sequence[tuple[str, int]]) -> str:
    listed = [view.entries(plan.table.name, *key)[-1:] for key in positions[:100]]
    return counted([entry for entries in listed for entry in entries])


def _traces(name: TableName, positions: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(command(name, f"{source}:{position}") for source, position in positions[:SAMPLE])


def _upstream(plan: FlowPlan) -> TableName:
    assert plan.upstream is not None
    return plan.upstream
