"""`lodestream test`: unit tests of the project's tables."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call


def check(
    call: Call,
    files: Annotated[
        list[str] | None, typer.Argument(help="Test files; all of tests/*.yaml when none is named.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", "-k", metavar="TEXT", help="Only tests whose name has this.")
    ] = None,
) -> None:
    """Run the project's unit tests: given rows through the steps of one table, with a clock of its own.

    No lake is read or written. Ends with 1 when a test fails.
    """
    from lodestream.testing.pipeline import find_cases, run_case

    app = call.app()
    cases = [case for case in find_cases(app.project.root, files or None) if not only or only in case.name]
    failed = 0
    for case in cases:
        verdict = run_case(app.project, app.flows, case)
        failed += not verdict.ok
        if call.json:
            call.emit(verdict.to_json())
            continue
        call.print(f"{'pass' if verdict.ok else 'FAIL'}  {case.file}  {case.name}")
        for line in verdict.differences:
            call.print(f"      {line}")
    if not cases:
        call.say("no tests found; write tests/NAME.yaml, see docs/guides/cli.md")
    if not call.json:
        call.print(f"{len(cases) - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(FAILED)
