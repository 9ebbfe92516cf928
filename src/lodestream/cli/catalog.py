"""`lodestream catalog`: what tables and columns are for, who answers for them, and how somebody sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named, verb

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.catalog.catalog import Catalog
    from lodestream.model.access import TableAccess
    from lodestream.model.table import TableName
    from lodestream.model.types import Schema

app = typer.Typer(
    help="Comments, tags, owners; how somebody sees a table.", no_args_is_help=True, rich_markup_mode=None
)
On = Annotated[str, typer.Argument(metavar="ON", help="gold, gold.orders or gold.orders.amount.")]
Remove = Annotated[bool, typer.Option("--remove", help="Take it back.")]


def comment(call: Call, on: On, text: Annotated[str, typer.Argument(help="What it is for; '' takes it back.")]) -> None:
    """Say what a layer, table or column is for."""
    call.app().governing(call.principal, "cli").comment(on, text)
    call.tell({"on": on, "comment": text}, f"{on}: {text or 'no comment'}")


def owner(
    call: Call, on: On, who: Annotated[str, typer.Argument(help="User or group:NAME; '' takes it back.")]
) -> None:
    """Say who answers for a layer or table; it gives them no privilege."""
    call.app().governing(call.principal, "cli").own(on, who)
    call.tell({"on": on, "owner": who}, f"{on}: {who or 'nobody'} answers for it")


def tag(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="TAG", help="Such as pii.")],
    on: Annotated[str, typer.Argument(metavar="ON", help="A column such as gold.orders.email, or a whole table.")],
    remove: Remove = False,
) -> None:
    """Tag a column, or every column of a table; what is computed from it in other tables has the tag too."""
    from lodestream.model.policy import Tagged

    changes, tagged = call.app().governing(call.principal, "cli"), Tagged(name, *_cell(on))
    changes.untag(tagged) if remove else changes.put(tagged)
    call.tell({"on": on, "tag": name, "removed": remove}, f"{on}: {'no longer ' if remove else ''}{name}")


def declassify(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="TAG", help="Such as pii.")],
    on: Annotated[str, typer.Argument(metavar="ON", help="A column such as gold.customers.buyers, or a whole table.")],
    remove: Remove = False,
) -> None:
    """Say that a column tells nothing of the tagged ones that it is computed from, such as a count of them."""
    from lodestream.model.policy import Declassified

    changes, cleared = call.app().governing(call.principal, "cli"), Declassified(name, *_cell(on))
    changes.untag(cleared) if remove else changes.put(cleared)
    call.tell(
        {"on": on, "declassified": name, "removed": remove},
        f"{on}: inherits {name}{' again' if remove else ' no more'}",
    )


def show(
    call: Call,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Layer and name; the name alone if only one has it.")],
    reader: Annotated[
        str | None, typer.Option("--as", metavar="WHO", help="As this user sees it, with the policies that make it so.")
    ] = None,
) -> None:
    """Show a table's columns with comments and tags, its owner and policies; with --as, what somebody gets to see."""
    here = call.app()
    name = table_named(table, here.deployed)
    schema = here.deployed[name].schema
    if reader is not None:
        _show_access(call, here, name, schema, reader)
        return
    about = _about(here.catalog, name, schema)
    if call.json:
        call.emit(about)
        return
    call.print(f"{name}{': ' + about['comment'] if about['comment'] else ''}")
    call.print(f"owner: {about['owner'] or 'nobody'}")
    for line in about["policies"]:
        call.print(f"policy: {line}")
    rows = [(c["name"], c["type"], " ".join(c["tags"]), c["comment"]) for c in about["columns"]]
    call.table(("column", "type", "tags", "comment"), rows)


