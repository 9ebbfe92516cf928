"""A small database that processes share: SQLite in a file, or PostgreSQL; the same statements for both."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from lodestream.errors import ConfigError, CorruptionError, MissingDriverError, TransientError

Row = Sequence[Any]
_BUSY_S = 20


class Rows(Protocol):
    """A transaction."""

    def all(self, sql: str, *values: object) -> list[Row]:
        """Every row of a statement; its parameters are `?`. A statement without rows gives none."""


class Database(Protocol):
    """Opens transactions; each sees one state and is durable when it ends."""

    def read(self) -> contextlib.AbstractContextManager[Rows]:
        """A transaction that changes nothing."""

    def write(self) -> contextlib.AbstractContextManager[Rows]:
        """The only writing transaction of all processes; rolled back when the block raises."""

    def close(self) -> None:
        """Let go of the database; twice is harmless."""


def open_database(store: str, tables: Sequence[str], *, lock: int, extra: str) -> Database:
    """SQLite in the file `store`, or PostgreSQL at `postgresql://…`.

    Args:
        store: file or URL.
        tables: statements that make the tables when they are not there.
        lock: number of the advisory lock by which writers in PostgreSQL take turns; each set of tables has its own.
        extra: name of the extra that brings the PostgreSQL driver.

    Raises:
        ConfigError: the file is no database or its folder cannot be written; the URL is refused.
        TransientError: PostgreSQL does not answer.
        MissingDriverError: PostgreSQL needs a package.
    """
    if store.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(store, tables, lock, extra)
    return SqliteDatabase(store, tables)


def make_private(file: str) -> None:
    """Make a file that only its owner can read, unless it is there.

    One that is there is not even opened: closing it would let go of every lock that SQLite has on it in this process,
    and another process would then take the write-ahead log for nobody's.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class SqliteDatabase:
    """SQLite with a write-ahead log, synced at each commit."""

    def __init__(self, file: str, tables: Sequence[str]) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            os.makedirs(os.path.dirname(os.path.abspath(file)), exist_ok=True)
            make_private(file)
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        except OSError as error:
            raise _refused(error, file) from error
        except sqlite3.OperationalError as error:
            if "unable to open" in str(error):
                raise ConfigError("store cannot be opened", file=file, cause=str(error)) from error
            if "readonly" in str(error):
                raise ConfigError("may not write here", file=file, cause=str(error)) from error
            raise TransientError("store does not answer", file=file, cause=str(error)) from error
        except sqlite3.Error as error:
            raise ConfigError("store is not a readable SQLite file", file=file, cause=str(error)) from error
        self._inode = os.stat(file).st_ino
        with self.write() as rows:
            for statement in tables:
                rows.all(statement)

    def read(self) -> contextlib.AbstractContextManager[Rows]:
        """See `Database`."""
        return self._transaction("BEGIN")

    def write(self) -> contextlib.AbstractContextManager[Rows]:
        """See `Database`."""
        return self._transaction("BEGIN IMMEDIATE")

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._connection.close()

    def all(self, sql: str, *values: object) -> list[Row]:
        """See `Rows`."""
        return self._connection.execute(sql, values).fetchall()

    def _is_there(self) -> bool:
        """Whether the file is still the one that was opened: SQLite goes on in one that was deleted."""
        try:
            return os.stat(self._file).st_ino == self._inode
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Rows]:
        with self._lock:
            if not self._is_there():
                raise TransientError("store's file is gone; put it back and start again", file=self._file)
            try:
                self._connection.execute(begin)
                try:
                    yield self
                    self._connection.execute("COMMIT")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:  # locked, full or not writable
                raise TransientError("store does not answer", file=self._file, cause=str(error)) from error
            except sqlite3.DatabaseError as error:
                raise CorruptionError("store is damaged", file=self._file, cause=str(error)) from error


def _refused(error: OSError, file: str) -> ConfigError | TransientError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransientError("disk is full; free space and it goes on", retry_after_s=5.0, file=file)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        fix = "make the lake writable for this user"
        return ConfigError("may not write here", file=file, cause=error.strerror, fix=fix)
    return ConfigError("store cannot be opened", file=file, cause=error.strerror)


class PostgresDatabase:
    """PostgreSQL over one connection, opened again after it was lost; writers take turns by an advisory lock."""

    def __init__(self, url: str, tables: Sequence[str], lock: int, extra: str) -> None:
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise MissingDriverError(
                f"PostgreSQL needs a package: pip install 'lodestream[{extra}]'", missing=error.name
            ) from error
        self._psycopg = psycopg
        self._url = url
        self._turn = lock
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Row] | None = None
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise ConfigError("not a PostgreSQL URL", cause=str(error).strip()) from error
        with self.write() as rows:
            for statement in tables:
                rows.all(statement)

    def read(self) -> contextlib.AbstractContextManager[Rows]:
        """See `Database`."""
        return self._transaction(writes=False)

    def write(self) -> contextlib.AbstractContextManager[Rows]:
        """See `Database`."""
        return self._transaction(writes=True)

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def all(self, sql: str, *values: object) -> list[Row]:
        """See `Rows`."""
        assert self._connection is not None
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values or None)
        return cursor.fetchall() if cursor.description is not None else []

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Rows]:
        with self._lock:
            try:
                connection = self._connected()
                with connection.transaction():
                    if writes:
                        connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._turn,))
                    else:
                        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    yield self
            except (self._psycopg.OperationalError, self._psycopg.errors.ReadOnlySqlTransaction) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise TransientError("store does not answer", cause=str(error).strip()) from error

    def _connected(self) -> Any:
        """The connection, alive: one that the server closed while it lay idle is replaced."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except self._psycopg.OperationalError:
                self._connection.close()
                self._connection = None
        if self._connection is None:
            self._connection = self._psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        return self._connection
