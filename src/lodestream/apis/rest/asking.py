"""From a question to bytes on their way: in threads, cancelled with the request, never more in memory than a piece."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import TypeVar

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.rows import Writer
from lodestream.apis.streamed import Streamed
from lodestream.apis.threads import Threads, attended
from lodestream.query.answer import Answer
from lodestream.query.pool import Running

T = TypeVar("T")
Began = Callable[[Running], None]
_WHOLE_BYTES = 1 << 18
"""An answer up to that is sent in one piece, and its worker is free before the first byte goes."""
_PIECE_BYTES = 1 << 18


class _Asked:
    """One question, and the answer as far as it has come; `cancel` ends it wherever it is."""

    def __init__(self, ask: Callable[[Began], Answer], make: Callable[[pa.Schema], Writer]) -> None:
        self._ask, self._make = ask, make
        self._lock = threading.Lock()
        self._cancelled = False
        self._running: Running | None = None
        self._answer: Answer | None = None
        self._pieces: Iterator[bytes] | None = None
        self.media_type = ""
        self.pins: Mapping[str, int] = {}

    def begin(self) -> tuple[bytes, bool]:
        """Ask, and give what there is of the answer: all of it (and True) when it is small."""
        answer = self._answer = self._ask(self._began)
        try:
            writer = self._make(answer.schema)
            self.media_type, self.pins = writer.media_type, answer.pins
            self._pieces = _pieces(answer, writer)
            return self._some(_WHOLE_BYTES)
        except BaseException:
            answer.close()
            raise

    def more(self) -> tuple[bytes, bool]:
        """The next piece, and whether it is the last."""
        return self._some(_PIECE_BYTES)

    def cancel(self) -> None:
        """End the query; a thread that is at it gets an error."""
        with self._lock:
            self._cancelled, running = True, self._running
        if running is not None:
            running.cancel()

    def _began(self, running: Running) -> None:
        with self._lock:
            self._running, cancelled = running, self._cancelled
        if cancelled:
            running.cancel()

    def close(self) -> None:
        """Let go of the query; nobody may be at it."""
        if self._answer is not None:
            self._answer.close()

    def _some(self, size: int) -> tuple[bytes, bool]:
        assert self._pieces is not None
        found: list[bytes] = []
        total = 0
        for piece in self._pieces:
            found.append(piece)
            total += len(piece)
            if total >= size:
                return b"".join(found), False
        self.close()
        return b"".join(found), True


def _pieces(answer: Answer, writer: Writer) -> Iterator[bytes]:
    yield writer.head()
    for batch in answer.batches():
        yield writer.batch(batch)
    yield writer.tail({"versions": dict(answer.pins), "truncated": answer.cut})


async def respond(
    threads: Threads, request: Request, ask: Callable[[Began], Answer], make: Callable[[pa.Schema], Writer],
    headers: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    """The answer to a query as a response.

    Errors before the first piece are problems; after it the connection is cut, so that no client takes a part for the
    whole. A client that leaves cancels the query.

    Args:
        threads: in which it is asked and encoded.
        request: whose disconnection cancels.
        ask: asks; it hands the function that it is given over as `began` of `QueryService.ask`.
        make: makes the writer for a schema.
        headers: of the response.
    """
    asked = _Asked(ask, make)
    first, whole = await attended(request, threads.run(asked.begin), asked.cancel)
    told = dict(headers or {})
    if asked.pins:
        told["Lodestream-Versions"] = ", ".join(f"{name}={version}" for name, version in asked.pins.items())
    if whole:
        return Response(first, headers=told, media_type=asked.media_type)
    return Streamed(_streamed(threads, asked, first), asked.media_type, told)


async def _streamed(threads: Threads, asked: _Asked, first: bytes) -> AsyncGenerator[bytes, None]:
    """The pieces; the next one is made while one is sent, and no more."""
    coming: asyncio.Future[tuple[bytes, bool]] | None = None
    try:
        piece, last = first, False
        while not last:
            coming = asyncio.ensure_future(threads.run(asked.more))
            yield piece
            piece, last = await coming
            coming = None
        yield piece
    finally:
        if coming is not None:  # its thread gets an error, which is nobody's
            asked.cancel()
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())
        asked.close()
