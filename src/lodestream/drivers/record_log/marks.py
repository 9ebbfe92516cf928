"""Numbers that one process tells others at once, through a shared page of memory that a file backs."""

from __future__ import annotations

import mmap
import os
import struct
import zlib

_FORM = struct.Struct("<QI")
_TRIES = 100


class Mark:
    """A sequence number in a file; written by one process, read by any.

    It is not synced: after a power loss it may be older than it was, so it may only ever say what was true before.

    Args:
        path: the file; made when missing, when it is to be written.
        writable: whether this process is the writer.
    """

    def __init__(self, path: str, *, writable: bool) -> None:
        self._path, self._writable = path, writable
        self._page: mmap.mmap | None = None

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
        """Tell everybody."""
        page = self._opened()
        assert page is not None
        text = struct.pack("<Q", number)
        page[: _FORM.size] = text + struct.pack("<I", zlib.crc32(text))

    def close(self) -> None:
        """Let go of the page; twice is harmless."""
        if self._page is not None:
            self._page.close()
            self._page = None

    def _opened(self) -> mmap.mmap | None:
        if self._page is None:
            flags = os.O_RDWR | os.O_CREAT if self._writable else os.O_RDONLY
            try:
                descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                return None
            try:
                if os.fstat(descriptor).st_size < _FORM.size:
                    if not self._writable:
                        return None
                    os.ftruncate(descriptor, _FORM.size)
                access = mmap.ACCESS_WRITE if self._writable else mmap.ACCESS_READ
                self._page = mmap.mmap(descriptor, _FORM.size, access=access)
            finally:
                os.close(descriptor)
        return self._page
