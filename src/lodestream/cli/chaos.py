"""`lodestream chaos`: kill a pipeline again and again, and look for lost rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call


def chaos(
    call: Call,
    kills: Annotated[int, typer.Option(min=1, help="How many times at least.")] = 50,
    seed: Annotated[int, typer.Option(help="Decides the events and the order of the crash points.")] = 1,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="DIR", help="Keep the project and its lake there.")
    ] = None,
) -> None:
    """Kill a running pipeline with SIGKILL at every named point and at random, beside a second writer.

    Then compare sources and tables with other code. The last line with --json is
    `{"kills": n, "produced": n, "lost": 0, "duplicated": 0, "unaccounted": 0}`; ends with 1 when a row is missing.
    """
    import tempfile

    from lodestream.operations.chaos import run_chaos

    def told(count: int, where: str) -> None:
        if not call.json and (count % 10 == 0 or count >= kills):
            call.say(f"kill {count} of {kills}, {where}")

    with tempfile.TemporaryDirectory(prefix="lodestream-chaos-", ignore_cleanup_errors=True) as scratch:
        place = Path(folder) if folder is not None else Path(scratch) / "chaos"
        result = run_chaos(place, kills=kills, seed=seed, progress=told)
    if call.json:
        call.emit(result.to_json())
    else:
        call.table(["kills", "produced", "lost", "duplicated", "unaccounted"], [list(result.to_json().values())],
                   right={"kills", "produced", "lost", "duplicated", "unaccounted"})  # fmt: skip
        inside, points, seconds = result.inside, len(result.points), result.seconds
        call.say(f"{points} crash points hit, {inside} kills inside a batch, in {seconds:.0f} seconds")
    for note in result.verdict.notes:
        call.say(note)
    if not result.ok:
        raise typer.Exit(FAILED)
