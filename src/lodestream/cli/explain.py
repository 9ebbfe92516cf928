"""`lodestream explain`: the steps of a table's flow and where each column comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestream.cli.call import Call, flow_named


def explain(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name")],
) -> None:
    """Show the steps that fill a table, and the columns that each of its columns is made of."""
    from lodestream.planning.explain import column_lineage
    from lodestream.planning.explain import explain as explained

    app = call.app()
    plan = flow_named(app, table)
    found = explained(plan)
    ends = column_lineage(app.flows)[plan.table.name]
    columns = {
        column.name: {
            "type": str(column.type),
            "from": sorted(f"{name}.{other}" for name, other in found.columns.get(column.name, ())),
            "origins": sorted(f"{name}.{other}" for name, other in ends.get(column.name, ())),
        }
        for column in plan.schema
    }
    reads = [str(name) for name in dict.fromkeys([*plan.streams, *plan.waits_for])]
    if call.json:
        call.emit(
            {"table": str(plan.table.name), "definition": plan.definition, "reads": reads, "steps": list(found.steps),
             "columns": columns}
        )  # fmt: skip
        return
    call.print(f"{plan.table.name}" + (f": {plan.table.comment}" if plan.table.comment else ""))
    if plan.table.declared_at:
        call.print(f"declared in {plan.table.declared_at.file}, definition {plan.definition}")
    for number, step in enumerate(found.steps, 1):
        first, *rest = step.splitlines()
        call.print(f"  {number:>2}. {first}")
        for line in rest:
            call.print(f"      {line}")
    call.print()
    rows = [(name, told["type"], ", ".join(told["from"]), ", ".join(told["origins"])) for name, told in columns.items()]
    call.table(["column", "type", "from", "in the end from"], rows)
