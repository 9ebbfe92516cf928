"""Headers that every answer has, so that a browser does with it only what was meant."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders

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
        self._app, self._secure = app, secure

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_ALWAYS)
                for name, value in _UNLESS_SAID.items():
                    headers.setdefault(name, value)
                if self._secure:
                    headers["Strict-Transport-Security"] = _ONLY_TLS
            await send(message)

        await self._app(scope, receive, told)
