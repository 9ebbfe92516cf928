"""`lodestream policies`: grants, row filters, masks and what tags mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, verb

if TYPE_CHECKING:
    from lodestream.catalog.entries import Policy
    from lodestream.catalog.store import Entry

app = typer.Typer(help="Grants, row filters, masks, tag policies.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the row filter or mask; of a tag policy its tag.")]
_KINDS = ("grant", "row_filter", "mask", "tag", "declassified", "tag_policy")


def listed(
    call: Call,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only grant, row_filter, mask, tag, declassified or tag_policy.")
    ] = None,
) -> None:
    """Show who was granted what, what hides rows and columns, and who or which file says so."""
    from lodestream.cli.output import when_us
    from lodestream.errors import ConfigError

    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"no such kind; write one of {', '.join(_KINDS)}", kind=kind)
    found = call.app().catalog.entries(*((kind,) if kind else _KINDS))
    if call.json:
        call.emit({"policies": [_plain(e) for e in found]})
        return
    rows = [(e.kind.replace("_", " "), e.name, _says(e), e.who, when_us(e.at_us)) for e in found]
    call.table(("kind", "name", "says", "said by", "since"), rows)


def put(
    call: Call,
    name: Name,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="OBJECT", help="A table to filter, a column to mask; repeatable."),
    ] = None,
    where: Annotated[str | None, typer.Option(metavar="CONDITION", help="Rows that are shown; Spark SQL.")] = None,
    shown: Annotated[
        str | None, typer.Option("--with", metavar="EXPRESSION", help="What is shown in place of a column; Spark SQL.")
    ] = None,
    exempt: Annotated[
        list[str] | None,
        typer.Option("--except", metavar="WHO", help="User or group:NAME it does not bind; repeatable."),
    ] = None,
) -> None:
    """Hide rows or columns: --on TABLE --where is a row filter, --on COLUMN --with a mask, --with alone a tag policy.

    The expression may ask for the reader: current_user(), is_member('group'), attribute('name'). A row is hidden when
    the condition is not true; a mask shows NULL where it fails. A policy of this name is replaced.
    """
    call.app().governing(call.principal, "cli").put(_policy(name, on or [], where, shown, tuple(exempt or ())))
    _told(call, name, "set")


def drop(
    call: Call,
    name: Name,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="row_filter, mask or tag_policy, where several have the name.")
    ] = None,
) -> None:
    """Take a row filter, mask or tag policy back; one that `policies.yaml` declares is taken back there."""
    from lodestream.errors import ConfigError

    app = call.app()
    kinds = (kind,) if kind else ("row_filter", "mask", "tag_policy")
    found = sorted({e.kind for e in app.catalog.entries(*kinds) if e.name == name})
    if len(found) > 1:
        raise ConfigError("several policies have this name; say which with --kind", name=name, kinds=", ".join(found))
    app.governing(call.principal, "cli").drop(found[0] if found else kinds[0], name)
    _told(call, name, "dropped")


def _policy(name: str, on: list[str], where: str | None, shown: str | None, exempt: tuple[str, ...]) -> Policy:
    from lodestream.errors import ConfigError
    from lodestream.model.policy import Mask, RowFilter, TagPolicy, parse_column
    from lodestream.model.table import TableName

    if (where is None) == (shown is None):
        raise ConfigError("a policy has either --where, to hide rows, or --with, to hide columns", name=name)
    if where is not None and not on:
        raise ConfigError("a row filter needs its tables: --on gold.orders", name=name)
    try:
        if where is not None:
            return RowFilter(name, tuple(TableName.parse(text) for text in on), where, exempt)
        assert shown is not None
        return Mask(name, tuple(parse_column(t) for t in on), shown, exempt) if on else TagPolicy(name, shown, exempt)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _says(entry: Entry) -> str:
    body = entry.body
    parts = []
    if entry.kind in ("row_filter", "mask"):
        parts.append(" ".join(body["on"]))
    parts += [f"{word} {body[key]}" for key, word in (("where", "where"), ("shown", "with")) if key in body]
    if body.get("except"):
        parts.append(f"except {' '.join(body['except'])}")
    return ", ".join(parts)


def _plain(entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": entry.kind, "name": entry.name} | dict(entry.body)
    return told | {"who": entry.who, "at_us": entry.at_us, "file": entry.origin or None}


def _told(call: Call, name: str, state: str) -> None:
    call.tell({"policy": name, "state": state}, f"{name}: {state}")


for _name, _function, _words in (
    ("list", listed, "Show grants, filters, masks, tags."),
    ("set", put, "Hide rows or columns."),
    ("drop", drop, "Take a filter, mask or tag policy back."),
):
    app.command(_name, short_help=_words)(verb(_function))
