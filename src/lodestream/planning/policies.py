"""Checks declared policies against the columns of the tables that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.identity import compile_filter, compile_mask
from lodestream.model.access import Principal
from lodestream.model.diagnostic import Place
from lodestream.model.policy import Declassified, Policies, Tagged
from lodestream.model.project import Path, Project
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema
from lodestream.planning.explain import column_origins
from lodestream.project.mistakes import Mistakes, nearest

SOMEBODY = Principal("somebody")
"""A reader in whose place any other may stand: an attribute has the same type whether they have it or not."""

Schemas = Mapping[TableName, Schema | None]
"""Stored columns by table; None where a mistake hides them."""


def check_policies(project: Project, schemas: Schemas, mistakes: Mistakes) -> None:
    """Note what a policy names that is not there, and every expression that cannot be applied."""
    _Check(project, schemas, mistakes).run()


def policy_notes(project: Project, flows: Mapping[TableName, FlowPlan], notes: Mistakes) -> None:
    """Note policies without effect, and computed columns that show what a mask hides."""
    policies = project.policies
    place = _Places(project)
    tagged = {one.tag for one in policies.tags}
    for policy in policies.tag_policies:
        if policy.tag not in tagged:
            near = nearest(policy.tag, tagged)
            notes.add(
                place("tag_policies", policy.tag),
                "N103",
                "nothing is declared to have this tag",
                tag=policy.tag,
                nearest=near,
            )
    masked = {cell for mask in policies.masks for cell in mask.on}
    by_tag = {one.tag for one in policies.tag_policies}
    covered = {(one.table, one.column) for one in policies.tags if one.tag in by_tag}
    for mask in policies.masks:
        for i, cell in enumerate(mask.on):
            for shown in _computed_from(cell, flows):
                if not {shown, (shown[0], None)} & (masked | covered) and cell not in covered:
                    where = place("masks", mask.name, "on", i)
                    told = f"{shown[0]}.{shown[1]}"
                    notes.add(where, "N104", "a computed column shows what a mask hides", mask=mask.name, column=told)


def _computed_from(cell: tuple[TableName, str], flows: Mapping[TableName, FlowPlan]) -> Iterator[tuple[TableName, str]]:
    """Columns of other tables that are computed from a column without another table between."""
    for name, plan in flows.items():
        if name != cell[0] and cell[0] in (plan.upstream, *plan.waits_for):
            for column, origins in column_origins(plan).items():
                if cell in origins:
                    yield name, column


@dataclass(frozen=True)
class _Places:
    project: Project

    def __call__(self, *path: str | int) -> Place:
        """Where a part of the policies stands; the nearest enclosing key when it was not written itself."""
        for end in range(len(path), -1, -1):
            if (found := self.project.policy_locations.get(path[:end])) is not None:
                return found
        return Place("policies.yaml", 1)


class _Check:
    def __init__(self, project: Project, schemas: Schemas, mistakes: Mistakes) -> None:
        self.policies: Policies = project.policies
        self.place = _Places(project)
        self.locations = project.policy_locations
        self.schemas, self.mistakes = schemas, mistakes

    def run(self) -> None:
        self.grants()
        for rule in self.policies.row_filters:
            for i, table in enumerate(rule.on):
                if (schema := self.columns(table, ("row_filters", rule.name, "on", i))) is not None:
                    self.filter(rule.where, schema, ("row_filters", rule.name, "where"))
        for mask in self.policies.masks:
            for i, (table, name) in enumerate(mask.on):
                self.mask(mask.shown, table, name, ("masks", mask.name, "on", i), ("masks", mask.name, "with"))
        self.tags()

    def grants(self) -> None:
        """Tables that grants name; each is noted once, where it stands."""
        for path, place in self.locations.items():
            if len(path) in (3, 4) and path[0] == "grants" and path[2] != "to":
                text = place.raw.strip("'\"")
                try:
                    table = TableName.parse(text)
                except ValueError:
                    continue
                if table not in self.schemas and not table.name.endswith("__quarantine"):
                    self.no_table(table, path)

    def tags(self) -> None:
        for key, found in (("tags", self.policies.tags), ("declassified", self.policies.declassified)):
            seen: dict[str, int] = {}
            for one in found:
                index = seen.get(one.tag, 0)
                seen[one.tag] = index + 1
                self.tag(one, (key, one.tag, index))

    def tag(self, one: Tagged | Declassified, path: Path) -> None:
        schema = self.columns(one.table, path)
        if schema is None or one.column is None:
            return  # a whole table is tagged: where the policy's mask does not fit a column, nothing is shown
        if (column := schema.get(one.column)) is None:
            self.no_column(one.table, one.column, schema, path)
        elif isinstance(one, Tagged):
            for policy in (p for p in self.policies.tag_policies if p.tag == one.tag):
                self.shown(policy.shown, schema, column, ("tag_policies", one.tag, "mask"), one.object)

    def mask(self, text: str, table: TableName, name: str, on: Path, shown: Path) -> None:
        schema = self.columns(table, on)
        if schema is None:
            return
        column = schema.get(name)
        if column is None:
            self.no_column(table, name, schema, on)
        else:
            self.shown(text, schema, column, shown, f"{table}.{name}")

    def filter(self, text: str, schema: Schema, path: Path) -> None:
        try:
            compile_filter(text, schema, SOMEBODY)
        except ExpressionError as error:
            self.refuse(text, path, error)

    def shown(self, text: str, schema: Schema, column: Column, path: Path, about: str) -> None:
        try:
            compile_mask(text, schema, column, SOMEBODY)
        except ExpressionError as error:
            self.refuse(text, path, error, about)

    def refuse(self, text: str, path: Path, error: ExpressionError, about: str | None = None) -> None:
        place = self.place(*path).at(text, error.offset)
        self.mistakes.add(place, error.code, error.message, nearest=error.nearest, column=about)

    def columns(self, table: TableName, path: Path) -> Schema | None:
        """The columns of a table; None when it is not there, which is noted, or cannot be judged."""
        if table not in self.schemas:
            self.no_table(table, path)
            return None
        return self.schemas[table]

    def no_table(self, table: TableName, path: Path) -> None:
        near = nearest(str(table), [str(name) for name in self.schemas])
        self.mistakes.add(self.place(*path), "D201", "no such table", table=str(table), nearest=near)

    def no_column(self, table: TableName, name: str, schema: Schema, path: Path) -> None:
        near = nearest(name, schema.names)
        told = f"{table}.{near}" if near else None
        self.mistakes.add(self.place(*path), "P110", "no such column", column=f"{table}.{name}", nearest=told)
