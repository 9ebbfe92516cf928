"""`lodestream grant` and `lodestream revoke`: who may do what with which tables."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestream.cli.call import Call

Privileges = Annotated[
    str, typer.Argument(metavar="PRIVILEGE", help="select, quarantine, replay or manage; several with commas.")
]
On = Annotated[str, typer.Argument(metavar="ON", help="A table such as gold.orders, a layer such as gold, or '*'.")]
To = Annotated[list[str], typer.Argument(metavar="WHO...", help="Users, or groups as group:NAME.")]


def grant(call: Call, privilege: Privileges, on: On, to: To) -> None:
    """Let users or groups do something with a table, a layer or everything.

    `select` reads rows, `quarantine` reads rows that were set aside, `replay` repairs them, `manage` changes grants,
    policies, comments and tags. None includes another. It holds on every door within a second.
    """
    from lodestream.model.policy import Grant

    changes = call.app().governing(call.principal, "cli")
    for one in _split(privilege):
        for who in to:
            changes.put(Grant(who, one, on))  # type: ignore[arg-type]
            _say(call, "granted", one, on, who)


def revoke(call: Call, privilege: Privileges, on: On, to: To) -> None:
    """Take a grant back; one that `policies.yaml` declares is taken back there."""
    from lodestream.model.policy import Grant

    changes = call.app().governing(call.principal, "cli")
    for one in _split(privilege):
        for who in to:
            changes.revoke(Grant(who, one, on))  # type: ignore[arg-type]
            _say(call, "revoked", one, on, who)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _say(call: Call, what: str, privilege: str, on: str, to: str) -> None:
    call.tell({what: {"privilege": privilege, "on": on, "to": to}}, f"{what} {privilege} on {on}: {to}")
