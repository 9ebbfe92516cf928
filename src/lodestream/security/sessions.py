"""Sessions of the console: kept in one file that all server processes of a lake share; the cookie alone is no use to
whoever reads the file, for only its digest is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

from lodestream.errors import TransientError
from lodestream.model.access import Kind, Principal

_SEEN_EVERY_US = 60_000_000
"""A session's last use is written that often at most; idle sessions end that much late."""
_OF_ONE = 100
"""Sessions that one principal may have; the oldest make room."""
_MADE = """
create table if not exists session (
    id text primary key, name text not null, kind text not null, groups text not null, attributes text not null,
    scopes text, via text not null, expires_us integer, created_us integer not null, seen_us integer not null,
    ends_us integer not null
) strict
"""


@dataclass(frozen=True, slots=True)
class Session:
    """One session.

    Attributes:
        id: digest of the cookie; names the session in lists and logs.
        principal: whoever signed in, as they were then; `via` is what they signed in with.
        created_us: when that was, microseconds since 1970 UTC.
        seen_us: when something was asked last, to the minute.
        ends_us: when it ends in any case.
    """

    id: str
    principal: Principal
    created_us: int
    seen_us: int
    ends_us: int


class Sessions:
    """All sessions of one lake. Every method may be called from any thread.

    Args:
        path: the file; made when missing, readable by its owner only.
        clock: microseconds since 1970 UTC.
        idle_us: a session ends when nothing was asked for so long.
        lasting_us: and in any case after so long.
    """

    def __init__(self, path: str, clock: Callable[[], int], idle_us: int, lasting_us: int) -> None:
        self._path, self._clock, self._idle_us, self._lasting_us = path, clock, idle_us, lasting_us
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def begin(self, principal: Principal) -> str:
        """Begin a session. Returns the text of its cookie, which is not kept.

        Raises:
            TransientError: it cannot be written down, as when the disk is full.
        """
        cookie, now = secrets.token_urlsafe(32), self._clock()
        ends_us = min(now + self._lasting_us, principal.expires_us or now + self._lasting_us)
        row = (
            _digest(cookie), principal.name, principal.kind, json.dumps(sorted(principal.groups)),
            json.dumps(dict(principal.attributes)),
            None if principal.scopes is None else json.dumps(principal.scopes),
            principal.via, principal.expires_us, now, now, ends_us,
        )  # fmt: skip
        try:
            self._keep(principal.name, row, now)
        except sqlite3.Error as error:
            raise TransientError("no session can be begun now", reason=str(error)) from error
        return cookie

    def _keep(self, name: str, row: tuple[object, ...], now: int) -> None:
        with self._lock, self._database as database:
            database.execute("delete from session where ends_us <= ? or seen_us <= ?", (now, now - self._idle_us))
            database.execute(
                "delete from session where id in (select id from session where name = ? order by created_us desc "
                "limit -1 offset ?)", (name, _OF_ONE - 1),
            )  # fmt: skip
            database.execute("insert into session values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def find(self, cookie: str, *, used: bool = True) -> Session | None:
        """The session of a cookie, unless it has ended; `used` says that somebody asks something."""
        found = self.by_id(_digest(cookie))
        if found is not None and used and self._clock() - found.seen_us >= _SEEN_EVERY_US:
            now = self._clock()
            with self._lock, self._database as database:
                database.execute("update session set seen_us = ? where id = ? and seen_us < ?", (now, found.id, now))
            found = replace(found, seen_us=now)
        return found

    def by_id(self, identity: str) -> Session | None:
        """The session of an id, unless it has ended."""
        with self._lock:
            row = self._database.execute("select * from session where id = ?", (identity,)).fetchone()
        if row is None:
            return None
        _, name, kind, groups, attributes, scopes, via, expires_us, created_us, seen_us, ends_us = row
        now = self._clock()
        if ends_us <= now or seen_us + self._idle_us <= now:
            return None
        as_kind: Kind = kind
        principal = Principal(
            name, as_kind, frozenset(json.loads(groups)), MappingProxyType(json.loads(attributes)),
            None if scopes is None else tuple(json.loads(scopes)), via, expires_us,
        )  # fmt: skip
        return Session(identity, principal, created_us, seen_us, ends_us)

    def end(self, identity: str) -> None:
        """End a session; there need not be one."""
        with self._lock, self._database as database:
            database.execute("delete from session where id = ?", (identity,))

    def end_by_cookie(self, cookie: str) -> None:
        """End the session of a cookie; there need not be one."""
        self.end(_digest(cookie))

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with contextlib.suppress(FileExistsError):  # to open and close it would let go of SQLite's locks on it
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._open = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
            self._open.execute("pragma journal_mode = wal")
            self._open.execute("pragma synchronous = normal")  # a session lost with the power is signed in again
            self._open.execute(_MADE)
        return self._open


def csrf_token(cookie: str) -> str:
    """What a page must send along with a write: it follows from the cookie, which no other site's page can read."""
    return hmac.new(cookie.encode(), b"lodestream csrf", hashlib.sha256).hexdigest()


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()[:32]
