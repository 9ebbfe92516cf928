"""`lodestream doctor`: what is wrong here, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import FAILED, Call

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.model.table import TableName
    from lodestream.operations.health import Finding


def doctor(
    call: Call,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend damaged logs, and begin tables again whose input is whole.")
    ] = False,
) -> None:
    """Check the project, the lake's disk, and the log, plans and state of each table.

    Ends with 1 when something is wrong. --repair puts torn commits aside and drops damaged checkpoints. A table that
    has lost files or state begins again when everything it was made from is still there, so that the next run fills it;
    when not, nothing of it is touched. Run `doctor` again to see what is left.
    """
    from lodestream.app import now_us
    from lodestream.operations.health import examine

    app = call.app()
    findings = [*_native(), *_project(app), *_dashboards(app), *_queries(app)]
    names = sorted({*app.project.tables, *_standing(app)})
    findings += examine(app.lake, app.disk, names, repair=repair, now_s=now_us() / 1e6)
    if repair:
        findings = _refilled(call, app, findings)
    bad = [finding for finding in findings if finding.level == "error"]
    if call.json:
        call.emit({"ok": not bad, "lake": app.lake, "findings": [finding.to_json() for finding in findings]})
    else:
        marks = {"ok": "ok  ", "note": "note", "repaired": "done", "error": "BAD "}
        for finding in findings:
            code = f" [{finding.code}]" if finding.code else ""
            call.print(f"{marks[finding.level]}  {finding.check}: {finding.text}{code}")
            if finding.fix:
                call.print(f"      {finding.fix}")
        call.say(f"{len(bad)} of {len(findings)} checks found something wrong" if bad else "nothing wrong")
    if bad:
        raise typer.Exit(FAILED)


def _refilled(call: Call, app: App, findings: list[Finding]) -> list[Finding]:
    """The findings, with the tables begun again that have lost files or state and can be filled from their input."""
    from dataclasses import replace

    from lodestream.cli.table import begin_again, readers
    from lodestream.lake.layout import QUARANTINE_SUFFIX
    from lodestream.model.table import TableName
    from lodestream.operations.lake_files import LakeFiles
    from lodestream.operations.refill import refusals

    lost = {one.check for one in findings if one.level == "error" and one.code in ("L301", "L401")}
    names = {TableName.parse(check.removesuffix(QUARANTINE_SUFFIX)) for check in lost}
    if not names or any(one.level == "error" and one.check == "declarations" for one in findings):
        return findings
    refused = refusals(
        names, app.flows, root=app.project.root, disk=app.disk, files=LakeFiles.of(app.disk, app.lake),
        resolve=app.resolve,
    )  # fmt: skip
    again = sorted(names - set(refused))
    below = [one for one in app.flows if any(one in readers(app, name) for name in again)]
    if below:
        call.note(app, "rewind", *map(str, below))
        begin_again(app, below)
    found = []
    for one in findings:
        if one.check in lost and one.code in ("L301", "L401"):
            name = TableName.parse(one.check.removesuffix(QUARANTINE_SUFFIX))
            if name in refused:
                one = replace(one, text=f"{one.text}; it cannot be filled again: {refused[name]}")
            else:
                told = ", ".join(map(str, readers(app, name)))
                one = replace(one, level="repaired", text=f"{one.text}; begun again: {told}", fix="lodestream run")
        found.append(one)
    return found


def _native() -> list[Finding]:
    """Whether the native kernels are in use."""
    from lodestream.native import KERNELS, STATE
    from lodestream.operations.health import Finding

    if KERNELS is not None:
        return [Finding("ok", "native kernels", f"lodestream-native {STATE}")]
    return [Finding("note", "native kernels", f"{STATE}; all works, at two to four times the CPU", "make native")]


def _project(app: App) -> list[Finding]:
    """Whether the declarations can be read and fit the lake."""
    from lodestream.errors import LodestreamError
    from lodestream.operations.health import Finding
    from lodestream.project.mistakes import ProjectError

    try:
        changes = app.changes()
    except ProjectError as error:
        return [Finding("error", "declarations", str(one), one.fix) for one in error.diagnostics]
    except LodestreamError:
        return []  # a table that cannot be opened is found below
    if not changes:
        return [Finding("ok", "declarations", f"{len(app.flows)} tables, as the lake has them")]
    text = ", ".join(f"{change.table} ({change.kind})" for change in changes)
    return [Finding("note", "declarations", f"differ from the lake: {text}", "lodestream plan")]


def _dashboards(app: App) -> list[Finding]:
    """Whether the dashboards can be read, and show tables that are declared or in the lake."""
    from lodestream.errors import LodestreamError
    from lodestream.model.table import TableName
    from lodestream.operations.health import Finding
    from lodestream.project.dashboards import read_dashboards
    from lodestream.query.guard import parse

    found, mistakes = read_dashboards(app.project.root)
    findings = [Finding("error", "dashboards", str(one), one.fix) for one in mistakes]
    known = {*app.project.tables, *_standing(app)}
    panels = [(board, panel) for board in found.values() for panel in board.panels if panel.sql]
    for board, panel in panels:
        place = f"dashboards/{board.name}.yaml, {panel.title}"
        try:
            read = {TableName(one.layer, one.name.removesuffix("__quarantine")) for one in parse(panel.sql).tables}
        except LodestreamError as error:
            findings.append(Finding("error", "dashboards", f"{place}: {error.message.strip()}", "mend the query"))
            continue
        missing = [f"{place}: no such table: {name}" for name in sorted(read - known)]
        findings += [Finding("error", "dashboards", text, "lodestream status") for text in missing]
    if found and not findings:
        findings.append(Finding("ok", "dashboards", f"{len(found)} with {len(panels)} queries"))
    return findings


def _queries(app: App) -> list[Finding]:
    """Whether the saved queries can be read, and ask what may be asked."""
    from lodestream.errors import LodestreamError
    from lodestream.operations.health import Finding
    from lodestream.project.queries import read_queries
    from lodestream.query.guard import parse

    found, mistakes = read_queries(app.project.root)
    findings = [Finding("error", "queries", str(one), one.fix) for one in mistakes]
    for query in found.values():
        try:
            parse(query.positional(), app.project.name.lower())
        except LodestreamError as error:
            told = f"{query.origin}: {error.message.strip()}"
            findings.append(Finding("error", "queries", told, "mend the query"))
    if found and not findings:
        findings.append(Finding("ok", "queries", f"{len(found)} saved"))
    return findings


def _standing(app: App) -> list[TableName]:
    """Tables in the lake, without opening them."""
    return [name for name in app.query.tables() if not name.name.endswith("__quarantine")]
