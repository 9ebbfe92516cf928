"""Who may come in: addresses, host names, credentials, scopes and how often; the same for every API over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from lodestream.apis.problems import ProblemError
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.project.serving import ServingSettings
from lodestream.security.identity import Identity
from lodestream.security.limits import Caller, Limits, admit
from lodestream.security.networks import Address, AddressError, client, is_in, is_local, networks

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
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
        self._hosts = hosts or (_HERE if here else frozenset())

    def connect(self, request: Request) -> None:
        """Check what needs no credential. Raises ProblemError 403 or 421."""
        if self._hosts and _name(request.headers.get("host", "")) not in self._hosts:
            raise ProblemError(421, "this server does not go by that name; add it to server.hosts")
        if self._allowed and not is_in(self.address(request), self._allowed):
            raise ProblemError(403, "this address may not connect")

    def principal(self, request: Request) -> Principal:
        """Whoever sends a request with a key, a token or a session. Raises ProblemError 401, 403 or 421."""
        self.connect(request)
        found = request.scope[_PRINCIPAL] = self._principal(request)
        return found

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

    def _principal(self, request: Request) -> Principal:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not text:
            raise ProblemError(401, "send a key: Authorization: Bearer ls_…", headers=_CHALLENGE)
        try:
            return self.identity.by_text(text, self.address(request))
        except AddressError as error:
            raise ProblemError(403, error.message) from error
        except AccessError as error:
            raise ProblemError(401, error.message, headers=_CHALLENGE) from error


def _name(host: str) -> str:
    """The name in a Host header, without port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
