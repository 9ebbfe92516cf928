"""From a credential to a principal: keys, access tokens, certificates, sessions, the token for development."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from lodestream.errors import AccessError, MissingDriverError
from lodestream.model.access import Principal
from lodestream.project.identity import IdentitySettings
from lodestream.project.values import parse_duration
from lodestream.security import scram
from lodestream.security.key_use import KeyUse, use_path
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.security.networks import Address, AddressError, is_in, networks
from lodestream.security.sessions import Session, Sessions

if TYPE_CHECKING:
    from lodestream.security.certificates import Certificates
    from lodestream.security.oidc import Oidc

Directory: TypeAlias = Callable[[str], Principal | None]
"""Finds a local user or service account by name; None when there is none of that name."""

DEVELOPER = "dev"
"""Name of whoever holds the token for development."""
_WITHOUT_ACCOUNT = ("ingest", "metrics")
"""Families of scopes that a key may have whose name is no user or service account."""
_PROVED_MAX = 4096
_DOTS_OF_A_TOKEN = 2
"""No key has a dot."""
_NOBODY = scram.Verifier(bytes(32), bytes(32))


@dataclass
class Identity:
    """Knows every kind of credential; the same for every door.

    Args:
        keys: known keys.
        clock: microseconds since 1970 UTC.
        token: accepted in place of any key, for development; None when keys are needed.
        directory: local users and service accounts; without, every name stands for an account without groups.
        oidc: issuers of access tokens; None when there are none.
        certificates: knows whose certificates are whose; None when none lets anybody in.
        sessions: of the console; None where there is none.
        use: remembers when keys were used.
    """

    keys: KeyStore
    clock: Callable[[], int]
    token: str | None = None
    directory: Directory | None = None
    oidc: Oidc | None = None
    certificates: Certificates | None = None
    sessions: Sessions | None = None
    use: KeyUse | None = None

    def __post_init__(self) -> None:
        self._token_verifier: tuple[bytes, scram.Verifier] | None = None
        self._of_keys: dict[str, tuple[ApiKey, Principal | None, Principal]] = {}
        self._proved: dict[tuple[str, str, int | None], Principal] = {}

    def by_text(self, text: str, address: Address | None) -> Principal:
        """Whoever holds a key, an access token or the token for development.

        Args:
            text: as it was sent.
            address: where they come from.

        Raises:
            AccessError: it is unknown, has ended, or may not be used from there.
        """
        if not text.isascii():
            raise AccessError("no such key")
        if self.token is not None and secrets.compare_digest(text.encode(), self.token.encode()):
            return self._developer(self.token)
        if self.oidc is not None and text.count(".") == _DOTS_OF_A_TOKEN:
            proved = self.oidc.verify(text)
            found = self._with_local(proved)
            if len(self._proved) >= _PROVED_MAX:
                self._proved.clear()
            self._proved[_holder(proved)] = proved
            return found
        key = self.keys.authenticate(text, self.clock())
        found = self._of_key(key, address)
        self._used(key)
        return found

    def must_ask(self, text: str) -> bool:
        """Whether `ask` has to be called before `by_text`, or a token's key may not be known yet."""
        looks_so = text.isascii() and text.count(".") == _DOTS_OF_A_TOKEN
        return self.oidc is not None and looks_so and self.oidc.wants(text)

    def ask(self, text: str) -> None:
        """Ask the issuer of a token for its keys; takes seconds at worst, so not on the thread that serves."""
        if self.oidc is not None:
            self.oidc.ask(text)

    def by_certificate(self, der: bytes) -> Principal | None:
        """Whoever holds a client certificate that the connection was made with; None when it names nobody.

        Raises:
            AccessError: it has expired, is revoked, is no client's, names several, or somebody without an account.
        """
        found = self.certificates.principal(der) if self.certificates is not None else None
        return None if found is None else self._with_account(found)

    def by_forwarded_certificate(self, text: str) -> Principal | None:
        """The same for a certificate that a trusted proxy hands on in a header."""
        found = self.certificates.forwarded(text) if self.certificates is not None else None
        return None if found is None else self._with_account(found)

    def by_session(self, cookie: str, address: Address | None = None, *, used: bool = True) -> Principal | None:
        """Whoever has a session of the console, as they are now; None when it has ended, or their credential has.

        Args:
            cookie: as it was sent.
            address: where they come from.
            used: whether somebody asks something, so that the session is not idle.

        Raises:
            AddressError: the key that began it may not be used from there.
        """
        session = self.sessions.find(cookie, used=used) if self.sessions is not None else None
        try:
            found = None if session is None else self._of_session(session)
        except AccessError:
            return None
        key = None if found is None else self.key_of(found)
        if key is not None:
            _check_address(key, address)
        return found

    def begin_session(self, principal: Principal) -> str:
        """Begin a session of the console. Returns its cookie. Raises AccessError when the credential cannot ask."""
        if self.sessions is None or not (principal.may("query:*") or principal.may("admin:*")):
            raise AccessError("this credential cannot sign in; it has neither the scope query:* nor admin:*")
        return self.sessions.begin(self._proved.get(_holder(principal), principal))

    def exchange(self, username: str | None, address: Address | None, binding: bytes | None = None) -> Exchange:
        """Begin SCRAM-SHA-256 with a client.

        Args:
            username: as the protocol gave it; None takes the one in the client's first message.
            address: where they come from.
            binding: `scram.end_point` of the server's certificate when SCRAM-SHA-256-PLUS was offered.
        """
        return Exchange(self, username, address, binding)

    def end_session(self, cookie: str) -> None:
        """End a session; there need not be one."""
        if self.sessions is not None:
            self.sessions.end_by_cookie(cookie)

    def current(self, principal: Principal) -> Principal | None:
        """A principal as their credential makes them now, groups and all; None when it does not let them in any more.

        Cheap: streams ask it every second or so. The address is not looked at again.
        """
        if principal.expires_us is not None and principal.expires_us <= self.clock():
            return None
        kind, _, identity = principal.via.partition(":")
        try:
            if kind == "session" and self.sessions is not None:
                session = self.sessions.by_id(identity.partition("/")[0])
                return None if session is None else self._of_session(session)
            if kind == "token":
                return principal if self.token is not None and identity == _mark(self.token) else None
            if kind == "oidc":
                proved = self._proved.get(_holder(principal))
                return None if proved is None else self._with_local(proved)
            if kind == "certificate":
                good = self.certificates is not None and self.certificates.still_good(identity)
                return self._with_account(principal) if good else None
            key = self.keys.key(identity) if kind == "key" else None
            active = key is not None and key.state(self.clock()) == "active"
            return self._of_key(key, None, anywhere=True) if key is not None and active else None
        except AccessError:
            return None

    def still_valid(self, principal: Principal) -> bool:
        """Whether a principal's credential would let them in again now."""
        return self.current(principal) is not None

    def key_of(self, principal: Principal) -> ApiKey | None:
        """The key that a principal came with; None when it was something else."""
        kind, _, identity = principal.via.rpartition("/")[2].partition(":")
        return self.keys.key(identity) if kind == "key" else None

    def close(self) -> None:
        """Write down what is remembered, close files."""
        if self.use is not None:
            self.use.save()
        if self.sessions is not None:
            self.sessions.close()

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
            principal = self._of_key(found, address)
            self._used(found)
            return principal
        if found is None:
            raise AccessError("no such key")
        return self._developer(found)

    def _verifier_of(self, token: str) -> scram.Verifier:
        salted = self.salt(DEVELOPER)
        if self._token_verifier is None or self._token_verifier[0] != salted:
            self._token_verifier = salted, scram.verifier(token, salted)
        return self._token_verifier[1]

    def _used(self, key: ApiKey) -> None:
        if self.use is not None:
            self.use.note(key.id)

    def _developer(self, token: str) -> Principal:
        return Principal(DEVELOPER, "owner", via=f"token:{_mark(token)}")

    def _of_session(self, session: Session) -> Principal | None:
        """The principal of a session: what they signed in with must still let them in, and says what they may."""
        proved = session.principal
        kind, _, issuer = proved.via.partition(":")
        if kind == "oidc":  # another process may have seen the token
            found = self._with_local(proved) if self.oidc is not None and self.oidc.knows(issuer) else None
        else:
            found = self.current(proved)
        if found is None:
            return None
        ends_us = min(session.ends_us, found.expires_us or session.ends_us)
        return replace(found, via=f"session:{session.id}/{session.principal.via}", expires_us=ends_us)

    def _with_local(self, proved: Principal) -> Principal:
        """Who came with an access token, with the groups and attributes that are declared here for their name.

        Raises:
            AccessError: they are disabled here.
        """
        known = self.directory(proved.name) if self.directory is not None else None
        if known is None:
            return proved
        attributes = MappingProxyType({**proved.attributes, **known.attributes})
        return replace(proved, groups=proved.groups | known.groups, attributes=attributes)

    def _with_account(self, proved: Principal) -> Principal:
        """The account of whoever a certificate names; it may ask and change, within its grants."""
        account = self.directory(proved.name) if self.directory is not None else proved
        if account is None:
            raise AccessError("whose certificate this is has no account", name=proved.name)
        return replace(
            account, name=proved.name, kind="user" if account.kind == "user" else "service",
            scopes=proved.scopes, via=proved.via, expires_us=proved.expires_us,
        )  # fmt: skip

    def _of_key(self, key: ApiKey, address: Address | None, *, anywhere: bool = False) -> Principal:
        if not anywhere:
            _check_address(key, address)
        known = None if self.directory is None else self.directory(key.name)
        kept = self._of_keys.get(key.id)
        if kept is None or kept[0] is not key or kept[1] is not known:
            if len(self._of_keys) >= _PROVED_MAX:
                self._of_keys.clear()
            kept = self._of_keys[key.id] = key, known, self._of_account(key, known)
        return kept[2]

    def _of_account(self, key: ApiKey, known: Principal | None) -> Principal:
        scopes = key.scopes
        if known is None and self.directory is not None:
            scopes = _harmless(scopes)
            if not scopes:
                raise AccessError("whose key this is has no account any more", key=key.id)
        account = known or Principal(key.name, "service")
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


