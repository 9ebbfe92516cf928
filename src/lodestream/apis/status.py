"""Whether the server is well, what it counted, and the document of all that can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.openapi import document
from lodestream.apis.routing import PUBLIC, SIGNED_IN, Endpoint, Part, Reply
from lodestream.model.access import Principal

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEALTH = {
    "type": "object", "required": ["status"], "properties": {"status": {"enum": ["ok", "failing"]}},
}  # fmt: skip


def status_part(parts: Sequence[Part], title: str, ready: Callable[[], Mapping[str, str]] = dict) -> Part:
    """Health, metrics and the document of `parts` and of itself.

    Args:
        parts: all others.
        title: of the project.
        ready: what is missing before requests should be sent here; nothing when it is ready. Health counts as well.
    """

    def failing() -> dict[str, str]:
        return {name: why for part in parts for name, why in part.failing().items()}

    async def health(_request: Request, _principal: Principal) -> Response:
        return _told(failing())

    async def readiness(_request: Request, _principal: Principal) -> Response:
        return _told(failing() | dict(ready()))

    async def metrics(request: Request, _principal: Principal) -> Response:
        state = request.app.state
        text = state.counts.exposition(state.streams.count) + "".join(part.metrics() for part in parts)
        return Response(text, media_type=_METRICS_TYPE)

    async def openapi(request: Request, principal: Principal) -> Response:
        every = [endpoint for part in (*parts, made) for endpoint in part.endpoints]
        told = document(every, principal, str(request.base_url).rstrip("/"), title)
        return Response(json.dumps(told), media_type="application/json")

    content = {"application/json": _HEALTH}
    answers = {200: Reply("It is.", content), 503: Reply("It is not.", content)}
    made = Part((
        Endpoint("GET", "/healthz", health, PUBLIC, "Whether the server is well.", answers=answers, tag="status"),
        Endpoint(
            "GET", "/readyz", readiness, PUBLIC, "Whether requests should be sent here.", answers=answers, tag="status"
        ),
        Endpoint(
            "GET", "/metrics", metrics, "metrics:read", "Counts in the Prometheus text format.", tag="status",
            answers={200: Reply("All counts.", {"text/plain": {"type": "string"}})},
        ),
        Endpoint(
            "GET", "/openapi.json", openapi, SIGNED_IN, "This document.", tag="status",
            answers={200: Reply("It.", {"application/json": {"type": "object"}})},
        ),
    ))  # fmt: skip
    return made


def _told(failing: Mapping[str, str]) -> Response:
    """Reasons are for those who may read the metrics and the log."""
    body = json.dumps({"status": "failing" if failing else "ok"})
    return Response(body, 503 if failing else 200, media_type="application/json")
