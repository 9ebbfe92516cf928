"""Public keys of an issuer: found by discovery, kept, fetched anew when a token names one that is not there."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from lodestream.errors import TransientError

_TIMEOUT_S = 5.0
_ANSWER_MAX = 1 << 20
_KEYS_MAX = 100
_PAUSE_US = 30_000_000
"""Between two fetches that tokens ask for, whether or not they worked: nobody can make this server ask more often."""
_FIRST_PAUSE_US = 5_000_000
"""The same while there is no key at all."""
_FRESH_US = 3_600_000_000
_RSA_BITS_MIN = 2048
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Fetch = Callable[[str], bytes]
"""Gets a URL. Raises TransientError."""


class SignatureKey:
    """One public key.

    Attributes:
        key: as PyJWT takes it.
        algorithm: the only one that it verifies.
        issuer: whose tokens it signs, where the set says so; Entra writes `{tenantid}` for any tenant.
    """

    def __init__(self, key: PyJWK, algorithm: str, issuer: str | None) -> None:
        self.key, self.algorithm, self.issuer = key, algorithm, issuer


class KeySet:
    """The keys of one issuer, safe from any thread.

    Args:
        discovery: URL of the issuer's metadata.
        issuer: what the metadata must say that it is of.
        clock: microseconds since 1970 UTC.
        kept_us: how long keys are believed that could not be fetched again.
        fetch: gets a URL.
    """

    def __init__(
        self, discovery: str, issuer: str, clock: Callable[[], int], kept_us: int, fetch: Fetch | None = None
    ) -> None:
        self._discovery, self._issuer, self._clock, self._kept_us = discovery, issuer, clock, kept_us
        self._fetch = fetch or get
        self._lock = threading.Lock()
        self._keys: Mapping[str, SignatureKey] = {}
        self._fetched_us: int | None = None
        self._asked_us: int | None = None

    def find(self, identity: str) -> SignatureKey | None:
        """The key of an id, among those that are known now."""
        if self._fetched_us is None or self._clock() - self._fetched_us > self._kept_us:
            return None
        return self._keys.get(identity)

    def wants(self, identity: str) -> bool:
        """Whether `refresh` helps: the key is unknown or the set old, and the issuer was not asked just now."""
        if self._lock.locked():  # somebody asks: the answer may have it
            return identity not in self._keys
        return self._due(identity)

    def _due(self, identity: str) -> bool:
        now = self._clock()
        stale = self._fetched_us is None or now - self._fetched_us > _FRESH_US
        pause = _PAUSE_US if self._keys else _FIRST_PAUSE_US
        rested = self._asked_us is None or now - self._asked_us >= pause
        return rested and (stale or identity not in self._keys)

    def refresh(self, identity: str) -> None:
        """Ask the issuer for its keys if that may help with a token; it takes seconds at worst.

        Whoever comes meanwhile waits for the same answer. A set that cannot be fetched leaves the one before in place.
        """
        with self._lock:
            if not self._due(identity):
                return
            self._asked_us = self._clock()
            try:
                told = _object(self._fetch(self._discovery))
                if told.get("issuer") != self._issuer:
                    raise TransientError("the issuer's metadata is of another issuer")
                self._keys = _signature_keys(_object(self._fetch(_checked(told.get("jwks_uri"), self._discovery))))
                self._fetched_us = self._asked_us
            except TransientError:
                return


def get(url: str) -> bytes:
    """What a URL answers: small, soon, and from there. Raises TransientError for anything else."""
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read(_ANSWER_MAX + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransientError("the issuer does not answer", url=url) from error
    if len(body) > _ANSWER_MAX:
        raise TransientError("the issuer answers too much", url=url)
    return body


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from where the metadata says, and the metadata from where the settings say."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TransientError("the issuer's answer is not JSON") from error
    if not isinstance(found, dict):
        raise TransientError("the issuer's answer is not a JSON object")
    return found


def _checked(url: Any, discovery: str) -> str:
    """Where the keys are, by TLS; without only on this machine, and only when the metadata is there too."""
    if isinstance(url, str):
        parts, own = urlsplit(url), urlsplit(discovery)
        here = parts.scheme == own.scheme == "http" and parts.hostname in _LOOPBACK
        if (parts.scheme == "https" or here) and parts.hostname and not parts.username:
            return url
    raise TransientError("the issuer's metadata names no safe place for its keys")


def _signature_keys(found: Mapping[str, Any]) -> dict[str, SignatureKey]:
    """The keys that may verify tokens; all others are left out, and a key id that stands for two stands for none."""
    listed = found.get("keys")
    if not isinstance(listed, list) or len(listed) > _KEYS_MAX:
        raise TransientError("the issuer's keys cannot be read")
    keys: dict[str, SignatureKey] = {}
    double = set()
    for one in listed:
        identity = one.get("kid") if isinstance(one, dict) else None
        if not isinstance(identity, str) or (key := _signature_key(one)) is None:
            continue
        if identity in keys:
            double.add(identity)
        keys[identity] = key
    return {identity: key for identity, key in keys.items() if identity not in double}


def _signature_key(one: Mapping[str, Any]) -> SignatureKey | None:
    kind = one.get("kty")
    algorithm = "RS256" if kind == "RSA" else "ES256" if kind == "EC" and one.get("crv") == "P-256" else None
    if algorithm is None or one.get("alg", algorithm) != algorithm or one.get("use", "sig") != "sig" or "d" in one:
        return None
    uses = one.get("key_ops", ["verify"])
    if not isinstance(uses, list) or "verify" not in uses:
        return None
    try:
        key = PyJWK(dict(one), algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and key.key.key_size < _RSA_BITS_MIN:
        return None
    issuer = one.get("issuer")
    return SignatureKey(key, algorithm, issuer if isinstance(issuer, str) else None)
