"""State beyond what memory may hold: files without a name beside the lake, mapped into memory and read as it is.

They are no part of what is durable: state files are. The system takes such a file away with the process that made it,
however that ends, and drops its pages from memory whenever something else needs the room.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.locks import try_lock
from lodestream.errors import TransientError

ROWS = 1 << 16
"""Rows of a batch on its way into a file."""
_QUERY_BYTES_MIN, _QUERY_BYTES_MAX = 256 << 20, 2 << 30
_LOCK = ".lock"


class StateBudget:
    """How many bytes of state the flows of a process may hold in memory together.

    A flow may hold what the others leave, and never less than an even share; so a flow that has grown large gives way,
    batch by batch, to others that grow later.

    Args:
        bytes_max: for all flows.
        flows: how many have state.
    """

    def __init__(self, bytes_max: int, flows: int = 1) -> None:
        self.bytes_max = bytes_max
        self._share = bytes_max // max(1, flows)
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def room(self, flow: str) -> int:
        """Bytes that a flow may hold now."""
        with self._lock:
            others = sum(held for name, held in self._held.items() if name != flow)
        return max(self._share, self.bytes_max - others)

    def holds(self, flow: str, held: int) -> None:
        """Note how many bytes of memory a flow holds."""
        with self._lock:
            self._held[flow] = held


@dataclass(frozen=True, slots=True)
class Kept:
    """A table, and how many bytes of it lie in memory and in a file."""

    table: pa.Table
    held: int = 0
    spilled: int = 0


class Spill:
    """Where the state of one flow goes when it outgrows its room.

    Args:
        folder: for what is spilled; it gets a folder of this process's own, made by `begin`.
        flow: the flow's name.
        budget: how much it may hold in memory.
    """

    def __init__(self, folder: str, flow: str, budget: StateBudget) -> None:
        self.folder = os.path.join(folder, os.urandom(4).hex())
        self._flow, self._budget = flow, budget
        self._lock: int | None = None

    @property
    def query_memory(self) -> str:
        """What the queries over the state may hold in memory, as DuckDB writes sizes."""
        return f"{max(_QUERY_BYTES_MIN, min(_QUERY_BYTES_MAX, self._budget.bytes_max // 2)) >> 20}MiB"

    def begin(self) -> None:
        """Make the folder, and remove those of processes that have died; twice is harmless."""
        parent = os.path.dirname(self.folder)
        os.makedirs(parent, exist_ok=True)
        while self._lock is None:  # somebody may look at the new lock, for a moment
            self._lock = try_lock(self.folder + _LOCK)
        os.makedirs(self.folder, exist_ok=True)
        for name in os.listdir(parent):
            if name.endswith(_LOCK) and name != os.path.basename(self.folder) + _LOCK:
                _remove_dead(os.path.join(parent, name))

    def end(self) -> None:
        """Remove the folder; twice is harmless."""
        self.holds(0)
        if self._lock is not None:
            _remove(self.folder + _LOCK, self._lock)
            self._lock = None

    def room(self) -> int:
        """Bytes that the flow may hold in memory now."""
        return self._budget.room(self._flow)

    def holds(self, held: int) -> None:
        """Note how many bytes of memory the flow holds."""
        self._budget.holds(self._flow, held)

    def file(self, write: Callable[[IO[bytes]], object]) -> pa.Buffer:
        """What `write` writes, mapped into memory; it lasts as long as somebody holds the buffer.

        Raises:
            TransientError: the disk is full, or fails otherwise.
        """
        try:
            os.makedirs(self.folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                write(file)
                file.flush()
                empty = os.fstat(file.fileno()).st_size == 0
                return pa.py_buffer(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            reason = error.strerror or str(error)
            raise TransientError(
                "state does not fit into memory and cannot be put on the disk; free space and it goes on",
                retry_after_s=5.0, path=self.folder, reason=reason,
            ) from error  # fmt: skip

    def keep(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], room: int) -> Kept:
        """The batches as one table: in memory when they fit into `room` bytes, in a file otherwise."""
        source, held, size = iter(batches), list[pa.RecordBatch](), 0
        for batch in source:
            held.append(batch)
            size += batch.nbytes
            if size > room:
                break
        else:
            return Kept(pa.Table.from_batches(held, schema), size)

        def write(file: IO[bytes]) -> None:
            with pa.ipc.new_stream(file, schema) as writer:
                while held:
                    writer.write_batch(held.pop(0))
                for batch in source:
                    writer.write_batch(batch)

        data = self.file(write)
        return Kept(pa.ipc.open_stream(data).read_all(), 0, data.size)


def _remove_dead(path: str) -> None:
    """Remove what a process left that was killed: nobody holds its lock."""
    with contextlib.suppress(OSError):
        lock = try_lock(path)
        if lock is not None:
            _remove(path, lock)


def _remove(path: str, lock: int) -> None:
    """Remove the folder of a lock that is held, then the lock."""
    shutil.rmtree(path.removesuffix(_LOCK), ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(lock)


def filtered(table: pa.Table, keep: Callable[[pa.Table], pa.ChunkedArray]) -> Iterator[tuple[pa.Table, bool]]:
    """The rows for which `keep` says so, in parts, and whether a part was copied; what stays whole is not."""
    for batch in table.to_batches(max_chunksize=ROWS):
        part = pa.Table.from_batches([batch])
        flags = keep(part)
        if pc.all(flags).as_py():
            yield part, False
        elif pc.any(flags).as_py():
            yield part.filter(flags), True


def taken(table: pa.Table, numbers: npt.NDArray[np.int64]) -> pa.Table:
    """The rows of these numbers, in their order; touches only the chunks in which they lie."""
    batches = table.to_batches()
    ends = np.cumsum([len(batch) for batch in batches])
    chunk = np.searchsorted(ends, numbers, "right")
    pieces, places = [table.slice(0, 0)], [np.empty(0, np.int64)]
    for at in np.unique(chunk).tolist():
        place = np.flatnonzero(chunk == at)
        rows = batches[at].take(pa.array(numbers[place] - (ends[at] - len(batches[at]))))
        pieces.append(pa.Table.from_batches([rows]))
        places.append(place)
    back = np.argsort(np.concatenate(places))
    return pa.concat_tables(pieces).combine_chunks().take(pa.array(back))
