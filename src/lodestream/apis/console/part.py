"""The endpoints that the console asks: how tables stand, the flow, quality, rows set aside, dashboards, the stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.bodies import Room, receive
from lodestream.apis.console import aside, quality
from lodestream.apis.console.boards import Boards
from lodestream.apis.console.flow import graph
from lodestream.apis.console.sight import Sights
from lodestream.apis.console.stream import Frames, watch
from lodestream.apis.events import event_stream
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Body, Endpoint, Parameter, Part, Reply
from lodestream.engines.embedded.history import Batch
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.live import LiveLake, TableLive
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.project.dashboards import Dashboard
from lodestream.query.service import QueryService

_READ = "query:*"
_CHANGE = "admin:*"
_TAG = "console"
_BODY_BYTES = 4 << 20
_BODY_S = 30.0
_JSON: Mapping[str, Any] = {"application/json": {"type": "object"}}
_WHOLE = {"type": "integer", "minimum": 1, "maximum": aside.LIMIT_MAX, "default": 50}
_NOT_HERE = "no such table"


@dataclass(frozen=True)
class Console:
    """What the console's endpoints stand on.

    Attributes:
        project: its name.
        live: the tables.
        flows: the compiled flows.
        service: reads rows, and knows who may see what.
        batches: the newest batches of a table.
        dashboards: those that are declared now.
        replay: takes rows that were set aside again.
        current: a principal as they are now; None when they may not stay.
        clock: microseconds since 1970 UTC.
        boot: tells this server from others.
    """

    project: str
    live: LiveLake
    flows: Mapping[TableName, FlowPlan]
    service: QueryService
    batches: Callable[[TableName], Sequence[Batch]]
    dashboards: Callable[[], Mapping[str, Dashboard]]
    replay: aside.Replay
    current: Callable[[Principal], Principal | None]
    clock: Callable[[], int]
    boot: str


def console_part(about: Console, running: Callable[[], contextlib.AbstractAsyncContextManager[None]]) -> Part:
    """The endpoints.

    Args:
        about: what they stand on.
        running: entered when the server starts and left when it ends; follows the lake meanwhile.
    """
    return Part(tuple(_Endpoints(about).all()), running)


@contextlib.asynccontextmanager
async def following(start: Callable[[], None], close: Callable[[], None]) -> AsyncIterator[None]:
    """Follow the lake while the server runs."""
    start()
    try:
        yield
    finally:
        await asyncio.to_thread(close)


class _Endpoints:
    def __init__(self, about: Console) -> None:
        self._about = about
        self._sights = Sights(about.service.authority, about.live, about.flows)
        self._frames = Frames(about.live, about.clock, about.boot)
        self._history = quality.History(about.batches)
        self._boards = Boards(about.service, about.live, about.dashboards, about.clock)
        self._room = Room(8 * _BODY_BYTES)

    def all(self) -> list[Endpoint]:
        """Every endpoint."""
        return [
            _get("/api/overview", self._overview, "How every table stands, sums by layer, rates of the last minutes."),
            _get("/api/flow", self._flow, "The graph from sources over tables to sinks, with rates and states."),
            Endpoint(
                "GET", "/api/live", self._stream, _READ, "A stream: what /api/overview says, then what changes.",
                (Parameter("Last-Event-ID", "header", "Go on after this event."),), tag=_TAG,
                answers={200: Reply(
                    "Events `overview` (all), `delta` (what changed) and `end`, at most two a second.",
                    {"text/event-stream": {"type": "string"}},
                )},
            ),
            _get("/api/quality", self._summary, "Rows by fate and broken rule, table by table."),
            _get("/api/quality/{table}", self._quality, "The rules of a table, and how rows did by them over time."),
            _get(
                "/api/quarantine/{table}", self._quarantine, "Rows of a table that were set aside and are still open.",
                Parameter("reason", description="Only rows set aside for this reason."),
                Parameter("limit", description="Rows of one page.", schema=_WHOLE),
                Parameter("cursor", description="`cursor` of the page before."),
            ),
            Endpoint(
                "POST", "/api/quarantine/{table}/replay", self._replay, _CHANGE,
                "Take rows that were set aside through their flow again, each exactly once.", tag=_TAG,
                body=Body({"application/json": _REPLAY}), answers={200: Reply("They were taken.", _JSON)},
                problems=(400, 404, 409, 413, 503),
            ),
            _get("/api/dashboards", self._list, "The dashboards that are declared."),
            _get("/api/dashboards/{name}", self._board, "One dashboard."),
            _get("/api/dashboards/{name}/data", self._data, "What the panels of a dashboard show now."),
        ]  # fmt: skip

    async def _overview(self, _request: Request, principal: Principal) -> Response:
        sight = await asyncio.to_thread(self._sights.of, principal)
        _, frame = await self._frames.now(sight)
        return _answer(frame.to_json(self._about.project))

    async def _flow(self, _request: Request, principal: Principal) -> Response:
        sight = await asyncio.to_thread(self._sights.of, principal)
        _, frame = await self._frames.now(sight)
        return _answer(graph(self._about.flows, sight, frame))

    async def _stream(self, request: Request, principal: Principal) -> Response:
        last = request.headers.get("last-event-id")
        about = self._about
        events = watch(self._frames, self._sights, principal, about.current, last, about.project)
        return event_stream(request, principal, events)

    async def _summary(self, _request: Request, principal: Principal) -> Response:
        sight = await asyncio.to_thread(self._sights.of, principal)
        return _answer(quality.summary(self._about.flows, self._about.live.tables(), sight))

    async def _quality(self, request: Request, principal: Principal) -> Response:
        one = await asyncio.to_thread(self._table, request, principal)
        plan = self._about.flows.get(one.table)
        if one.table not in (await asyncio.to_thread(self._sights.of, principal)).counted:
            return _answer(quality.withheld(plan, one.table))
        batches = await asyncio.to_thread(self._history.of, one)
        return _answer(quality.details(plan, one, batches))

    async def _quarantine(self, request: Request, principal: Principal) -> Response:
        one = await asyncio.to_thread(self._table, request, principal)
        sight = await asyncio.to_thread(self._sights.of, principal)
        if one.table not in sight.quarantine:
            raise AccessError("may not see the rows that were set aside from this table", table=str(one.table))
        query = request.query_params
        limit = _limit(query.get("limit"))
        found = await asyncio.to_thread(
            aside.entries, self._about.service, one.table, principal, query.get("reason"), limit, query.get("cursor")
        )
        return _answer(found)

    async def _replay(self, request: Request, principal: Principal) -> Response:
        one = await asyncio.to_thread(self._table, request, principal)
        body = await receive(request, _BODY_BYTES, _BODY_S, self._room)
        self._room.used -= len(body)
        try:
            asked = json.loads(body)
        except ValueError:
            raise ProblemError(400, "the body is not JSON") from None
        return _answer(await asyncio.to_thread(self._take_again, one.table, principal, asked))

    def _take_again(self, name: TableName, principal: Principal, asked: Any) -> dict[str, Any]:
        authority = self._about.service.authority
        allowed = "replay" in authority.privileges(principal, name)

        def record(detail: Mapping[str, str | int | float | None]) -> None:
            authority.record(Event(
                principal.name, principal.via, "console", "replay", "allowed" if allowed else "refused", (str(name),),
                catalog_version=authority.version(), detail=dict(detail),
            ))  # fmt: skip
            if not allowed:
                raise AccessError("may not replay rows of this table", table=str(name))

        return aside.replay(self._about.replay, name, asked, record, principal.name)

    async def _list(self, _request: Request, principal: Principal) -> Response:
        boards = await asyncio.to_thread(self._boards.seen, principal)
        shown = [{"name": board.name, "title": board.title, "comment": board.comment} for board in boards.values()]
        return _answer({"dashboards": shown})

    async def _board(self, request: Request, principal: Principal) -> Response:
        return _answer((await asyncio.to_thread(self._seen, request, principal)).to_json())

    async def _data(self, request: Request, principal: Principal) -> Response:
        board = await asyncio.to_thread(self._seen, request, principal)
        shown = await self._boards.data(board, principal)
        return _answer({"name": board.name, "panels": [one.to_json() for one in shown]})

    def _seen(self, request: Request, principal: Principal) -> Dashboard:
        found = self._boards.seen(principal).get(request.path_params["name"])
        if found is None:
            raise ProblemError(404, "no such dashboard")
        return found

    def _table(self, request: Request, principal: Principal) -> TableLive:
        """The table in the path. Raises ProblemError 404 when they do not know of it, as when there is none."""
        try:
            name = TableName.parse(request.path_params["table"].removeprefix(f"{self._about.project}."))
        except ValueError:
            raise ProblemError(404, _NOT_HERE) from None
        found = self._about.live.tables().get(name)
        if found is None or name not in self._sights.of(principal).tables:
            raise ProblemError(404, _NOT_HERE)
        return found


_REPLAY: dict[str, Any] = {
    "type": "object", "additionalProperties": False,
    "properties": {
        "rows": {
            "type": "array", "minItems": 1, "maxItems": aside.ROWS_MAX,
            "items": {
                "type": "object", "required": ["source", "position"], "additionalProperties": False,
                "properties": {
                    "source": {"type": "string"}, "position": {"type": ["integer", "string"]},
                    "set": {"type": "object", "description": "New values of columns, as JSON; the others stay."},
                    "raw": {"type": "string", "description": "The whole record anew, where it did not decode."},
                },
            },
        },
        "reason": {"type": "string", "description": "Every open row that was set aside for it."},
        "accept_late": {"type": "boolean", "description": "Late rows too: they change windows that were closed."},
    },
}  # fmt: skip


def _get(path: str, handler: Any, summary: str, *parameters: Parameter) -> Endpoint:
    problems = (400, 404) if "{" in path else ()
    return Endpoint(
        "GET", path, handler, _READ, summary, parameters, answers={200: Reply("It.", _JSON)}, problems=problems,
        tag=_TAG,
    )  # fmt: skip


def _answer(value: Any) -> Response:
    return Response(json.dumps(value, ensure_ascii=False), media_type="application/json")


def _limit(text: str | None) -> int:
    if text is None:
        return 50
    if not text.isdecimal() or not 0 < int(text) <= aside.LIMIT_MAX:
        raise ProblemError(400, f"limit is a whole number from 1 to {aside.LIMIT_MAX}", parameter="limit")
    return int(text)
