"""Who may come in: addresses, host names, credentials, scopes and how often; the same for every API over HTTP."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from lodestream.apis.problems import ProblemError
from lodestream.apis.turned_away import TEXT_MAX, TurnedAway
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.project.serving import ServingSettings
from lodestream.security.identity import Identity
from lodestream.security.limits import Caller, Limits, admit
from lodestream.security.networks import Address, AddressError, address, client, is_in, is_local, networks
from lodestream.security.sessions import csrf_token

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
CSRF_HEADER = "X-Lodestream-CSRF"
"""Header of a write that comes with a session's cookie."""
Found = TypeVar("Found")
_ASKS = 3
"""The first may be about another issuer's keys."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_HTTP_PORT = 80
_PRINCIPAL = "lodestream.principal"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lodestream"'}


@dataclass
class Gate:
    """Decides for each request.

    Args:
        settings: networks, hosts and bounds.
        identity: knows the credentials.
        clock: microseconds since 1970 UTC.
        limits: counts by caller.
    """

    settings: ServingSettings
    identity: Identity
    clock: Callable[[], int]
    limits: Limits

    def __post_init__(self) -> None:
        self._allowed = networks(self.settings.allow)
        self._proxies = networks(self.settings.trusted_proxies)
        here = self.identity.token is not None or (is_local(self.settings.host) and not self._proxies)
        hosts = frozenset(name.lower() for name in self.settings.hosts)
        self._asking: asyncio.Future[None] | None = None
        self._hosts = hosts or (_HERE if here else frozenset())

    def connect(self, request: Request) -> None:
        """Check what needs no credential. Raises ProblemError 403 or 421."""
        if self._hosts and _name(request.headers.get("host", "")) not in self._hosts:
            raise ProblemError(421, "this server does not go by that name; add it to server.hosts")
        if self._allowed and not is_in(self.address(request), self._allowed):
            raise ProblemError(403, "this address may not connect")

    async def arrive(self, request: Request) -> Principal:
        """Whoever sends a request that has just come in. Raises ProblemError 401, 403 or 421.

        As `principal`, but it may ask an identity provider for its keys, and notes that a session is used.
        """
        self.connect(request)
        text = _bearer(request)
        await self._ask(text)
        return self._remembered(request, used=True)

    def principal(self, request: Request) -> Principal:
        """Whoever sent a request, as they are now: streams ask again and again. Raises ProblemError 401, 403 or 421."""
        self.connect(request)
        return self._remembered(request, used=False)

    def still_valid(self, principal: Principal) -> bool:
        """Whether a principal may stay; streams ask every second or so, it is cheap."""
        return self.identity.still_valid(principal)

    def current(self, principal: Principal) -> Principal | None:
        """A principal as they are now, with the groups they have now; None when they may not stay."""
        return self.identity.current(principal)

    def count(self, request: Request) -> Caller:
        """Count a request whose principal is known. Raises ProblemError 429 with the time to wait."""
        principal: Principal = request.scope[_PRINCIPAL]
        key, bounds = self.identity.key_of(principal), self.settings.ingest
        caller = self.limits.caller(
            principal.name,
            (key and key.requests_per_s) or bounds.requests_per_s,
            (key and key.bytes_per_s) or bounds.bytes_per_s,
            (key and key.records_per_day) or bounds.records_per_day,
        )
        wait_s = admit(caller, self.clock())
        if wait_s > 0:
            raise ProblemError(429, "this key has used up what it may ask for now", retry_after_s=wait_s)
        return caller

    def address(self, request: Request) -> Address | None:
        """Where a request comes from, seen past trusted proxies."""
        peer = request.client.host if request.client else ""
        return client(peer, request.headers.getlist("x-forwarded-for"), self._proxies)

    async def sign_in(self, request: Request, text: str) -> str:
        """Begin a session of the console. Returns its cookie. Raises ProblemError 401 or 403."""
        self.same_origin(request)
        await self._ask(text)
        return self._told(lambda: self.identity.begin_session(self.identity.by_text(text, self.address(request))))

    def cookie(self, request: Request) -> str | None:
        """The cookie of the session that a request comes with."""
        return request.cookies.get(self.cookie_name(request))

    def cookie_name(self, request: Request) -> str:
        """Name of the cookie; two servers of one machine, which browsers do not tell apart, have different ones."""
        if self.secure(request):
            return "__Host-lodestream"
        return f"lodestream-{request.url.port or _HTTP_PORT}"

    def secure(self, request: Request) -> bool:
        """Whether the browser came by TLS, here or at a trusted proxy."""
        peer = address(request.client.host) if request.client else None
        forwarded = request.headers.get("x-forwarded-proto", "").lower() == "https"
        return request.url.scheme == "https" or (forwarded and is_in(peer, self._proxies))

    def same_origin(self, request: Request) -> None:
        """Refuse what another site's page made a browser send. Raises ProblemError 403."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
        scheme = "https" if self.secure(request) else "http"
        own = f"{scheme}://{request.headers.get('host', '')}".lower()
        if site not in ("same-origin", "none") or (origin is not None and origin.lower() != own):
            raise ProblemError(403, "another site asks this; open the console and do it there")

    async def _ask(self, text: str) -> None:
        """Ask an issuer for its keys when a token needs it; all who need it wait for one thread, whoever they are."""
        for _ in range(_ASKS):
            if not text or not self.identity.must_ask(text):
                return
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(asyncio.to_thread(self.identity.ask, text))
            await asyncio.shield(self._asking)

    def _remembered(self, request: Request, *, used: bool) -> Principal:
        found = request.scope[_PRINCIPAL] = self._told(lambda: self._found(request, used=used))
        return found

    def _found(self, request: Request, *, used: bool) -> Principal:
        if text := _bearer(request):
            return self.identity.by_text(text, self.address(request))
        if cookie := self.cookie(request):
            self.same_origin(request)
            if request.method not in _SAFE and not hmac.compare_digest(
                request.headers.get(CSRF_HEADER, "").encode(), csrf_token(cookie).encode()
            ):
                raise ProblemError(403, f"send {CSRF_HEADER}, as GET /api/session tells it")
            if (found := self.identity.by_session(cookie, self.address(request), used=used)) is None:
                raise ProblemError(401, "the session has ended; sign in again", headers=_CHALLENGE)
            return found
        if (found := self._certified(request)) is not None:
            self.same_origin(request)
            return found
        raise ProblemError(401, "send a key: Authorization: Bearer ls_…", headers=_CHALLENGE)

    def _certified(self, request: Request) -> Principal | None:
        """Whoever's certificate a trusted proxy hands on; the header counts for nothing from anybody else."""
        name = self.settings.identity.certificates.header
        text = request.headers.get(name) if name is not None else None
        peer = address(request.client.host) if request.client else None
        if not text or not is_in(peer, self._proxies):
            return None
        return self.identity.by_forwarded_certificate(text)

    def _told(self, ask: Callable[[], Found]) -> Found:
        try:
            return ask()
        except AddressError as error:
            raise ProblemError(403, error.message) from error
        except AccessError as error:
            challenge = {"WWW-Authenticate": 'Bearer realm="lodestream", error="invalid_token"'}
            raise ProblemError(401, error.message, headers=challenge) from error


def at_the_gate(gate: Gate, away: TurnedAway) -> Callable[[Request, Principal, ProblemError], Awaitable[None]]:
    """What the HTTP server does about a request that is not let in."""

    async def refused(request: Request, principal: Principal, error: ProblemError) -> None:
        try:
            address = gate.address(request)
        except AccessError:  # whoever says where it comes from does not say it well
            address = None
        path = request.url.path[:TEXT_MAX]
        await away.note("http", principal.name, address, str(error.body["detail"]), method=request.method, path=path)

    return refused


def _bearer(request: Request) -> str:
    """The key or token of a request; empty when it comes with none."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _name(host: str) -> str:
    """The name in a Host header, without port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
