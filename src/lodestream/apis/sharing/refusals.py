"""What the protocol says when something cannot be done: `{"errorCode", "message"}`."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Component, Refusals

_CODES = {
    400: "INVALID_PARAMETER_VALUE", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
    408: "REQUEST_TIMEOUT", 409: "CONFLICT", 410: "RESOURCE_NO_LONGER_AVAILABLE", 413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE", 421: "WRONG_HOST", 429: "REQUEST_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
_SHOWN = ("reason", "nearest", "fix")
_SHAPE = Component("SharingError", {
    "type": "object", "required": ["errorCode", "message"],
    "properties": {"errorCode": {"type": "string"}, "message": {"type": "string"}},
})  # fmt: skip


def _refused(error: ProblemError) -> Response:
    body = error.body
    facts = [f"{name}: {body[name]}" for name in _SHOWN if name in body]
    facts += [f"{one['at']}: {one['reason']}" for one in body.get("errors", ())]
    told: dict[str, Any] = {"errorCode": _CODES[error.status], "message": "; ".join([body["detail"], *facts])}
    return Response(json.dumps(told, ensure_ascii=False), error.status, error.headers, "application/json")


REFUSALS = Refusals("application/json", _SHAPE, _refused)
