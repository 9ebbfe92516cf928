"""`lodestream reconcile`: prove that no row is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call, flow_named

_FATES = ("output", "quarantine", "late", "duplicate", "dropped", "open")
_OF_CHANGES = ("superseded", "deleted")


def reconcile(
    call: Call,
    tables: Annotated[list[str] | None, typer.Argument(help="layer.name; all tables when none is named.")] = None,
) -> None:
    """Compare every position that came in with those that came out or were set aside, for each table.

    Reads sources and tables with other code than the engine's. Ends with 1 when a table does not add up.
    """
    from lodestream.cli.output import count
    from lodestream.operations.lake_files import LakeFiles
    from lodestream.operations.reconcile import reconcile as prove

    app = call.app()
    files = LakeFiles.of(app.disk, app.lake)
    plans = [flow_named(app, text) for text in tables or []] or list(app.flows.values())
    reports = []
    for plan in plans:
        if not call.json:
            call.say(f"{plan.table.name} …")
        reports.append(prove(app.project.root, files, plan, app.resolve))
    good = all(report.ok for report in reports)
    if call.json:
        call.emit({"reconciled": good, "tables": [report.to_json() for report in reports]})
    else:
        fates = (*_FATES, *(fate for fate in _OF_CHANGES if any(fate in r.counts for r in reports)))
        rows = [
            (str(r.table), count(r.input), *(count(r.counts[f]) if r.counts.get(f) else "·" for f in fates),
             "–" if r.skipped else "yes" if r.ok else "NO")
            for r in reports
        ]  # fmt: skip
        call.table(["table", "input", *fates, "adds up"], rows, right={"input", *fates})
        for report in reports:
            for problem in report.problems:
                call.print(f"{report.table}: {problem}")
            for note in report.notes:
                call.print(f"{report.table}: {note}")
            if report.skipped:
                call.print(f"{report.table}: {report.skipped}")
    if not good:
        raise typer.Exit(FAILED)
