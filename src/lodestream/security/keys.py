"""API keys: made, shown once, kept as digests, checked in constant time, revoked at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from lodestream.errors import AccessError, ConfigError
from lodestream.security import scram

_SCOPE = re.compile(r"ingest:(\*|[a-z][a-z0-9_.]*)|query:\*|admin:\*|metrics:(\*|read)")
_SCOPES = "query:*, admin:*, metrics:read, ingest:STREAM or ingest:*"
DEFAULT_SCOPES = ("query:*",)
"""What a key may do when nothing else is said: ask, through any door, for what its principal is granted."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        id: names it in lists and logs.
        name: the principal whose it is; keys of one name follow each other at a rotation and share limits.
        digest: SHA-256 of the secret, hexadecimal; the secret has 256 random bits, so no slower digest is needed.
        scopes: what it may do at most, such as `query:*`, `ingest:orders` or `admin:*`.
        created_us: microseconds since 1970 UTC.
        expires_us: from then on it is refused; None for never.
        revoked_us: when it was revoked.
        networks: addresses it may come from; empty for any.
        requests_per_s: its own bound in place of the server's.
        bytes_per_s: likewise.
        records_per_day: likewise.
        stored_key: for SCRAM-SHA-256, hexadecimal; empty for a key that was made before there was any.
        server_key: likewise.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None
    networks: tuple[str, ...] = ()
    requests_per_s: float | None = None
    bytes_per_s: float | None = None
    records_per_day: int | None = None
    stored_key: str = ""
    server_key: str = ""

    def allows(self, scope: str) -> bool:
        """Whether it has a scope, itself or by `*`."""
        return scope in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes

    def state(self, now_us: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_us is not None and self.revoked_us <= now_us:
            return "revoked"
        return "expired" if self.expires_us is not None and self.expires_us <= now_us else "active"


class KeyStore:
    """The keys of one lake, in a file that only its owner can read.

    Args:
        path: the file; there is none before the first key.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}
        self._secret = secrets.token_bytes(32)  # until there is one in the file

    def key(self, identity: str) -> ApiKey | None:
        """The key of an id as it stands now."""
        self._refresh()
        return self._keys.get(identity)

    def salt(self, name: str) -> bytes:
        """The SCRAM salt of a name, whether or not it has keys."""
        self._refresh()
        return scram.salt(self._secret, name)

    def listed(self) -> list[ApiKey]:
        """All keys, oldest first; what another process changed is seen at once."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda key: key.created_us)

    def create(self, environment: str, key: ApiKey) -> tuple[str, ApiKey]:
        """Keep a new key; its id and digest are made here.

        Args:
            environment: becomes part of the text, so that a key of one environment is recognised in another.
            key: what it may do; `id`, `digest`, `stored_key` and `server_key` are not looked at.

        Returns:
            The text of the key, which is not kept, and the key.

        Raises:
            ConfigError: a scope or name cannot be read.
        """
        for scope in key.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ConfigError(f"not a scope; write {_SCOPES}", scope=scope)
        if not key.scopes:
            raise ConfigError("a key needs a scope, such as query:* or ingest:orders")
        if not _NAME.fullmatch(key.name):
            raise ConfigError("a key's name has letters, digits, blanks and . _ @ -", name=key.name)
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        place = re.sub(r"[^a-z0-9]", "", environment.lower()) or "default"
        text = f"ls_{place}_{identity}_{secret}"
        with self._changing() as known:
            proof = scram.verifier(text, scram.salt(self._secret, key.name))
            made = replace(
                key, id=identity, digest=digest(secret),
                stored_key=proof.stored_key.hex(), server_key=proof.server_key.hex(),
            )  # fmt: skip
            known[identity] = made
        return text, made

    def change(self, identity: str, *, revoked_us: int | None = None, expires_us: int | None = None) -> ApiKey:
        """Revoke a key, or let it expire sooner. Raises ConfigError when there is none of that id."""
        with self._changing() as known:
            key = known.get(identity)
            if key is None:
                raise ConfigError("no such key; `lodestream keys list` shows them", key=identity)
            if revoked_us is not None:
                key = replace(key, revoked_us=revoked_us)
            if expires_us is not None:
                key = replace(key, expires_us=min(expires_us, key.expires_us or expires_us))
            known[identity] = key
        return key

    def authenticate(self, text: str, now_us: int) -> ApiKey:
        """The key that a text is of. Raises AccessError for one that is unknown, expired or revoked."""
        self._refresh()
        mark, _, rest = text.partition("_")
        identity, secret = ([*rest.split("_", 2), "", ""])[1:3]
        key = self._keys.get(identity) if mark == "ls" else None
        known = hmac.compare_digest(key.digest if key else _NOBODY, digest(secret))
        if key is None or not known:
            raise AccessError("no such key")
        state = key.state(now_us)
        if state != "active":
            raise AccessError(f"the key is {state}; ask for a new one", key=key.id)
        return key

    def _refresh(self) -> None:
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            self._keys, self._seen = self._read(), seen

    def _read(self) -> dict[str, ApiKey]:
        try:
            with open(self._path, encoding="utf-8") as file:
                read = json.load(file)
            found, secret = read["keys"], bytes.fromhex(read.get("secret", ""))
            lists = ("scopes", "networks")
            keys = [ApiKey(**(one | {name: tuple(one[name]) for name in lists})) for one in found]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError("the file of keys cannot be read; put it back from a backup", file=self._path) from error
        if secret:
            self._secret = secret
        return {key.id: key for key in keys}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, ApiKey]]:
        """The keys, to be changed by nobody else meanwhile; written durably at the end."""
        folder = os.path.dirname(self._path)
        os.makedirs(folder, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._read()
            yield known
            text = {"secret": self._secret.hex(), "keys": [asdict(key) for key in known.values()]}
            _replace(self._path, json.dumps(text, indent=1))
        finally:
            os.close(lock)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def scopes_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Scopes as written on a command line, `ingest:a,ingest:b` or one by one."""
    return tuple(dict.fromkeys(scope.strip() for text in texts for scope in text.split(",") if scope.strip()))


def _replace(path: str, text: str) -> None:
    made = f"{path}.{secrets.token_hex(4)}"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
    except OSError:
        os.unlink(made)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
