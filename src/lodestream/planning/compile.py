"""Compiles a project into flow plans: every table's steps in the fixed stage order, inputs before their readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lodestream.model.diagnostic import Diagnostic
from lodestream.model.project import Project
from lodestream.model.steps import Annotate, Ask, FlowPlan, Partition, ReadSource, ReadTable, Select, Step, Write
from lodestream.model.table import WINDOW_TIME, Changes, EventTime, TableName
from lodestream.model.types import BINARY, TIMESTAMP, Column, Schema
from lodestream.planning.changes import add_span, compile_changes
from lodestream.planning.definition import canonical, declaration, digest
from lodestream.planning.ingest import Sample, ingest_schema, with_format
from lodestream.planning.partitions import check_z_columns, compile_partitions
from lodestream.planning.policies import Schemas, check_policies, policy_notes
from lodestream.planning.queries import compile_sql
from lodestream.planning.rows import compile_stages
from lodestream.planning.scope import BATCH, JOINED, PROVENANCE, Describe, Scope, Shape
from lodestream.planning.sinks import compile_sinks
from lodestream.planning.windows import compile_window, window_meta
from lodestream.project.graph import edges, ordered
from lodestream.project.inputs import query_inputs
from lodestream.project.mistakes import Mistakes, ProjectError

_RAW = Column("_raw", BINARY)


@dataclass(frozen=True, slots=True)
class Plans:
    """All flows of a project.

    Attributes:
        flows: one plan per table, inputs before their readers.
        notes: what a person should know and nothing refuses, such as a table that will not run on Spark.
    """

    flows: Mapping[TableName, FlowPlan] = field(default_factory=dict)
    notes: tuple[Diagnostic, ...] = ()


def compile_project(
    project: Project,
    existing: Mapping[TableName, Schema],
    sample: Sample | None = None,
    *,
    engine: Literal["embedded", "spark"] = "embedded",
    describe: Describe | None = None,
) -> Plans:
    """Compile every table.

    Args:
        project: as read; mistakes that it carries are reported together with those found here.
        existing: schemas of the tables that are in the lake.
        sample: looks into the source of a table whose columns nobody declared; None when there is nothing to see.
        engine: the engine that will run the plans; a table marked for the other one is refused.
        describe: types the functions that only the embedded engine has, for tables marked `engine: embedded`;
            without it they are refused.

    Raises:
        ProjectError: every mistake of the project.
    """
    mistakes = Mistakes(project.mistakes)
    notes = Mistakes()
    reads = {name: edges(table, query_inputs) for name, table in project.tables.items()}
    order, _ = ordered(reads)
    shapes: dict[TableName, Shape] = {}
    flows: dict[TableName, FlowPlan] = {}
    for name in order:
        scope = Scope(project, project.tables[name], mistakes, describe=describe)
        if engine == "embedded" and scope.table.engine == "spark":
            mistakes.add(scope.place("engine"), "P205", "this table runs on Spark only", table=name)
        plan = _Compilation(scope, existing, sample, shapes).run()
        shapes[name] = scope.shape
        if plan is not None:
            flows[name] = plan
        for edge in reads[name]:
            if (name.layer, edge.table.layer) == ("gold", "bronze") and not scope.table.skip_silver:
                notes.add(scope.place(*edge.path), "N105", "gold reads bronze", table=name, reads=edge.table)
        for place, where in scope.notes:
            notes.add(place, "N101", f"{name} will not run on Spark", at=where)
        for place, sink, note in scope.sink_notes:
            notes.add(place, "N102", note, sink=sink)
    check_policies(project, stored_schemas(project, flows, existing), mistakes)
    if mistakes.found:
        raise ProjectError(mistakes.found)
    policy_notes(project, flows, notes)
    return Plans(flows, tuple(notes.found))


def stored_schemas(
    project: Project, flows: Mapping[TableName, FlowPlan], existing: Mapping[TableName, Schema]
) -> Schemas:
    """The columns that every table has or will have, declared or only in the lake; None where they are not known."""
    declared = {name: flows[name].schema if name in flows else None for name in project.tables}
    return {**existing, **declared}


class _Compilation:
    """One table on its way from declaration to plan."""

    def __init__(
        self,
        scope: Scope,
        existing: Mapping[TableName, Schema],
        sample: Sample | None,
        shapes: Mapping[TableName, Shape],
    ) -> None:
        above = scope.project.tables.get(scope.table.from_) if scope.table.from_ is not None else None
        self.above = above if above is not None and above.window is not None else None
        if self.above is not None:
            scope.table = replace(scope.table, event_time=EventTime(WINDOW_TIME, 0))
        self.scope, self.table = scope, scope.table
        self.existing, self.sample, self.shapes = existing, sample, shapes
        self.unsure = scope.project.unsure.get(scope.table.name, frozenset())

    def run(self) -> FlowPlan | None:
        """The plan, or None when a mistake stands in the way; the scope's shape is what readers may use."""
        before = len(self.scope.mistakes.found)
        steps = self.steps()
        if self.scope.shape.lost or len(self.scope.mistakes.found) > before or self.unsure or steps is None:
            return None
        schema, partitions = self.stored()
        if len(self.scope.mistakes.found) > before:
            return None
        sinks = compile_sinks(self.scope, schema)
        if len(self.scope.mistakes.found) > before:
            return None
        check_z_columns(self.scope, schema, partitions)
        if len(self.scope.mistakes.found) > before:
            return None
        steps.append(Write(schema, partitions))
        told = declaration(self.table, steps, self.scope.shape.schema)
        waits_for = [lookup.table for lookup in self.table.lookups]
        if self.table.sql is not None:
            waits_for = list(query_inputs(self.table.sql))
        return FlowPlan(
            table=self.table,
            steps=tuple(steps),
            schema=schema,
            upstream=self.table.from_,
            waits_for=tuple(dict.fromkeys(waits_for)),
            definition=digest(told),
            declaration=canonical(told),
            sinks=sinks,
        )

    def steps(self) -> list[Step] | None:
        """All steps but the last."""
        if "*" in self.unsure:
            self.scope.shape = Shape(lost=True)
            if self.table.sql is None:
                compile_stages(self.scope, self.shapes)
            return None
        if self.table.sql is not None:
            query = compile_sql(self.scope, self.shapes)
            return None if query is None else [query]
        first = self.read_source() if self.table.source is not None else self.read_table()
        self.scope.shape = Shape(
            self.scope.shape.schema.without(*self.unsure),
            self.scope.shape.unknown | self._unsure_columns(),
            self.scope.shape.lost,
            self.scope.shape.raw,
        )
        stages = compile_stages(self.scope, self.shapes)
        if self.table.window is not None:
            aggregation = compile_window(self.scope)
            stages += [] if aggregation is None else [aggregation]
        elif self.table.changes is not None:
            stages += self.changed(self.table.changes, stages)
        elif self.table.select:
            stages.append(self.select(stages))
        if first is None:
            return None
        if isinstance(first, ReadTable) and "_raw" in self.scope.read:
            first = ReadTable(first.table, first.schema.with_columns(_RAW))
        return [first, *stages]

    def _unsure_columns(self) -> frozenset[str]:
        """Names that a broken `columns:` hides; those of broken derivations come into view later."""
        return self.unsure - {"*"} if self.table.source is not None or self.table.python is not None else frozenset()

    def read_source(self) -> ReadSource | None:
        """The step that reads a source."""
        schema = ingest_schema(self.scope, self.existing, self.sample)
        table = with_format(self.table)
        if table.source is not None and table.source.settings.get("share") is True:
            for key, stateful in (("dedup", table.dedup), ("event_time", table.event_time)):
                if stateful is not None:
                    self.scope.mistakes.add(
                        self.scope.place(key), "P206", f"a shared source with {key}", table=table.name
                    )
        if schema is None or table.source is None or table.format is None:
            self.scope.shape = Shape(lost=True)
            return None
        self.scope.shape = Shape(schema, raw=table.keep_raw)
        self.scope.hidden = (*PROVENANCE, _RAW) if table.keep_raw else PROVENANCE
        return ReadSource(table.source, table.format, schema, table.keep_raw, table.drift)

    def read_table(self) -> ReadTable | None:
        """The step that follows an upstream table."""
        upstream = self.table.from_
        above = self.shapes.get(upstream, Shape(lost=True)) if upstream is not None else Shape(lost=True)
        self.scope.hidden = (*PROVENANCE, _RAW) if above.raw else PROVENANCE
        self.scope.shape = Shape(above.schema, above.unknown, above.lost)
        if above.lost or upstream is None:
            return None
        if self.above is not None:
            time = Column(WINDOW_TIME, TIMESTAMP, nullable=False)
            self.scope.hidden = PROVENANCE[:2]
            self.scope.shape = Shape(above.schema.with_columns(time), above.unknown)
            schema = self.scope.shape.schema.with_columns(*self.scope.hidden)
            return ReadTable(upstream, schema, tuple(group.name for group in self.above.group_by))
        return ReadTable(upstream, above.schema.with_columns(*PROVENANCE))

    def select(self, stages: Sequence[Step]) -> Select:
        """The chosen columns, then those that enriching added and nobody chose."""
        scope = self.scope
        chosen: list[Column] = []
        unknown: set[str] = set()
        for i, name in enumerate(self.table.select):
            column = scope.column(name, ("select", i))
            if column is not None:
                chosen.append(column)
            else:
                unknown.add(name)
        looked_up = [here for lookup in self.table.lookups for _, here in lookup.columns]
        looked_up += [here for _, here in self.table.join.columns] if self.table.join else []
        looked_up += [column.name for step in stages if isinstance(step, Annotate | Ask) for column in step.schema]
        chosen += [
            column
            for name in looked_up
            if name not in self.table.select and (column := scope.shape.schema.get(name)) is not None
        ]
        scope.shape = Shape(Schema(tuple(chosen)), frozenset(unknown), scope.shape.lost, scope.shape.raw)
        return Select(tuple(column.name for column in chosen))

    def changed(self, changes: Changes, stages: Sequence[Step]) -> list[Step]:
        """Changes are applied before columns are chosen: what says that one deletes need not be stored."""
        applied = compile_changes(self.scope, changes)
        chosen: list[Step] = [self.select(stages)] if self.table.select else []
        if changes.history:
            add_span(self.scope, changes)
        return chosen if applied is None else [applied, *chosen]

    def stored(self) -> tuple[Schema, tuple[Partition, ...]]:
        """The schema as stored: columns, `_raw`, provenance, physical partition columns."""
        shape = self.scope.shape
        partitions = compile_partitions(self.scope)
        if self.table.window is not None:
            meta: Iterable[Column] = window_meta(self.table)
        elif self.table.sql is not None:
            meta = (BATCH,)
        else:
            meta = (*((_RAW,) if shape.raw else ()), *PROVENANCE, *(JOINED if self.table.join else ()), BATCH)
        # What a compiler says of NULL is a promise to other expressions; what a table refuses is the user's to say.
        computed = {named.name for named in (*self.table.derive, *self.table.group_by, *self.table.measures)}
        loose = self.table.sql is not None
        columns = (replace(c, nullable=True) if loose or c.name in computed else c for c in shape.schema)
        schema = Schema(tuple(columns)).with_columns(*meta)
        physical = [Column(p.name, p.expression.type) for p in partitions if p.name not in schema]
        return schema.with_columns(*physical), partitions
