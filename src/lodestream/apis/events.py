"""Answers that go on: server-sent events, which end with the server, with the credential, or when nobody takes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from lodestream.apis.problems import ProblemError
from lodestream.apis.streamed import Streamed
from lodestream.model.access import Principal

LOOK_S = 1.0
"""The credential of an open stream is looked at that often."""
_QUIET_S = 15.0
_STALL_S = 30.0
_RETRY_MS = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its text; no line break in it when it is JSON. Without, a client only takes note of the id.
        name: what a client listens for; empty for `message`.
        id: from where a client goes on after it; empty leaves the last one.
    """

    data: str
    name: str = ""
    id: str = ""

    def to_bytes(self) -> bytes:
        """As it is sent."""
        head = f"event: {self.name}\n" if self.name else ""
        head += f"id: {self.id}\n" if self.id else ""
        return f"{head}data: {self.data}\n\n".encode() if self.data else f"{head}\n".encode()


def json_event(value: object, name: str = "", id: str = "") -> Event:  # noqa: A002 - the field's word
    """An event whose data is JSON."""
    return Event(json.dumps(value, ensure_ascii=False, separators=(",", ":")), name, id)


class Streams:
    """Open streams, counted by principal.

    Args:
        of_one: streams that one principal may have open.
        of_all: streams there may be.
    """

    def __init__(self, of_one: int = 250, of_all: int = 2000) -> None:
        self._of_one, self._of_all = of_one, of_all
        self._open: Counter[str] = Counter()
        self._closing: asyncio.Event | None = None

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open.total()

    @property
    def closing(self) -> asyncio.Event:
        """Set when the server ends; belongs to the loop of whoever asks first."""
        if self._closing is None:
            self._closing = asyncio.Event()
        return self._closing

    def close(self) -> None:
        """End all streams; to be called on the server's loop."""
        self.closing.set()

    @contextlib.contextmanager
    def taken(self, principal: Principal) -> Iterator[None]:
        """Hold the place of one stream. Raises ProblemError 429 when there is none."""
        self.check(principal)
        self._open[principal.name] += 1
        try:
            yield
        finally:
            self._open[principal.name] -= 1
            if not self._open[principal.name]:
                del self._open[principal.name]

    def check(self, principal: Principal) -> None:
        """Raises ProblemError 429 when there is no place for one more."""
        if self._open[principal.name] >= self._of_one or self.count >= self._of_all:
            raise ProblemError(429, "too many streams are open; close some", retry_after_s=5)


def event_stream(request: Request, principal: Principal, source: AsyncGenerator[Event, None]) -> Streamed:
    """The answer that sends what `source` gives, as it comes.

    It ends with an event `end` that says why when the credential is no longer good (looked at every second), or the
    server stops; silently when a client has taken nothing for half a minute.

    Args:
        request: its application's state has `gate` and `streams`.
        principal: who asks.
        source: closed when the answer ends, however it ends.

    Raises:
        ProblemError: 429 too many streams are open.
    """
    streams: Streams = request.app.state.streams
    streams.check(principal)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Streamed(_pieces(request, principal, source, streams), "text/event-stream", headers, _STALL_S)


async def _pieces(
    request: Request, principal: Principal, source: AsyncGenerator[Event, None], streams: Streams
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    closing = asyncio.ensure_future(streams.closing.wait())
    coming: asyncio.Future[Event] | None = None
    try:
        with streams.taken(principal):
            yield f"retry: {_RETRY_MS}\n\n".encode()
            looked = sent = loop.time()
            while True:
                coming = coming or asyncio.ensure_future(_next(source))
                waited: set[asyncio.Future[Any]] = {coming, closing}
                await asyncio.wait(waited, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                now = loop.time()
                why = "the server stops" if closing.done() else None
                if why is None and now - looked >= LOOK_S:
                    looked, why = now, _no_longer(request, principal)
                if why is not None:
                    yield json_event({"reason": why}, "end").to_bytes()
                    return
                if coming.done():
                    try:
                        event = coming.result()
                    except StopAsyncIteration:
                        return
                    coming, sent = None, now
                    yield event.to_bytes()
                elif now - sent >= _QUIET_S:
                    sent = now
                    yield b": still here\n\n"
    finally:
        closing.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
            if not coming.cancelled():
                coming.exception()
        await source.aclose()


async def _next(source: AsyncIterator[Event]) -> Event:
    return await anext(source)


def _no_longer(request: Request, principal: Principal) -> str | None:
    """Why a credential is no longer good; None when it is."""
    try:
        now = request.app.state.gate.principal(request)
    except ProblemError as problem:
        return str(problem)
    return None if now.name == principal.name else "the credential is another's now"
