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
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Through this Kafka, in the place of files.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="URL", help="With --kafka: a schema registry that is there.")
    ] = None,
) -> None:
    """Take a year of real flights from files to gold and show what they say.

    With --kafka the flights are registered and sent as Avro to ten partitions, the feed to a topic of its own, and read
    from there; a schema registry is started for it unless one is at http://127.0.0.1:8081 or named by --registry.

    Stop it at any moment and start it again: it goes on where it was. With --json the last line on stdout is
    `{"tables": {…}, "reconciled": true, "seconds": s}`.
    """
    from rich.console import Console

    from lodestream.demo.run import run_demo
    from lodestream.errors import ConfigError

    console = Console(stderr=True, highlight=False) if call.json else Console(highlight=False)
    if registry is not None and kafka is None:
        call.hint = "lodestream demo --help"
        raise ConfigError("--registry goes with --kafka HOST:PORT")
    result = run_demo(
        Path(call.project) / folder, console=console, once=once or call.json, json=call.json, kafka=kafka,
        registry=registry,
    )  # fmt: skip
    if not result["reconciled"]:
        raise typer.Exit(FAILED)
