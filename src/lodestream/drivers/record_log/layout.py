"""Where a log's files lie, and what its segments are called."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator

from lodestream.errors import ConflictError

SUFFIX = ".log"
_DIGITS = 20
_SEGMENT = re.compile(rf"\d{{{_DIGITS}}}\{SUFFIX}")
STREAM = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""What a stream may be called."""


def log_folder(lake: str, stream: str) -> str:
    """Folder of a stream's log in a lake."""
    return os.path.join(lake, "_lodestream", "ingest", stream)


def segment_path(folder: str, first: int) -> str:
    """The segment whose first record has that sequence number."""
    return os.path.join(folder, f"{first:0{_DIGITS}d}{SUFFIX}")


def segments(folder: str) -> list[int]:
    """First sequence numbers of the log's segments, rising; empty when there is no log."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(name[:_DIGITS]) for name in found if _SEGMENT.fullmatch(name))


def identity_path(folder: str) -> str:
    """The file that tells one log from another of the same name."""
    return os.path.join(folder, "id")


def identity(folder: str) -> str | None:
    """Which log this is; None when there is none."""
    try:
        with open(identity_path(folder), encoding="ascii") as file:
            return file.read() or None
    except FileNotFoundError:
        return None


def durable_path(folder: str) -> str:
    """The mark up to which records are durable."""
    return os.path.join(folder, "durable")


def reader_path(folder: str, reader: str) -> str:
    """The mark up to which a reader has taken records in for good."""
    return os.path.join(folder, f"reader-{reader}")


@contextlib.contextmanager
def writer_lock(folder: str) -> Iterator[None]:
    """Hold the right to write the log. Raises ConflictError when another process has it."""
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                "another process takes in records of this stream; stop it, or serve the stream there only",
                folder=folder,
            ) from None
        yield
    finally:
        os.close(descriptor)
