"""Changes of a table as they are committed: one look at the log and one evaluation per policy for all who listen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.events import Event, event_stream, json_event
from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.shapes import TABLE
from lodestream.apis.rest.sql import DOOR, table_name
from lodestream.apis.routing import Endpoint, Parameter, Reply
from lodestream.apis.rows import json_objects
from lodestream.apis.threads import Threads
from lodestream.errors import AccessError, ConfigError, CorruptionError, DataLossRefused, LodestreamError
from lodestream.model.access import Principal, TableAccess
from lodestream.model.table import TableName
from lodestream.ports.authority import Event as Record
from lodestream.query.changes import ANEW, Change, Changes
from lodestream.query.service import QueryService

_LOOK_S = 0.02
_WAITING_MAX = 4096
_PART_ROWS = 500
_CACHED_BYTES = 64 << 20
_BEHIND_MAX = 512
"""Versions that a listener who had caught up may fall behind before it is sent away."""
_QUIET_VERSIONS = 50
_VERSION_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class View:
    """What one listener sees: those with an equal view are served from one evaluation."""

    columns: tuple[tuple[str, str | None], ...]
    filters: tuple[str, ...]
    wanted: tuple[str, ...]

    @property
    def access(self) -> TableAccess:
        """As the read path has it."""
        return TableAccess(self.columns, self.filters)


class Tail:
    """The end of one table's log, watched once for all who listen.

    Args:
        changes: of the table.
        looking: thread that looks at logs.
        making: threads that evaluate; few, because each keeps an engine open for it.
        catalog: number of the last change to grants and policies.
    """

    def __init__(self, changes: Changes, looking: Threads, making: Threads, catalog: Callable[[], int]) -> None:
        self.changes = changes
        self.version = -1
        self.catalog = 0
        self.listeners = 0
        self.failed: LodestreamError | None = None
        self._looking, self._making, self._catalog = looking, making, catalog
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told: OrderedDict[tuple[int, View], asyncio.Future[list[Event]]] = OrderedDict()
        self._size = 0

    async def look(self) -> None:
        """See what is there now. Raises what `Changes.newest` does."""

        def both() -> tuple[int, int]:
            return self.changes.newest(), self._catalog()

        version, catalog = await self._looking.run(both)
        if (version, catalog) != (self.version, self.catalog):
            self.version, self.catalog = version, catalog
            self._moved.set()
            self._moved = asyncio.Event()

    def start(self) -> None:
        """Go on looking until `stop`."""
        self._task = asyncio.create_task(self._follow())

    def stop(self) -> None:
        """Look no more, and keep nothing."""
        if self._task is not None:
            self._task.cancel()
        self._told.clear()
        self._size = 0

    async def moved(self, version: int, catalog: int) -> None:
        """Wait until there is a newer version, or grants or policies changed. Raises the error that ended the tail."""
        while self.version <= version and self.catalog == catalog:
            if self.failed is not None:
                raise self.failed
            await self._moved.wait()

    async def told(self, version: int, view: View) -> list[Event]:
        """The events of a version; made once per view. Raises what `Changes.seen` does."""
        key = (version, view)
        found = self._told.get(key)
        if found is None:
            found = self._told[key] = asyncio.ensure_future(self._making.run(lambda: self._made(version, view)))
            found.add_done_callback(lambda _: self._keep(key))
        else:
            self._told.move_to_end(key)
        return await asyncio.shield(found)

    def _made(self, version: int, view: View) -> list[Event]:
        return events(version, self.changes.seen(version, view.access, view.wanted))

    def _keep(self, key: tuple[int, View]) -> None:
        """Count what was made, and forget the oldest; what failed is not kept at all."""
        done = self._told.get(key)
        if done is None or done.cancelled() or done.exception() is not None:
            self._told.pop(key, None)
            return
        self._size += _size(done)
        while self._size > _CACHED_BYTES and len(self._told) > 1:
            _, old = self._told.popitem(last=False)
            self._size -= _size(old)

    async def _follow(self) -> None:
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                await self.look()
        except (LodestreamError, ProblemError, OSError) as error:
            self.failed = error if isinstance(error, LodestreamError) else ConfigError("the table cannot be followed")
            self._moved.set()
            self._moved = asyncio.Event()


class ChangesApi:
    """`GET /api/tables/{table}/changes`.

    Args:
        service: the read path.
        threads: for what blocks.
    """

    def __init__(self, service: QueryService, threads: Threads) -> None:
        self._service, self._threads = service, threads
        self._looking, self._making = Threads(1, _WAITING_MAX), Threads(2, _WAITING_MAX)
        self._tails: dict[TableName, Tail] = {}
        self._opening = asyncio.Lock()

    def close(self) -> None:
        """Start nothing more."""
        self._looking.close()
        self._making.close()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """What can be asked."""
        return (
            Endpoint(
                "GET", "/api/tables/{table}/changes", self.listen, "query:*", "Changes of a table, as they happen.",
                (TABLE, Parameter("select", description="Columns; without, those that do not begin with `_`."),
                 Parameter("after", description="Begin after this version; without, with what comes next."),
                 Parameter("Last-Event-ID", "header", "Go on after this event; browsers send it by themselves.")),
                answers={200: Reply("Server-sent events.", {"text/event-stream": {"type": "string"}})},
                problems=(404, 410, 503), tag="tables",
                description="Events `change` hold `version`, `inserted` and `deleted` rows; an updated row is one of "
                "each. `reset` says that the table has to be read anew, `end` and `dropped` why the stream ends. "
                "The id of an event is the version, or `version.part`; a stream that begins after it misses nothing.",
            ),
        )  # fmt: skip

    async def listen(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables/{table}/changes`."""
        name = table_name(request.path_params["table"])
        wanted = request.query_params.get("select")
        text = request.headers.get("last-event-id") or request.query_params.get("after")
        start = None if text is None else position(text)

        def begin() -> View:
            view = self._view(name, principal, wanted)
            self._service.authority.record(Record(
                principal.name, principal.via, DOOR, "subscribe", "allowed", (str(name),),
                catalog_version=self._service.authority.version(),
            ))  # fmt: skip
            return view

        view = await self._threads.run(begin)
        tail = await self._tail(name)
        if start is not None and not await self._threads.run(lambda: tail.changes.reaches(start[0])):
            raise ProblemError(410, "changes after this version are not there any more; read the table anew")
        return event_stream(request, principal, self._events(request, principal, name, wanted, view, tail, start))

    async def _events(
        self, request: Request, principal: Principal, name: TableName, wanted: str | None, view: View, tail: Tail,
        start: tuple[int, int] | None,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """Everything after `start`, version by version."""
        with self._listening(tail):
            catalog = tail.catalog
            version, part = start or (tail.version, 0)
            caught_up, quiet = False, 0
            yield json_event({"version": version}, "start", _id(version, part))
            stale = False
            while True:
                try:
                    await tail.moved(version, catalog)
                    if stale or tail.catalog != catalog:
                        catalog, stale = tail.catalog, False
                        view = await self._threads.run(lambda: self._view(name, self._now(request), wanted))
                        continue
                except (AccessError, ProblemError):
                    yield json_event({"reason": "you may not read this table any more"}, "end")
                    return
                except LodestreamError:
                    yield json_event({"reason": "the table cannot be followed now"}, "end")
                    return
                if caught_up and tail.version - version > _BEHIND_MAX:
                    told = {"reason": "too slow; go on from the last event", "behind": tail.version - version}
                    yield json_event(told, "dropped")
                    return
                try:
                    found = await tail.told(version + 1, view)
                except DataLossRefused:
                    found, version = events(tail.version, ANEW), tail.version - 1
                stale = any(event.name == "reset" for event in found)  # its columns may be others now
                version, quiet = version + 1, 0 if found else quiet + 1
                for event in found[part:]:
                    yield event
                part = 0
                caught_up = caught_up or version >= tail.version
                if quiet >= _QUIET_VERSIONS:
                    yield Event("", id=str(version))
                    quiet = 0

    def _now(self, request: Request) -> Principal:
        found: Principal = request.app.state.gate.principal(request)
        return found

    def _view(self, name: TableName, principal: Principal, wanted: str | None) -> View:
        """How somebody sees the table. Raises ProblemError 400 or 404, AccessError."""
        try:
            _, access = self._service.access(name, principal)
        except ConfigError as error:
            raise ProblemError(404, error.message, table=str(name), nearest=error.facts.get("nearest")) from None
        known = [column for column, _ in access.columns]
        if wanted is None:
            chosen = [column for column in known if not column.startswith("_")]
        else:
            chosen = [column.strip() for column in wanted.split(",") if column.strip()]
            if missing := next((column for column in chosen if column not in known), None):
                raise ProblemError(400, "no such column", column=missing[:100])
        return View(access.columns, access.filters, tuple(dict.fromkeys(chosen)))

    async def _tail(self, name: TableName) -> Tail:
        """The one tail of a table, with its newest version known."""
        async with self._opening:
            tail = self._tails.get(name)
            if tail is None or tail.failed is not None:
                service = self._service
                changes = await self._threads.run(lambda: Changes(service.disk, service.lake, name))
                tail = Tail(changes, self._looking, self._making, service.authority.version)
                self._tails[name] = tail
        if not tail.listeners:  # else it is being looked at all the time
            with contextlib.suppress(CorruptionError):
                await tail.look()
        return tail

    @contextlib.contextmanager
    def _listening(self, tail: Tail) -> Iterator[None]:
        """Hold the tail; the first listener starts it and the last one stops it."""
        if not tail.listeners:
            tail.start()
        tail.listeners += 1
        try:
            yield
        finally:
            tail.listeners -= 1
            if not tail.listeners:
                tail.stop()


def events(version: int, change: Change) -> list[Event]:
    """The events of one version; the id of the last one is the version, of those before it `version.part`."""
    if change.anew:
        return [json_event({"version": version}, "reset", str(version))]
    if change.nothing:
        return []
    rows = [(kind, row) for kind, table in (("inserted", change.came), ("deleted", change.left))
            for batch in table.combine_chunks().to_batches() for row in json_objects(batch)]  # fmt: skip
    pieces = [rows[first : first + _PART_ROWS] for first in range(0, len(rows), _PART_ROWS)]
    made = []
    for number, piece in enumerate(pieces, 1):
        listed = {kind: ",".join(row for one, row in piece if one == kind) for kind in ("inserted", "deleted")}
        last = number == len(pieces)
        data = f'{{"version":{version},"inserted":[{listed["inserted"]}],"deleted":[{listed["deleted"]}]'
        data += f',"last":{json.dumps(last)}}}'
        made.append(Event(data, "change", str(version) if last else f"{version}.{number}"))
    return made


def position(text: str) -> tuple[int, int]:
    """(version that was told whole, parts of the next one that were told too). Raises ProblemError 400."""
    version, _, part = text.strip().partition(".")
    numbers = (version, part or "0")
    if not all(one.isascii() and one.isdigit() and len(one) <= _VERSION_DIGITS_MAX for one in numbers):
        raise ProblemError(400, "an event's id is a version, or version.part")
    return (int(version) - 1, int(part)) if part else (int(version), 0)


def _id(version: int, part: int) -> str:
    return f"{version + 1}.{part}" if part else str(version)


def _size(done: asyncio.Future[list[Event]]) -> int:
    return 200 + sum(len(event.data) for event in done.result()) if done.done() and not done.cancelled() else 200
