"""A scoring service on loopback that misbehaves on purpose, and projects that ask it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestream.app import open_project
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.operations.status import read_status
from lodestream.planning.diff import accept_hash

SCORED = TableName("silver", "scored")

Reply = tuple[int, Mapping[str, str], bytes] | None
"""Status, headers, body; None closes the connection without a word."""


def score(text: str | None) -> dict[str, Any]:
    """The right answer to `{"text": text}`."""
    return {"score": len(text or "") / 2, "label": "long" if len(text or "") > 8 else "short", "more": [1]}


def good(asked: dict[str, Any]) -> Reply:
    return 200, {}, json.dumps(score(asked["text"])).encode()


class Service:
    """Answers on loopback and counts what it was asked.

    Attributes:
        reply: makes the reply to a question; tests set it.
        latency_s: how long each reply takes.
        asked: by question, how often it was asked.
        answered: by question, how often it was answered with 200.
        keys: idempotency keys by question.
    """

    def __init__(self, reply: Callable[[dict[str, Any]], Reply] = good, latency_s: float = 0.0) -> None:
        self.reply, self.latency_s = reply, latency_s
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {}
        self.headers: list[dict[str, str]] = []
        self.most, self._now = 0, 0
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/score"

    def open(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                service.handle(self)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None: ...

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        with self.lock:
            self.asked[body] += 1
            self.times.append(time.monotonic())
            self.keys.setdefault(body, set()).add(request.headers["Idempotency-Key"])
            self.headers.append(dict(request.headers))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            time.sleep(self.latency_s)
            reply = self.reply(json.loads(body))
        finally:
            with self.lock:
                self._now -= 1
        if reply is None:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, data = reply
        if status == 200:
            with self.lock:
                self.answered[body] += 1
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Reply] = good, latency_s: float = 0.0) -> Iterator[Service]:
    service = Service(reply, latency_s)
    service.open()
    try:
        yield service
    finally:
        service.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Reviews:
    """A project: `bronze.reviews` from JSON lines, `silver.scored` asks a service about each."""

    def __init__(self, root: Path, at: str, /, **settings: Any) -> None:
        self.root = root
        self.lake = str(root / "lake")
        (root / "in").mkdir(parents=True, exist_ok=True)
        for layer in ("bronze", "silver"):
            (root / "tables" / layer).mkdir(parents=True, exist_ok=True)
        (root / "lodestream.yaml").write_text("project: reviews\nbatch: {interval: 20 ms}\n")
        (root / "tables/bronze/reviews.yaml").write_text(
            "source: {files: {path: in, settle: 0 seconds}}\nformat: json\ncolumns: {id: bigint, text: string}\n"
        )
        self.declare(at, **settings)
        self._files = 0

    def declare(self, at: str, /, **settings: Any) -> None:
        asking = {
            "url": at, "send": ["text"], "receive": {"score": "double", "label": "string"}, "timeout": "30 seconds",
            **settings,
        }  # fmt: skip
        (self.root / "tables/silver/scored.yaml").write_text(
            f"from: stream(bronze.reviews)\nenrich:\n  http: {json.dumps(asking)}\n"
        )

    def add(self, texts: Mapping[int, str | None]) -> None:
        self._files += 1
        lines = "".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items())
        (self.root / "in" / f"{self._files:05d}.json").write_text(lines)

    def run(self, **given: Any) -> None:
        with open_project(str(self.root)) as app:
            app.apply(**given)
            app.pipeline().run(until_idle=True)

    def rows(self, name: str = "silver/scored") -> list[dict[str, Any]]:
        table = DeltaTable.open(LocalDisk(), f"{self.lake}/{name}")
        assert table is not None
        rows: pa.Table = table.read(table.files())
        return sorted(rows.to_pylist(), key=lambda row: row["id"])

    def pending(self) -> str | None:
        """The hash that accepts what would change first; None for nothing."""
        with open_project(str(self.root)) as app:
            return accept_hash(app.changes()) if app.changes() else None

    def reconciled(self, **counts: int) -> None:
        """The books of both tables balance, and those of `silver.scored` say this."""
        with open_project(str(self.root)) as app:
            for plan in app.flows.values():
                report = reconcile(str(self.root), self.lake, plan)
                assert report.problems == []
        assert {name: report.counts[name] for name in counts} == counts

    def status(self) -> dict[str, Any]:
        """How asking stands."""
        (status,) = read_status(LocalDisk(), self.lake, [SCORED], now_us=0)
        assert status.error is None
        assert status.asking is not None
        return asdict(status.asking)

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            (status,) = read_status(LocalDisk(), self.lake, [SCORED], now_us=0)
            if status.asking is not None and holds(asdict(status.asking)):
                return
            time.sleep(0.02)
        raise AssertionError(f"never so: {status}")

    def waiting_by_batch(self) -> list[int]:
        """How many rows waited after each commit."""
        log = Path(self.lake, "silver/scored/_delta_log")
        told = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
        return [one["commitInfo"]["state_rows"]["asking"] for one in told if "state_rows" in one.get("commitInfo", {})]
