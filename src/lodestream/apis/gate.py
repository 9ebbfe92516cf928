"""Who may come in: addresses, host names, keys, scopes and how often; the same for every API."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from lodestream.apis.problems import ProblemError
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.project.serving import ServingSettings
from lodestream.security.keys import ApiKey, KeyStore, digest
from lodestream.security.limits import Caller, Limits, admit
from lodestream.security.networks import Address, client, is_in, networks

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_KEY = "lodestream.key"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lodestream"'}


@dataclass
class Gate:
    """Decides for each request.

    Args:
        settings: networks, hosts and bounds.
        keys: known keys.
        clock: microseconds since 1970 UTC.
        limits: counts by caller.
        token: accepted in place of any key, for development; None when keys are needed.
    """

    settings: ServingSettings
    keys: KeyStore
    clock: Callable[[], int]
    limits: Limits
    token: str | None = None

    def __post_init__(self) -> None:
        self._allowed = networks(self.settings.allow)
        self._proxies = networks(self.settings.trusted_proxies)
        hosts = {name.lower() for name in self.settings.hosts}
        self._hosts = hosts or (_HERE if self.token is not None else frozenset())
        self._owner = ApiKey("dev", "dev", digest(self.token), ("*:*",), 0) if self.token is not None else None

    def connect(self, request: Request) -> None:
        """Check what needs no key. Raises ProblemError 403 or 421."""
        if self._hosts and _name(request.headers.get("host", "")) not in self._hosts:
            raise ProblemError(421, "this server does not go by that name; add it to server.hosts")
        if self._allowed and not is_in(self._address(request), self._allowed):
            raise ProblemError(403, "this address may not connect")

    def principal(self, request: Request) -> Principal:
        """Who asks. Raises ProblemError 401, 403, 421."""
        key = self.identify(request)
        request.scope[_KEY] = key
        if key is self._owner:
            return Principal(key.name, "owner", via="development token")
        return Principal(key.name, scopes=key.scopes, via=f"key:{key.id}", expires_us=key.expires_us)

    def count(self, request: Request) -> Caller:
        """Count a request whose principal is known. Raises ProblemError 429 with the time to wait."""
        key: ApiKey = request.scope[_KEY]
        bounds = self.settings.ingest
        caller = self.limits.caller(
            key.name,
            key.requests_per_s or bounds.requests_per_s,
            key.bytes_per_s or bounds.bytes_per_s,
            key.records_per_day or bounds.records_per_day,
        )
        wait_s = admit(caller, self.clock())
        if wait_s > 0:
            raise ProblemError(429, "this key has used up what it may ask for now", retry_after_s=wait_s)
        return caller

    def identify(self, request: Request) -> ApiKey:
        """The key of a request. Raises ProblemError 401, 403, 421."""
        self.connect(request)
        key = self._key(request)
        if key.networks and not is_in(self._address(request), networks(key.networks)):
            raise ProblemError(403, "this key may not be used from this address")
        return key

    def _key(self, request: Request) -> ApiKey:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not text:
            raise ProblemError(401, "send a key: Authorization: Bearer ls_…", headers=_CHALLENGE)
        if (
            self._owner is not None
            and self.token is not None
            and secrets.compare_digest(text.encode(), self.token.encode())
        ):
            return self._owner
        try:
            return self.keys.authenticate(text, self.clock())
        except AccessError as error:
            raise ProblemError(401, error.message, headers=_CHALLENGE) from error

    def _address(self, request: Request) -> Address | None:
        peer = request.client.host if request.client else ""
        return client(peer, request.headers.getlist("x-forwarded-for"), self._proxies)


def _name(host: str) -> str:
    """The name in a Host header, without port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
