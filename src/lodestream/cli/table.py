"""`lodestream table`: the versions of a table, starting one again, and its upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named, verb
from lodestream.cli.maintaining import checkpoint, expire, optimize, vacuum

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.model.table import TableName

app = typer.Typer(
    help="Versions of a table, starting one again, and its upkeep.", no_args_is_help=True, rich_markup_mode=None
)


def history(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name, or layer.name__quarantine")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="The newest so many; 0 is all.")] = 20,
) -> None:
    """Show what made each version of a table: time, batch, rows in and out, software."""
    from lodestream.cli.output import count, when_us
    from lodestream.lake.layout import table_path
    from lodestream.lake.log import list_log, read_commit

    opened = call.app()
    name = table_named(table, opened.query.tables())
    path = table_path(opened.lake, name)
    versions = sorted(list_log(opened.disk, path).commits, reverse=True)
    found: list[dict[str, Any]] = []
    for version in versions[:limit] if limit else versions:
        commit = read_commit(opened.disk, path, version)
        info = commit.info
        added = [add.num_records for add in commit.adds if add.data_change]
        found.append(
            {"version": version, "time": when_us(commit.timestamp_ms * 1000), "operation": info.get("operation"),
             "epoch": info.get("epoch"), "batch": info.get("batch"), "kind": info.get("kind"),
             "rows_added": None if None in added else sum(n or 0 for n in added),
             "files_added": len(commit.adds), "files_removed": len(commit.removes), "counts": info.get("counts"),
             "watermark": when_us(info.get("watermark_us")), "definition": info.get("definition"),
             "code": info.get("code")}
        )  # fmt: skip
    if call.json:
        for one in found:
            call.emit(one)
        return
    columns = [
        "version",
        "time",
        "operation",
        "batch",
        "kind",
        "rows_added",
        "files_added",
        "files_removed",
        "watermark",
    ]
    rows = [[count(one[c]) if c == "rows_added" else one[c] for c in columns] for one in found]
    call.table([c.replace("_", " ") for c in columns], rows, right={"version", "batch", "rows added", "files added",
                                                                    "files removed"})  # fmt: skip
    if len(found) < len(versions):
        call.say(f"{len(found)} of {len(versions)} versions; --limit 0 shows all")
    if versions:
        call.say(f'next: lodestream query "select * from {name} at (version => {versions[-1]})"')


def changes(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name, or layer.name__quarantine")],
    first: Annotated[int, typer.Option("--from", min=0, metavar="VERSION", help="The first version to tell.")] = 0,
    last: Annotated[
        int | None, typer.Option("--to", min=0, metavar="VERSION", help="The last one; the newest.")
    ] = None,
) -> None:
    """Show what each version of a table inserted, deleted and updated: its change data feed.

    A row that came is `insert`, one that left `delete`. Where the declaration says what tells rows apart (the keys of
    changes:, the groups of a window), a new content of a row is `update_preimage` and `update_postimage`. Rows that
    compaction moved are no change, and those that retention took are not told.
    """
    import math

    from lodestream.errors import ConfigError
    from lodestream.query.changes import Changes
    from lodestream.query.feed import CHANGE_TYPE, COMMIT_TIME, COMMIT_VERSION, feed
    from lodestream.query.service import OWNER

    opened = call.app()
    name = table_named(table, opened.query.tables())
    _, access = opened.query.access(name, OWNER)
    told = Changes(opened.disk, opened.lake, name, rows_max=math.inf, bytes_max=math.inf)
    newest = told.newest()
    last = newest if last is None else last
    if max(first, last) > newest:
        raise ConfigError("no such version", table=str(name), version=max(first, last), newest=newest)
    columns = [column for column, _ in access.columns]
    plan = opened.flows.get(name)
    head = [CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIME]
    shown: list[list[object]] = []
    for rows in feed(told, first, last, access, columns, plan.table.row_keys if plan else ()):
        for row in rows.select([*head, *columns]).to_pylist():
            if call.json:
                call.emit(row)
            else:
                shown.append([row[column] for column in (*head, *columns)])
    if not call.json:
        call.table([*head, *columns], shown)


def restore(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name")],
    version: Annotated[int, typer.Option(min=0, help="The last version that was good.")],
    rewind: Annotated[bool, typer.Option("--rewind", help="Let the flow take all its input in again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which tables begin again, and end.")] = False,
) -> None:
    """Start a table again after something went wrong with it since a version.

    Rows and positions belong together, so an old content cannot be put back alone: the flow would skip what it had
    taken in since, without a trace. With --rewind the table, and every table that streams from it, begins a new epoch:
    it is emptied in one commit and its flow takes all input in again with the present definition. Versions up to now
    stay readable: `lodestream query --as-of TABLE=VERSION`.
    """
    from lodestream.errors import ConfigError, DataLossRefused
    from lodestream.lake.layout import table_path
    from lodestream.lake.table import DeltaTable

    opened = call.app()
    name = table_named(table, opened.flows)
    found = DeltaTable.open(opened.disk, table_path(opened.lake, name))
    if found is None:
        raise ConfigError("table is not in the lake yet; lodestream run makes it", table=str(name))
    if version > found.snapshot.version:
        raise ConfigError("no such version", table=str(name), version=version, newest=found.snapshot.version)
    if not rewind:
        raise DataLossRefused(
            f"positions after this version would be skipped; add --rewind to take all input in again, or read the old "
            f"rows: lodestream query --as-of {name}={version} 'select * from {name}'",
            table=str(name), version=version, newest=found.snapshot.version,
        )  # fmt: skip
    names = readers(opened, name)
    if not dry_run:
        _ask(call, names, yes)
        call.note(opened, "rewind", *map(str, names), version=version)
        begin_again(opened, names)
    if call.json:
        call.emit({"restored": [] if dry_run else list(map(str, names)), "would": list(map(str, names))})
    else:
        for one in names:
            call.print(f"{one}: {'would begin' if dry_run else 'begins'} again")
        call.say("next: lodestream run" if not dry_run else "nothing was changed")


def readers(opened: App, name: TableName) -> list[TableName]:
    """The table and every table that streams from it, inputs first."""
    found = [name]
    for reader, plan in opened.flows.items():
        if not set(plan.streams).isdisjoint(found):
            found.append(reader)
    return found


def _ask(call: Call, names: list[TableName], yes: bool) -> None:
    import sys

    from lodestream.errors import ConfigError

    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("add --yes to begin these tables again", tables=", ".join(map(str, names)))
    call.say(f"These tables are emptied and filled again from their input: {', '.join(map(str, names))}")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(FAILED_BY_CHOICE)


FAILED_BY_CHOICE = 1


def begin_again(opened: App, names: list[TableName]) -> None:
    """Empty the tables, so that the next run takes all their input in again."""
    from lodestream.app import now_us
    from lodestream.engines.embedded.rebuild import begin_epoch
    from lodestream.lake.layout import epoch_of, table_path
    from lodestream.lake.table import DeltaTable

    for one in names:
        table = DeltaTable.open(opened.disk, table_path(opened.lake, one))
        if table is not None:
            epoch = epoch_of(table.snapshot.metadata.configuration)
            begin_epoch(table, epoch + 1, clock_us=now_us())


app.command("history")(verb(history))
app.command("changes")(verb(changes))
app.command("restore")(verb(restore))
app.command("optimize")(verb(optimize))
app.command("vacuum")(verb(vacuum))
app.command("expire")(verb(expire))
app.command("checkpoint")(verb(checkpoint))
