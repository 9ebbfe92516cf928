"""Says what a flow does, step by step, and where each column of it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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
    Publish,
    ReadSource,
    ReadTable,
    RunPython,
    RunQuery,
    Select,
    Step,
    Watermark,
    Write,
)
from lodestream.model.table import (
    JOIN_META,
    META_COLUMNS,
    VALID_FROM,
    VALID_TO,
    WINDOW_END,
    WINDOW_META,
    WINDOW_START,
    Session,
    TableName,
)
from lodestream.planning.queries import deciding_words
from lodestream.planning.words import duration_text

Origins = frozenset[tuple[TableName, str]]
"""Columns that a value comes from."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A flow in words.

    Attributes:
        table: which.
        steps: one line per step, or per rule and column of a step, in the order they run.
        columns: for each stored column, the columns of other tables that its value comes from; empty for what comes
            straight from a source, a literal or the batch itself.
    """

    table: TableName
    steps: tuple[str, ...]
    columns: Mapping[str, Origins]


def explain(plan: FlowPlan) -> Explanation:
    """The steps and the direct lineage of one flow."""
    lines = [line for step in plan.steps for line in _lines(step)]
    lines += [_publish(sink) for sink in plan.sinks]
    return Explanation(plan.table.name, tuple(lines), _lineage(plan))


def column_lineage(flows: Mapping[TableName, FlowPlan]) -> dict[TableName, dict[str, Origins]]:
    """For each column of each table, the columns of source-fed tables that its value comes from in the end.

    Args:
        flows: plans, inputs before their readers, as `Plans.flows` has them.
    """
    found: dict[TableName, dict[str, Origins]] = {}
    for name, plan in flows.items():
        ingest = isinstance(plan.steps[0], ReadSource)
        direct = _lineage(plan)
        found[name] = {}
        for column, origins in direct.items():
            ends: set[tuple[TableName, str]] = set()
            for table, source in origins:
                ends |= found.get(table, {}).get(source, frozenset({(table, source)}))
            if ingest and not origins:
                ends = {(name, column)}
            found[name][column] = frozenset(ends)
    return found


def column_origins(plan: FlowPlan) -> dict[str, Origins]:
    """For each stored column the columns that its value comes from, those of its own table among them.

    A column that came from a source is its own origin, what is derived from it in the same table has it as origin, and
    the record as it came (`_raw`) has all of them.
    """
    name, known = plan.table.name, dict[str, Origins]()
    for step in plan.steps:
        if isinstance(step, ReadSource):
            known = {column: frozenset({(name, column)}) for column in step.schema.names}
            known["_raw"] = frozenset((name, column) for column in step.schema.names)
            continue
        known = _after(step, known, plan)
        if isinstance(step, Write):
            for partition in step.partitions:
                own = frozenset((name, column) for column in partition.expression.columns)
                known[partition.name] = known[partition.name] | own
    return {column: known.get(column, frozenset()) for column in plan.schema.names}


def influences(plan: FlowPlan) -> frozenset[tuple[TableName, str, str]]:
    """Columns of other tables that decide which rows there are, without being in them, as (table, column, how).

    `how` is `filter`, `join`, `dedup`, `group`, `window`, or `query` for that by which a query joins, leaves out,
    groups or ranks rows.
    """
    known: dict[str, Origins] = {}
    found: set[tuple[TableName, str, str]] = set()
    for step in plan.steps:
        for how, columns in _deciding(step, plan):
            found |= {(*origin, how) for column in columns for origin in known.get(column, frozenset())}
        if isinstance(step, LookUp):
            found |= {(step.lookup.table, there, "join") for _, there in step.lookup.on}
        if isinstance(step, JoinStreams):
            there = [*(name for _, name in step.join.on), step.join.event_time.column]
            found |= {(step.join.table, name, "join") for name in there}
        if isinstance(step, RunQuery):
            words = deciding_words(step.text)
            read = {(TableName.parse(table), column) for table, columns in step.columns for column in columns}
            found |= {(*origin, "query") for origin in read if origin[1].lower() in words}
        known = _after(step, known, plan)
    return frozenset(found)


def _deciding(step: Step, plan: FlowPlan) -> list[tuple[str, Iterable[str]]]:
    """Columns of a step's input by which it leaves rows out, joins or groups them."""
    if isinstance(step, Expect):
        return [("filter", rule.condition.columns) for rule in step.rules if rule.otherwise != "warn"]
    if isinstance(step, Watermark):
        return [("filter", [step.event_time.column])]
    if isinstance(step, Dedupe):
        return [("dedup", step.dedup.keys)]
    if isinstance(step, LookUp):
        return [("join", [here for here, _ in step.lookup.on])]
    if isinstance(step, JoinStreams):
        assert plan.table.event_time is not None
        return [("join", [*(here for here, _ in step.join.on), plan.table.event_time.column])]
    if isinstance(step, Aggregation):
        time = [plan.table.event_time.column] if plan.table.event_time is not None else []
        return [("window", time), *(("group", compiled.columns) for _, compiled in step.group_by)]
    if isinstance(step, ApplyChanges):
        deleting = step.delete_when.columns if step.delete_when is not None else ()
        return [("filter", (*step.changes.keys, *step.changes.sequence_by, *deleting))]
    return []


