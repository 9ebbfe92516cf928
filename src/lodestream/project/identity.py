"""What `server: {identity: …}` in lodestream.yaml may say about those who sign in without a key of this lake."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from lodestream.ports.settings import Settings
from lodestream.project.values import parse_duration

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LEEWAY_MAX_US = 60_000_000
_CERTIFICATE_NAME = re.compile(r"(dns|email|uri|subject):.+")


Scope = Literal["query:*", "admin:*", "ingest:*", "metrics:read"]


class OidcSettings(Settings):
    """One issuer of access tokens (OpenID Connect)."""

    issuer: str
    """Its URL, as the `iss` claim has it; its keys are found below it. `https`, but on this machine."""
    audience: str | tuple[str, ...] = Field(min_length=1)
    """What the `aud` claim must name: this server as the issuer knows it. Several mean any of them."""
    name: str | None = None
    """What names of its principals begin with, `<name>/<sub>`; without, the issuer's host."""
    profile: Literal["standard", "entra"] = "standard"
    """`entra` is Microsoft Entra ID: tokens of version 1.0 and 2.0, principals named `<tenant>/<object id>`."""
    tenants: tuple[str, ...] = ()
    """Ids of the Entra tenants whose tokens are accepted; without, the one in `issuer`."""
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(default=("RS256", "ES256"), min_length=1)
    """Signatures that are accepted."""
    clients: tuple[str, ...] = ()
    """Applications that may have got the token (`azp`, `appid` or `client_id`); without, any."""
    required_scopes: tuple[str, ...] = ()
    """A token of a person must have one of these in `scp` or `scope`; without, any will do."""
    required_roles: tuple[str, ...] = ()
    """A token of an application itself must have one of these in `roles`; without, any will do with `entra`."""
    groups_claim: str = "groups"
    """The claim that has groups or roles."""
    groups: dict[str, str] = Field(default_factory=dict)
    """Groups as grants and policies call them, by value of that claim; values that are not here count for nothing."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """Claims that become attributes of the principal, by attribute: `region: extension_region`."""
    scopes: tuple[Scope, ...] = ("query:*", "admin:*")
    """What its tokens may do at most; within it, grants decide."""
    leeway: str = "60 seconds"
    """How far clocks may differ, at most a minute."""
    keys_kept: str = "24 hours"
    """How long its keys are believed while it does not answer."""

    @field_validator("issuer")
    @classmethod
    def _url(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ValueError("an issuer is an https URL")
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError("an issuer is a URL without query, fragment and user")
        return text

    @field_validator("name")
    @classmethod
    def _named(cls, text: str | None) -> str | None:
        if text is not None and (not _NAME.fullmatch(text) or _GUID.fullmatch(text.lower())):
            raise ValueError("a name of an issuer has letters, digits and . _ -, and is no tenant's id")
        return text

    @field_validator("tenants")
    @classmethod
    def _tenants(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not _GUID.fullmatch(text) for text in texts):
            raise ValueError("a tenant is its id, such as 8eaef023-2b34-4da1-9baa-8bc8c9d6a490")
        return texts

    @field_validator("leeway", "keys_kept")
    @classmethod
    def _duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @field_validator("leeway")
    @classmethod
    def _short(cls, text: str) -> str:
        if parse_duration(text) > _LEEWAY_MAX_US:
            raise ValueError("clocks may differ by a minute at most")
        return text

    @model_validator(mode="after")
    def _whose(self) -> OidcSettings:
        if self.profile == "entra" and not self.accepted_tenants:
            raise ValueError(
                "tokens of any tenant would be accepted; list tenants: by their ids, or write the tenant's id in issuer"
            )
        if self.profile != "entra" and self.tenants:
            raise ValueError("tenants need profile: entra")
        return self

    @property
    def accepted_tenants(self) -> tuple[str, ...]:
        """Ids of tenants that are accepted: those listed, or the one in the issuer's URL."""
        if self.tenants:
            return self.tenants
        tenant = urlsplit(self.issuer).path.strip("/").partition("/")[0].lower()
        return (tenant,) if _GUID.fullmatch(tenant) else ()

    @property
    def known_as(self) -> str:
        """What names of principals begin with, unless their tenant takes its place."""
        return self.name or str(urlsplit(self.issuer).hostname)

    @property
    def audiences(self) -> tuple[str, ...]:
        """What `aud` may name."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience


class CertificateSettings(Settings):
    """Clients that prove who they are with a certificate."""

    principals: dict[str, str] = Field(default_factory=dict)
    """Users and service accounts by name in the certificate: `dns:`, `email:` or `uri:` and a subject alternative
    name, or `subject:` and the whole subject as RFC 4514 writes it. A certificate that names none lets nobody in."""
    scopes: tuple[Scope, ...] = ("query:*", "admin:*")
    """What their holders may do at most; within it, grants decide."""
    header: str | None = None
    """Header in which a trusted proxy hands the client's certificate on, as RFC 9440 has it or as escaped PEM."""
    crl: str | None = None
    """PEM file of revoked certificates, read anew when it changes; of no use once it is out of date."""
    ca: str | None = None
    """PEM file of the authorities; with it, what comes in the header is checked once more."""

    @field_validator("principals")
    @classmethod
    def _names(cls, found: dict[str, str]) -> dict[str, str]:
        for name in found:
            if not _CERTIFICATE_NAME.fullmatch(name):
                raise ValueError("a name in a certificate begins with dns:, email:, uri: or subject:")
        return found


class SessionSettings(Settings):
    """Sessions of the console."""

    idle: str = "8 hours"
    """A session ends when nothing was asked for so long."""
    lasting: str = "24 hours"
    """And in any case after so long."""

    @field_validator("idle", "lasting")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) <= 0:
            raise ValueError("a duration of nothing")
        return text


class IdentitySettings(Settings):
    """Who may sign in, besides holders of a key."""

    oidc: tuple[OidcSettings, ...] = ()
    """A list of issuers whose access tokens are accepted as bearer tokens."""
    certificates: CertificateSettings = CertificateSettings()
    """Client certificates."""
    sessions: SessionSettings = SessionSettings()
    """Sessions of the console."""

    @field_validator("oidc")
    @classmethod
    def _distinct(cls, found: tuple[OidcSettings, ...]) -> tuple[OidcSettings, ...]:
        for what in ([one.issuer for one in found], [one.known_as for one in found]):
            if len(set(what)) < len(what):
                raise ValueError("two issuers are the same, or have the same name; give each a name:")
        return found
