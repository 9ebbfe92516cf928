"""Why a source row is not in a row-level table: set aside, not read yet, never there, or no record at all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace

from lodestream.engines.embedded.asking import trouble
from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.ledger import ledger_path
from lodestream.lake.layout import flow_folder
from lodestream.model.steps import Ask, Dedupe, FlowPlan, ReadSource
from lodestream.model.table import TableName
from lodestream.operations.tracing.findings import Absence, Entry, Hop, Record
from lodestream.operations.tracing.keys import equal
from lodestream.operations.tracing.origin import Origin
from lodestream.operations.tracing.plain import command, number
from lodestream.operations.tracing.rows import trace_of
from lodestream.operations.tracing.view import View
from lodestream.operations.waiting_positions import waiting_positions

_RUN = "lodestream run --until-idle"
_STANDING = ("open", "not committed")


def why(view: View, hops: Sequence[Hop], record: Record, name: TableName) -> Absence:
    """Why the row is not in `name`: the first table on the way to the source that can say so.

    Args:
        view: the lake.
        hops: `name` and the tables below it, as `walk` gives them.
        record: the source's record.
        name: a row-level table that does not have the row.
    """
    for at, hop in enumerate(hops):
        plan = view.flows[TableName.parse(hop.table)]
        if hop.row is not None:
            break
        assert hop.source is not None
        assert hop.position is not None
        entries = view.entries(plan.table.name, hop.source, hop.position)
        if any(entry.state in _STANDING for entry in entries):
            return set_aside(view, plan, entries)
        if isinstance(plan.steps[0], ReadSource):
            return _not_ingested(view, plan, record, entries, name)
        below = hops[at + 1]
        if below.row is not None:
            return _not_taken(view, plan, below, entries)
    raise AssertionError("the row is there")


def set_aside(view: View, plan: FlowPlan, entries: tuple[Entry, ...]) -> Absence:
    """A position with a standing quarantine entry."""
    entry = [one for one in entries if one.state in _STANDING][-1]
    name, key = plan.table.name, f"{entry.source}:{entry.position}"
    if entry.state == "not committed":
        message = f"batch {entry.batch} of {name} set it aside, and that batch is not committed yet"
        return Absence(str(name), "not_committed", message, entries, (_RUN,))
    replay = f"lodestream quarantine replay {name} --position {shlex.quote(key)}"
    reasons = ", ".join(entry.reasons)
    match entry.kind:
        case "erased":
            return Absence(str(name), "erased", f"erased from {name}, and nothing more is known of it")
        case "late":
            message = f"{name} set it aside as late: the watermark had passed its event time when it came"
            return Absence(str(name), "late", message, entries, (f"{replay} --accept-late",))
        case "duplicate":
            keys = next((step.dedup.keys for step in plan.steps if isinstance(step, Dedupe)), ())
            twin = _twin(view, plan, entry.source, entry.position, keys)
            message = f"{name} left it out as a repeat of a row that came before"
            return Absence(str(name), "duplicate", message, entries, (twin,) if twin else ())
        case "dropped":
            if entry.reasons == ("unmatched",):
                message = f"{name} left it out: no partner came in its time, as declared"
                return Absence(str(name), "dropped", message, entries, ())
            rule = f"rule {entry.rule}" if entry.rule and entry.rule != "python" else "the python step"
            message = f"{name} dropped it by {rule}, as declared"
            steps = ("lodestream plan  # after changing the rule; a dropped row comes back with a rebuild only",)
            return Absence(str(name), "dropped", message, entries, steps)
    message = f"{name} set it aside: {reasons}"
    if entry.raw is not None and not Origin(view, plan).redecodes:
        steps = ("put the mended record into a new file of the source; this one stays set aside",)
    else:
        steps = (f"{replay}  # after mending the rule and one {_RUN}",)
    return Absence(str(name), "quarantine", message, entries, steps)


def _twin(view: View, plan: FlowPlan, source: str, position: int, keys: Sequence[str]) -> str | None:
    """What to type to see the row that stands for this one, when its keys come unchanged from upstream."""
    table = view.table(plan.table.name)
    made = {one.name for one in plan.table.derive} | {here for one in plan.table.lookups for _, here in one.columns}
    if plan.upstream is None or table is None or made & set(keys) or plan.table.python is not None:
        return None
    row, schema = view.at(plan.upstream, source, position), table.snapshot.metadata.schema
    if row is None or any(key not in row or key not in schema for key in keys):
        return None
    _, rows = view.find(table, [equal(key, row[key], schema[key].type) for key in keys], limit=1)
    return f"{trace_of(view, plan.table.name, rows[0])}  # the row that stands for it" if rows else None


def _not_taken(view: View, plan: FlowPlan, below: Hop, entries: tuple[Entry, ...]) -> Absence:
    """The upstream table has the row."""
    name = plan.table.name
    if view.table(name) is None:
        return Absence(str(name), "not_in_lake", f"{name} is not in the lake yet", next=(_RUN,))
    if waiting := not_read(view, plan, below) or _waits_for_answer(view, plan, below):
        return waiting
    if plan.table.changes is not None:
        return _replaced(view, plan, below)
    return unaccounted(plan, entries)


def _replaced(view: View, plan: FlowPlan, below: Hop) -> Absence:
    """A change that was taken in and does not stand."""
    name, changes = plan.table.name, plan.table.changes
    assert changes is not None
    assert below.source is not None
    assert below.position is not None
    proof = f"lodestream reconcile {name}  # proves it for every change"
    twin = None if changes.history else _twin(view, plan, below.source, below.position, changes.keys)
    if twin is not None:
        message = f"{name} has taken it in, and a newer change of its key stands"
        return Absence(str(name), "superseded", message, next=(twin, proof))
    message = f"{name} has taken it in, and it deletes or a newer change of its key has replaced or deleted it"
    return Absence(str(name), "superseded", message, next=(proof,))


def not_read(view: View, plan: FlowPlan, below: Hop) -> Absence | None:
    """Whether a flow has not come to a row of its upstream table yet."""
    name, upto = plan.table.name, int(view.last(plan.table.name).get("upto", -1))
    version = below.written.version if below.written else None
    if version is None or version <= upto:
        return None
    read = f"has read up to version {upto}" if upto >= 0 else "has read nothing yet"
    message = f"{name} has not read it yet: it came into {below.table} with version {version}, and {name} {read}"
    planned = view.planned(name, view.committed(name) + 1)
    if planned is not None and planned.after < version <= planned.upto:
        message += f"; batch {planned.batch} has it and is under way or was interrupted"
    return Absence(str(name), "not_read_yet", message, next=(_RUN,))


def _waits_for_answer(view: View, plan: FlowPlan, below: Hop) -> Absence | None:
    """Whether the row waits in the flow's state until an enricher has answered."""
    name, state = plan.table.name, view.last(plan.table.name).get("state")
    if state is None or not any(isinstance(step, Ask) for step in plan.steps):
        return None
    folder = os.path.join(flow_folder(view.app.lake, name), str(view.epoch(name)), "state")
    if (below.source, below.position) not in positions_of(waiting_positions(folder, str(state), view.app.disk.read)):
        return None
    cause = trouble(view.app.disk, ledger_path(view.app.lake, name))
    message = f"{name} has read it, and it waits there for an answer" + (f": {cause}" if cause else "")
    return Absence(str(name), "waits_for_answer", message, next=(_RUN, "lodestream status"))


