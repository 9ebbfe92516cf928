"""`lodestream serve`: take records in over HTTP."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from lodestream.apis.serving import HttpServer
    from lodestream.app import App


def serve(
    call: Call,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Also do what `lodestream run` does, in this process.")] = False,
) -> None:
    """Serve HTTP: the console, REST, and POST /ingest/STREAM for each table with `source: {http: {stream: STREAM}}`.

    A record is durable before its answer. Ctrl-C ends it after the requests under way; the next start goes on. Before
    the first `lodestream keys create` a token for development is printed, and only this machine can connect; in an
    environment other than `dev` there is none.
    """
    from lodestream.cli.parent import handed_token
    from lodestream.errors import MissingDriverError
    from lodestream.security.development import FIRST_KEY, development_token, nobody_can_enter
    from lodestream.security.keys import KeyStore

    try:
        from lodestream.apis.serving import HttpServer
    except ModuleNotFoundError as error:
        fix = "serving needs packages: pip install 'lodestream[http]'"
        raise MissingDriverError(fix, missing=error.name) from error
    app = call.app()
    app.lenient = not run
    settings = app.serving(host=host, port=port)
    keys = KeyStore(app.keys_path)
    token = handed_token() or development_token(settings, keys, app.environment)
    if nobody_can_enter(settings, keys) and token is None:
        call.say(f"nobody can sign in yet; make the first key: {FIRST_KEY}")
    if run:
        app.apply()
    server = HttpServer(settings, app.project.root)
    _serve(call, app, server, app.http(settings, token), token, run=run)


def _serve(
    call: Call, app: App, server: HttpServer, asgi: Starlette, token: str | None, *, run: bool
) -> None:  # fmt: skip
    from lodestream.cli.interrupt import Interrupt
    from lodestream.cli.tuning import tune_for_requests
    from lodestream.errors import LodestreamError

    pipeline = app.pipeline() if run else None

    def stop() -> None:
        if pipeline is not None:
            pipeline.stop()
        server.stop()

    def started() -> None:
        if call.json:
            call.emit({"url": server.url, "token": token})
        else:
            call.say(f"listening on {server.url}")
            if token is not None:
                call.say(f"token for development: {token}")

    tune_for_requests()
    failed: list[LodestreamError] = []

    def work() -> None:
        assert pipeline is not None
        try:
            pipeline.run(on_error=lambda status: call.say(f"{status.table}: {status.error}"))
        except LodestreamError as error:
            failed.append(error)
            server.stop()

    flows = threading.Thread(target=work, name="run", daemon=True) if pipeline is not None else None
    with app.follow_policies("rest", call.say).start(), Interrupt(call, stop, what="requests"):
        if flows is not None:
            flows.start()
        server.run(asgi, started)
        if pipeline is not None and flows is not None:
            pipeline.stop()
            flows.join()
    if failed:
        raise failed[0]
