"""The `lodestream` command: its verbs, and what `--help` shows."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from lodestream.cli.audit import app as audit
from lodestream.cli.backup import backup, replicate, restore
from lodestream.cli.call import DEBUG, ENV, JSON, LAKE, PROJECT, verb
from lodestream.cli.catalog import app as catalog
from lodestream.cli.chaos import chaos
from lodestream.cli.demo import demo
from lodestream.cli.deploy import app as deploy
from lodestream.cli.doctor import doctor
from lodestream.cli.erase import erase
from lodestream.cli.explain import explain
from lodestream.cli.grant import grant, revoke
from lodestream.cli.init import init
from lodestream.cli.keys import app as keys
from lodestream.cli.lineage import lineage
from lodestream.cli.plan import plan
from lodestream.cli.policies import app as policies
from lodestream.cli.postgres import postgres
from lodestream.cli.quarantine import app as quarantine
from lodestream.cli.query import query
from lodestream.cli.reconcile import reconcile
from lodestream.cli.registry import registry
from lodestream.cli.run import run
from lodestream.cli.schema import app as schema
from lodestream.cli.serve import serve
from lodestream.cli.status import status
from lodestream.cli.table import app as table
from lodestream.cli.tail import tail
from lodestream.cli.test import check
from lodestream.cli.trace import trace
from lodestream.cli.up import up
from lodestream.cli.users import app as users
from lodestream.cli.version import version
from lodestream.version import VERSION

_EPILOG = "Start with `lodestream demo`, or `lodestream init my-lake`. Exit codes: docs/reference/cli.md."
VERBS: dict[str, dict[str, tuple[Callable[..., None] | typer.Typer, str]]] = {
    "Build and run": {
        "init": (init, "Write a small project that runs."),
        "demo": (demo, "Take a year of real flights from files to gold."),
        "plan": (plan, "Show what run would change in the lake."),
        "up": (up, "Start all parts together, with the console."),
        "run": (run, "Apply the plan and move rows, until told to stop."),
        "serve": (serve, "Take records in over HTTP."),
        "postgres": (postgres, "Answer the PostgreSQL protocol."),
        "keys": (keys, "Make, list and revoke keys of the API."),
        "registry": (registry, "Serve a schema registry, with the Confluent API."),
        "test": (check, "Run the unit tests of the project's tables."),
        "deploy": (deploy, "Write the project as a bundle for Databricks."),
    },
    "Govern": {
        "users": (users, "List, add, change and disable users."),
        "grant": (grant, "Let somebody read or do something."),
        "revoke": (revoke, "Take a grant back."),
        "policies": (policies, "Hide rows and columns; list what holds."),
        "erase": (erase, "Erase a subject from every table, and prove it."),
        "catalog": (catalog, "Comments, tags, owners; how somebody sees a table."),
    },
    "Look": {
        "query": (query, "Ask the tables in SQL."),
        "tail": (tail, "Show the newest rows of a table, and follow them."),
        "status": (status, "Show how each table stands."),
        "explain": (explain, "Show a table's steps and column lineage."),
        "lineage": (lineage, "Show what comes from what, and who reads it."),
        "schema": (schema, "Check changed schemas; print that of declarations."),
        "version": (version, "Show the version."),
    },
    "Prove and repair": {
        "trace": (trace, "Walk from a row to the source rows that made it."),
        "reconcile": (reconcile, "Prove that no row is missing."),
        "audit": (audit, "Show who did what; check that the log is whole."),
        "quarantine": (quarantine, "List, show and replay rows that were set aside."),
        "table": (table, "A table's versions and upkeep; start it again."),
        "chaos": (chaos, "Kill a pipeline again and again; look for lost rows."),
        "doctor": (doctor, "Check disk, logs, plans and state; repair."),
    },
    "Copy": {
        "backup": (backup, "Add a point to a backup set, while the pipeline runs."),
        "restore": (restore, "Put a point of a backup set into an empty lake."),
        "replicate": (replicate, "Keep a second lake that can take over."),
    },
}

"""Every verb under its heading, with a few words."""


class Verbs(TyperGroup):
    """The verbs under headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the headings, each with its verbs and a few words."""
        for heading, verbs in VERBS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, words) for name, (_, words) in verbs.items()])


app = typer.Typer(
    name="lodestream",
    help="Real-time analytics from raw events to gold Delta tables, exactly once, on one machine.",
    epilog=_EPILOG,
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lodestream {VERSION}")
        raise typer.Exit


VERSION_FLAG = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def common(
    context: typer.Context,
    project: PROJECT = None,
    lake: LAKE = None,
    env: ENV = None,
    json: JSON = False,
    debug: DEBUG = False,
    _version: VERSION_FLAG = False,
) -> None:
    """Real-time analytics from raw events to gold Delta tables, exactly once, on one machine."""
    context.obj = {"project": project, "lake": lake, "env": env, "json": json, "debug": debug}


for _verbs in VERBS.values():
    for _name, (_function, _words) in _verbs.items():
        if isinstance(_function, typer.Typer):
            app.add_typer(_function, name=_name, short_help=_words)
        else:
            app.command(_name, short_help=_words)(verb(_function))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; a success just ends, as callers may take any exit for a failure."""
    sys.excepthook = _unexpected
    if isinstance(sys.stdout, io.TextIOWrapper):  # whoever reads a pipe waits for the line of a server's address
        sys.stdout.reconfigure(line_buffering=True)
    code = _run(arguments)
    if code:  # an exception has left frames behind, and DuckDB complains of connections that live until the very end
        gc.collect()
        sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="lodestream", standalone_mode=False)
    except TyperException as error:
        shown: Any = error
        shown.show()
        return error.exit_code
    except typer.Abort:
        print("aborted", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What is left of an error that nobody expected: one line, or all of it with --debug."""
    if "--debug" in sys.argv:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: unexpected error, please report it. cause={error!r}", file=sys.stderr)
    print("next: the same command with --debug shows where", file=sys.stderr)