def _lineage(plan: FlowPlan) -> dict[str, Origins]:
    known: dict[str, Origins] = {}
    for step in plan.steps:
        known = _after(step, known, plan)
    return {column: known.get(column, frozenset()) for column in plan.schema.names}


def _after(step: Step, known: dict[str, Origins], plan: FlowPlan) -> dict[str, Origins]:
    """Where columns come from after a step; a step that only filters changes nothing."""

    def of(columns: frozenset[str]) -> Origins:
        return frozenset(origin for column in columns for origin in known.get(column, frozenset()))

    if isinstance(step, ReadTable):
        return {column: frozenset({(step.table, column)}) for column in step.schema.names}
    if isinstance(step, RunPython):  # what the function does with its input is its own
        everything = of(frozenset(c for c in known if not c.startswith("_")))
        kept = {column: known[column] for column in META_COLUMNS if column in known}
        return dict.fromkeys(step.schema.names, everything) | kept
    if isinstance(step, Derive):
        return known | {name: of(compiled.columns) for name, compiled in step.columns}
    if isinstance(step, LookUp):
        return known | {here: frozenset({(step.lookup.table, there)}) for there, here in step.lookup.columns}
    if isinstance(step, JoinStreams):
        join, own = step.join, ("_source", "_position")
        both = {name: known.get(name, frozenset()) | frozenset({(join.table, name)}) for name in (*own, "_ingest_time")}
        places = dict.fromkeys(JOIN_META[:2], known.get("_position", frozenset()))
        places |= {there: frozenset({(join.table, name)}) for there, name in zip(JOIN_META[2:], own, strict=True)}
        return known | both | places | {here: frozenset({(join.table, there)}) for there, here in join.columns}
    if isinstance(step, Annotate | Ask):
        return known | dict.fromkeys(step.schema.names, of(frozenset(step.reads)))
    if isinstance(step, Aggregation):
        assert plan.table.event_time is not None
        time = of(frozenset({plan.table.event_time.column}))
        positions = of(frozenset({"_source", "_position"}))
        groups = {name: of(compiled.columns) for name, compiled in step.group_by}
        measures = {name: of(compiled.columns) for name, compiled in step.measures}
        counted = dict.fromkeys((*WINDOW_META[:2], *(("_covers",) if step.completeness else ())), positions)
        return {WINDOW_START: time, WINDOW_END: time} | groups | measures | counted
    if isinstance(step, ApplyChanges) and step.changes.history:
        return known | dict.fromkeys((VALID_FROM, VALID_TO), of(frozenset(step.changes.sequence_by)))
    if isinstance(step, RunQuery):
        return {name: frozenset(origins) for name, origins in step.lineage}
    if isinstance(step, Write):
        physical = {p.name: of(p.expression.columns) for p in step.partitions}
        return known | physical | {"_batch": frozenset()}
    return known


def _lines(step: Step) -> list[str]:
    return _WORDS[type(step)](step)


def _read_source(step: ReadSource) -> list[str]:
    settings = ", ".join(f"{key}={value}" for key, value in step.source.settings.items())
    line = f"read {step.source.name}({settings}) as {step.format.name}: {len(step.schema)} columns"
    return [line + (", raw bytes kept" if step.keep_raw else "") + f", drift {step.drift}"]


def _expect(step: Expect) -> list[str]:
    return [f"expect {rule.name}: {rule.condition.text}, else {rule.otherwise}" for rule in step.rules]


def _watermark(step: Watermark) -> list[str]:
    column, delay = step.event_time.column, duration_text(step.event_time.delay_us)
    if step.follows is not None:
        return [f"watermark: that of {step.follows}; a window's time is its last microsecond"]
    return [f"quarantine rows without {column}", f"watermark: newest {column} less {delay}"]


def _look_up(step: LookUp) -> list[str]:
    on = ", ".join(here if here == there else f"{here} = {there}" for here, there in step.lookup.on)
    named = (there if there == here else f"{there} as {here}" for there, here in step.lookup.columns)
    when = f", as of {step.lookup.as_of}" if step.lookup.as_of is not None else ""
    return [f"look up {', '.join(named)} in {step.lookup.table} on {on}{when}"]


