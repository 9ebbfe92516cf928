"""What of a project Databricks cannot run, and what it runs differently, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lodestream.model.diagnostic import Diagnostic
from lodestream.model.project import Project
from lodestream.model.table import Table, TableName
from lodestream.planning.compile import Plans
from lodestream.planning.on_spark import refuse_stages
from lodestream.project.mistakes import Mistakes

SOURCES = ("files", "kafka")
"""Sources that clusters reach."""

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*://|/Volumes/|\$\{")


def refusals(project: Project, plans: Plans, mistakes: Mistakes) -> None:
    """Note each table that only the embedded engine can run, with the reason."""
    functions: dict[TableName, list[Diagnostic]] = {}
    for note in plans.notes:
        if note.code == "N101":
            functions.setdefault(TableName.parse(note.message.split(" ", 1)[0]), []).append(note)
    for name, table in project.tables.items():
        if table.source is not None and table.source.name not in SOURCES:
            mistakes.add(
                project.place(name, "source"), "D506", f"source {table.source.name} is of the embedded engine only",
                table=name, fix=f"read {' or '.join(SOURCES)}, or keep this project on one machine",
            )  # fmt: skip
        if name in plans.flows:
            refuse_stages(project, plans.flows[name], mistakes)
            _refuse_packages(project, table, mistakes)
        if table.engine != "embedded" or table.enrichers:
            continue
        for note in functions.get(name, []):
            told = dict(note.facts).get("at")
            mistakes.found.append(_refused(note, name, f"{told} uses what only the embedded engine has"))
        if name not in functions:
            fix = "take engine: embedded out: everything in the table runs on Spark too"
            mistakes.add(project.place(name, "engine"), "D506", "marked engine: embedded", table=name, fix=fix)


def _refuse_packages(project: Project, table: Table, mistakes: Mistakes) -> None:
    for i, enricher in enumerate(table.enrichers):
        mistakes.add(
            project.place(table.name, "enrichers", i, enricher.name), "D506",
            f"an enricher: {enricher.name} needs packages that the bundle's clusters do not have", table=table.name,
            fix="run this table with lodestream run --engine spark, or on one machine",
        )  # fmt: skip


def _refused(note: Diagnostic, name: TableName, message: str) -> Diagnostic:
    fix = "write it with portable functions (docs/reference/functions.md)"
    return Diagnostic(note.file, note.line, note.column, "D506", message, None, fix, (("table", str(name)),))


def differences(project: Project, notes: Mistakes) -> None:
    """Note what a person has to see to, because the bundle does not."""
    for name, table in project.tables.items():
        for what, fix in _differences(table):
            key = "sink" if what.startswith("sink") else "source"
            notes.add(project.place(name, key), "N106", what, table=name, fix=fix)
    declared = project.policies
    if declared.grants or declared.row_filters or declared.masks or declared.tag_policies:
        place = project.policy_locations[()]
        fix = "grant and mask in Unity Catalog before anybody is let in"
        notes.add(place, "N106", "policies do not hold in Unity Catalog", fix=fix)


def _differences(table: Table) -> Iterable[tuple[str, str]]:
    path = str(table.source.settings.get("path", "")) if table.source is not None else ""
    if table.source is not None and table.source.name == "files" and not _ELSEWHERE.match(path):
        yield f"source reads a local folder: {path}", "name a folder that clusters reach: abfss://… or /Volumes/…"
    for sink in table.sinks:
        yield f"sink {sink.name} is not published from there", "publish it with `lodestream run` on one machine"
