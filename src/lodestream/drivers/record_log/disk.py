"""The seam through which the log touches the disk: each effect one call, so that tests can take the power away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Protocol

from lodestream.errors import ConfigError, TransientError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)


class LogDisk(Protocol):
    """Every effect on the log's files; nothing is durable until its `fsync` and `sync_directory`.

    Methods raise TransientError when it may work later (disk full, a failing device), ConfigError when this user may
    not.
    """

    def append(self, path: str, offset: int, data: bytes) -> None:
        """Write `data` at `offset`, the end of what counts of the file; makes the file."""

    def truncate(self, path: str, size: int) -> None:
        """Cut the file."""

    def fsync(self, path: str) -> None:
        """Make the file's content durable; its name in the folder is not."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the folder durable."""

    def make_directories(self, path: str) -> list[str]:
        """Create the folder and what is missing above it; returns the created ones, top first."""

    def unlink(self, path: str) -> None:
        """Take the name away; a missing one is FileNotFoundError."""

    def close(self) -> None:
        """Let go of open files."""


class LocalLogDisk:
    """A disk of this machine. Keeps files open that it writes, so that a failed write-back is seen by `fsync`."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def append(self, path: str, offset: int, data: bytes) -> None:
        """See `LogDisk.append`."""
        with _translated(path):
            descriptor = self._descriptor(path)
            rest = memoryview(data)
            while rest:
                written = os.pwrite(descriptor, rest, offset)
                rest, offset = rest[written:], offset + written

    def truncate(self, path: str, size: int) -> None:
        """See `LogDisk.truncate`."""
        with _translated(path):
            os.ftruncate(self._descriptor(path), size)

    def fsync(self, path: str) -> None:
        """See `LogDisk.fsync`."""
        with _translated(path):
            _sync(self._descriptor(path))

    def sync_directory(self, path: str) -> None:
        """See `LogDisk.sync_directory`."""
        with _translated(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)

    def make_directories(self, path: str) -> list[str]:
        """See `LogDisk.make_directories`."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        with _translated(path):
            for folder in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder)
        return missing[::-1]

    def unlink(self, path: str) -> None:
        """See `LogDisk.unlink`."""
        self._forget(path)
        with _translated(path):
            os.unlink(path)

    def close(self) -> None:
        """See `LogDisk.close`."""
        for path in list(self._open):
            self._forget(path)

    def _descriptor(self, path: str) -> int:
        if path not in self._open:
            while len(self._open) > 4:  # segments that are full are not written again
                self._forget(next(iter(self._open)))
            self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._open[path]

    def _forget(self, path: str) -> None:
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def settle(disk: LogDisk, folder: str) -> None:
    """Create `folder` with what is missing above it, and make its whole path durable."""
    created = set(disk.make_directories(folder))
    path = os.path.abspath(folder)
    while (parent := os.path.dirname(path)) != path:
        try:
            disk.sync_directory(parent)
        except ConfigError:
            if path in created:
                raise
            break  # a folder we may not open is one we cannot have made
        path = parent


def _sync(descriptor: int) -> None:
    full = getattr(fcntl, "F_FULLFSYNC", None)  # on macOS fsync leaves the data in the drive's cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _FULL:
            raise TransientError("disk is full; free space and it goes on", retry_after_s=5.0, path=path) from error
        if error.errno in _NO_WRITE:
            fix = "make the lake writable for this user"
            raise ConfigError("may not write here", path=path, reason=reason, fix=fix) from error
        raise TransientError("file system failed", retry_after_s=1.0, path=path, reason=reason) from error