def _join(step: JoinStreams) -> list[str]:
    join = step.join
    on = ", ".join(here if here == there else f"{here} = {there}" for here, there in join.on)
    named = ", ".join(there if there == here else f"{there} as {here}" for there, here in join.columns)
    bounds = f"{duration_text(-join.low_us)} before to {duration_text(join.high_us)} after"
    kept = "rows that meet nobody are kept" if join.kind == "left" else "rows that meet nobody are left out"
    column, delay = join.event_time.column, duration_text(join.event_time.delay_us)
    return [
        f"quarantine rows of {join.table} without {column}",
        f"watermark: the lower one of both, there newest {column} less {delay}",
        f"join {named} of new rows of {join.table} on {on}, {column} from {bounds}; {kept}",
    ]


def _annotate(step: Annotate) -> list[str]:
    return [f"enrich with {step.enricher.name}: {', '.join(step.schema.names)} from {', '.join(step.reads)}"]


def _ask(step: Ask) -> list[str]:
    rate = "" if step.rate_per_s is None else f", {step.rate_per_s:g} per second"
    return [
        f"ask {step.enricher.name} about {', '.join(step.reads)}: {', '.join(step.schema.names)}",
        f"wait for the answer {duration_text(step.timeout_us)} at most, {step.waiting_max} rows at a time,"
        f" {step.parallel} questions at once{rate}",
    ]


def _aggregation(step: Aggregation) -> list[str]:
    size = f"windows of {duration_text(step.window.span_us)}"
    if isinstance(step.window, Session):
        size = f"sessions that end {duration_text(step.window.gap_us)} after their last row"
    elif step.window.slide_us is not None:
        size += f" every {duration_text(step.window.slide_us)}"
    groups = "".join(
        f", by {name}" if expression.text.strip("`") == name else f", by {name} = {expression.text}"
        for name, expression in step.group_by
    )
    covers = ", with what each covers" if step.completeness else ""
    late = ", a late row corrects its closed window" if step.late == "update" else ""
    lines = [f"{size}{groups}, emit {step.emit}{late}{covers}"]
    return lines + [f"measure {name} = {measure.text}" for name, measure in step.measures]


def _apply_changes(step: ApplyChanges) -> list[str]:
    keys, by = ", ".join(step.changes.keys), ", ".join(step.changes.sequence_by)
    lines = [f"quarantine rows without {name}" for name in (*step.changes.keys, *step.changes.sequence_by)]
    what = "history" if step.changes.history else "last values"
    lines.append(f"apply changes: {what} of each {keys}, in the order of {by}")
    if step.delete_when is not None:
        remembered = "until the watermark has passed it" if step.forgets else "for ever"
        lines.append(f"delete when {step.delete_when.text}; a deletion is remembered {remembered}")
    return lines


def _run_query(step: RunQuery) -> list[str]:
    when = f"on schedule {step.schedule}" if step.schedule else "when its inputs change"
    return [f"query over {', '.join(str(name) for name in step.inputs)}, {when}", step.text]


def _publish(step: Publish) -> str:
    what = "changes" if step.changing else "new rows"
    value = ", ".join(step.value) if step.value is not None else "all columns"
    key = f" by {', '.join(step.key)}" if step.key else ""
    promise = "exactly once" if step.exactly_once else "at least once"
    return f"publish {what} to {step.name.sink}{key}: {value}, {promise}"


def _write(step: Write) -> list[str]:
    by = ", ".join(p.name for p in step.partitions)
    return [f"write {len(step.schema)} columns" + (f", partitioned by {by}" if by else "")]


_WORDS: dict[type, Callable[..., list[str]]] = {
    ReadSource: _read_source,
    ReadTable: lambda step: [f"read {'new rows' if step.windows is None else 'closed windows'} of {step.table}"],
    RunPython: lambda step: [f"call {step.step.function}: {len(step.schema)} columns"],
    Derive: lambda step: [f"derive {name} = {expression.text}" for name, expression in step.columns],
    Expect: _expect,
    Watermark: _watermark,
    Dedupe: lambda step: [f"drop repeats of {', '.join(step.dedup.keys)} within {duration_text(step.expiry_us)}"],
    LookUp: _look_up,
    JoinStreams: _join,
    Annotate: _annotate,
    Ask: _ask,
    Aggregation: _aggregation,
    ApplyChanges: _apply_changes,
    RunQuery: _run_query,
    Select: lambda step: [f"keep {', '.join(step.columns)}"],
    Write: _write,
}
