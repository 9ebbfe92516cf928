"""Counts of requests over HTTP in the Prometheus text format, by the path's pattern so that there are only so many."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from typing import Any

PATTERN = "lodestream.pattern"
"""Where a request's scope has the pattern of the path that it is for."""
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Counts:
    """What was asked and answered since the start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds = [0] * (len(_BOUNDS_S) + 1)
        self._seconds_sum = 0.0

    def answered(self, method: str, pattern: str, status: int, seconds: float) -> None:
        """The head of an answer is on its way, `seconds` after the request came."""
        self.requests[method, pattern, status] += 1
        self._seconds[bisect.bisect_left(_BOUNDS_S, seconds)] += 1
        self._seconds_sum += seconds

    def exposition(self, streams: int) -> str:
        """All of it, and how many streams of events are open."""
        name = "lodestream_http"
        lines = [f"# HELP {name}_requests_total Requests answered.", f"# TYPE {name}_requests_total counter"]
        for (method, pattern, status), count in sorted(self.requests.items()):
            lines.append(f'{name}_requests_total{{method="{method}",path="{pattern}",status="{status}"}} {count}')
        lines += [f"# HELP {name}_seconds From request to the head of its answer.", f"# TYPE {name}_seconds histogram"]
        total = 0
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), self._seconds, strict=True):
            total += count
            lines.append(f'{name}_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"{name}_seconds_sum {self._seconds_sum:.6f}", f"{name}_seconds_count {total}"]
        lines += [f"# HELP {name}_streams Open streams of events.", f"# TYPE {name}_streams gauge"]
        return "\n".join([*lines, f"{name}_streams {streams}"]) + "\n"


class Counted:
    """ASGI middleware that counts.

    Args:
        app: the application within.
        counts: where.
    """

    def __init__(self, app: Any, counts: Counts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                took = time.perf_counter() - started
                self._counts.answered(scope["method"], scope.get(PATTERN, ""), message["status"], took)
            await send(message)

        await self._app(scope, receive, told)
