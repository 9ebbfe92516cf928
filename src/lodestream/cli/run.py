"""`lodestream run`: apply the plan and move rows until told to stop."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call, table_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lodestream.app import App
    from lodestream.cli.progress import Progress
    from lodestream.model.table import TableName
    from lodestream.runtime.on_spark import SparkPipeline
    from lodestream.runtime.pipeline import Pipeline

INTERRUPTED = 130


class Engine(StrEnum):
    """What runs the plans."""

    EMBEDDED = "embedded"
    SPARK = "spark"


def run(
    call: Call,
    once: Annotated[bool, typer.Option("--once", help="At most one batch per table, then end.")] = False,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing is left to do.")] = False,
    tables: Annotated[
        list[str] | None, typer.Option("--table", "-t", metavar="TABLE", help="Only this table; may be repeated.")
    ] = None,
    accept: Annotated[str | None, typer.Option(metavar="HASH", help="Accept the plan with this hash.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="FILE", help="Accept the plan in this file.")] = None,
    sinks: Annotated[bool, typer.Option("--sinks/--no-sinks", help="Publish to the sinks of the tables.")] = True,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz on 127.0.0.1.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What computes: this process, or Apache Spark.")] = Engine.EMBEDDED,
    master: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where Spark runs, such as local[2] (the default) or spark://host."),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A server of Spark Connect instead of a master, such as sc://host:15002."),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where Spark keeps how far it is, of a lake in an object store."),
    ] = None,
    conf: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of Spark, as spark-submit takes it; may be repeated."),
    ] = None,
) -> None:
    """Bring the lake in line with the declarations, then read, refine and write rows.

    Without --once or --until-idle it goes on until Ctrl-C, which ends it after the batches under way; a second
    Ctrl-C ends it at once, and nothing is lost either way. Several processes may share the tables with --table.
    With --engine spark the same flows run on Apache Spark, which needs Java and `pip install 'lodestream[spark]'`.
    """
    from lodestream.cli.interrupt import Interrupt
    from lodestream.cli.plan import accepted
    from lodestream.cli.progress import Progress

    app = call.app()
    app.engine = engine.value
    settings = dict(_setting(text) for text in conf or [])
    given = {"--master": master, "--remote": remote, "--checkpoints": checkpoints, "--conf": conf}
    _check_engine(engine, [option for option, value in given.items() if value], remote, once=once)
    chosen = [table_named(text, app.flows) for text in tables or []] or None
    _apply(call, app, accepted(plan) if plan is not None else accept)
    pipeline: Pipeline | SparkPipeline

    def notice(table: TableName, text: str) -> None:
        call.say(f"{table}: {text}")

    if engine is Engine.EMBEDDED:
        pipeline = app.pipeline(notice)
    else:
        pipeline = app.on_spark(remote or master, checkpoints=checkpoints, conf=settings, notice=notice)
    port = metrics_port if metrics_port is not None else app.project.server.get("metrics_port")
    with Interrupt(call, pipeline.stop) as interrupt, Progress(call, list(chosen or app.flows), pipeline) as progress:
        _run(call, pipeline, chosen, None if sinks else (), progress, port, once=once, until_idle=until_idle)
        progress.finish(interrupted=interrupt.seen)
    if interrupt.seen:
        raise typer.Exit(INTERRUPTED)


def _setting(text: str) -> tuple[str, str]:
    from lodestream.errors import ConfigError

    key, equals, value = text.partition("=")
    if not key.startswith("spark.") or not equals:
        raise ConfigError("not a setting of Spark; write --conf spark.KEY=VALUE", conf=text)
    return key, value


def _check_engine(engine: Engine, given: list[str], remote: str | None, *, once: bool) -> None:
    """Raise ConfigError for options that do not go together; `given` are those of Spark."""
    from lodestream.errors import ConfigError

    if engine is Engine.EMBEDDED and given:
        raise ConfigError(f"{', '.join(given)}: for Spark only; add --engine spark")
    if "--master" in given and remote:
        raise ConfigError("Spark runs in one place: give --master or --remote")
    if remote and not remote.startswith("sc://"):
        raise ConfigError("not an address of Spark Connect; write sc://host:port", address=remote)
    if engine is Engine.SPARK and once:
        raise ConfigError("--once is for the embedded engine; on Spark use --until-idle")


def _apply(call: Call, app: App, accept: str | None) -> None:
    if accept is not None and (rebuilt := [str(one.table) for one in app.changes() if one.kind == "rebuild"]):
        call.note(app, "rebuild", *rebuilt, accept=accept)
    for one in app.changes() if accept is not None else ():
        if one.evolution is not None and one.evolution.dropped:
            call.note(app, "drop_columns", str(one.table), columns=" ".join(one.evolution.dropped), accept=accept)
    for change in app.apply(accept):
        if change.kind == "drop":
            call.say(f"{change.table}: no longer declared; its files stay in the lake")
        elif change.kind != "create":
            call.say(f"{change.table}: {change.kind}")


def _run(
    call: Call, pipeline: Pipeline | SparkPipeline, chosen: list[TableName] | None,
    publishing: Sequence[TableName] | None, progress: Progress, port: int | None, *, once: bool, until_idle: bool,
) -> None:  # fmt: skip
    from lodestream.app import now_us
    from lodestream.operations.metrics import MetricsServer
    from lodestream.runtime.pipeline import Pipeline

    server = None
    if port is not None:
        server = MetricsServer(lambda: pipeline.status, now_us, port)
        call.say(f"metrics on http://127.0.0.1:{server.port}/metrics")
    try:
        if once and isinstance(pipeline, Pipeline):
            progress.take(pipeline.run_once(chosen, publishing))
        else:
            progress.take(
                pipeline.run(
                    tables=chosen,
                    publishing=publishing,
                    until_idle=until_idle,
                    listener=progress.committed,
                    on_error=progress.failed,
                )
            )
    finally:
        if server is not None:
            server.close()
