"""Metrics of a running pipeline in the Prometheus text format, and a small server for them.

The format is that of https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lodestream.errors import ConfigError
from lodestream.runtime.supervise import FlowStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("starting", "waiting", "running", "idle", "standby", "retrying", "failed", "stopped")
_FATES = ("input", "output", "quarantine", "late", "duplicate", "dropped", "late_window")

_RULE = "rule:"
_Sample = tuple[dict[str, str], float]


def exposition(statuses: Sequence[FlowStatus], now_us: int) -> str:
    """All metrics of the given flows.

    Args:
        statuses: `Pipeline.status`.
        now_us: the present, microseconds since 1970 UTC.
    """
    lines: list[str] = []

    def metric(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> None:
        given = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if given:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}", *given))

    def each(value: Callable[[FlowStatus], float | None]) -> list[_Sample]:
        found = ((status, value(status)) for status in statuses)
        return [({"table": str(status.table)}, number) for status, number in found if number is not None]

    fates: list[_Sample] = []
    rules: list[_Sample] = []
    for status in statuses:
        counts, table = dict(status.counts), str(status.table)
        fates += [({"table": table, "fate": fate}, counts[fate]) for fate in _FATES if fate in counts]
        broken = sorted((name[len(_RULE) :], rows) for name, rows in counts.items() if name.startswith(_RULE))
        rules += [({"table": table, "rule": rule}, rows) for rule, rows in broken]
    metric("lodestream_rows_total", "counter", "Rows since the start of this process, by what became of them.", fates)
    metric("lodestream_rule_rows_total", "counter", "Rows that did not meet an expectation, by rule.", rules)
    metric("lodestream_batches_total", "counter", "Batches committed.", each(lambda s: s.batches))
    metric("lodestream_busy_seconds_total", "counter", "Seconds spent in batches.", each(lambda s: s.busy_s))
    metric("lodestream_batch", "gauge", "Number of the last committed batch.", each(lambda s: s.batch))
    metric("lodestream_version", "gauge", "Delta version of the last commit.", each(lambda s: s.version))
    metric(
        "lodestream_freshness_seconds", "gauge", "The present less the newest event time taken in.",
        each(lambda s: None if s.max_event_us is None else (now_us - s.max_event_us) / 1e6),
    )  # fmt: skip
    metric(
        "lodestream_commit_age_seconds", "gauge", "Seconds since the last commit.",
        each(lambda s: None if s.last_commit_us is None else (now_us - s.last_commit_us) / 1e6),
    )  # fmt: skip
    metric("lodestream_state_bytes", "gauge", "Memory of the flow's state.", each(lambda s: s.state_bytes))
    metric(
        "lodestream_state_spilled_bytes", "gauge", "State of the flow in files, beyond what memory may hold.",
        each(lambda s: s.state_spilled_bytes),
    )  # fmt: skip
    metric("lodestream_retries", "gauge", "Tries in a row that failed.", each(lambda s: s.retries))
    metric(
        "lodestream_error", "gauge", "Whether the flow has an error now.", each(lambda s: float(s.error is not None))
    )
    metric(
        "lodestream_state", "gauge", "1 for the state that the flow is in.",
        [({"table": str(s.table), "state": t}, float(t == s.state)) for s in statuses for t in STATES],
    )  # fmt: skip
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Serves `/metrics` and `/healthz` from a thread of its own.

    Args:
        statuses: gives the flows' statuses whenever asked.
        clock: microseconds since 1970 UTC.
        port: 0 takes a free one.
        host: address to listen on; this machine only by default.

    Raises:
        ConfigError: the port is taken or not allowed.
    """

    def __init__(
        self, statuses: Callable[[], Sequence[FlowStatus]], clock: Callable[[], int], port: int, host: str = "127.0.0.1"
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            server_version = "lodestream"
            sys_version = ""
            timeout = 10.0

            def do_GET(self) -> None:
                found = statuses()
                failed = sorted(str(status.table) for status in found if status.state == "failed")
                if self.path.split("?")[0] == "/metrics":
                    self._answer(200, CONTENT_TYPE, exposition(found, clock()))
                elif self.path == "/healthz":
                    text = "failed: " + ", ".join(failed) if failed else "ok"
                    self._answer(503 if failed else 200, "text/plain; charset=utf-8", text + "\n")
                else:
                    self._answer(404, "text/plain; charset=utf-8", "/metrics and /healthz are here\n")

            def _answer(self, code: int, kind: str, text: str) -> None:
                data = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Stay silent: stderr is for people."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError("cannot listen for metrics; choose another port", port=port, reason=str(error)) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
