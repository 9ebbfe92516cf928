"""Connections to one HTTP server that many threads use, each exchange bounded as a whole."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_LOOK_S = 0.05
_CONNECT_S = 3.0
_CAUSE_MAX = 200
_IDLE_S = 4.0
"""A kept connection that nobody used for so long is not trusted any more: many servers close after five seconds."""


class NoAnswerError(Exception):
    """The exchange did not take place, or nobody knows whether it did.

    The text is `connection`, `timeout` or `protocol`, with the cause behind it where there is more to say.
    """


class TooLargeError(Exception):
    """The answer has more bytes than are taken."""


@dataclass
class _Kept:
    connection: http.client.HTTPConnection
    used_s: float


class Connections:
    """Keeps connections and posts over them. May be used by many threads.

    The time of an exchange is bounded from its first byte to its last, whatever trickles: a watchman shuts the
    connection at the deadline. Redirects are not followed and proxies of the environment not used, so that
    credentials go nowhere else.

    Args:
        url: `http://…` or `https://…`.
        time_s: bound of one exchange.
        bytes_max: bound of an answer.
        ca: file of trusted certificates, None for those of the system.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, url: str, *, time_s: float, bytes_max: int, ca: str | None = None) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._context = ssl.create_default_context(cafile=ca) if self._secure else None
        self._time_s, self._bytes_max = time_s, bytes_max
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []
        self._under_way: dict[http.client.HTTPConnection, float] = {}
        self._closing = threading.Event()
        self._watch: threading.Thread | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer.

        Raises:
            NoAnswerError: there is none.
            TooLargeError: it has too many bytes.
        """
        deadline = time.monotonic() + self._time_s
        kept = self._taken()
        if kept is not None:
            # The server may have closed a kept connection just now; then the question is put over a new one.
            with contextlib.suppress(NoAnswerError):
                return self._exchange(kept, body, headers, deadline)
            if time.monotonic() >= deadline:
                raise NoAnswerError("timeout")
        return self._exchange(self._new(), body, headers, deadline)

    def close(self) -> None:
        """Shut all connections, those under way too; twice is harmless."""
        self._closing.set()
        with self._lock:
            for kept in self._kept:
                kept.connection.close()
            self._kept.clear()
            for connection in self._under_way:
                _shut(connection)

    def _new(self) -> http.client.HTTPConnection:
        bound_s = min(_CONNECT_S, self._time_s)
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=bound_s, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=bound_s)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Connecting has a bound of its own: what is not connected cannot be shut from another thread."""
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._time_s)

    def _taken(self) -> http.client.HTTPConnection | None:
        fresh = time.monotonic() - _IDLE_S
        with self._lock:
            while self._kept:
                kept = self._kept.pop()
                if kept.used_s >= fresh:
                    return kept.connection
                kept.connection.close()
        return None

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        self._begin(connection, deadline)
        good = False
        try:
            if connection.sock is None:
                self._connect(connection)
            connection.request("POST", self._path, body, dict(headers))
            answer = connection.getresponse()
            data = answer.read(self._bytes_max + 1)
            if len(data) > self._bytes_max:
                raise TooLargeError
            good = not answer.will_close and answer.isclosed()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise NoAnswerError("timeout") from error
            kind = "connection" if isinstance(error, OSError) else "protocol"
            raise NoAnswerError(f"{kind}: {error}"[:_CAUSE_MAX] if isinstance(error, OSError) else kind) from error
        finally:
            with self._lock:
                self._under_way.pop(connection, None)
                good = good and not self._closing.is_set()
                if good:
                    self._kept.append(_Kept(connection, time.monotonic()))
            if not good:
                connection.close()

    def _begin(self, connection: http.client.HTTPConnection, deadline: float) -> None:
        with self._lock:
            if self._closing.is_set():
                raise NoAnswerError("connection")
            self._under_way[connection] = deadline
            if self._watch is None:
                self._watch = threading.Thread(target=self._watching, name="enricher deadlines", daemon=True)
                self._watch.start()

    def _watching(self) -> None:
        while not self._closing.wait(_LOOK_S):
            now = time.monotonic()
            with self._lock:
                for connection, deadline in self._under_way.items():
                    if deadline <= now:
                        _shut(connection)


def _shut(connection: http.client.HTTPConnection) -> None:
    """Wake whoever reads or writes; the thread that owns the connection closes it."""
    if (sock := connection.sock) is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
