"""What a request is told when it cannot be done: problem details as RFC 9457 has them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lodestream.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    DataLossRefused,
    LodestreamError,
    MissingDriverError,
    TransientError,
)

TITLES = {
    400: "bad request", 401: "no valid key", 403: "not allowed", 404: "not found", 405: "method not allowed",
    406: "nothing acceptable", 408: "too slow", 409: "conflict", 410: "gone", 411: "length missing",
    412: "changed meanwhile", 413: "too large", 415: "unsupported content",
    421: "wrong host", 422: "content refused", 429: "too many requests", 500: "internal error", 503: "not now",
}  # fmt: skip
PROBLEM_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[LodestreamError], int], ...] = (
    (AccessError, 403), (MissingDriverError, 503), (ConfigError, 400), (TransientError, 503), (ConflictError, 409),
    (DataLossRefused, 410),
)  # fmt: skip
_TOLD = frozenset({"fix", "nearest", "reason", "column", "function", "parameter", "found", "position"})
"""Facts of an error that go out; others may say where things lie on this machine."""
_LOG = logging.getLogger("lodestream.http")


class ProblemError(Exception):
    """A request ends with a problem.

    Args:
        status: HTTP status.
        detail: what is wrong and what to do about it.
        retry_after_s: when the same request may come again.
        headers: more headers of the answer.
        **more: further members of the answer.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status = status
        self.body: dict[str, Any] = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail}
        self.body |= {name: value for name, value in more.items() if value is not None}
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def response(self) -> Response:
        """The answer."""
        return Response(json.dumps(self.body), self.status, self.headers, PROBLEM_TYPE)


def of_error(error: LodestreamError) -> ProblemError:
    """The problem that an error of ours is to whoever asked."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
        return ProblemError(500, "the server cannot answer this; its log says why")
    facts: dict[str, Any] = {
        name: value for name, value in error.facts.items() if name in _TOLD and isinstance(value, str | int)
    }
    wait_s = error.retry_after_s if isinstance(error, TransientError) else None
    return ProblemError(status, error.message.strip(), retry_after_s=wait_s, **facts)


async def problem(_request: Request, error: Exception) -> Response:
    """The answer to a request that ended with a problem."""
    assert isinstance(error, ProblemError)
    return error.response()


async def translated(_request: Request, error: Exception) -> Response:
    """The answer to a request that ended with an error of ours."""
    assert isinstance(error, LodestreamError)
    return of_error(error).response()


async def http_problem(_request: Request, error: Exception) -> Response:
    """The answer to a request that the framework refused."""
    assert isinstance(error, HTTPException)
    status = error.status_code if error.status_code in TITLES else 400
    return ProblemError(status, str(error.detail).lower(), headers=error.headers).response()


async def internal_problem(_request: Request, error: Exception) -> Response:
    """The answer to a request that hit a bug: nothing of it goes out."""
    _LOG.error("a request failed", exc_info=error)
    return ProblemError(500, "the server cannot answer this; its log says why").response()
