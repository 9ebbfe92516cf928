"""What a request is told when it cannot be done: problem details as RFC 9457 has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

TITLES = {
    400: "bad request", 401: "no valid key", 403: "not allowed", 404: "not found", 405: "method not allowed",
    408: "too slow", 409: "conflict", 411: "length missing", 413: "too large", 415: "unsupported content",
    421: "wrong host", 422: "records refused", 429: "too many requests", 500: "internal error", 503: "not now",
}  # fmt: skip
PROBLEM_TYPE = "application/problem+json"


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
