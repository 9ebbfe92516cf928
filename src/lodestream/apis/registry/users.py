"""Who may use the registry: names and scrypt hashes in a file, checked for HTTP basic authentication."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import threading

from lodestream.errors import ConfigError

_N, _R, _P, _BYTES = 1 << 14, 8, 1, 32
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_KNOWN_MAX = 1000


def hashed(name: str, password: str, salt: bytes | None = None) -> str:
    """The line of a user in the file: name and scrypt hash. Raises ConfigError for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise ConfigError("user names are letters, digits and . _ @ -", user=name)
    if not password:
        raise ConfigError("password is empty", user=name)
    salt = salt or secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_BYTES)
    return f"{name}:scrypt${salt.hex()}${digest.hex()}"


def add_user(file: str, name: str, password: str) -> bool:
    """Put a user into the file, in the place of one of that name; whether there was one.

    Raises:
        ConfigError: the file cannot be read or written, or the name cannot be one.
    """
    line = hashed(name, password)
    lines = _lines(file) if os.path.exists(file) else []
    kept = [one for one in lines if one.partition(":")[0] != name]
    fresh = f"{file}.{secrets.token_hex(4)}"
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write("\n".join([*kept, line]) + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, file)
    except OSError as error:
        raise ConfigError("users file cannot be written", file=file, cause=error.strerror) from error
    return len(kept) < len(lines)


class Users:
    """The users of a file; read again when the file changes.

    Raises:
        ConfigError: the file cannot be read, or holds a line that is no user.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._users: dict[str, tuple[bytes, bytes]] = {}
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, str] = {}
        self._read()

    def name(self, authorization: str | None) -> str | None:
        """The user of an `Authorization` header, or None when it is not a user's."""
        given = _credentials(authorization)
        if given is None:
            return None
        name, password = given
        mark = hmac.digest(self._key, f"{name}:{password}".encode(), "sha256")
        with self._lock:
            self._read()
            if mark in self._known:
                return self._known[mark]
            salt, wanted = self._users.get(name, (b"0" * 16, b""))
        with self._hashing:  # one at a time: a hash takes 16 MB and some 30 ms on purpose
            found = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_BYTES)
        if not hmac.compare_digest(found, wanted):
            return None
        with self._lock:
            if self._users.get(name) != (salt, wanted):  # changed meanwhile
                return None
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[mark] = name
        return name

    def _read(self) -> None:
        try:
            stat = os.stat(self._file)
        except OSError as error:
            if self._seen is not None:  # who was known stays known while the file is being replaced
                return
            raise ConfigError("users file cannot be read", file=self._file, cause=error.strerror) from error
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen:
            return
        users = {}
        for number, line in enumerate(_lines(self._file), 1):
            name, _, told = line.partition(":")
            parts = told.split("$")
            try:
                scheme, salt, digest = parts
                users[name] = (bytes.fromhex(salt), bytes.fromhex(digest))
            except ValueError:
                scheme = ""
            if scheme != "scrypt" or not name:
                raise ConfigError(
                    "not a user; write it with `lodestream registry --add-user`", file=self._file, line=number
                )
        self._users, self._seen = users, seen
        self._known.clear()


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8") as lines:
            return [one.strip() for one in lines if one.strip() and not one.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("users file cannot be read", file=file, cause=str(error)) from error


def _credentials(authorization: str | None) -> tuple[str, str] | None:
    scheme, _, told = (authorization or "").partition(" ")
    if scheme.lower() != "basic" or len(told) > 1000:
        return None
    try:
        name, colon, password = base64.b64decode(told.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None
