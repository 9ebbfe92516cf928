"""`lodestream demo`: a year of real flights through bronze, silver and gold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call


def demo(
    call: Call,
    once: Annotated[bool, typer.Option("--once", help="End after the report, on a terminal too.")] = False,
    folder: Annotated[str, typer.Option("--folder", metavar="DIR", help="Where the demo lives.")] = "demo-lake",
) -> None:
    """Take a year of real flights from files to gold and show what they say.

    Stop it at any moment and start it again: it goes on where it was. With --json the last line on stdout is
    `{"tables": {…}, "reconciled": true, "seconds": s}`.
    """
    from rich.console import Console

    from lodestream.demo.run import run_demo

    console = Console(stderr=True, highlight=False) if call.json else Console(highlight=False)
    result = run_demo(Path(call.project) / folder, console=console, once=once or call.json, json=call.json)
    if not result["reconciled"]:
        raise typer.Exit(FAILED)
