"""The routes of HTTP ingest: from a request to an answer once its records are durable."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.bodies import Room, decompressed, receive
from lodestream.apis.gate import Gate
from lodestream.apis.ingest.metrics import Metrics
from lodestream.apis.ingest.openapi import endpoint, stream_endpoint
from lodestream.apis.ingest.records import CONTENT_TYPES, Records, Shape, body_digest, key_digest
from lodestream.apis.ingest.stream import Bad, Stream
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Endpoint, Part
from lodestream.drivers.record_log.frame import NO_KEY, Entry
from lodestream.errors import ConfigError, CorruptionError, TransientError
from lodestream.model.access import Principal
from lodestream.project.serving import IngestSettings
from lodestream.project.values import parse_duration
from lodestream.security.limits import Caller, charge, spend

_INLINE_BYTES = 1 << 16
"""Bodies up to that are checked on the server's own thread; larger ones would make others wait."""
_SHOWN_ERRORS = 100
_LOOK_EVERY_S = 2.0
_Told = tuple[int, int, bytes]
"""First sequence number, number of records, digest of the body."""


class IngestApi:
    """HTTP ingest for some streams.

    Args:
        streams: opened.
        gate: who may come in.
        bounds: sizes and times.
        clock: microseconds since 1970 UTC.
    """

    def __init__(self, streams: Iterable[Stream], gate: Gate, bounds: IngestSettings, clock: Callable[[], int]) -> None:
        self.streams = {stream.name: stream for stream in streams}
        self.metrics = Metrics()
        self._gate, self._bounds, self._clock = gate, bounds, clock
        self._room = Room(bounds.bodies_bytes_max)
        self._timeout_s = parse_duration(bounds.body_timeout) / 1e6
        self._under_way: dict[tuple[str, bytes], tuple[bytes, asyncio.Future[_Told]]] = {}

    def part(self) -> Part:
        """What can be asked, and its counts; it closes the streams when it ends."""
        return Part(
            (endpoint(self._post, self._documented),), self._running, self._failing,
            lambda: self.metrics.exposition(self.streams.values()),
        )  # fmt: skip

    def _documented(self, principal: Principal) -> list[Endpoint]:
        """One endpoint for each stream that somebody may send to."""
        seen = sorted(name for name in self.streams if principal.may(f"ingest:{name}"))
        return [stream_endpoint(self.streams[name], self._post) for name in seen]

    async def _post(self, request: Request, _principal: Principal) -> Response:
        started = time.perf_counter()
        name = request.path_params["stream"]
        known = name if name in self.streams else ""
        try:
            first, count = await self._ingest(request, name, started)
        except ProblemError as problem:
            self.metrics.requests[known, problem.status] += 1
            return problem.response()
        self.metrics.requests[known, 200] += 1
        last = first + count - 1 if count else None
        answer = {"accepted": count, "first": first if count else None, "last": last}
        return Response(json.dumps(answer), media_type="application/json")

    async def _ingest(self, request: Request, name: str, started: float) -> tuple[int, int]:
        """Sequence number of the first record, and how many there are."""
        caller = self._gate.count(request)
        stream = self.streams.get(name)
        if stream is None:
            near = difflib.get_close_matches(name, self.streams, 1)
            raise ProblemError(404, "no such stream", stream=name, nearest=near[0] if near else None)
        kind, shape = self._shape(request, stream)
        quarantine = _quarantines(request)
        key_text = request.headers.get("idempotency-key")
        if key_text is not None and not 0 < len(key_text) <= 255:
            raise ProblemError(400, "an Idempotency-Key has 1 to 255 characters")
        body = await receive(request, self._bounds.body_bytes_max, self._timeout_s, self._room)
        size = len(body)
        try:
            charge(caller, size)
            encoding = request.headers.get("content-encoding", "")
            body = decompressed(body, encoding, self._bounds.body_bytes_max, self._room)
            size = len(body)
            digest = body_digest(kind, body)
            if key_text is None:
                first, count, _ = await self._take(stream, caller, kind, shape, body, quarantine, NO_KEY, NO_KEY)
            else:
                key = key_digest(caller.name, key_text)
                first, count = await self._once(stream, caller, kind, shape, body, quarantine, key, digest)
        finally:
            self._room.used -= size
        self.metrics.acknowledged(name, count, len(body), time.perf_counter() - started)
        return first, count

    async def _once(
        self, stream: Stream, caller: Caller, kind: str, shape: Shape, body: bytes, quarantine: bool, key: bytes,
        digest: bytes,
    ) -> tuple[int, int]:  # fmt: skip
        """What the first request under this key was told, or is being told; else take the body in."""
        place = (stream.name, key)
        if (running := self._under_way.get(place)) is not None:
            if running[0] != digest:
                raise ProblemError(409, "another body under this Idempotency-Key is being taken in")
            first, count, _ = await asyncio.shield(running[1])
            self.metrics.replayed[stream.name] += 1
            return first, count
        answer = stream.writer.answers.find(key, self._clock())
        if answer is not None:
            if answer.body != digest:
                raise ProblemError(422, "another body was taken in under this Idempotency-Key; use a new one")
            self.metrics.replayed[stream.name] += 1
            return answer.first, answer.count
        future: asyncio.Future[_Told] = asyncio.get_running_loop().create_future()
        self._under_way[place] = digest, future
        try:
            told = await self._take(stream, caller, kind, shape, body, quarantine, key, digest)
            future.set_result(told)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody has to be waiting
            raise
        finally:
            del self._under_way[place]
        return told[0], told[1]

    async def _take(
        self, stream: Stream, caller: Caller, kind: str, shape: Shape, body: bytes, quarantine: bool, key: bytes,
        digest: bytes,
    ) -> _Told:  # fmt: skip
        """Cut, check, and make durable."""
        if len(body) <= _INLINE_BYTES:
            records, bad = _checked(stream, kind, shape, body)
        else:
            records, bad = await asyncio.to_thread(_checked, stream, kind, shape, body)
        if bad and not quarantine:
            raise _refusal(bad, len(records))
        if not len(records):
            return 0, 0, digest
        wait_s = spend(caller, len(records), self._clock())
        if wait_s > 0:
            raise ProblemError(429, "this key has used up its records of the day", retry_after_s=wait_s)
        entry = Entry(records.kind, records.data, records.ends, self._clock(), key, digest, records.head)
        try:
            first = await asyncio.wrap_future(stream.writer.append(entry))
        except TransientError as error:
            raise ProblemError(503, error.message, retry_after_s=error.retry_after_s) from error
        except ConfigError as error:
            raise ProblemError(503, error.message, retry_after_s=30) from error
        stream.note(first + len(records), entry.size)
        return first, len(records), digest

    def _shape(self, request: Request, stream: Stream) -> tuple[str, Shape]:
        """The content type, and what is needed to cut a body of it."""
        kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
        kind = kind.strip()
        if kind not in CONTENT_TYPES:
            known = ", ".join(CONTENT_TYPES)
            raise ProblemError(415, f"send one of {known}", headers={"Accept": known, "Connection": "close"})
        wait_s = stream.wait_s()
        if wait_s > 0:
            raise ProblemError(429, "the stream is full; nothing of this body was taken", retry_after_s=wait_s)
        checker = stream.checker
        header = checker.csv_header and "header=absent" not in parameters.replace(" ", "")
        bounds = self._bounds
        return kind, Shape(
            tuple(checker.schema.names), checker.delimiter, header, bounds.records_max, 4 * bounds.body_bytes_max
        )

    def _failing(self) -> dict[str, str]:
        found = {f"ingest {name}": stream.writer.failing for name, stream in self.streams.items()}
        return {name: str(why) for name, why in found.items() if why}

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            self._gate.limits.save()
            for stream in self.streams.values():
                await asyncio.to_thread(stream.close)

    async def _look(self) -> None:
        """Clear the logs and keep the counts, again and again."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._gate.limits.save()
            for stream in self.streams.values():
                with contextlib.suppress(TransientError, ConfigError, CorruptionError, FileNotFoundError):
                    await asyncio.to_thread(stream.retire, self._clock())


def _checked(stream: Stream, kind: str, shape: Shape, body: bytes) -> tuple[Records, Bad]:
    """The records of a body, and which of them are bad."""
    records = CONTENT_TYPES[kind](body, shape)
    if not len(records):
        return records, []
    try:
        return records, stream.checker.bad(records.run())
    except ConfigError as error:
        raise ProblemError(422, error.message, field=error.facts.get("field")) from error
    except TransientError as error:
        raise ProblemError(503, error.message, retry_after_s=error.retry_after_s) from error


def _refusal(bad: Bad, total: int) -> ProblemError:
    shown = [{"record": index, "reasons": reasons} for index, reasons in bad[:_SHOWN_ERRORS]]
    detail = f"{len(bad)} of {total} records are bad, so none was taken; correct them, or send ?on_error=quarantine"
    return ProblemError(422, detail, errors=shown, bad=len(bad))


def _quarantines(request: Request) -> bool:
    chosen = request.query_params.get("on_error", "refuse")
    if chosen not in ("refuse", "quarantine"):
        raise ProblemError(400, "on_error is refuse or quarantine")
    return chosen == "quarantine"
