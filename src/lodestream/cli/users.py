"""`lodestream users`: the people and programs that the lake knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call, verb

if TYPE_CHECKING:
    from lodestream.catalog.changes import Changes

app = typer.Typer(help="Local users and service accounts.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who; the name that their keys have.")]
Groups = Annotated[
    list[str] | None, typer.Option("--group", "-g", metavar="GROUP", help="A group they are in; may be repeated.")
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="What row filters may ask for; may be repeated."),
]


def listed(call: Call) -> None:
    """Show local users and service accounts, and who or which file says so."""
    from lodestream.cli.output import when_us

    catalog = call.app().catalog
    disabled = catalog.state.disabled
    found = {e.name: e for e in catalog.entries("user")}  # of two, the file's, which says who they are
    if call.json:
        users = [
            {**e.body, "disabled": e.name in disabled, "name": e.name, "who": e.who, "at_us": e.at_us}
            for e in found.values()
        ]
        call.emit({"users": users})
        return
    rows = []
    for e in found.values():
        facts = " ".join(f"{name}={value}" for name, value in e.body["attributes"].items())
        state = "disabled" if e.name in disabled else "active"
        rows.append((e.name, e.body["kind"], " ".join(e.body["groups"]), facts, state, e.who, when_us(e.at_us)))
    call.table(("name", "kind", "groups", "attributes", "state", "said by", "since"), rows)


def add(
    call: Call, name: Name, groups: Groups = None, attributes: Attributes = None,
    service: Annotated[bool, typer.Option("--service", help="A program, not a person.")] = False,
) -> None:  # fmt: skip
    """Add a user or service account; the key they sign in with is made by `lodestream keys create NAME`."""
    from lodestream.errors import ConfigError
    from lodestream.model.policy import User

    app = call.app()
    if name in app.catalog.state.users:
        raise ConfigError("there is such a user; change them with `lodestream users set`", user=name)
    user = User(name, "service" if service else "user", frozenset(groups or ()), _facts(attributes))
    app.governing(call.principal, "cli").put(user)
    _say(call, name, "added")


def change(
    call: Call, name: Name, groups: Groups = None, attributes: Attributes = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="Take them out of every group.")] = False,
) -> None:  # fmt: skip
    """Change a user: the groups named here are all they are in; `NAME=` takes an attribute away."""
    from dataclasses import replace

    from lodestream.errors import ConfigError

    app = call.app()
    known = app.catalog.state.users.get(name)
    if known is None:
        raise ConfigError("there is no such user; add them with `lodestream users add`", user=name)
    facts = {key: value for key, value in {**known.attributes, **_facts(attributes)}.items() if value}
    chosen = frozenset[str]() if no_groups else known.groups if groups is None else frozenset(groups)
    app.governing(call.principal, "cli").put(replace(known, groups=chosen, attributes=facts))
    _say(call, name, "changed")


def disable(call: Call, name: Name) -> None:
    """Refuse a user on every door, whatever key they bring; it holds within a second."""
    _changes(call).disable(name)
    _say(call, name, "disabled")


def enable(call: Call, name: Name) -> None:
    """Let a disabled user in again."""
    _changes(call).disable(name, disabled=False)
    _say(call, name, "enabled")


def remove(call: Call, name: Name) -> None:
    """Forget a user, with the grants to their name; revoke their keys with `lodestream keys revoke`."""
    left = _changes(call).remove_user(name)
    _say(call, name, "removed")
    for one in left:
        call.say(f"a file still declares: {one}")


def _changes(call: Call) -> Changes:
    return call.app().governing(call.principal, "cli")


def _facts(texts: list[str] | None) -> dict[str, str]:
    from lodestream.errors import ConfigError

    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError("write an attribute as name=value", attribute=text)
        found[name] = value
    return found


def _say(call: Call, name: str, state: str) -> None:
    call.tell({"user": name, "state": state}, f"{name}: {state}")


for _name, _function, _words in (
    ("list", listed, "Show users and service accounts."),
    ("add", add, "Add one."),
    ("set", change, "Change groups and attributes of one."),
    ("disable", disable, "Refuse one on every door."),
    ("enable", enable, "Let one in again."),
    ("remove", remove, "Forget one, with the grants to their name."),
):
    app.command(_name, short_help=_words)(verb(_function))
