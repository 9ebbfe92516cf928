"""Says before deployment what a changed schema breaks: a table, what reads it, or the rule of a registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lodestream.errors import ConfigError
from lodestream.model.diagnostic import Diagnostic
from lodestream.model.project import Project
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.table import Table, TableName
from lodestream.model.types import Column, Schema
from lodestream.model.widening import widens, wider
from lodestream.planning.compile import compile_project
from lodestream.planning.scope import Describe
from lodestream.ports import plugins
from lodestream.ports.registry import SchemaKind, SchemaRegistry
from lodestream.ports.source import Reading
from lodestream.project.mistakes import ProjectError

KINDS: Mapping[str, SchemaKind] = {".avsc": "AVRO", ".json": "JSON", ".proto": "PROTOBUF"}
"""Schema languages by the ending of a file."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A schema as it shall be.

    Attributes:
        file: its file, relative to the project folder or absolute.
        subject: the registry's subject, when it was named.
    """

    file: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One consequence.

    Attributes:
        breaks: whether something that works would stop working; else it is only worth knowing.
        what: what is touched: the schema itself, a table, a consumer of a table, or the registry's rule.
        schema: the schema's file.
        text: for people.
        table: the table, when there is one.
        column: the column, when it is about one.
        file: where it was declared, when that is known.
        line: from 1.
    """

    breaks: bool
    what: Literal["schema", "table", "consumer", "registry"]
    schema: str
    text: str
    table: TableName | None = None
    column: str | None = None
    file: str | None = None
    line: int | None = None


def schema_files(root: str) -> list[Changed]:
    """Every schema in the project's folder `schemas/`."""
    folder = Path(root, "schemas")
    found = sorted(one for one in folder.rglob("*") if one.suffix in KINDS and one.is_file())
    return [Changed(one.relative_to(root).as_posix()) for one in found]


