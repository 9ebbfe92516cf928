"""`lodestream plan`: what `run` would change in the lake, before it does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.planning.diff import Change

_WORDS = {
    "create": "new", "alter_metadata": "change, no row is touched", "alter_forward": "change, for new rows only",
    "rewrite": "change, its files are written again",
    "refresh": "change, the query runs again", "rebuild": "REBUILD, all rows are taken in again",
    "drop": "no longer declared",
}  # fmt: skip


def plan(
    call: Call,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write the plan there, for run --plan.")
    ] = None,
) -> None:
    """Show what run would change: new, altered and rebuilt tables, policies, and what will not run on Spark.

    Nothing is written to the lake. Tables that need a rebuild are rebuilt only by `run --accept HASH` with the hash
    that is shown here, or by `run --plan FILE`.
    """
    app = call.app()
    changes = app.changes()
    told = plan_json(app, changes)
    if out is not None:
        _write(out, told)
        call.say(f"plan written. file={out!r}")
    if call.json:
        call.emit(told)
        return
    policies = told["policies"]
    if not changes and not policies:
        call.print(f"Nothing to change: {len(app.flows)} tables are as declared. lake={app.lake!r}")
    for change in changes:
        call.print(f"{change.table}: {_WORDS[change.kind]}")
        for line in change.lines:
            call.print(f"    {line}")
    for line in policies:
        call.print(f"policies: {line}")
    for note in app.plans.notes:
        call.print(f"note: {note}")
    grave = [change for change in changes if change.must_be_accepted]
    if grave:
        what = "the rebuilds" if any(change.kind == "rebuild" for change in grave) else "that columns go"
        call.print(f"\nTo accept {what}: lodestream run --accept {told['accept']}")
    elif changes or policies:
        call.say("next: lodestream run")


def plan_json(app: App, changes: Sequence[Change]) -> dict[str, Any]:
    """The plan as JSON values."""
    from lodestream.planning.diff import accept_hash

    return {
        "lake": app.lake,
        "accept": accept_hash(changes),
        "tables": [str(name) for name in app.flows],
        "changes": [
            {
                "table": str(c.table),
                "kind": c.kind,
                "lines": list(c.lines),
                "rebuild": c.kind == "rebuild",
                "must_be_accepted": c.must_be_accepted,
            }
            for c in changes
        ],
        "policies": app.policy_changes(),
        "notes": [
            {"file": n.file, "line": n.line, "code": n.code, "message": n.message, "facts": dict(n.facts)}
            for n in app.plans.notes
        ],
    }


def _write(path: str, told: dict[str, Any]) -> None:
    from lodestream.cli.output import open_output

    with open_output(path) as file:
        file.write(json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n")


def accepted(path: str) -> str:
    """The hash in a plan file. Raises ConfigError when it is none."""
    from lodestream.errors import ConfigError

    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["accept"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "not a plan; write one with `lodestream plan --out FILE`", file=path, reason=repr(error)
        ) from None
