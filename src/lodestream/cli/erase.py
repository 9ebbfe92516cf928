"""`lodestream erase`: take a person, or whoever else a value names, out of a lake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import FAILED, Call

if TYPE_CHECKING:
    from lodestream.operations.erase.carry import Carrier


def erase(
    call: Call,
    subjects: Annotated[
        list[str],
        typer.Option(
            "--subject", "-s", metavar="COLUMN=VALUE",
            help="Whom: email=ada@example.org, or silver.people.id=42; may be repeated, and any of them is enough.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be erased, and end.")] = False,
) -> None:  # fmt: skip
    """Erase a subject from bronze, silver, gold, quarantine, state, history and old files, and prove it.

    Rows that came from the subject's records leave every table, in a batch of each flow; it does not matter whether
    `run` is on its way. Files that held them are deleted at once, so versions before it can no longer be read where
    they did. Then every file of the lake is searched; the end is 1 when something is left. A keyed hash of the value is
    kept, so that records which the source still shows do not come in again. Broken off, it is finished by the same
    command.
    """
    from lodestream.app import now_us
    from lodestream.errors import ConfigError
    from lodestream.operations.erase.carry import Carrier

    opened = call.app()
    carrier = Carrier(opened, subjects, now_us())
    if dry_run:
        _would(call, carrier)
        return
    if opened.changes():
        raise ConfigError("declarations have changed; lodestream run --once applies them first")
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("add --yes to erase; --dry-run shows what")
        _would(call, carrier)
        if not typer.confirm("Erase this for ever?", err=True):
            raise typer.Exit(FAILED)
    columns = carrier.subject.columns
    call.note(opened, "erase", *map(str, carrier.subject.tests), columns=" ".join(columns), subject=carrier.hashed())
    report = carrier.erase(call.say)
    if call.json:
        call.emit(report)
    else:
        _print(call, report)
    if not report["proven"]:
        raise typer.Exit(FAILED)


def _would(call: Call, carrier: Carrier) -> None:
    found = carrier.would()
    if call.json:
        call.emit({"columns": list(carrier.subject.columns), "would": found})
        return
    for table, counts in found.items():
        windows = f", {counts['windows']} windows" if counts["windows"] else ""
        call.print(f"{table}: {counts['positions']} rows, set aside ones included{windows}")
    if not found:
        call.print("No table holds it.")


def _print(call: Call, report: dict[str, Any]) -> None:
    rows = [
        [table, one["version"], one["rows"], one["quarantined"], one["files_deleted"], one["states_deleted"]]
        for table, one in report["tables"].items()
    ]
    numbers = ["version", "rows", "set aside", "files deleted", "states deleted"]
    call.table(["table", *numbers], rows, right=set(numbers))
    for rule in report["rules"]:
        call.print(f"rule: {rule}")
    for source in report["sources"]:
        more = "its records are left out from now on" if source["barred"] else "it has no column to know them by"
        call.print(f"source of {source['table']} ({source['source']}): may still hold the subject; {more}")
    for sink in report["sinks"]:
        call.print(f"sink {sink}: what was published before is still there")
    for copy in report["copies"]:
        if copy["kind"] == "replica":
            call.print(f"replica {copy['place']}: holds the subject until the next lodestream replicate")
        else:
            call.print(f"backup {copy['place']}: {copy['points']} points still hold the subject, until they are pruned")
    for one in report["left"]:
        call.print(f"left: {one['file']}: {one['found']}")
    for path in report["unread"]:
        call.print(f"not read: {path}")
    for sink in report["kept_for_sinks"]:
        call.print(f"kept: a file that {sink} still compares with; lodestream run, then the same command again")
    if report["proven"]:
        call.print(f"Proven: nothing is left in {report['files_searched']} files. erasure={report['id']}")
    elif report["left"]:
        call.say("next: a column that still shows it can be named too, with a further --subject")
