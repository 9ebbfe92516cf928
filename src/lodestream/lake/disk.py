"""The one seam through which every byte of a lake is written, and what makes a write durable."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from lodestream.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Data: TypeAlias = "ReadableBuffer"
"""bytes, a memoryview, a pyarrow.Buffer: whatever lends its memory."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)
_NO_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_EXCLUSIVE_RENAMES = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as a listing tells of it.

    Attributes:
        path: relative to the folder that was listed.
        bytes: its size.
        modified_ms: when it was written, milliseconds since 1970 by the store's clock.
    """

    path: str
    bytes: int
    modified_ms: int


class Disk(Protocol):
    """Every effect on stored files, one call each; nothing is durable until its `fsync` and `sync_directory`.

    Methods raise FileNotFoundError for a missing file or folder, ConfigError when the store cannot or may not do it,
    TransientError when it may work later (disk full, store busy).

    Attributes:
        settled: folders whose path down from the root is known to be durable through this disk.
        atomic: whether `write`, `create` and `replace_with` are each one durable step, as in object stores. Where they
            are not, a file is prepared under another name, then linked or renamed.
    """

    settled: set[str]
    atomic: bool

    def write(self, path: str, data: Data) -> None:
        """Create or truncate the file and write all of `data`; not durable yet."""

    def create(self, path: str, data: Data) -> None:
        """Write a new file. Raises FileExistsError when `path` is there, unless it is this very call that made it."""

    def fsync(self, path: str) -> None:
        """Make the file's content durable; its name in the folder is not."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the folder durable."""

    def make_directories(self, path: str) -> list[str]:
        """Create the folder and what is missing above it; returns the created ones, top first."""

    def link(self, source: str, target: str) -> None:
        """Give the file the name `target`, and maybe take the old one. FileExistsError when `target` is there."""

    def replace(self, source: str, target: str) -> None:
        """Rename over `target` in one step."""

    def replace_with(self, path: str, data: Data) -> None:
        """Put `data` in place of what is there, if anything; only where the disk is `atomic`."""

    def unlink(self, path: str) -> None:
        """Take the name away; a missing one is FileNotFoundError."""

    def read(self, path: str) -> bytes:
        """All bytes of the file."""

    def list(self, path: str) -> list[str]:
        """Names in the folder, unordered; empty when there is no folder."""

    def walk(self, path: str, *, deep: bool = True) -> Iterator[Stored]:
        """Every file in the folder, and of the folders below when `deep`; in no order, none when there is no folder."""

    def size(self, path: str) -> int:
        """Bytes in the file."""

    def modified_ms(self, path: str) -> int:
        """When the file was written, milliseconds since 1970 by the clock of whoever keeps it."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""

    def copies(self, paths: Sequence[str]) -> Sequence[str]:
        """Paths on this machine of files that never change, for libraries that read files.

        These are the files themselves, or copies that stay for ten minutes at least. Raises FileNotFoundError.
        """

    def excerpts(self, files: Sequence[tuple[str, int]], columns: Collection[str]) -> Sequence[str]:
        """The same for Parquet files, by path and bytes, of which only these columns are read.

        Footers and indexes are there, so rows can be counted; what stands in the place of other columns is no data.
        """

    def beside(self, path: str) -> str:
        """The folder of this machine for what belongs to `path` but only this machine can use, such as locks.

        That is `path` itself on a local disk; nothing makes it.
        """


class LocalDisk:
    """A disk of this machine, on a file system with hard links or with renames that overwrite nothing."""

    atomic = False

    def __init__(self) -> None:
        self.settled: set[str] = set()

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`."""
        with translated(path), _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            _write_all(descriptor, data)

    def create(self, path: str, data: Data) -> None:
        """See `Disk.create`; what was written of it before an error stays."""
        with translated(path), _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            _write_all(descriptor, data)

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        with translated(path), _opened(path, os.O_RDONLY) as descriptor:
            _sync(descriptor)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        with translated(path), _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            _sync(descriptor)

    def make_directories(self, path: str) -> list[str]:
        """See `Disk.make_directories`."""
        missing = []
        while not os.path.isdir(path) and path:
            missing.append(path)
            path = os.path.dirname(path)
        created = []
        for folder in reversed(missing):
            with translated(folder), contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                created.append(folder)
        return created

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`; where the file system has no hard links, the file is renamed."""
        try:
            with translated(target, _NO_LINKS):
                os.link(source, target)
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        try:
            with translated(target, _NO_EXCLUSIVE_RENAMES):
                _rename_exclusively(source, target)
        except OSError as error:
            if error.errno not in _NO_EXCLUSIVE_RENAMES:
                raise
            fix = "put the lake on a local file system such as ext4, xfs, btrfs, zfs or apfs, or on an object store"
            text = "file system can neither link files nor rename without overwriting, which commits need"
            raise ConfigError(text, path=target, fix=fix) from error

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        with translated(target):
            os.replace(source, target)

    def replace_with(self, path: str, data: Data) -> None:
        """Not on a local disk: see `replace_durable`."""
        raise NotImplementedError

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        with translated(path):
            os.unlink(path)

    def read(self, path: str) -> bytes:
        """See `Disk.read`."""
        with translated(path), open(path, "rb") as file:
            return file.read()

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        with translated(path):
            try:
                return os.listdir(path)
            except FileNotFoundError:
                return []

    def walk(self, path: str, *, deep: bool = True) -> Iterator[Stored]:
        """See `Disk.walk`; what goes away meanwhile is left out."""
        for folder, folders, names in os.walk(path):
            if not deep:
                folders.clear()
            for name in names:
                full = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError), translated(full):
                    stat = os.stat(full)
                    yield Stored(os.path.relpath(full, path), stat.st_size, stat.st_mtime_ns // 1_000_000)

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        with translated(path):
            return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        """See `Disk.modified_ms`."""
        with translated(path):
            return os.stat(path).st_mtime_ns // 1_000_000

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return os.path.exists(path)

    def copies(self, paths: Sequence[str]) -> Sequence[str]:
        """See `Disk.copies`: the files themselves; who reads them finds out which are missing."""
        return list(paths)

    def excerpts(self, files: Sequence[tuple[str, int]], columns: Collection[str]) -> Sequence[str]:
        """See `Disk.excerpts`: the files themselves."""
        return [path for path, _ in files]

    def beside(self, path: str) -> str:
        """See `Disk.beside`."""
        return path


def nearest_folder(path: str) -> str:
    """A folder of this machine, or the nearest one above it that is there: both are on one file system."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def random_id() -> str:
    """32 random hexadecimal digits: the default source of unique names."""
    return os.urandom(16).hex()


def settle(disk: Disk, folder: str) -> None:
    """Create `folder` with what is missing above it, and make its whole path durable.

    Folders that are already there count only when this disk object has synced them: a process that was killed may
    have made them without.
    """
    if folder in disk.settled or disk.atomic:
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
    write_synced(disk, path, data)
    disk.sync_directory(os.path.dirname(path))


def put_if_absent(disk: Disk, path: str, data: Data, new_id: Callable[[], str] = random_id) -> bool:
    """Write a file durably unless there is one of that name.

    Returns:
        True when this call made it; False when it was there, which then is durable as well.
    """
    with prepared(disk, os.path.dirname(path), data, new_id) as new:
        try:
            new.put(path)
            made = True
        except FileExistsError:
            made = False
        disk.sync_directory(os.path.dirname(path))
    return made


def replace_durable(disk: Disk, path: str, data: Data, new_id: Callable[[], str] = random_id) -> None:
    """Put a file in place of what is there, if anything, in one durable step."""
    if disk.atomic:
        disk.replace_with(path, data)
        return
    folder = os.path.dirname(path)
    with _temporary(disk, folder, data, new_id) as made:
        disk.replace(made, path)
        disk.sync_directory(folder)


class Prepared:
    """Content that is ready to become a file, once.

    Args:
        disk: the seam for every effect.
        data: the content.
        made: a synced file that has it; None where the disk is atomic and needs none.
    """

    def __init__(self, disk: Disk, data: Data, made: str | None) -> None:
        self._disk, self._data, self._made = disk, data, made

    def put(self, path: str) -> None:
        """Give it a name in its folder. Raises FileExistsError when that is there; another name can be tried then.

        Durable with the next `sync_directory`.
        """
        if self._made is None:
            self._disk.create(path, self._data)
        else:
            self._disk.link(self._made, path)


@contextlib.contextmanager
def prepared(disk: Disk, folder: str, data: Data, new_id: Callable[[], str] = random_id) -> Iterator[Prepared]:
    """Content for a new file in `folder`, durable by itself where the disk is not atomic."""
    if disk.atomic:
        yield Prepared(disk, data, None)
        return
    with _temporary(disk, folder, data, new_id) as made:
        yield Prepared(disk, data, made)


@contextlib.contextmanager
def _temporary(disk: Disk, folder: str, data: Data, new_id: Callable[[], str]) -> Iterator[str]:
    """A synced file `.tmp-<id>` in `folder`, to link or rename; its name is taken away in the end."""
    path = os.path.join(folder, f".tmp-{new_id()}")
    write_synced(disk, path, data)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)


def write_placed(disk: Disk, path: str, data: Data, *, new: bool = False) -> None:
    """Write a file in a folder whose path is made durable; neither its content nor its name is.

    Args:
        disk: the seam for every effect.
        path: of the file.
        data: its content.
        new: raise FileExistsError when the file is there.
    """
    folder = os.path.dirname(path)
    write = disk.create if new else disk.write
    settle(disk, folder)
    try:
        write(path, data)
    except FileNotFoundError:  # somebody took the folder away since it was settled
        disk.settled.clear()
        settle(disk, folder)
        write(path, data)


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


def _write_all(descriptor: int, data: Data) -> None:
    rest = memoryview(data).cast("B") if len(memoryview(data)) else memoryview(b"")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _rename_exclusively(source: str, target: str) -> None:
    """Rename unless `target` is there: `renameat2(RENAME_NOREPLACE)` of Linux, `renamex_np(RENAME_EXCL)` of macOS."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(source), os.fsencode(target)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, 4)
        else:
            failed = library.renameat2(-100, names[0], -100, names[1], 1)
    except AttributeError as error:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


def _sync(descriptor: int) -> None:
    full = getattr(fcntl, "F_FULLFSYNC", None)  # on macOS fsync leaves the data in the drive's cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


@contextlib.contextmanager
def translated(path: str, untouched: tuple[int, ...] = ()) -> Iterator[None]:
    """Errors of the operating system as ours; those about a missing or standing file, and `untouched` ones, stay."""
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
