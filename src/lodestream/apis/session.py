"""Signing in to the console: a key or token for a cookie, who I am, and out again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.bodies import Room, receive
from lodestream.apis.gate import CSRF_HEADER, Gate
from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import PUBLIC, SIGNED_IN, Body, Component, Endpoint, Part, Reply
from lodestream.model.access import Principal
from lodestream.security.sessions import csrf_token

_BODY_MAX = 32_768
_BODIES_MAX = 1 << 20
_TIMEOUT_S = 10.0
_TEXT = {"type": "string"}
_WHO = Component("Session", {
    "type": "object", "required": ["name", "kind", "groups", "expires", "csrf"],
    "properties": {
        "name": _TEXT, "kind": {"enum": ["owner", "user", "service"]}, "groups": {"type": "array", "items": _TEXT},
        "expires": {"type": ["string", "null"], "format": "date-time"}, "csrf": {"type": ["string", "null"]},
    },
})  # fmt: skip
_SIGN_IN = Component("SignIn", {
    "type": "object", "required": ["key"], "additionalProperties": False,
    "properties": {"key": {"type": "string", "minLength": 1, "description": "An API key, or an access token."}},
})  # fmt: skip


def session_part(gate: Gate) -> Part:
    """The endpoints of `/api/session`."""
    api = SessionApi(gate)
    told = Reply("Who is signed in.", {"application/json": _WHO})
    made = (
        Endpoint(
            "POST", "/api/session", api.sign_in, PUBLIC, "Sign in with a key or an access token.", tag="session",
            body=Body({"application/json": _SIGN_IN}), answers={200: told}, problems=(400, 401, 403, 408, 413),
            description="The answer sets a cookie that only this server reads.",
        ),
        Endpoint(
            "GET", "/api/session", api.who, SIGNED_IN, "Who is signed in.", tag="session", answers={200: told},
            description=f"`csrf` has to be sent as `{CSRF_HEADER}` with every write that comes with the cookie.",
        ),
        Endpoint(
            "DELETE", "/api/session", api.sign_out, SIGNED_IN, "Sign out.", tag="session",
            answers={204: Reply("The session has ended, on every server.")},
        ),
    )  # fmt: skip
    return Part(made, running=api.running)


class SessionApi:
    """What is done about sessions.

    Args:
        gate: knows credentials and sessions.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._room = Room(_BODIES_MAX)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write down at the end what the gate remembers."""
        try:
            yield
        finally:
            await asyncio.to_thread(self._gate.identity.close)

    async def sign_in(self, request: Request, _nobody: Principal) -> Response:
        """Begin a session; one that the browser had ends."""
        self._gate.same_origin(request)
        text = await self._key(request)
        cookie = await self._gate.sign_in(request, text)
        principal = self._gate.identity.by_session(cookie, self._gate.address(request))
        if principal is None:
            raise ProblemError(401, "the credential has just ended")
        self._end(request)
        response = _told(principal, csrf_token(cookie))
        response.set_cookie(
            self._gate.cookie_name(request), cookie, path="/", secure=self._gate.secure(request), httponly=True,
            samesite="lax",
        )  # fmt: skip
        return response

    async def who(self, request: Request, principal: Principal) -> Response:
        """Who is signed in, and what has to be sent with writes."""
        cookie = self._gate.cookie(request)
        by_session = principal.via.startswith("session:")
        return _told(principal, csrf_token(cookie) if cookie and by_session else None)

    async def sign_out(self, request: Request, _principal: Principal) -> Response:
        """End the session."""
        self._end(request)
        response = Response(status_code=204)
        response.delete_cookie(
            self._gate.cookie_name(request), path="/", secure=self._gate.secure(request), httponly=True, samesite="lax"
        )
        return response

    def _end(self, request: Request) -> None:
        cookie = self._gate.cookie(request)
        if cookie is not None:
            self._gate.identity.end_session(cookie)

    async def _key(self, request: Request) -> str:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # no form of another site can send that
            raise ProblemError(415, "send application/json")
        body = await receive(request, _BODY_MAX, _TIMEOUT_S, self._room)
        try:
            found = json.loads(bytes(body))
        except (ValueError, RecursionError):
            found = None
        finally:
            self._room.used -= len(body)
        if not isinstance(found, dict) or set(found) != {"key"} or not isinstance(found["key"], str):
            raise ProblemError(400, 'send {"key": "ls_…"}')
        return str(found["key"]).strip()


def _told(principal: Principal, csrf: str | None) -> Response:
    ends = principal.expires_us
    expires = None if ends is None else datetime.fromtimestamp(ends / 1e6, UTC).isoformat().replace("+00:00", "Z")
    body = {
        "name": principal.name, "kind": principal.kind, "groups": sorted(principal.groups), "expires": expires,
        "csrf": csrf,
    }  # fmt: skip
    return Response(json.dumps(body), media_type="application/json")
