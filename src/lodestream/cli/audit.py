"""`lodestream audit`: who did what, and whether the record of it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import FAILED, Call, verb

if TYPE_CHECKING:
    from lodestream.catalog.chain import Record

app = typer.Typer(
    help="Who did what, on whose data, and whether they were let.", no_args_is_help=True, rich_markup_mode=None
)


def listed(
    call: Call,
    principal: Annotated[str | None, typer.Option(metavar="NAME", help="Only what they did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as query, grant or replay.")] = None,
    table: Annotated[str | None, typer.Option(metavar="LAYER.NAME", help="Only what concerns this table.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only allowed, or only refused.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="A duration such as 2 hours, or a time in ISO 8601.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the newest.")] = 50,
) -> None:
    """Show the newest records of the audit log, the newest first. With --json, one object a line."""
    from lodestream.catalog.audit_table import Wanted, facts
    from lodestream.errors import ConfigError

    if decision not in (None, "allowed", "refused"):
        raise ConfigError("not a decision; write allowed or refused", decision=decision)
    wanted = Wanted(principal, action, table, decision, _since(since), limit)
    found = call.app().audit.records(wanted)
    if call.json:
        for record in found:
            call.emit(facts(record) | {"time": _when(record)})
        return
    rows = [_row(record) for record in found]
    call.table(("seq", "time", "who", "via", "door", "action", "decision", "on", "more"), rows, right={"seq"})


def verify(
    call: Call,
    anchors: Annotated[
        str | None, typer.Option(metavar="FILE", help="A copy of the anchors, kept where nobody here can write.")
    ] = None,
) -> None:
    """Check that no record was changed, removed, put in or moved, and that none is missing at the end.

    Ends with 1 when something is wrong, and names the first record that is not as it was. Between two signed anchors
    (a thousand records or ten seconds apart, and one behind each change) a log that was written anew in whole can be
    told to be so only from the next anchor on.
    """
    found = call.app().audit.verify(anchors)
    if call.json:
        problems = [{"seq": one.seq, "kind": one.kind, "message": one.message} for one in found.problems]
        call.emit(
            {"ok": not problems, "records": found.records, "anchors": found.anchors, "unanchored": found.unanchored,
             "problems": problems}
        )  # fmt: skip
    else:
        for one in found.problems:
            call.print(f"NOT WHOLE: {one.message}")
        if not found.problems:
            late = f", the newest {found.unanchored} not anchored yet" if found.unanchored else ""
            call.print(f"{found.records} records are as they were written; {found.anchors} anchors say so too{late}.")
    if found.problems:
        raise typer.Exit(FAILED)


def _since(text: str | None) -> int | None:
    import datetime as dt

    from lodestream.app import now_us
    from lodestream.errors import ConfigError
    from lodestream.project.values import parse_duration

    if text is None:
        return None
    try:
        return now_us() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("not a time; write 2 hours, or 2026-05-01T12:00:00Z", since=text) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * 1e6)


def _row(record: Record) -> tuple[Any, ...]:
    from lodestream.catalog.audit_table import facts

    told = facts(record)
    more = " ".join(f"{name}={value}" for name, value in told["detail"].items() if value is not None)
    return (
        record.seq, _when(record), record.principal, told["via"], told["door"], record.action, record.decision,
        " ".join(told["objects"]), more,
    )  # fmt: skip


def _when(record: Record) -> str | None:
    from lodestream.cli.output import when_us

    return when_us(record.time_us)


for _name, _function, _words in (
    ("list", listed, "Show the newest records."),
    ("verify", verify, "Check that the log is whole."),
):
    app.command(_name, short_help=_words)(verb(_function))
