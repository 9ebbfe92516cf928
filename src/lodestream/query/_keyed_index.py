"""Sorted hashes of key columns over some data files: which rows may have a key."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.keys import hash_keys
from lodestream.query._keyed_rows import UnusableError, settle

U64 = npt.NDArray[np.uint64]
ROWS_PER_RUN = 1 << 22
"""Rows of one run, unless one file has more: what building holds in memory at a time."""
_ROW_BITS = np.uint64(40)
_MAGIC = b"LSKEYS01"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """An index over some data files.

    Attributes:
        files: their paths, as in the log.
        hashes: of the n rows whose key has no NULL, in rising order.
        places: of the same rows: the file's number in the upper 24 bits, the row's number in the lower 40.
        path: of the file that it is mapped from; None when it is in memory.
        version: the newest version of the table that its builder knew.
    """

    files: tuple[str, ...]
    hashes: U64
    places: U64
    path: str | None = None
    version: int = 0

    def find(self, key: np.uint64) -> list[tuple[int, int]]:
        """(file's number, row) of the rows with this hash, in their order."""
        hashes = self.hashes
        at = int(hashes.searchsorted(key))
        if at >= len(hashes) or hashes[at] != key:
            return []
        end = at + 1
        if end < len(hashes) and hashes[end] == key:
            end = int(hashes.searchsorted(key, "right"))
        return [(place >> 40, place & 0xFF_FFFF_FFFF) for place in self.places[at:end].tolist()]

    @property
    def rows_per_key(self) -> float:
        """How many rows a key has on average."""
        if not len(self.hashes):
            return 0.0
        return len(self.hashes) / (1 + int(np.count_nonzero(self.hashes[1:] != self.hashes[:-1])))


@dataclass(frozen=True, slots=True)
class View:
    """The runs that together have every row of one version.

    Attributes:
        version: of the table.
        parts: each run with which of its files count; None when all do.
        rows: entries in all runs.
    """

    version: int
    parts: tuple[tuple[Run, npt.NDArray[np.bool_] | None], ...]
    rows: int

    def find(self, key: np.uint64) -> list[tuple[str, list[int]]]:
        """(file, rising row numbers) of the rows that may have the key."""
        found: list[tuple[str, list[int]]] = []
        for run, live in self.parts:
            last = -1
            for number, row in run.find(key):
                if live is not None and not live[number]:
                    continue
                if number != last:
                    found.append((run.files[number], []))
                    last = number
                found[-1][1].append(row)
        return found


def view_of(version: int, files: Mapping[str, object], runs: Iterable[Run]) -> tuple[View, list[str]]:
    """The view of a version with these files over what there is, and the files that no run has.

    A file that several runs have counts in the first of them: shared runs before those in memory, large before small.
    """
    seen: set[str] = set()
    parts: list[tuple[Run, npt.NDArray[np.bool_] | None]] = []
    for run in sorted(runs, key=lambda run: (run.path is None, -len(run.hashes))):
        live = [file in files and file not in seen for file in run.files]
        if any(live):
            parts.append((run, None if all(live) else np.array(live)))
            seen.update(file for file, counts in zip(run.files, live, strict=True) if counts)
    missing = [file for file in files if file not in seen]
    return View(version, tuple(parts), sum(len(run.hashes) for run, _ in parts)), missing


def hash_of(values: Sequence[pa.Array]) -> np.uint64:
    """The hash of one key: arrays of one value each, in the columns' types."""
    hashed: np.uint64 = hash_keys(values)[0][0]
    return hashed


def entries(number: int, batches: Iterable[pa.RecordBatch]) -> tuple[U64, U64]:
    """Hashes and places of a file's rows, in row order; those with a NULL in the key are left out.

    Args:
        number: of the file in its run.
        batches: all its rows in the key's columns.
    """
    hashes, places, start = [], [], 0
    for batch in batches:
        found = hash_keys(batch.columns)[0]
        where = np.arange(start, start + batch.num_rows, dtype=np.uint64) | (np.uint64(number) << _ROW_BITS)
        start += batch.num_rows
        if any(column.null_count for column in batch.columns):
            there = pc.is_valid(batch.column(0))
            for column in batch.columns[1:]:
                there = pc.and_(there, pc.is_valid(column))
            keep = there.to_numpy(zero_copy_only=False)
            found, where = found[keep], where[keep]
        hashes.append(found)
        places.append(where)
    nothing = np.empty(0, np.uint64)
    return (np.concatenate(hashes), np.concatenate(places)) if hashes else (nothing, nothing)


def run_of(files: Sequence[str], found: Sequence[tuple[U64, U64]], version: int) -> Run:
    """The run over files whose entries these are."""
    hashes = np.concatenate([one for one, _ in found])
    places = np.concatenate([one for _, one in found])
    order = np.argsort(hashes, kind="stable")
    return Run(tuple(files), hashes[order], places[order], version=version)


def write_run(path: str, run: Run) -> Run:
    """Write a run to a file and map it; it is whole as soon as it has its name."""
    head = json.dumps({"files": run.files, "rows": len(run.hashes), "version": run.version}).encode()
    head += b" " * (-(len(head) + 16) % 64)
    unfinished = f"{path}.tmp"
    try:
        with open(unfinished, "wb") as file:
            file.write(_MAGIC + len(head).to_bytes(8, "little") + head)
            file.write(run.hashes.view(np.uint8).data)
            file.write(run.places.view(np.uint8).data)
        settle(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    return open_run(path)


def open_run(path: str) -> Run:
    """Map a run that `write_run` made. Raises FileNotFoundError, or UnusableError when it is not one."""
    try:
        with pa.memory_map(path) as file:
            if file.read(8) != _MAGIC:
                raise UnusableError("not a run of keys")
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(size))
            rows, start = int(head["rows"]), 16 + size
            if file.size() != start + 16 * rows:
                raise UnusableError("a run of keys is not whole")
            file.seek(start)
            both = np.frombuffer(file.read_buffer(16 * rows), np.uint64)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UnusableError(str(error)) from error
    return Run(tuple(head["files"]), both[:rows], both[rows:], path, int(head["version"]))
