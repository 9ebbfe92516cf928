"""The one seam through which every byte of a lake is written, and what makes a write durable."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias

from lodestream.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Data: TypeAlias = "ReadableBuffer"
"""bytes, a memoryview, a pyarrow.Buffer: whatever lends its memory."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
_NO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk(Protocol):
    """Every effect on stored files, one call each; nothing is durable until its `fsync` and `sync_directory`.

    Methods raise FileNotFoundError for a missing file or folder, ConfigError when the file system cannot or may not
    do it, TransientError when it may work later (disk full).

    Attributes:
        settled: folders whose path down from the root is known to be durable through this disk.
    """

    settled: set[str]

    def write(self, path: str, data: Data) -> None:
        """Create or truncate the file and write all of `data`; not durable yet."""

    def fsync(self, path: str) -> None:
        """Make the file's content durable; its name in the folder is not."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the folder durable."""

    def make_directories(self, path: str) -> list[str]:
        """Create the folder and what is missing above it; returns the created ones, top first."""

    def link(self, source: str, target: str) -> None:
        """Give the file a second name. Raises FileExistsError when `target` is there: put-if-absent."""

    def replace(self, source: str, target: str) -> None:
        """Rename over `target` in one step."""

    def unlink(self, path: str) -> None:
        """Take the name away; a missing one is FileNotFoundError."""

    def read(self, path: str) -> bytes:
        """All bytes of the file."""

    def list(self, path: str) -> list[str]:
        """Names in the folder, unordered; empty when there is no folder."""

    def size(self, path: str) -> int:
        """Bytes in the file."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""


class LocalDisk:
    """A disk of this machine, on a file system with hard links."""

    def __init__(self) -> None:
        self.settled: set[str] = set()

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`."""
        with _translated(path), _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            rest = memoryview(data).cast("B") if len(memoryview(data)) else memoryview(b"")
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        with _translated(path), _opened(path, os.O_RDONLY) as descriptor:
            _sync(descriptor)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        with _translated(path), _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            _sync(descriptor)

    def make_directories(self, path: str) -> list[str]:
        """See `Disk.make_directories`."""
        missing = []
        while not os.path.isdir(path) and path:
            missing.append(path)
            path = os.path.dirname(path)
        created = []
        for folder in reversed(missing):
            with _translated(folder), contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                created.append(folder)
        return created

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`."""
        try:
            with _translated(target, _NO_LINKS):
                os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            fix = "put the lake on a local file system with hard links (ext4, xfs, apfs, ntfs)"
            raise ConfigError("file system cannot link files, which commits need", path=target, fix=fix) from error

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        with _translated(target):
            os.replace(source, target)

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        with _translated(path):
            os.unlink(path)

    def read(self, path: str) -> bytes:
        """See `Disk.read`."""
        with _translated(path), open(path, "rb") as file:
            return file.read()

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        with _translated(path):
            try:
                return os.listdir(path)
            except FileNotFoundError:
                return []

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        with _translated(path):
            return os.stat(path).st_size

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return os.path.exists(path)


def random_id() -> str:
    """32 random hexadecimal digits: the default source of unique names."""
    return os.urandom(16).hex()


def settle(disk: Disk, folder: str) -> None:
    """Create `folder` with what is missing above it, and make its whole path durable.

    Folders that are already there count only when this disk object has synced them: a process that was killed may
    have made them without.
    """
    if folder in disk.settled:
        return
    created = set(disk.make_directories(folder))
    path = os.path.abspath(folder)
    created = {os.path.abspath(made) for made in created}
    chain = []
    while path not in disk.settled and (parent := os.path.dirname(path)) != path:
        try:
            disk.sync_directory(parent)
        except ConfigError:
            if path in created:
                raise
            break  # a folder we may not open is one we cannot have made
        chain.append(path)
        path = parent
    disk.settled.update(chain, (folder,))


def write_durable(disk: Disk, path: str, data: Data) -> None:
    """Write a file so that it is there, whole, after a power loss: path, content and name are synced.

    Raises:
        TransientError: the disk is full; what was written of the file is taken away.
        ConfigError: the file system cannot or may not do it.
    """
    folder = os.path.dirname(path)
    write_synced(disk, path, data)
    disk.sync_directory(folder)


def put_if_absent(disk: Disk, path: str, data: Data, new_id: Callable[[], str] = random_id) -> bool:
    """Write a file durably unless there is one of that name.

    Returns:
        True when this call made it; False when it was there, which then is durable as well.
    """
    folder = os.path.dirname(path)
    with temporary(disk, folder, data, new_id) as prepared:
        try:
            disk.link(prepared, path)
            made = True
        except FileExistsError:
            made = False
        disk.sync_directory(folder)
    return made


def replace_durable(disk: Disk, path: str, data: Data, new_id: Callable[[], str] = random_id) -> None:
    """Put a file in place of what is there, if anything, in one durable step."""
    folder = os.path.dirname(path)
    with temporary(disk, folder, data, new_id) as prepared:
        disk.replace(prepared, path)
        disk.sync_directory(folder)


@contextlib.contextmanager
def temporary(disk: Disk, folder: str, data: Data, new_id: Callable[[], str] = random_id) -> Iterator[str]:
    """A synced file `.tmp-<id>` in `folder`, to link or rename; its name is taken away in the end."""
    path = os.path.join(folder, f".tmp-{new_id()}")
    write_synced(disk, path, data)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)


def write_placed(disk: Disk, path: str, data: Data) -> None:
    """Write a file in a folder whose path is made durable; neither its content nor its name is."""
    folder = os.path.dirname(path)
    settle(disk, folder)
    try:
        disk.write(path, data)
    except FileNotFoundError:  # somebody took the folder away since it was settled
        disk.settled.clear()
        settle(disk, folder)
        disk.write(path, data)


def write_synced(disk: Disk, path: str, data: Data) -> None:
    """Write a file and make its content and the path of its folder durable, but not yet its name in the folder."""
    try:
        write_placed(disk, path, data)
        disk.fsync(path)
    except (TransientError, ConfigError):
        with contextlib.suppress(FileNotFoundError, TransientError, ConfigError):
            disk.unlink(path)
        raise


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path or ".", flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    full = getattr(fcntl, "F_FULLFSYNC", None)  # on macOS fsync leaves the data in the drive's cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


@contextlib.contextmanager
def _translated(path: str, untouched: tuple[int, ...] = ()) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        code = error.errno
        if code in untouched:
            raise
        reason = os.strerror(code) if code else str(error)
        if code in _FULL:
            raise TransientError("disk is full; free space and it goes on", retry_after_s=5.0, path=path) from error
        if code in _NO_WRITE:
            fix = "make the lake writable for this user"
            raise ConfigError("may not write here", path=path, reason=reason, fix=fix) from error
        if code in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL):
            raise ConfigError("file system refuses this path", path=path, reason=reason) from error
        raise TransientError("file system failed", retry_after_s=1.0, path=path, reason=reason) from error
