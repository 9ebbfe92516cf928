"""Whether a server may let somebody in with a token for development, and what it says when nobody can come in."""

from __future__ import annotations

import secrets

from lodestream.errors import ConfigError
from lodestream.project.serving import ServingSettings
from lodestream.security.keys import KeyStore
from lodestream.security.networks import is_local

FIRST_KEY = "lodestream keys create NAME"
"""What makes the first key."""
_ENVIRONMENTS = (None, "dev")


def development_token(settings: ServingSettings, keys: KeyStore, environment: str | None) -> str | None:
    """A token that stands for the owner: on this machine, in development, while there is no other way in.

    Args:
        settings: where the server listens and who may sign in.
        keys: known keys.
        environment: the one that was chosen; `dev` and none are development.

    Returns:
        The token, or None when people come with keys, access tokens and certificates.

    Raises:
        ConfigError: keys would cross the network in the clear, or other machines could come in without one.
    """
    local = is_local(settings.host)
    if not local and settings.tls is None and not settings.trusted_proxies:
        fix = "add server.tls, or server.trusted_proxies where a proxy does TLS"
        if not _others(settings, keys) and environment in _ENVIRONMENTS:
            raise _without_key(settings)
        raise ConfigError(f"keys would cross the network in the clear; {fix}", host=settings.host)
    if _others(settings, keys) or environment not in _ENVIRONMENTS:
        return None
    if not local:
        raise _without_key(settings)
    return f"dev_{secrets.token_urlsafe(24)}"


def nobody_can_enter(settings: ServingSettings, keys: KeyStore) -> bool:
    """Whether there is neither a key nor an issuer nor a certificate that would let anybody in."""
    return not _others(settings, keys)


def _others(settings: ServingSettings, keys: KeyStore) -> bool:
    identity = settings.identity
    return bool(keys.listed() or identity.oidc or identity.certificates.principals)


def _without_key(settings: ServingSettings) -> ConfigError:
    return ConfigError(
        f"without a key only this machine may connect; make one: {FIRST_KEY}", host=settings.host
    )  # fmt: skip
