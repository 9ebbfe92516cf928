"""Numbers that one process tells others at once, through a page of memory that a file backs."""

from __future__ import annotations

import mmap
import os
import struct
import zlib

from lodestream.errors import TransientError

_FORM = struct.Struct("<QI")
_TRIES = 100


class Mark:
    """A sequence number in a file; written by one process, read by any.

    It is not synced: after a power loss it may be older than it was, so it may only ever say what was true before.

    Args:
        path: the file; made when it is written for the first time.
        writable: whether this process is the writer.
    """

    def __init__(self, path: str, *, writable: bool) -> None:
        self._path, self._writable = path, writable
        self._page: mmap.mmap | None = None
        self._descriptor = -1

    def get(self) -> int:
        """The number; 0 while there is none."""
        page = self._opened()
        if page is None:
            return 0
        for _ in range(_TRIES):  # a number that is half written shows by its checksum
            number, checksum = _FORM.unpack_from(page, 0)
            if zlib.crc32(page[:8]) == checksum:
                return int(number)
        return 0

    def set(self, number: int) -> None:
        """Tell everybody. Raises TransientError when the disk is full; the old number stands then."""
        assert self._writable
        text = struct.pack("<Q", number)
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            # Not through the page: on a full disk that would end the process.
            os.pwrite(self._descriptor, text + struct.pack("<I", zlib.crc32(text)), 0)
        except OSError as error:
            raise TransientError("disk is full or failing", path=self._path, reason=str(error)) from error

    def close(self) -> None:
        """Let go of the file; twice is harmless."""
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _opened(self) -> mmap.mmap | None:
        if self._page is None:
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                if os.fstat(descriptor).st_size < _FORM.size:
                    return None
                self._page = mmap.mmap(descriptor, _FORM.size, access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
        return self._page
