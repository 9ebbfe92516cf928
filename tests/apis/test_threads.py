"""What becomes of work whose request is given up."""

import asyncio
import contextlib

from lodestream.apis.routing import PUBLIC, Endpoint, Part, application
from lodestream.apis.streamed import Streamed
from lodestream.apis.threads import attended
from tests.apis.gates import Gate


def test_a_request_that_is_cancelled_in_its_first_moment_cancels_its_work():
    told = []

    async def main():
        asking = asyncio.create_task(attended(None, asyncio.Event().wait(), lambda: told.append("cancelled")))
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert told == ["cancelled"]


async def pieces():
    await asyncio.sleep(0.05)
    yield b"whole"


async def handler(request, _principal):
    await attended(request, asyncio.sleep(0.1), lambda: None)
    return Streamed(pieces(), "text/plain")


def test_waiting_for_a_client_to_leave_and_giving_that_up_does_not_cut_the_answer():
    """As granian does it: a receive that is cancelled is taken for the end, and the next one is told so."""
    sent, left = [], asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        try:
            await left.wait()
        except asyncio.CancelledError:
            left.set()
            raise
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message.get("body", b""))

    app = application([Part((Endpoint("GET", "/slow", handler, PUBLIC, "Slow."),))], Gate({}))
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET", "path": "/slow", "query_string": b"",
             "headers": []}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert b"".join(sent) == b"whole"