def search(
    call: Call,
    text: Annotated[str, typer.Argument(help="Words of a name, comment, tag or owner.")],
    reader: Annotated[str | None, typer.Option("--as", metavar="WHO", help="Only what this user may know of.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the best.")] = 20,
) -> None:
    """Find tables, columns, saved queries and dashboards. The beginning of a word will do, and a slip of the finger."""
    from lodestream.model.access import Principal

    here = call.app()
    asker = call.principal if reader is None else here.catalog.principal(reader) or Principal(reader)
    found = here.known.index().find(text, here.known.sees(asker), limit=limit)
    if call.json:
        items = [(hit.item, hit) for hit in found]
        call.emit(
            {"found": [
                {"kind": item.kind, "name": item.name, "comment": item.comment, "tags": list(item.tags),
                 "owner": item.owner or None, "score": hit.score, "fields": list(hit.fields)} for item, hit in items
            ]}
        )  # fmt: skip
        return
    if not found:
        call.print("Nothing is found.")
        return
    call.table(
        ("what", "name", "comment", "tags", "owner"),
        [(hit.item.kind, hit.item.name, hit.item.comment, " ".join(hit.item.tags), hit.item.owner) for hit in found],
    )


def _about(catalog: Catalog, name: TableName, schema: Schema) -> dict[str, Any]:
    notes = {(e.kind, e.name): e.body for e in catalog.entries("comment", "owner")}

    def said(on: str) -> str:
        return str(notes.get(("comment", on), {}).get("text", ""))

    state = catalog.state
    masks = [mask for by_column in state.masks.get(name, {}).values() for mask in by_column]
    policies = [f"row filter {one.name}" for one in state.filters.get(name, ())]
    policies += [f"mask {one}" for one in dict.fromkeys(mask.name for mask in masks)]
    policies += [f"tag policy {tag}" for tag in sorted(state.tagged(name)) if tag in state.tag_policies]
    columns = [
        {"name": c.name, "type": str(c.type), "tags": sorted(state.tags_of(name, c.name)),
         "comment": said(f"{name}.{c.name}") or c.comment}
        for c in schema
    ]  # fmt: skip
    owned = notes.get(("owner", str(name))) or notes.get(("owner", name.layer)) or {}
    about = {"table": str(name), "comment": said(str(name)), "owner": owned.get("owner")}
    return about | {"policies": policies, "columns": columns}


def _show_access(call: Call, here: App, name: TableName, schema: Schema, reader: str) -> None:
    principal = here.acting(reader, call.principal)
    held = here.catalog.privileges(principal, name)
    access = here.catalog.access(principal, name, schema) if "select" in held else None
    if call.json:
        call.emit({"table": str(name), "as": reader, "privileges": sorted(held)} | _seen(access))
        return
    call.print(f"{reader} may: {', '.join(sorted(held)) or 'nothing'}")
    if access is None:
        return
    for condition in access.filters:
        call.print(f"rows where: {condition}")
    for policy in access.policies:
        call.print(f"policy: {policy}")
    call.table(("column", "shown as"), [(column, masked or "it is") for column, masked in access.columns])


def _seen(access: TableAccess | None) -> dict[str, Any]:
    if access is None:
        return {}
    return {"columns": dict(access.columns), "filters": list(access.filters), "policies": list(access.policies)}


def _cell(on: str) -> tuple[TableName, str | None]:
    from lodestream.errors import ConfigError
    from lodestream.model.policy import parse_column
    from lodestream.model.table import TableName

    try:
        return (TableName.parse(on), None) if on.count(".") == 1 else parse_column(on)
    except ValueError as error:
        raise ConfigError(str(error)) from None


for _name, _function, _words in (
    ("show", show, "Show columns, tags, policies; or what somebody sees."),
    ("search", search, "Find tables, columns, queries and dashboards."),
    ("comment", comment, "Say what something is for."),
    ("tag", tag, "Tag a column or a table."),
    ("declassify", declassify, "Say what tells nothing of tagged columns."),
    ("owner", owner, "Say who answers for it."),
):
    app.command(_name, short_help=_words)(verb(_function))
