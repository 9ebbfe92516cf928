"""A proxy before an object store that does to requests what networks and busy servers do."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding"}
FAULTS = ("answer late", "arrive late", "twice", "429", "503", "written, then 503", "written, then cut off")


class Proxy:
    """Passes requests on, but for those that are to go wrong.

    Attributes:
        url: of the proxy.
        fault: gives the fault of a request by method and path, one of `FAULTS`, or None.
        late_s: how long the late ones take; longer than the client waits.
        done: the faults that took place.
        drops: headers that are not passed on, in lower case.
        answered: method, path and bytes of the body of each answer that was passed on.
    """

    def __init__(self, target: str, late_s: float) -> None:
        self.target, self.late_s = urlsplit(target).netloc, late_s
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.done: list[str] = []
        self.drops: tuple[str, ...] = ()
        self.answered: list[tuple[str, str, int]] = []
        self.late: list[threading.Thread] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None: ...

            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return lambda: proxy._serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        fault = self.fault(request.command, request.path)
        if fault is not None:
            self.done.append(fault)
        if fault in ("429", "503"):
            self._answer(request, int(fault), [("Retry-After", "1")], b"busy")
            return
        if fault == "arrive late":
            thread = threading.Thread(target=self._later, args=(request, body))
            thread.start()
            self.late.append(thread)
            time.sleep(self.late_s)
            request.close_connection = True
            return
        status, headers, answer = self._forward(request, body)
        if fault == "twice":
            status, headers, answer = self._forward(request, body)
        elif fault == "answer late":
            time.sleep(self.late_s)
        elif fault == "written, then 503":
            status, headers, answer = 503, [], b"busy"
        elif fault == "written, then cut off":
            request.close_connection = True
            return
        self.answered.append((request.command, request.path, len(answer)))
        self._answer(request, status, headers, answer)

    def _later(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        time.sleep(self.late_s)
        self._forward(request, body)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            kept = HOP.union(self.drops)
            headers = {name: value for name, value in request.headers.items() if name.lower() not in kept}
            connection.request(request.command, request.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self, request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        request.send_response_only(status)
        kept = [(name, value) for name, value in headers if name.lower() not in HOP]
        if not any(name.lower() == "content-length" for name, _ in kept) and status != 204:
            kept.append(("Content-Length", str(len(body))))
        for name, value in kept:
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextlib.contextmanager
def proxied(target: str, late_s: float = 1.5) -> Iterator[Proxy]:
    """A proxy before the service at `target`, on a thread."""
    proxy = Proxy(target, late_s)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join(10)
        for late in proxy.late:
            late.join(30)
