"""`lodestream lineage`: what a table or a column comes from, and what a change of it may break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.catalog.lineage import Hop, Lineage, Reader
    from lodestream.model.table import TableName


def lineage(
    call: Call,
    what: Annotated[
        str | None, typer.Argument(metavar="TABLE[.COLUMN]", help="layer.name or layer.name.column")
    ] = None,
    down: Annotated[
        bool, typer.Option("--down", help="What comes from it and who reads that, not where from.")
    ] = False,
    depth: Annotated[int | None, typer.Option(min=1, help="So many tables far. [default: all the way]")] = None,
    values: Annotated[
        bool, typer.Option("--values", help="Only where values go, not what filters, joins and groups by it.")
    ] = False,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Every table as an OpenLineage event, one a line.")
    ] = False,
) -> None:
    """Show where a table or a column comes from, or with --down all that a change of it may break.

    Read from the plans, so it knows tables that never ran; and from the audit log, so it knows who asked.
    """
    from lodestream.catalog.lineage import everything
    from lodestream.catalog.openlineage import job_events
    from lodestream.errors import ConfigError

    app = call.app()
    if openlineage:
        from lodestream.app import now_us

        for event in job_events(app.flows, app.project.name, now_us(), app.known.lineage()):
            call.emit(event)
        return
    if what is None:
        raise ConfigError("name a table or a column, such as gold.revenue or gold.revenue.total")
    known = app.known.lineage()
    table, column = _named(app, known, what)
    sees = everything(known)
    if down:
        found = known.down(table, column, sees=sees, depth=depth, values=values, manages=lambda _table: True)
    else:
        found = known.up(table, column, sees=sees, depth=depth, values=values)
    if call.json:
        call.emit(
            {"table": str(table), "column": column, "direction": "down" if down else "up",
             "hops": [_hop(hop) for hop in found.hops], "readers": [_reader(one) for one in found.readers]}
        )  # fmt: skip
        return
    if not found.hops and not found.readers:
        source = f", which is filled from {known.sources[table]}" if table in known.sources and not down else ""
        call.print(f"Nothing {'comes from' if down else 'is above'} {what}{source}.")
        return
    rows = [(hop.depth, _text(hop.table, hop.column), hop.how, _text(*hop.of)) for hop in found.hops]
    call.table(("away", "into" if down else "from", "how", "from" if down else "into"), rows, right={"away"})
    if found.readers:
        call.print()
        call.table(("read by", "name", "reads", "last"), [_shown(one) for one in found.readers])


def _named(app: App, known: Lineage, what: str) -> tuple[TableName, str | None]:
    from lodestream.errors import ConfigError
    from lodestream.project.mistakes import nearest

    parts = what.split(".")
    table = table_named(".".join(parts[:2]), app.flows)
    if len(parts) <= 2:
        return table, None
    column = ".".join(parts[2:])
    names = known.schemas[table].names
    if column not in names:
        raise ConfigError("no such column", column=column, table=str(table), nearest=nearest(column, names))
    return table, column


def _text(table: TableName, column: str | None) -> str:
    return str(table) if column is None else f"{table}.{column}"


def _hop(hop: Hop) -> dict[str, Any]:
    of, used = hop.of
    return {
        "depth": hop.depth, "table": str(hop.table), "column": hop.column, "how": hop.how,
        "of": {"table": str(of), "column": used},
    }  # fmt: skip


def _reader(reader: Reader) -> dict[str, Any]:
    from lodestream.cli.output import when_us

    read = {str(table): None if columns is None else sorted(columns) for table, columns in reader.reads.items()}
    return {"kind": reader.kind, "name": reader.name, "reads": read, "last": when_us(reader.last_us)}


def _shown(reader: Reader) -> tuple[object, ...]:
    from lodestream.cli.output import when_us

    return reader.kind, reader.name, " ".join(map(str, sorted(reader.reads))), when_us(reader.last_us)