def unaccounted(plan: FlowPlan, entries: tuple[Entry, ...] = ()) -> Absence:
    """A row that was read and is nowhere: what must never be."""
    name = plan.table.name
    message = f"{name} has read it, but it is neither in the table nor in its quarantine; that must not be"
    return Absence(str(name), "unaccounted", message, entries, (f"lodestream reconcile {name}", "lodestream doctor"))


def _not_ingested(view: View, plan: FlowPlan, record: Record, entries: tuple[Entry, ...], asked: TableName) -> Absence:
    """No upstream table: the source knows."""
    name, at = plan.table.name, f"{record.unit}:{record.position}"
    consumed = view.consumed(name)
    last = consumed.get(record.unit)
    found = _no_record(view, plan, record, asked)
    if found is not None:
        return found
    if last is not None and record.position < last.end:
        return unaccounted(plan, entries)
    if view.table(name) is None:
        return Absence(str(name), "not_in_lake", f"{name} is not in the lake yet", next=(_RUN,))
    read = f"this unit is read up to position {last.end}" if last else "nothing of this unit is read yet"
    message = f"{name} has not read {at} yet: {read}"
    planned = view.planned(name, view.committed(name) + 1)
    if planned and any(r.unit == record.unit and r.start <= record.position < r.end for r in planned.ranges):
        message += f"; batch {planned.batch} has it and is under way or was interrupted"
    return Absence(str(name), "not_read_yet", message, next=(_RUN,))


def _no_record(view: View, plan: FlowPlan, record: Record, asked: TableName) -> Absence | None:
    """The position holds no record, or the source cannot say."""
    name, unit, position = plan.table.name, record.unit, record.position
    absence = Absence(str(name), "", "")

    def here(start: int | None) -> tuple[str, ...]:
        return () if start is None else (command(asked, f"{unit}:{start}"),)

    match record.state:
        case "unknown":
            near = Origin(view, plan).nearest(unit, view.consumed(name))
            hint = f"; the nearest is {near}" if near else ""
            message = f"the source of {name} has no unit of this name: {unit}{hint}" + _noted(record)
            steps = (command(asked, f"{near}:{position}"),) if near else ()
            return replace(absence, reason="unknown_unit", message=message, next=steps)
        case "gone":
            message = f"{unit} was read and is no longer in the source, so nobody can say what stood at {position}"
            return replace(absence, reason="source_gone", message=message)
        case "blank":
            message = f"the line at {position} is blank, and a blank line is no record"
            return replace(absence, reason="blank", message=message, next=here(record.next))
        case "head":
            message = f"position {position} lies in the file's header, which is no record"
            return replace(absence, reason="head", message=message, next=here(record.next))
        case "inside":
            message = f"no record begins at {position}: it lies inside the one that begins at {record.start}"
            message += f"; the next begins at {record.next}" if record.next is not None else ""
            return replace(absence, reason="inside_a_record", message=message, next=here(record.start))
        case "beyond":
            message = f"{unit} ends before {position}{_noted(record)}"
            return replace(absence, reason="beyond_the_end", message=message)
    return None


def _noted(record: Record) -> str:
    return f" ({'; '.join(record.notes)})" if record.notes else ""


def counted(entries: Sequence[Entry]) -> str:
    """Standing entries by kind, in words."""
    kinds = [entry.kind for entry in entries]
    return ", ".join(number(kinds.count(kind), kind, kind) for kind in dict.fromkeys(kinds))
