"""`lodestream schema`: JSON Schema of the declarations, for editors; `check` says what a changed schema breaks."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import FAILED, Call, verb

if TYPE_CHECKING:
    from lodestream.operations.contracts import Changed, Finding


def schema(
    call: Call,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write it there, not to stdout.")] = None,
) -> None:
    """Print the JSON Schema of table files, with the settings of every installed source, format and sink.

    In VS Code, with the YAML extension: `"yaml.schemas": {"lodestream.schema.json": "tables/**/*.yaml"}`.
    """
    from lodestream.project.schema import table_schema

    text = json.dumps(table_schema(), indent=2, ensure_ascii=False)
    if out is None:
        call.print(text)
        return
    from lodestream.cli.output import open_output

    with open_output(out) as file:
        file.write(text.encode() + b"\n")
    call.say(f"schema written. file={out!r}")


def check(
    call: Call,
    schemas: Annotated[
        list[str] | None, typer.Argument(metavar="[SUBJECT=]FILE", help="Changed schemas; default: all in schemas/.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="NAME|URL", help="Ask this registry whether its rule refuses.")
    ] = None,
) -> None:
    """Say before deployment what changed schemas (.avsc, .json, .proto) would break; ends with 1 if anything.

    A schema belongs to the bronze tables whose format names its file or subject, or whose topic its file is named
    after (`schemas/orders.avsc`, `schemas/orders-value.avsc`). Columns that vanish, types that no longer decode, and
    expressions of tables downstream that would not compile are told, with file and line. A registry's rule is asked
    where a table's format names the registry, and with --registry always.
    """
    from lodestream.engines.embedded.frames import describe
    from lodestream.operations.contracts import Contracts, schema_files

    app = call.app()
    existing = {name: table.schema for name, table in app.deployed.items()}
    contracts = Contracts(app.project, app.flows, existing, app.registry, registry, describe)
    chosen = [_changed(text) for text in schemas or []] or schema_files(app.project.root)
    found: list[tuple[Changed, list[Finding]]] = [(one, contracts.check(one)) for one in chosen]
    bad = any(finding.breaks for _, findings in found for finding in findings)
    if call.json:
        told = [_told(finding) for _, findings in found for finding in findings]
        call.emit({"ok": not bad, "schemas": [one.file for one in chosen], "findings": told})
    else:
        for one, findings in found:
            _show(call, one, findings)
        if not chosen:
            call.say("no schemas: name files, or put them into schemas/")
    if bad:
        raise typer.Exit(FAILED)


def _changed(text: str) -> Changed:
    from lodestream.operations.contracts import Changed

    subject, equals, file = text.rpartition("=")
    return Changed(file, subject if equals else None)


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "breaks": finding.breaks, "what": finding.what, "schema": finding.schema, "text": finding.text,
        "table": None if finding.table is None else str(finding.table), "column": finding.column,
        "file": finding.file, "line": finding.line,
    }  # fmt: skip


def _show(call: Call, changed: Changed, findings: list[Finding]) -> None:
    from lodestream.cli.output import safe

    if not findings:
        call.print(f"{changed.file}: breaks nothing")
        return
    call.print(f"{changed.file}:")
    for one in findings:
        mark = "BAD " if one.breaks else "note"
        where = ".".join(filter(None, [None if one.table is None else str(one.table), one.column]))
        at = f" ({one.file}:{one.line})" if one.file is not None else ""
        call.print(f"    {mark}  {one.what}: {f'{where}: ' if where else ''}{safe(one.text)}{at}")


def _alone(command: Callable[..., None]) -> Callable[..., None]:
    """A verb that runs when no other word follows it."""

    @functools.wraps(command)
    def callback(*, context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            command(context=context, **given)

    return callback


app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.callback()(_alone(verb(schema)))
app.command("check")(verb(check))