def _holder(principal: Principal) -> tuple[str, str, int | None]:
    return principal.name, principal.via, principal.expires_us


def _mark(token: str) -> str:
    """Tells tokens apart without telling them."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def _check_address(key: ApiKey, address: Address | None) -> None:
    if key.networks and not is_in(address, networks(key.networks)):
        raise AddressError("this key may not be used from this address", key=key.id)


def needs_account(scopes: Sequence[str]) -> bool:
    """Whether a key with these scopes must be a user's or service account's."""
    return len(_harmless(scopes)) < len(scopes)


def _harmless(scopes: Sequence[str]) -> tuple[str, ...]:
    return tuple(scope for scope in scopes if scope.partition(":")[0] in _WITHOUT_ACCOUNT)


def open_identity(
    settings: IdentitySettings, keys_path: str, root: str, clock: Callable[[], int], *, token: str | None = None,
    directory: Directory | None = None,
) -> Identity:  # fmt: skip
    """The credentials of one lake.

    Args:
        settings: issuers, certificates, sessions.
        keys_path: the file of keys; sessions and last uses are beside it.
        root: project folder, which files of the settings are relative to.
        clock: microseconds since 1970 UTC.
        token: for development.
        directory: local users and service accounts.

    Raises:
        ConfigError: a file of certificates cannot be read.
        MissingDriverError: access tokens or certificates need a package.
    """
    folder = os.path.dirname(keys_path)
    sessions = Sessions(
        os.path.join(folder, "sessions.db"), clock,
        parse_duration(settings.sessions.idle), parse_duration(settings.sessions.lasting),
    )  # fmt: skip
    found = Identity(
        KeyStore(keys_path), clock, token, directory, sessions=sessions,
        use=KeyUse(use_path(keys_path), clock),
    )  # fmt: skip
    try:
        if settings.oidc:
            from lodestream.security.oidc import Oidc

            found.oidc = Oidc(settings.oidc, clock)
        if settings.certificates.principals:
            from lodestream.security.certificates import Certificates

            found.certificates = Certificates(settings.certificates, root, clock)
    except ModuleNotFoundError as error:
        fix = "access tokens and certificates need packages: pip install 'lodestream[http]'"
        raise MissingDriverError(fix, missing=error.name) from error
    return found
