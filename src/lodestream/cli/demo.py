"""`lodestream demo`: a year of real flights through bronze, silver and gold."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lodestream.cli.call import FAILED, Call

USERS = {"ana": ("admin:*",), "ben": ()}
"""Users of the demo's policies.yaml, and what their keys may do beyond reading: ana may replay."""
_KEY_US = 90 * 86_400 * 1_000_000


def demo(
    call: Call,
    once: Annotated[bool, typer.Option("--once", help="End after the report, on a terminal too.")] = False,
    folder: Annotated[str, typer.Option("--folder", metavar="DIR", help="Where the demo lives.")] = "demo-lake",
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Through this Kafka, in the place of files.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="URL", help="With --kafka: a schema registry that is there.")
    ] = None,
    up: Annotated[
        bool, typer.Option("--up", help="Then start all parts, as `lodestream up` does, while flights go on arriving.")
    ] = False,
) -> None:
    """Take a year of real flights from files to gold and show what they say.

    With --kafka the flights are registered and sent as Avro to ten partitions, the feed to a topic of its own, and read
    from there; a schema registry is started for it unless one is at http://127.0.0.1:8081 or named by --registry.

    With --up the year is followed by flights that leave now, a few every two seconds for half an hour, and two users,
    ana and ben, get a key each; policies.yaml says what each may see.

    Stop it at any moment and start it again: it goes on where it was. With --json the last line on stdout is
    `{"tables": {…}, "reconciled": true, "seconds": s}`.
    """
    from rich.console import Console

    from lodestream.demo.run import run_demo
    from lodestream.errors import ConfigError

    console = Console(stderr=True, highlight=False) if call.json else Console(highlight=False)
    if registry is not None and kafka is None:
        call.hint = "lodestream demo --help"
        raise ConfigError("--registry goes with --kafka HOST:PORT")
    result = run_demo(
        Path(call.project) / folder, console=console, once=once or call.json or up, json=call.json, kafka=kafka,
        registry=registry,
    )  # fmt: skip
    if not result["reconciled"]:
        raise typer.Exit(FAILED)
    if up:
        _up(replace(call, project=str(Path(call.project) / folder)), feed=kafka is None)


def _up(call: Call, *, feed: bool) -> None:
    """All parts, and flights that leave now."""
    from lodestream.app import now_us
    from lodestream.cli.up import run_up
    from lodestream.demo.trickle import Trickle

    for name in USERS:
        _key(call, name)
    with Trickle(Path(call.project) / "data", now_us) if feed else contextlib.nullcontext():
        run_up(call)


def _key(call: Call, name: str) -> None:
    """A key for a user of the demo; one that they have cannot be shown again."""
    from lodestream.app import now_us
    from lodestream.security.keys import DEFAULT_SCOPES, ApiKey, KeyStore

    app, now = call.app(), now_us()
    store = KeyStore(app.keys_path)
    if any(key.name == name and key.state(now) == "active" for key in store.listed()):
        call.say(f"{name} has a key; for another: lodestream -C {call.project} keys create {name} -s 'query:*'")
        return
    until = now + _KEY_US
    text, _ = store.create(
        app.environment or "default", ApiKey("", name, "", (*DEFAULT_SCOPES, *USERS[name]), now, until)
    )
    call.say(f"key of {name}, shown once: {text}")
