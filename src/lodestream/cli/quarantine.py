"""`lodestream quarantine`: rows that were set aside, and taking them again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named, verb

if TYPE_CHECKING:
    import pyarrow as pa

    from lodestream.app import App
    from lodestream.model.table import TableName

app = typer.Typer(
    help="Rows that were set aside: list them, look at them, take them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_RAW_SHOWN = 200


def listed(
    call: Call,
    table: Annotated[str | None, typer.Argument(help="Only this table.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Duplicate and dropped rows too.")] = False,
) -> None:
    """Count the open entries by table and reason."""
    from collections import Counter

    from lodestream.runtime.replaying import REPLAYABLE

    opened = call.app()
    names = [table_named(table, _tables(opened))] if table else _tables(opened)
    counts: Counter[tuple[str, str, str]] = Counter()
    for name in names:
        entries = _open(opened, name)
        for kind, reasons in zip(entries["kind"].to_pylist(), entries["reasons"].to_pylist(), strict=True):
            if everything or kind in REPLAYABLE:
                counts[str(name), kind, (reasons or ["–"])[0]] += 1
    rows = [(name, kind, reason, number) for (name, kind, reason), number in sorted(counts.items())]
    if call.json:
        call.emit(
            {"entries": [dict(zip(("table", "kind", "reason", "count"), row, strict=True)) for row in rows]}
        )  # fmt: skip
        return
    if not rows:
        call.print("Nothing is set aside.")
        return
    call.table(["table", "kind", "reason", "count"], rows, right={"count"})
    call.say(f"next: lodestream quarantine show {rows[0][0]}")


def show(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name")],
    reason: Annotated[
        str | None, typer.Option("--reason", "-r", help="Only with this reason, such as expect:positive.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of this kind: quarantine, late, duplicate, dropped. [default: the first two]")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="0 is all.")] = 20,
) -> None:
    """Show open entries: where each row comes from, why it was set aside, and the row."""
    from lodestream.cli.output import cell, plain
    from lodestream.runtime.replaying import chosen

    opened = call.app()
    name = table_named(table, _tables(opened))
    call.note(opened, "quarantine", str(name))
    found = chosen(_open(opened, name), reason, kind).to_pylist()
    shown = found[:limit] if limit else found
    for entry in shown:
        if call.json:
            entry["raw"] = _text(entry["raw"])
            call.emit(plain(entry))
            continue
        call.print(f"{entry['_source']}:{entry['_position']}  {entry['kind']}  {', '.join(entry['reasons'] or [])}")
        if entry["detail"]:
            call.print(f"    {cell(entry['detail'])}")
        content = entry["row"] if entry["row"] is not None else _text(entry["raw"])
        if content is not None:
            call.print(f"    {cell(content)}")
    if not call.json:
        call.say(f"{len(shown)} of {len(found)} entries")
        if found:
            first = found[0]["reasons"][0] if found[0]["reasons"] else ""
            call.say(f"next: mend the rule or the data, then lodestream quarantine replay {name} --reason {first}")


def replay(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name")],
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="Rows set aside for this reason.")] = None,
    positions: Annotated[
        list[str] | None, typer.Option("--position", "-p", metavar="SOURCE:POS", help="This row; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every row that can be taken again.")] = False,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=VALUE", help="A new value, for the rows of --position; may be repeated."),
    ] = None,
    accept_late: Annotated[
        bool, typer.Option("--accept-late", help="Late rows too, although their time has passed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and end.")] = False,
) -> None:
    """Take rows of the quarantine through the flow again, as a batch of its own.

    Entries stay as they are; a row that passes now gets a resolution that closes its entry, one that does not is set
    aside again with its new reason. With --set a row is mended first, and the resolution says how. Late rows need
    --accept-late: they change windows that were closed and pass dedup without its memory of that time. Stop `run` of
    this table first, or let it go on: then one of the two goes first.
    """
    from lodestream.errors import ConfigError
    from lodestream.model.batch import Mend
    from lodestream.query.service import OWNER
    from lodestream.runtime.replaying import chosen, keys_of, take_again

    opened = call.app()
    name = table_named(table, _tables(opened))
    if not (reason or positions or everything):
        raise ConfigError("say which rows: --reason, --position or --all", table=str(name))
    if values and not positions:
        raise ConfigError("say which rows get new values: --position", table=str(name))
    entries = chosen(_open(opened, name), reason)
    keys = keys_of(entries, set(map(_position, positions)) if positions else None, accept_late=accept_late)
    late = sum(entry == "late" for entry in entries["kind"].to_pylist())
    if late and not accept_late:
        call.say(f"{late} late rows are left out; --accept-late takes them too")
    if not keys:
        raise ConfigError("no open entry is meant by this; lodestream quarantine list shows them", table=str(name))
    if dry_run:
        _done(call, name, len(keys), None)
        return
    if opened.changes():
        raise ConfigError("declarations have changed; lodestream run --once applies them first", table=str(name))
    mended = " ".join(value.partition("=")[0] for value in values or ())
    call.note(opened, "replay", str(name), rows=len(keys), reason=reason, mended=mended or None)
    mend = Mend(dict(map(_value, values or ())), by=OWNER.name)
    mends = dict.fromkeys(keys, mend) if values else {}
    done = take_again(opened.pipeline(), name, keys, accept_late=accept_late, mends=mends)
    _done(call, name, len(keys), dict(done.counts))


def _done(call: Call, name: TableName, rows: int, counts: dict[str, int] | None) -> None:
    if call.json:
        call.emit(
            {"table": str(name), "replayed": 0 if counts is None else rows, "chosen": rows, "counts": counts or {}}
        )
    elif counts is None:
        call.print(f"{rows} rows would be taken again.")
    else:
        kinds = ("quarantine", "late", "duplicate", "dropped")
        aside = ", ".join(f"{n} {kind}" for kind, n in counts.items() if kind in kinds)
        call.print(f"{rows} rows taken again: {counts.get('output', 0)} passed" + (f", {aside}" if aside else "") + ".")


def _tables(opened: App) -> list[TableName]:
    """Tables that have a quarantine in the lake."""
    from lodestream.lake.layout import quarantine_name

    return [
        name for name in sorted(opened.deployed)
        if opened.disk.exists(f"{opened.lake}/{name.layer}/{quarantine_name(name).name}/_delta_log")
    ]  # fmt: skip


def _open(opened: App, name: TableName) -> pa.Table:
    """The open entries of a table's quarantine, in batch order."""
    from lodestream.runtime.replaying import standing

    return standing(opened.disk, opened.lake, name)


def _position(text: str) -> tuple[str, int]:
    from lodestream.errors import ConfigError

    source, _, position = text.rpartition(":")
    if not source or not position.isdigit():
        raise ConfigError("write --position as SOURCE:NUMBER, as quarantine show does", position=text)
    return source, int(position)


def _value(text: str) -> tuple[str, Any]:
    """`amount=50.00`: JSON where it is some, text where it is not; an empty value is NULL."""
    from lodestream.errors import ConfigError

    column, equals, value = text.partition("=")
    if not equals or not column:
        raise ConfigError("write --set as COLUMN=VALUE", value=text)
    try:
        return column, json.loads(value, parse_float=str) if value else None
    except ValueError:
        return column, value


def _text(raw: Any) -> str | None:
    if raw is None:
        return None
    text = bytes(raw).decode("utf-8", "backslashreplace")
    return text if len(text) <= _RAW_SHOWN else text[:_RAW_SHOWN] + "…"


app.command("list")(verb(listed))
app.command("show")(verb(show))
app.command("replay")(verb(replay))
