"""Servers over HTTP that run in a thread of the tests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from lodestream.apis.serving import HttpServer


@contextlib.contextmanager
def running(server: HttpServer, asgi: Any, within_s: float, *, joined_s: float = 60) -> Iterator[None]:
    """The server answers meanwhile; it has to start and, with everything answered, to end within so many seconds."""
    started = threading.Event()
    thread = threading.Thread(target=server.run, args=(asgi, started.set))
    thread.start()
    try:
        assert started.wait(within_s)
        yield
    finally:
        server.stop()
        thread.join(joined_s)
        assert not thread.is_alive()
