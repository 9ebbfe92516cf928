"""Which requests a log has taken in by idempotency key: an index over the log, made again from it when in doubt."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from lodestream.drivers.record_log.frame import NO_KEY
from lodestream.drivers.record_log.reader import LogReader
from lodestream.errors import TransientError

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_REMOVE_EVERY_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was told.

    Attributes:
        first: sequence number of its first record.
        count: how many records.
        body: digest of its body.
        time_us: when.
    """

    first: int
    count: int
    body: bytes
    time_us: int


class Answers:
    """Answers by key, for a while. Safe for use by several threads.

    The file is not synced: after a power loss, or where that cannot be told, it is made again from the log.

    Args:
        folder: the log's folder; its writer lock is held.
        kept_us: how long an answer is kept.
        now_us: the present.
    """

    def __init__(self, folder: str, kept_us: int, now_us: int) -> None:
        self._path = os.path.join(folder, "answers.sqlite")
        self._kept_us = kept_us
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Answer] = {}
        self._removed_us = now_us
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:
            self._forget()
            self._database = self._again()
        self._catch_up(folder, now_us)

    def find(self, key: bytes, now_us: int) -> Answer | None:
        """The answer that a key got, unless that is too long ago."""
        with self._lock:
            answer = self._waiting.get(key)
            if answer is None:
                row = self._database.execute(
                    "SELECT first, count, body, time FROM answers WHERE key = ?", (key,)
                ).fetchone()
                answer = Answer(*row) if row else None
        return answer if answer is not None and answer.time_us > now_us - self._kept_us else None

    def add(self, answers: Iterable[tuple[bytes, Answer]], end: int, now_us: int) -> None:
        """Note answers to requests whose records are durable; `end` is the log's end with them."""
        with self._lock:
            self._waiting.update(answers)
            with contextlib.suppress(sqlite3.OperationalError):  # disk full: they wait in memory and are in the log
                self._write(self._waiting, end, now_us)
                self._waiting = {}

    def close(self) -> None:
        """Close the file; twice is harmless."""
        with self._lock:
            self._database.close()

    def _write(self, answers: dict[bytes, Answer], end: int, now_us: int) -> None:
        with self._database as database:
            database.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
                [(key, a.first, a.count, a.body, a.time_us) for key, a in answers.items()],
            )
            database.execute("UPDATE upto SET next = ?", (end,))
            if now_us - self._removed_us > _REMOVE_EVERY_US:
                database.execute("DELETE FROM answers WHERE time <= ?", (now_us - self._kept_us,))
                self._removed_us = now_us

    def _again(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            raise TransientError("the index of answers cannot be made", path=self._path, reason=str(error)) from error

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False)
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS answers"
            " (key BLOB PRIMARY KEY, first INTEGER, count INTEGER, body BLOB, time INTEGER) WITHOUT ROWID"
        )
        database.execute("CREATE TABLE IF NOT EXISTS upto (next INTEGER, boot TEXT)")
        boot = _boot()
        row = database.execute("SELECT boot FROM upto").fetchone()
        if row is None or not boot or row[0] != boot:
            with database:
                database.execute("DELETE FROM answers")
                database.execute("DELETE FROM upto")
                database.execute("INSERT INTO upto VALUES (0, ?)", (boot,))
        return database

    def _catch_up(self, folder: str, now_us: int) -> None:
        """Take in what the log has and the index has not."""
        reader = LogReader(folder)
        end, upto = reader.end(), int(self._database.execute("SELECT next FROM upto").fetchone()[0])
        start = max(upto, reader.begin())
        if start < end:
            found = {
                frame.key: Answer(frame.first, frame.count, frame.body, frame.time_us)
                for frame, _ in reader.frames(start, end)
                if frame.key != NO_KEY and frame.time_us > now_us - self._kept_us
            }
            self.add(found.items(), end, now_us)
        reader.close()

    def _forget(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path + suffix)


def _boot() -> str:
    """Which start of the machine this is; empty where nobody knows."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