@dataclass(frozen=True)
class Contracts:
    """A project against which schemas are checked.

    Attributes:
        project: the declarations.
        flows: its plans as they are now.
        existing: columns of the tables in the lake.
        registry: opens a schema registry by name or URL.
        asked: the registry to ask for all schemas; None asks those that tables name.
        describe: see `compile_project`.
    """

    project: Project
    flows: Mapping[TableName, FlowPlan]
    existing: Mapping[TableName, Schema]
    registry: Callable[[str], SchemaRegistry]
    asked: str | None = None
    describe: Describe | None = None

    def check(self, changed: Changed) -> list[Finding]:
        """What a schema would break, and what is worth knowing.

        Raises:
            ConfigError: the file cannot be read or has no ending of a schema language.
            TransientError: a registry does not answer.
        """
        kind = KINDS.get(os.path.splitext(changed.file)[1])
        if kind is None:
            raise ConfigError(f"a schema's file ends in {', '.join(KINDS)}", file=changed.file)
        try:
            text = Path(self.project.root, changed.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("schema cannot be read", file=changed.file, cause=str(error)) from error
        users = [table for table in self.project.tables.values() if self._uses(table, changed)]
        found: list[Finding] = []
        for table in users:
            found += self._table(table, changed)
        found += self._registries(users, changed, kind, text)
        if not found and not users and changed.subject is None:
            found.append(Finding(False, "schema", changed.file, "no table uses it"))
        return found

    def _uses(self, table: Table, changed: Changed) -> bool:
        """Whether a table's records are written with a schema: by its file, by its subject, or by the file's name."""
        if table.format is None or table.source is None:
            return False
        own = table.format.settings.get("schema")
        if isinstance(own, str) and own and changed.subject is None:
            paths = {os.path.normpath(os.path.join(self.project.root, one)) for one in (own, changed.file)}
            return len(paths) == 1
        if table.format.name not in ("avro", "json", "protobuf"):
            return False
        subjects = _subjects(table)
        if changed.subject is not None:
            return changed.subject in subjects
        name = Path(changed.file).stem
        return name in subjects or f"{name}-value" in subjects

    def _table(self, table: Table, changed: Changed) -> list[Finding]:
        """What becomes of a table's columns, and of its readers."""
        first = self.flows[table.name].steps[0]
        assert isinstance(first, ReadSource)
        added = plugins.added_columns(plugins.load("sources", first.source.name), first.source.settings)
        try:
            new = self._columns(first, changed)
        except (ConfigError, ValidationError) as error:
            return [Finding(True, "schema", changed.file, f"not a schema for it: {error}", table.name)]
        old = first.schema.without(*added.names)
        found, after = _compared(table, changed, old, new, first.format.settings.get("timestamps"))
        place = self.project.place(table.name, "columns")
        found = [replace(one, file=place.file, line=place.line) for one in found]
        if after != old:
            found += self._consumers(table, changed, after.with_columns(*added))
        return found

    def _columns(self, read: ReadSource, changed: Changed) -> Schema:
        """The columns that the format finds in the schema."""
        form = plugins.load("formats", read.format.name)
        own = {key: value for key, value in read.format.settings.items() if "${" not in str(value)}
        reading = Reading(Schema(), keep_raw=False, drift=read.drift, root=self.project.root, registry=self.registry)
        made = form(form.settings(**{**own, "schema": changed.file}), reading)
        found: Schema = made.infer_messages((), "")
        return found

    def _consumers(self, table: Table, changed: Changed, after: Schema) -> Iterator[Finding]:
        """Mistakes that the project would have with the table's new columns."""
        tables = {**self.project.tables, table.name: replace(table, columns=after)}
        existing = {name: schema for name, schema in self.existing.items() if name != table.name}
        try:
            compile_project(replace(self.project, tables=tables), existing, self._frozen, describe=self.describe)
        except ProjectError as error:
            for one in error.diagnostics:
                yield Finding(
                    True, "consumer", changed.file, _said(one), self._declared_in(one.file), None, one.file, one.line
                )

    def _frozen(self, table: Table) -> Schema | None:
        """The columns that a table has now, where nobody declared them."""
        first = self.flows[table.name].steps[0]
        return first.schema if isinstance(first, ReadSource) else None

    def _declared_in(self, file: str) -> TableName | None:
        return next((name for name in self.project.tables if self.project.place(name).file == file), None)

    def _registries(
        self, users: Sequence[Table], changed: Changed, kind: SchemaKind, text: str
    ) -> Iterator[Finding]:  # fmt: skip
        """What the rules of registries say."""
        pairs: set[tuple[str, str]] = set()
        for table in users:
            assert table.format
            name = self.asked or table.format.settings.get("registry")
            subjects = [changed.subject] if changed.subject is not None else _subjects(table)
            pairs |= {(str(name), subject) for subject in subjects if name is not None}
        if changed.subject is not None and not pairs:
            pairs = {(self.asked or "default", changed.subject)}
        elif self.asked is not None and not pairs:
            pairs = {(self.asked, Path(changed.file).stem)}
        for name, subject in sorted(pairs):
            for told in self.registry(name).differences(subject, kind, text):
                yield Finding(True, "registry", changed.file, f"subject {subject!r} refuses it: {told}")


def _subjects(table: Table) -> list[str]:
    """Subjects of the registry that a table's messages belong to."""
    assert table.format
    assert table.source
    settings: Mapping[str, Any] = table.format.settings
    if settings.get("subject"):
        return [str(settings["subject"])]
    topic = table.source.settings.get("topic")
    return [f"{one}-value" for one in (topic if isinstance(topic, list | tuple) else [topic]) if isinstance(one, str)]


def _compared(
    table: Table, changed: Changed, old: Schema, new: Schema, timestamps: object
) -> tuple[list[Finding], Schema]:  # fmt: skip
    """What differs between a table's columns and a schema's, and the columns that the table would have."""
    found: list[Finding] = []
    after: list[Column] = []

    def tell(breaks: bool, column: str, text: str) -> None:
        found.append(Finding(breaks, "table", changed.file, text, table.name, column))

    for column in old:
        there = new.get(column.name)
        if there is None:
            tell(True, column.name, "column vanishes; new rows have NULL there")
            continue
        counted = (
            column.type.name == "timestamp" and there.type.is_integer and timestamps not in (None, "logical", "iso")
        )
        if counted or widens(there.type, column.type):
            after.append(column)
        elif table.drift == "widen" and (wide := wider(column.type, there.type)) is not None:
            after.append(replace(column, type=wide))
            tell(False, column.name, f"widens from {column.type} to {wide}")
        else:
            after.append(replace(column, type=there.type))
            becomes = "the table stops" if table.drift == "stop" else "rows that do not fit are set aside"
            tell(
                True, column.name, f"type changes from {column.type} to {there.type}; {becomes} (drift: {table.drift})"
            )
    for column in new:
        if column.name in old:
            continue
        if table.drift in ("add", "widen"):
            after.append(column)
            tell(False, column.name, f"new column of type {column.type} (drift: {table.drift})")
        else:
            becomes = "the table stops" if table.drift == "stop" else "rows with it are set aside"
            tell(True, column.name, f"field is new; {becomes} (drift: {table.drift}); declare it, or set drift: add")
    return found, Schema(tuple(after))


def _said(one: Diagnostic) -> str:
    facts = " ".join(f"{name}={text!r}" for name, text in one.facts)
    return f"{one.code} {one.message}{f'. {facts}' if facts else ''}"
