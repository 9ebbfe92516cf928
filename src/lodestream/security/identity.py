"""From a credential to a principal: keys, the token for development, and what they prove over SCRAM."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.security import scram
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.security.networks import Address, AddressError, is_in, networks

Directory: TypeAlias = Callable[[str], Principal | None]
"""Finds a local user or service account by name; None when there is none of that name."""

DEVELOPER = "dev"
"""Name of whoever holds the token for development."""
_WITHOUT_ACCOUNT = ("ingest", "metrics")
"""Families of scopes that a key may have whose name is no user or service account."""
_NOBODY = scram.Verifier(bytes(32), bytes(32))


@dataclass
class Identity:
    """Knows every kind of credential; the same for every door.

    Args:
        keys: known keys.
        clock: microseconds since 1970 UTC.
        token: accepted in place of any key, for development; None when keys are needed.
        directory: local users and service accounts; without, every name stands for an account without groups.
    """

    keys: KeyStore
    clock: Callable[[], int]
    token: str | None = None
    directory: Directory | None = None

    def __post_init__(self) -> None:
        self._token_verifier: tuple[bytes, scram.Verifier] | None = None

    def by_text(self, text: str, address: Address | None) -> Principal:
        """Whoever holds a key or the token for development.

        Args:
            text: of the key.
            address: where they come from.

        Raises:
            AccessError: the key is unknown, has ended, or may not be used from there.
        """
        if self.token is not None and secrets.compare_digest(text.encode(), self.token.encode()):
            return self._developer(self.token)
        return self._of_key(self.keys.authenticate(text, self.clock()), address)

    def exchange(self, username: str | None, address: Address | None, binding: bytes | None = None) -> Exchange:
        """Begin SCRAM-SHA-256 with a client.

        Args:
            username: as the protocol gave it; None takes the one in the client's first message.
            address: where they come from.
            binding: `scram.end_point` of the server's certificate when SCRAM-SHA-256-PLUS was offered.
        """
        return Exchange(self, username, address, binding)

    def current(self, principal: Principal) -> Principal | None:
        """A principal as their credential makes them now, groups and all; None when it does not let them in any more.

        Cheap: streams ask it every second or so. The address is not looked at again.
        """
        if principal.expires_us is not None and principal.expires_us <= self.clock():
            return None
        kind, _, identity = principal.via.partition(":")
        if kind == "token":
            return principal if self.token is not None else None
        key = self.keys.key(identity) if kind == "key" else None
        if key is None or key.state(self.clock()) != "active":
            return None
        try:
            return self._of_key(key, None, anywhere=True)
        except AccessError:
            return None

    def still_valid(self, principal: Principal) -> bool:
        """Whether a principal's credential would let them in again now."""
        return self.current(principal) is not None

    def key_of(self, principal: Principal) -> ApiKey | None:
        """The key that a principal came with; None when it was something else."""
        kind, _, identity = principal.via.partition(":")
        return self.keys.key(identity) if kind == "key" else None

    def salt(self, name: str) -> bytes:
        """The SCRAM salt of any name."""
        return self.keys.salt(name)

    def candidates(self, name: str) -> list[tuple[scram.Verifier, ApiKey | str | None]]:
        """What a proof of a name may fit: keys, the token, and what fits nothing, so that each name has as many."""
        now = self.clock()
        by_name: dict[str, list[tuple[scram.Verifier, ApiKey | str | None]]] = {}
        for key in self.keys.listed():
            if key.stored_key and key.state(now) == "active":
                kept = scram.Verifier(bytes.fromhex(key.stored_key), bytes.fromhex(key.server_key))
                by_name.setdefault(key.name, []).append((kept, key))
        if self.token is not None:
            by_name.setdefault(DEVELOPER, []).append((self._verifier_of(self.token), self.token))
        found = by_name.get(name, [])
        wanted = max([len(one) for one in by_name.values()], default=1)
        return found + [(_NOBODY, None)] * (wanted - len(found))

    def admitted(self, found: ApiKey | str | None, address: Address | None) -> Principal:
        """The principal of what a proof fitted. Raises AccessError when it may not be used from that address."""
        if isinstance(found, ApiKey):
            return self._of_key(found, address)
        if found is None:
            raise AccessError("no such key")
        return self._developer(found)

    def _verifier_of(self, token: str) -> scram.Verifier:
        salted = self.salt(DEVELOPER)
        if self._token_verifier is None or self._token_verifier[0] != salted:
            self._token_verifier = salted, scram.verifier(token, salted)
        return self._token_verifier[1]

    def _developer(self, _token: str) -> Principal:
        return Principal(DEVELOPER, "owner", via="token")

    def _of_key(self, key: ApiKey, address: Address | None, *, anywhere: bool = False) -> Principal:
        if key.networks and not anywhere and not is_in(address, networks(key.networks)):
            raise AddressError("this key may not be used from this address", key=key.id)
        account, scopes = Principal(key.name, "service"), key.scopes
        if self.directory is not None:
            known = self.directory(key.name)
            if known is None:
                scopes = _harmless(scopes)
                if not scopes:
                    raise AccessError("whose key this is has no account any more", key=key.id)
            account = known or account
        return replace(
            account, name=key.name, kind="user" if account.kind == "user" else "service",
            scopes=scopes, via=f"key:{key.id}", expires_us=key.expires_us,
        )  # fmt: skip


class Exchange:
    """SCRAM with one client: `first`, then `final`, which gives the principal."""

    def __init__(
        self, identity: Identity, username: str | None, address: Address | None, binding: bytes | None
    ) -> None:
        self._identity, self._address = identity, address
        self._candidates: Sequence[tuple[scram.Verifier, ApiKey | str | None]] = ()
        self._scram = scram.ScramServer(username, identity.salt, self._find, binding=binding)

    def first(self, message: bytes, *, plus: bool = False) -> bytes:
        """The server's first message. Raises AccessError for one that cannot be read."""
        return self._scram.first(message, plus=plus)

    def final(self, message: bytes) -> tuple[Principal, bytes]:
        """The principal, and the server's final message. Raises AccessError when the proof fits no key."""
        at, told = self._scram.final(message)
        return self._identity.admitted(self._candidates[at][1], self._address), told

    def _find(self, name: str) -> list[scram.Verifier]:
        self._candidates = self._identity.candidates(name)
        return [one for one, _ in self._candidates]


def _harmless(scopes: Sequence[str]) -> tuple[str, ...]:
    return tuple(scope for scope in scopes if scope.partition(":")[0] in _WITHOUT_ACCOUNT)
