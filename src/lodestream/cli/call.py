"""What every verb has in common: its options, where it prints, and what becomes of its errors."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    CorruptionError,
    DataLossRefused,
    LodestreamError,
    MissingDriverError,
    TransientError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from lodestream.app import App
    from lodestream.model.access import Principal
    from lodestream.model.steps import FlowPlan
    from lodestream.model.table import TableName

FAILED = 1
"""Exit code of a check that did not pass."""

EXIT_CODES = {
    0: "done",
    1: "a check failed (`reconcile`, `audit verify`, `test`, `doctor`, `chaos`; `trace` of a row not there), or a bug",
    2: "the command line cannot be read",
    3: "a declaration, a query or a setting is wrong: edit it",
    4: "something was not reachable or full: try again",
    5: "refused, because rows would be lost: decide",
    6: "a table or its state is damaged: `lodestream doctor`",
    7: "another process was first: try again",
    8: "not allowed",
    130: "interrupted; what was under way is finished, the next run goes on from there",
}
"""What each exit code says; the `exit_code` of the classes in `lodestream.errors`."""

_NEXT: tuple[tuple[type[LodestreamError], str], ...] = (
    (CorruptionError, "lodestream doctor"),
    (DataLossRefused, "lodestream explain TABLE, then rebuild it or bring the source back"),
    (ConflictError, "lodestream status"),
    (TransientError, "the same command again"),
    (AccessError, "lodestream query --help"),
    (MissingDriverError, "the same command again, once it is installed"),
    (ConfigError, "lodestream plan"),
)

PROJECT = Annotated[str | None, typer.Option("--project", "-C", metavar="DIR", help="Folder with lodestream.yaml.")]
LAKE = Annotated[str | None, typer.Option("--lake", metavar="LAKE", help="Folder or URL of another lake.")]
ENV = Annotated[str | None, typer.Option("--env", metavar="NAME", help="Environment declared in lodestream.yaml.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of text.")]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
COMMON = {"project": PROJECT, "lake": LAKE, "env": ENV, "json": JSON, "debug": DEBUG}
"""Options of every verb, by parameter name."""


@dataclass
class Call:
    """One call of a verb.

    Attributes:
        project: folder of the project.
        lake: lake instead of the declared one.
        env: name of an environment.
        json: whether stdout takes JSON.
        debug: whether tracebacks are wanted.
        hint: what to type next when something is wrong, where the verb knows better than the kind of error.
        opened: what is closed when the verb ends.
    """

    project: str = "."
    lake: str | None = None
    env: str | None = None
    json: bool = False
    debug: bool = False
    hint: str | None = None
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def app(self) -> App:
        """The project, opened until the verb ends. Raises ConfigError when there is none."""
        from lodestream.app import open_project

        return self.opened.enter_context(open_project(self.project, lake=self.lake, environment=self.env))

    @functools.cached_property
    def principal(self) -> Principal:
        """Whoever types: they hold the storage, so nothing binds them, and what they change is written down."""
        import pwd

        from lodestream.model.access import Principal

        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container may run under a number that nobody has named
            name = str(os.getuid())
        return Principal(name, "owner", via="cli")

    def note(self, app: App, action: str, *objects: str, **detail: str | int | None) -> None:
        """Write into the audit log what is about to be done. Raises TransientError when that cannot be."""
        from lodestream.ports.authority import Event

        by = self.principal
        app.catalog.record(Event(by.name, by.via, "cli", action, "allowed", objects, detail=detail))

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print one JSON object as a line on stdout, at once."""
        print(json.dumps(value, ensure_ascii=False, default=str), flush=True)

    def tell(self, value: Mapping[str, Any], text: str) -> None:
        """Print what was done on stdout: as JSON where that is wanted, else as a line."""
        if self.json:
            self.emit(value)
        else:
            self.print(text)

    def say(self, text: str) -> None:
        """Print a line for people on stderr."""
        print(text, file=sys.stderr, flush=True)

    def print(self, text: str = "") -> None:
        """Print a line of the answer on stdout."""
        print(text)

    @functools.cached_property
    def talk(self) -> Console:
        """A console on stderr; without colours where nobody can see them."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[object]], *, right: Iterable[str] = ()) -> None:
        """Print a table for people on stdout; the columns in `right` hold numbers."""
        from lodestream.cli.output import print_table

        print_table(list(columns), [list(row) for row in rows], right=set(right))


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """The typer command of `function(call, …)`: with the common options, errors as messages and exit codes."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    unset: dict[str, Any] = {"json": False, "debug": False}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=unset.get(name), annotation=kind)
        for name, kind in COMMON.items()
    ]

    @functools.wraps(function)
    def command(*, context: typer.Context, **given: Any) -> None:
        shown = {name: given.pop(name) for name in COMMON}
        before: dict[str, Any] = context.find_root().obj or {}
        call = Call(**{name: value or before.get(name) or getattr(Call, name) for name, value in shown.items()})
        try:
            with call.opened:
                function(call, **given)
        except LodestreamError as error:
            if call.debug:
                raise
            report(call, error)
            raise typer.Exit(error.exit_code) from None

    first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__signature__ = inspect.Signature([first, *own, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [first, *own, *shared]}
    return command


def report(call: Call, error: LodestreamError) -> None:
    """Say what went wrong on stderr, with the next thing to type; with --json also as an object on stdout."""
    if call.json:
        call.emit({"error": as_json(error)})
    call.say(f"error: {error}")
    if "lodestream " not in str(error):
        step = call.hint or next((text for kind, text in _NEXT if isinstance(error, kind)), None)
        if step is not None:
            call.say(f"next: {step}")


def as_json(error: LodestreamError) -> dict[str, Any]:
    """An error as JSON values."""
    told: dict[str, Any] = {"kind": type(error).__name__, "exit_code": error.exit_code, "message": error.message}
    told["facts"] = {name: value for name, value in error.facts.items() if value is not None}
    if found := getattr(error, "diagnostics", None):
        told["diagnostics"] = [
            {"file": d.file, "line": d.line, "column": d.column, "code": d.code, "message": d.message, "fix": d.fix}
            for d in found
        ]
    return told


def table_named(text: str, known: Iterable[TableName]) -> TableName:
    """The table of that name among `known`; `orders` alone does when only one layer has it.

    Raises:
        ConfigError: there is none.
    """
    import difflib

    names = {str(name): name for name in known}
    if text in names:
        return names[text]
    alike = [name for name in names.values() if name.name == text]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(text, names, 1, 0.4)
    raise ConfigError(
        "no such table", table=text, nearest=near[0] if near else None, fix="lodestream status lists tables"
    )


def flow_named(app: App, text: str) -> FlowPlan:
    """The compiled flow of a declared table. Raises ConfigError when there is none."""
    return app.flows[table_named(text, app.flows)]
