"""Streams of events: as they come, until the credential or the server ends; counted, and closed whoever leaves."""

import asyncio
import contextlib
import json
import threading
import time

import httpx
import pytest

from lodestream.apis import events
from lodestream.apis.events import Event, Streams, event_stream, json_event
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import SIGNED_IN, Endpoint, Part, application
from lodestream.apis.serving import HttpServer
from lodestream.model.access import Principal
from lodestream.project.serving import ServingSettings
from tests.apis.running import running

BOUND_S = 30


class Gate:
    def __init__(self):
        self.good = True

    def connect(self, _request):
        pass

    async def arrive(self, request):
        return self.principal(request)

    def principal(self, _request):
        if not self.good:
            raise ProblemError(401, "the key is revoked; ask for a new one")
        return Principal("ann")


class Counting:
    """An endless source that knows whether it was closed."""

    def __init__(self, pause_s=0.01):
        self.closed = threading.Event()
        self.pause_s = pause_s

    async def run(self):
        number = 0
        try:
            while True:
                number += 1
                yield json_event({"n": number}, "number", str(number))
                await asyncio.sleep(self.pause_s)
        finally:
            self.closed.set()


@contextlib.contextmanager
def serving(source, gate):
    async def handler(request, principal):
        return event_stream(request, principal, source())

    app = application([Part((Endpoint("GET", "/events", handler, SIGNED_IN, ""),))], gate)
    server = HttpServer(ServingSettings(port=0), ".")
    with (
        running(server, app, BOUND_S, joined_s=BOUND_S),
        httpx.Client(base_url=server.url, timeout=BOUND_S) as client,
    ):
        yield server, app, client


def parsed(lines):
    """Events of a stream, each as a dict of its fields."""
    event = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event
            event = {}


def test_events_come_as_they_are_made_and_the_source_ends_with_the_client():
    counting = Counting()
    with serving(counting.run, Gate()) as (_, app, client):
        with client.stream("GET", "/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found = parsed(answer.iter_lines())
            assert next(found) == {"retry": "1000"}
            assert [next(found) for _ in range(2)] == [
                {"event": "number", "id": "1", "data": '{"n":1}'}, {"event": "number", "id": "2", "data": '{"n":2}'},
            ]  # fmt: skip
            assert app.state.streams.count == 1
        assert counting.closed.wait(BOUND_S)
        assert app.state.streams.count == 0


def test_a_stream_ends_with_its_credential():
    gate, counting = Gate(), Counting()
    with serving(counting.run, gate) as (_, _, client), client.stream("GET", "/events") as answer:
        found = parsed(answer.iter_lines())
        next(found)
        gate.good = False
        last = [*found][-1]
        assert (last["event"], json.loads(last["data"])["reason"]) == ("end", "the key is revoked; ask for a new one")
        assert counting.closed.wait(BOUND_S)


def test_a_stream_that_says_nothing_ends_with_its_credential_too():
    gate, quiet = Gate(), Counting(pause_s=3600)
    with serving(quiet.run, gate) as (_, _, client), client.stream("GET", "/events") as answer:
        found = parsed(answer.iter_lines())
        next(found)
        gate.good = False
        assert [event["event"] for event in found][-1] == "end"
        assert quiet.closed.wait(BOUND_S)


def test_a_stream_ends_with_the_server():
    quiet = Counting(pause_s=3600)
    with serving(quiet.run, Gate()) as (server, _, client), client.stream("GET", "/events") as answer:
        found = parsed(answer.iter_lines())
        next(found)
        server.stop()
        assert json.loads([*found][-1]["data"]) == {"reason": "the server stops"}


def test_a_client_that_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(events, "_STALL_S", 0.5)
    closed = threading.Event()

    async def flood():
        try:
            while True:
                yield Event("x" * 100_000)
        finally:
            closed.set()

    with serving(flood, Gate()) as (_, app, client), client.stream("GET", "/events"):
        assert closed.wait(BOUND_S)
        deadline = time.monotonic() + BOUND_S
        while app.state.streams.count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert app.state.streams.count == 0


def test_too_many_streams_are_refused():
    streams = Streams(of_one=1, of_all=2)
    with streams.taken(Principal("ann")):
        with pytest.raises(ProblemError):
            streams.check(Principal("ann"))
        with streams.taken(Principal("bob")), pytest.raises(ProblemError):
            streams.check(Principal("eve"))
        streams.check(Principal("bob"))
    streams.check(Principal("ann"))
