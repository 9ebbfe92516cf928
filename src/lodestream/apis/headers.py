"""Headers that every answer has, so that a browser does with it only what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONSOLE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "require-trusted-types-for 'script'"
)
"""What pages of the console may load and do: what this server gives, and nothing that is written into the page."""
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_UNLESS_SAID = {"Cache-Control": "no-store", "Content-Security-Policy": _DATA_POLICY}
_ONLY_TLS = "max-age=31536000"


class SecurityHeaders:
    """ASGI middleware that adds them; what a handler said about caching and content stays.

    Args:
        app: the application within.
        secure: whether browsers may be told to come by TLS only.
    """

    def __init__(self, app: Any, secure: bool = False) -> None:
        self._app = app
        always = _ALWAYS | ({"Strict-Transport-Security": _ONLY_TLS} if secure else {})
        self._always, self._unless_said = _raw(always), _raw(_UNLESS_SAID)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                said = [pair for pair in message["headers"] if pair[0] not in self._always]
                names = {name for name, _ in said}
                unsaid = (pair for pair in self._unless_said.items() if pair[0] not in names)
                message["headers"] = [*said, *self._always.items(), *unsaid]
            await send(message)

        await self._app(scope, receive, told)


def _raw(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """As they are on the wire."""
    return {name.lower().encode(): value.encode() for name, value in headers.items()}
