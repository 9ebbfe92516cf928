"""`lodestream trace`: from a row to the source rows that made it."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call, flow_named


def trace(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name")],
    key: Annotated[str, typer.Argument(help="SOURCE:POSITION of a source row, or column=value[,column=value…].")],
) -> None:
    """Walk from a row to the source rows it was made of, with batch, definition and software.

    For a source row that is not in the table it says what became of it: which rule, which batch, when; and ends with 1.
    """
    from lodestream.operations.trace import trace as follow

    app = call.app()
    plan = flow_named(app, table)
    found = follow(app, plan.table.name, key)
    if call.json:
        call.emit(found.to_json())
    else:
        for line in found.lines():
            call.print(line)
    if not found.found:
        raise typer.Exit(FAILED)
