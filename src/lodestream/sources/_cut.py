"""Cuts files of lines into ranges and reads ranges in pieces, in bounded memory whatever a line's length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from lodestream.model.batch import SourceRange
from lodestream.ports.format import Format
from lodestream.ports.source import Decoded
from lodestream.sources._digest import ContentDigest, digest_file

_SCAN_BYTES = 1 << 18
_PIECE_BYTES = 4 << 20
_EDGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Cut:
    """A range that ends between lines: `before` and `digest` are those of all bytes before its start and its end."""

    end: int
    rows: int
    before: int
    digest: int


class LineFile:
    """A file of lines, open for reading."""

    def __init__(self, path: str, format: Format) -> None:  # noqa: A002 - the port's word
        self._path = path
        self._format = format
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.head = b"".join(self._line(format.row_bytes_max) for _ in range(format.head_lines))
        self.first_record = len(self.head)

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def fileno(self) -> int:
        """The open file's descriptor."""
        return self._file.fileno()

    def first_lines(self, bytes_max: int) -> bytes:
        """Whole lines from the first record on, at most about `bytes_max`."""
        self._file.seek(self.first_record)
        data = self._file.read(bytes_max) or b""
        return data if len(data) < bytes_max else data[: data.rfind(b"\n") + 1] or data

    def cut(
        self, start: int, size: int, rows_max: int, bytes_max: int, before: int | None, *, complete: bool
    ) -> Cut | None:
        """The longest range from `start` that keeps to both bounds but has at least one line; None if there is none.

        Args:
            start: first byte of a line.
            size: the file's size as listed; bytes after it are left for later.
            rows_max: lines at most.
            bytes_max: bytes at most.
            before: digest of the bytes before `start`; None to compute it.
            complete: whether a last line without line end is left for later.
        """
        if before is None:
            before = digest_file(self._path, start) or 0
        digest = ContentDigest(start, before)
        stop = min(size, start + bytes_max)
        rows = 0
        # Words are summed fastest where memory is aligned as the file is.
        buffer = bytearray(_SCAN_BYTES + 8)
        scratch = np.empty(_SCAN_BYTES, np.bool_)
        while digest.offset < stop and rows < rows_max:
            lead = digest.offset % 8
            room = memoryview(buffer)[lead : lead + min(_SCAN_BYTES, stop - digest.offset)]
            self._file.seek(digest.offset)
            got = self._file.readinto(room) or 0
            if not got:
                break
            took = buffer.rfind(b"\n", lead, lead + got) + 1 - lead
            if took > 0:
                took, lines = _whole_lines(room[:took], rows_max - rows, scratch)
                digest.update(room[:took])
                rows += lines
                continue
            if rows and stop < size and digest.offset + got >= stop:
                break  # the next line crosses the bound
            end = self._line_end(digest.offset, size)
            whole = end is not None
            if end is None:
                if complete:
                    break
                end = size
            if rows and end > stop and (whole or stop < size):
                break
            digest.value = digest_file(self._path, end, digest.offset, digest.value) or 0
            digest.offset = end
            rows += 1
        return Cut(digest.offset, rows, before, digest.value) if rows else None

    def decode(self, planned: SourceRange, *, verify: bool, changed: Callable[[], Exception]) -> Iterator[Decoded]:
        """A planned range in pieces of whole lines; a line too long to be a record comes cut, as a reject.

        Args:
            planned: ends between lines.
            verify: compare the digest of what was read with the planned one.
            changed: makes the error for bytes that are missing or different.
        """
        row_max = self._format.row_bytes_max
        digest = ContentDigest(planned.start, int(planned.facts["from"], 16)) if verify else None
        buffer = bytearray(min(_PIECE_BYTES, planned.end - planned.start))
        at = planned.start
        while at < planned.end:
            self._file.seek(at)
            want = min(len(buffer), planned.end - at)
            if self._fill(memoryview(buffer)[:want]) < want:
                raise changed()
            took = want if at + want == planned.end else buffer.rfind(b"\n", 0, want) + 1
            if not took and want <= row_max:
                buffer = bytearray(min(row_max + 1, 4 * len(buffer), planned.end - at))
                continue
            step = took
            if not took:
                took = row_max + 1
                step = (self._line_end(at, planned.end) or planned.end) - at
            piece = memoryview(buffer)[:took]
            if digest:
                digest.update(piece)
                if step > took:
                    value = digest_file(self._path, at + step, at + took, digest.value)
                    digest = ContentDigest(at + step, value or 0)
            yield self._format.decode(piece, planned.unit, at, self.head)
            at += step
        if digest and digest.value != int(planned.facts["digest"], 16):
            raise changed()

    def _fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:]) or 0
            if not got:
                break
            done += got
        return done

    def _line(self, bytes_max: int) -> bytes:
        """The line at the file's read position, line end included."""
        start = self._file.tell()
        end = self._line_end(start, start + bytes_max)
        self._file.seek(start)
        line = self._file.read((end or start + bytes_max) - start) or b""
        self._file.seek(start + len(line))
        return line

    def _line_end(self, start: int, size: int) -> int | None:
        """Where the line from `start` ends, its line end included; None when there is none before `size`."""
        self._file.seek(start)
        at = start
        while at < size:
            data = self._file.read(min(_SCAN_BYTES, size - at))
            if not data:
                return None
            found = data.find(b"\n")
            if found >= 0:
                return at + found + 1
            at += len(data)
        return None


def _whole_lines(view: memoryview, rows_max: int, scratch: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Bytes and lines of the whole lines in `view`, which ends with one, at most `rows_max` lines."""
    breaks = np.equal(np.frombuffer(view, np.uint8), 10, out=scratch[: len(view)])
    lines = int(np.count_nonzero(breaks))
    if lines <= rows_max:
        return len(view), lines
    return int(np.flatnonzero(breaks)[rows_max - 1]) + 1, rows_max


def edges(path: str, end: int) -> str:
    """A digest of the first and the last 4 KiB before `end`: tells cheaply whether a growing file was replaced."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(min(_EDGE_BYTES, end)) or b""
        at = max(0, end - _EDGE_BYTES)
        file.seek(at, os.SEEK_SET)
        tail = file.read(end - at) or b""
    digest = ContentDigest()
    digest.update(head)
    digest.update(tail)
    return f"{digest.value:016x}"
