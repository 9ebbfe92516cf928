"""Access tokens of an identity provider: checked claim by claim, and turned into a principal.

Follows RFC 9068 (JWT access tokens), RFC 8725 (what goes wrong with JWTs) and, for the profile `entra`, Microsoft's
rules for access tokens of versions 1.0 and 2.0. Whatever is not plainly right is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from jwt import PyJWS
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_decode

from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.project.identity import OidcSettings
from lodestream.project.values import parse_duration
from lodestream.security.key_sets import Fetch, KeySet, SignatureKey

TOKEN_MAX = 16_384
"""Characters of a token; longer ones are not looked at."""
_VERIFIED_MAX = 4096
"""Tokens that are remembered, by digest; what a signature says is asked once."""
_SECOND_US = 1_000_000
_SECONDS_MAX = 1 << 40
_TEXT = re.compile(r"[^\x00-\x20\x7f-\x9f\\]{1,255}")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEADERS_REFUSED = ("jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc", "cty", "nonce")
_ID_TOKEN = ("nonce", "at_hash", "c_hash", "s_hash")
"""Claims that say that it is an id_token, which is for the client, not for an API."""
_V1_ISSUERS = {
    "login.microsoftonline.com": "sts.windows.net",
    "login.partner.microsoftonline.cn": "sts.chinacloudapi.cn",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart; nothing of it is verified yet."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def key_id(self) -> str:
        """The key that it says it was signed with."""
        found = self.header.get("kid")
        return found if isinstance(found, str) else ""


class Oidc:
    """All issuers.

    Args:
        settings: of each.
        clock: microseconds since 1970 UTC.
        fetch: gets a URL, in place of the network.
    """

    def __init__(self, settings: Iterable[OidcSettings], clock: Callable[[], int], fetch: Fetch | None = None) -> None:
        self._issuers = [Issuer(one, clock, fetch) for one in settings]
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}

    def wants(self, text: str) -> bool:
        """Whether the issuer should be asked for its keys first, which may take seconds."""
        if (kept := self._kept(text)) is not None:
            return kept.issuer.keys.wants(kept.key_id)
        try:
            token = taken_apart(text)
        except AccessError:
            return False
        issuer = self._issuer(token)
        return issuer is not None and issuer.keys.wants(token.key_id)

    def ask(self, text: str) -> None:
        """Ask the issuer of a token for its keys, if that may help and it was not asked just now."""
        token = taken_apart(text)
        issuer = self._issuer(token)
        if issuer is not None:
            issuer.keys.refresh(token.key_id)

    def verify(self, text: str) -> Principal:
        """The principal of a token; call `ask` first when it `wants` so.

        Raises:
            AccessError: it is not accepted; the reason repeats nothing of it.
        """
        kept = self._kept(text)
        if kept is not None and (kept.principal.expires_us or 0) > self._clock():
            return kept.principal
        token = taken_apart(text)
        issuer = self._issuer(token)
        if issuer is None:
            raise _refused("its issuer is not one of identity.oidc")
        principal = issuer.verify(token)
        if len(self._verified) >= _VERIFIED_MAX:
            self._verified.clear()
        key = issuer.keys.find(token.key_id)
        self._verified[_digest(text)] = _Verified(issuer, token.key_id, key, principal)
        return principal

    def knows(self, name: str) -> bool:
        """Whether an issuer of that name is declared."""
        return any(issuer.settings.known_as == name for issuer in self._issuers)

    def _kept(self, text: str) -> _Verified | None:
        """What was verified before, as long as the key that did it is the issuer's."""
        kept = self._verified.get(_digest(text))
        return kept if kept is not None and kept.key is kept.issuer.keys.find(kept.key_id) else None

    def _issuer(self, token: Token) -> Issuer | None:
        return next((one for one in self._issuers if one.issued(token.claims)), None)


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was good once: with the same key, and until it ends, it is good again."""

    issuer: Issuer
    key_id: str
    key: SignatureKey | None
    principal: Principal


class Issuer:
    """One issuer: who it is, its keys, what its tokens say."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], int], fetch: Fetch | None = None) -> None:
        self.settings, self._clock = settings, clock
        self._leeway_us = parse_duration(settings.leeway)
        parts = urlsplit(settings.issuer)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._entra = settings.profile == "entra"
        told = settings.issuer
        if self._entra:
            tenant = parts.path.strip("/").partition("/")[0]
            root = f"{self._base}/{tenant}/v2.0"
            told = root if _GUID.fullmatch(tenant.lower()) else f"{self._base}/{{tenantid}}/v2.0"
        else:
            root = settings.issuer.removesuffix("/")
        self.keys = KeySet(
            f"{root}/.well-known/openid-configuration", told, clock, parse_duration(settings.keys_kept), fetch
        )

    def issued(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token says that it is of this issuer."""
        return isinstance(claims.get("iss"), str) and claims["iss"] in self._issuers(claims)

    def verify(self, token: Token) -> Principal:
        """The principal of a token that says it is of this issuer. Raises AccessError."""
        self._signed(token)
        claims = token.claims
        ends_us = self._current(claims)
        found = claims.get("aud")
        audiences = [found] if isinstance(found, str) else found
        if not isinstance(audiences, list) or not {*map(str, audiences)} & {*self.settings.audiences}:
            raise _refused("it is for another audience")
        if any(name in claims for name in _ID_TOKEN) or claims.get("typ") not in (None, "Bearer"):
            raise _refused("it is no access token")
        if "cnf" in claims:
            raise _refused("it is bound to a key of the client, which is not checked here")
        return self._entra_principal(claims, ends_us) if self._entra else self._principal(token, ends_us)

    def _issuers(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        if not self._entra:
            return (self.settings.issuer,)
        tenant = claims.get("tid")
        if not isinstance(tenant, str) or tenant not in self.settings.accepted_tenants:
            return ()
        first = f"https://{_V1_ISSUERS.get(str(urlsplit(self._base).hostname), 'sts.windows.net')}/{tenant}/"
        second = f"{self._base}/{tenant}/v2.0"
        version = claims.get("ver")
        return (first,) if version == "1.0" else (second,) if version == "2.0" else ()

    def _signed(self, token: Token) -> None:
        header, settings = token.header, self.settings
        if any(name in header for name in _HEADERS_REFUSED):
            raise _refused("its header names a key or an extension")
        if header.get("typ", "JWT") not in ("JWT", "at+jwt", "application/at+jwt"):
            raise _refused("it is no access token")
        algorithm = header.get("alg")
        if algorithm not in settings.algorithms:
            raise _refused("its algorithm is not accepted")
        key = self.keys.find(token.key_id)
        if key is None or key.algorithm != algorithm:
            raise _refused("the issuer has no such key")
        if self._entra and key.issuer is not None:
            tenant = str(token.claims.get("tid"))
            if key.issuer.replace("{tenantid}", tenant) != f"{self._base}/{tenant}/v2.0":
                raise _refused("its key is of another tenant")
        try:
            PyJWS().decode_complete(token.text, key.key, algorithms=[algorithm])
        except (PyJWTError, ValueError, TypeError):
            raise _refused("its signature is wrong") from None

    def _current(self, claims: Mapping[str, Any]) -> int:
        """When it ends, leeway included, microseconds."""
        now_us = self._clock()
        ends_us = _seconds(claims, "exp") * _SECOND_US + self._leeway_us
        if ends_us <= now_us:
            raise _refused("it has expired")
        for name in ("nbf", "iat"):
            if name in claims and _seconds(claims, name) * _SECOND_US - self._leeway_us > now_us:
                raise _refused("it is not valid yet")
        return ends_us

    def _principal(self, token: Token, ends_us: int) -> Principal:
        claims = token.claims
        held = _words(claims, "scope") | _words(claims, "scp")
        if token.header.get("typ", "JWT") == "JWT" and not held:
            raise _refused("it is no access token")  # an id_token has neither the type nor a scope
        subject = _text(claims, "sub")
        client = claims.get("client_id", claims.get("azp"))
        service = client is not None and client == subject
        self._client(client)
        if service:
            if self.settings.required_roles and not _words(claims, "roles") & {*self.settings.required_roles}:
                raise _refused("it lacks the role")
        elif self.settings.required_scopes and not held & {*self.settings.required_scopes}:
            raise _refused("it lacks the scope")
        return self._made(f"{self.settings.known_as}/{subject}", claims, ends_us, service=service)

    def _entra_principal(self, claims: Mapping[str, Any], ends_us: int) -> Principal:
        tenant, subject = _text(claims, "tid"), _text(claims, "oid")
        if not _GUID.fullmatch(subject):
            raise _refused("its oid is none")
        self._client(claims.get("azp" if claims["ver"] == "2.0" else "appid"))
        service = claims.get("idtyp") == "app" or ("scp" not in claims and claims.get("sub") == subject)
        held = _words(claims, "roles" if service else "scp")
        wanted = self.settings.required_roles if service else self.settings.required_scopes
        if not held or (wanted and not held & {*wanted}):  # without a scope it may be an id_token
            raise _refused("it lacks the role" if service else "it lacks the scope")
        return self._made(f"{tenant}/{subject}", claims, ends_us, service=service)

    def _client(self, client: Any) -> None:
        if (self.settings.clients or self._entra) and not isinstance(client, str):
            raise _refused("it does not say which application it is for")
        if self.settings.clients and client not in self.settings.clients:
            raise _refused("its application is not accepted")

    def _made(self, name: str, claims: Mapping[str, Any], ends_us: int, *, service: bool) -> Principal:
        settings = self.settings
        elsewhere = claims.get("_claim_names")
        if claims.get("hasgroups") or (isinstance(elsewhere, Mapping) and settings.groups_claim in elsewhere):
            raise _refused("it has too many groups to list them; let the issuer send application roles")
        groups = {settings.groups[value] for value in _words(claims, settings.groups_claim) if value in settings.groups}
        facts = {key: claims.get(claim) for key, claim in settings.attributes.items()}
        attributes = {key: str(value) for key, value in facts.items() if isinstance(value, str | int) and value != ""}
        return Principal(
            name, "service" if service else "user", frozenset(groups), MappingProxyType(attributes),
            tuple(settings.scopes), f"oidc:{settings.known_as}", ends_us,
        )  # fmt: skip


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def taken_apart(text: str) -> Token:
    """Header and claims of a token as they are written. Raises AccessError when it is none."""
    if len(text) > TOKEN_MAX:
        raise _refused("it is too long")
    parts = text.split(".")
    if len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise _refused("it cannot be read")
    return Token(text, _object(parts[0]), _object(parts[1]))


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(base64url_decode(part).decode(), object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _refused("it cannot be read") from None
    if not isinstance(found, dict):
        raise _refused("it cannot be read")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of a claim that stands twice may see different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(text)


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < _SECONDS_MAX:
        raise _refused(f"its {name} is none")
    return found


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name)
    if not isinstance(found, str) or not _TEXT.fullmatch(found):
        raise _refused(f"its {name} is none")
    return found


def _words(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """Values of a claim that is a list of texts, or one text with blanks between."""
    found = claims.get(name)
    if isinstance(found, str):
        return frozenset(found.split())
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()


def _refused(why: str) -> AccessError:
    return AccessError(f"the token is not accepted: {why}")
