"""`lodestream run`: apply the plan and move rows until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call, table_named

if TYPE_CHECKING:
    from lodestream.app import App
    from lodestream.cli.progress import Progress
    from lodestream.model.table import TableName
    from lodestream.runtime.pipeline import Pipeline

INTERRUPTED = 130


def run(
    call: Call,
    once: Annotated[bool, typer.Option("--once", help="At most one batch per table, then end.")] = False,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing is left to do.")] = False,
    tables: Annotated[
        list[str] | None, typer.Option("--table", "-t", metavar="TABLE", help="Only this table; may be repeated.")
    ] = None,
    accept: Annotated[str | None, typer.Option(metavar="HASH", help="Accept the plan with this hash.")] = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="FILE", help="Accept the plan in this file.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve /metrics and /healthz on 127.0.0.1.")
    ] = None,
) -> None:
    """Bring the lake in line with the declarations, then read, refine and write rows.

    Without --once or --until-idle it goes on until Ctrl-C, which ends it after the batches under way; a second
    Ctrl-C ends it at once, and nothing is lost either way. Several processes may share the tables with --table.
    """
    from lodestream.cli.interrupt import Interrupt
    from lodestream.cli.plan import accepted
    from lodestream.cli.progress import Progress

    app = call.app()
    chosen = [table_named(text, app.flows) for text in tables or []] or None
    _apply(call, app, accepted(plan) if plan is not None else accept)
    pipeline = app.pipeline()
    port = metrics_port if metrics_port is not None else app.project.server.get("metrics_port")
    with Interrupt(call, pipeline.stop) as interrupt, Progress(call, list(chosen or app.flows), pipeline) as progress:
        _run(call, pipeline, chosen, progress, port, once=once, until_idle=until_idle)
        progress.finish(interrupted=interrupt.seen)
    if interrupt.seen:
        raise typer.Exit(INTERRUPTED)


def _apply(call: Call, app: App, accept: str | None) -> None:
    if accept is not None and (rebuilt := [str(one.table) for one in app.changes() if one.kind == "rebuild"]):
        call.note(app, "rebuild", *rebuilt, accept=accept)
    for change in app.apply(accept):
        if change.kind == "drop":
            call.say(f"{change.table}: no longer declared; its files stay in the lake")
        elif change.kind != "create":
            call.say(f"{change.table}: {change.kind}")


def _run(
    call: Call, pipeline: Pipeline, chosen: list[TableName] | None, progress: Progress, port: int | None, *,
    once: bool, until_idle: bool,
) -> None:  # fmt: skip
    from lodestream.app import now_us
    from lodestream.operations.metrics import MetricsServer

    server = None
    if port is not None:
        server = MetricsServer(lambda: pipeline.status, now_us, port)
        call.say(f"metrics on http://127.0.0.1:{server.port}/metrics")
    try:
        if once:
            progress.take(pipeline.run_once(chosen))
        else:
            progress.take(
                pipeline.run(
                    tables=chosen, until_idle=until_idle, listener=progress.committed, on_error=progress.failed
                )
            )
    finally:
        if server is not None:
            server.close()
