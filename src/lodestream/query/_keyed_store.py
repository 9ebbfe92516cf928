"""What is kept of one table for keyed reads: a folder that server processes share, and what this one has mapped."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from lodestream.lake.actions import AddFile
from lodestream.lake.disk import Disk
from lodestream.model.arrow import to_arrow
from lodestream.model.types import Schema
from lodestream.query import _keyed_index as index
from lodestream.query import _keyed_rows as stored
from lodestream.query._keyed_index import ROWS_PER_RUN, Run
from lodestream.query._keyed_rows import Rows, UnusableError

_RUN, _ROWS = ".run", ".arrow"
_ROWS_PER_KEY_MAX = 1000
_PER_KEY_FROM = 10_000
_FREE_MIN = 1 << 30


class PoorKeyError(Exception):
    """So many rows share a key that reading by it is no faster."""


class Store:
    """Rows and runs of one table.

    Args:
        folder: the table's own folder in the cache; made when something is built.
        disk: where the table is.
        root: folder of the table.
        schema: its columns.
    """

    def __init__(self, folder: str, disk: Disk, root: str, schema: Schema) -> None:
        self.folder = folder
        self.schema = schema
        self._disk, self._root = disk, root
        self._full = to_arrow(schema)
        self._rows: dict[str, Rows] = {}
        self._made = 0

    @property
    def in_memory(self) -> int:
        """Bytes of rows that this process holds in memory."""
        return sum(rows.nbytes for rows in list(self._rows.values()) if rows.in_memory)

    def held(self) -> list[str]:
        """Files whose rows this process holds in memory."""
        return [file for file, rows in list(self._rows.items()) if rows.in_memory]

    def rows(self, add: AddFile) -> Rows:
        """The rows of a file that a run has. Raises FileNotFoundError or UnusableError when they are there no more."""
        found = self._rows.get(add.path)
        if found is None:
            found = self._rows[add.path] = stored.opened(self._rows_path(add.path), add.partition_values)
        return found

    def load(self, keys: Sequence[str], adds: Sequence[AddFile], version: int) -> list[Run]:
        """Runs over small files, one each, in memory. Raises UnusableError."""
        runs = []
        for add in adds:
            rows = self._rows.get(add.path)
            if rows is None:
                rows = self._rows[add.path] = stored.load(self._disk, self._root, add, self.schema)
            runs.append(index.run_of([add.path], [index.entries(0, rows.columns(self._keys(keys)))], version))
        return runs

    def known(self, keys: Sequence[str], runs: Sequence[Run]) -> list[Run]:
        """The runs in the folder, those given and those that other processes have made."""
        opened = {run.path: run for run in runs if run.path is not None}
        folder = self._keys_folder(keys)
        found = []
        for name in _listed(folder):
            path = os.path.join(folder, name)
            if not name.endswith(_RUN):
                continue
            with contextlib.suppress(FileNotFoundError, UnusableError):
                found.append(opened.get(path) or index.open_run(path))
        return found

    def build(self, keys: Sequence[str], adds: Sequence[AddFile], version: int) -> Iterator[Run]:
        """Write rows and runs over files that are in none of the folder's; to be called under `alone`.

        Raises:
            UnusableError: a file cannot be read.
            PoorKeyError: too many rows share a key.
            OSError: the disk is full, or may not be written.
        """
        group: list[AddFile] = []
        found: list[tuple[index.U64, index.U64]] = []
        for number, add in enumerate(adds):
            found.append(index.entries(len(group), self._keys_of(add, keys)))
            group.append(add)
            if sum(len(hashes) for hashes, _ in found) >= ROWS_PER_RUN or number == len(adds) - 1:
                run = index.run_of([one.path for one in group], found, version)
                if len(run.hashes) >= _PER_KEY_FROM and run.rows_per_key > _ROWS_PER_KEY_MAX:
                    raise PoorKeyError
                for one in group:
                    self._write_rows(one, version)
                os.makedirs(self._keys_folder(keys), exist_ok=True)
                self._made += 1
                name = f"{version}-{os.getpid()}-{self._made}{_RUN}"
                yield index.write_run(os.path.join(self._keys_folder(keys), name), run)
                group, found = [], []

    def _keys_of(self, add: AddFile, keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of a file in the key's columns, in the table's types."""
        wanted = self._keys(keys)
        try:
            yield from self.rows(add).columns(wanted)
        except FileNotFoundError:
            for batch in stored.read(self._disk, self._root, add, self.schema, keys):
                yield from Rows([batch], add.partition_values, in_memory=True).columns(wanted)

    def _write_rows(self, add: AddFile, version: int) -> None:
        path = self._rows_path(add.path)
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            stored.write(path, stored.read(self._disk, self._root, add, self.schema), version, add.path)
        held = self._rows.get(add.path)
        if held is not None and held.in_memory:
            del self._rows[add.path]

    def fits(self, adds: Sequence[AddFile], bytes_max: int) -> bool:
        """Whether there is room for what would be built of these files; unpacked they take a few times their size."""
        size = 4 * sum(add.size for add in adds)
        place = self.folder
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        return size <= bytes_max and shutil.disk_usage(place).free > size + _FREE_MIN

    def lacks(self, files: Iterable[str]) -> list[str]:
        """Files whose rows are neither held nor in the folder."""
        return [
            file for file in files
            if not ((held := self._rows.get(file)) and held.in_memory) and not os.path.exists(self._rows_path(file))
        ]  # fmt: skip

    def drop(self, files: Sequence[str]) -> None:
        """Let go of files that are live no more."""
        for file in files:
            self._rows.pop(file, None)
            _unlink(self._rows_path(file))

    def clean(self, files: Mapping[str, object], version: int) -> None:
        """Delete what was left behind: unfinished files, and rows of files that were live no more by `version`.

        To be called under `alone`.
        """
        names = {os.path.basename(self._rows_path(file)) for file in files}
        for folder, _, found in os.walk(self.folder):
            for name in found:
                path = os.path.join(folder, name)
                if name.endswith(".tmp"):
                    _unlink(path)
                elif name.endswith(_ROWS) and name not in names:
                    with contextlib.suppress(UnusableError):
                        if stored.facts(path)[0] <= version:
                            _unlink(path)

    def alone(self) -> contextlib.AbstractContextManager[bool]:
        """Alone among all processes to build and to delete."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        return locked(self.folder, wait=True)

    def touch(self) -> None:
        """This table is in use: others are evicted before it."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(os.path.join(self.folder, "lock"))

    def _keys(self, keys: Sequence[str]) -> pa.Schema:
        return pa.schema([self._full.field(name) for name in keys])

    def _keys_folder(self, keys: Sequence[str]) -> str:
        return os.path.join(self.folder, _digest(json.dumps(list(keys))))

    def _rows_path(self, file: str) -> str:
        return os.path.join(self.folder, "rows", _digest(file) + _ROWS)


@contextlib.contextmanager
def locked(folder: str, *, wait: bool) -> Iterator[bool]:
    """The lock of a table's folder; gives whether it was granted. Raises FileNotFoundError when the folder is gone."""
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def evict(root: str, bytes_max: int, keep: str) -> bool:
    """Delete folders of tables, those first that were asked longest ago, until the rest fits.

    Returns:
        Whether it fits with the folder `keep` in it, which is the last to go.
    """
    sizes = {name: _size(os.path.join(root, name)) for name in _listed(root)}
    total = sum(sizes.values())
    kept = os.path.basename(keep)
    for name in sorted(sizes, key=lambda name: (name == kept, _used(os.path.join(root, name)))):
        if total <= bytes_max:
            return True
        with contextlib.suppress(FileNotFoundError), locked(os.path.join(root, name), wait=False) as granted:
            if granted:
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)
                total -= sizes[name]
    return kept not in sizes


def _used(folder: str) -> float:
    try:
        return os.stat(os.path.join(folder, "lock")).st_mtime
    except FileNotFoundError:
        return 0.0


def _size(folder: str) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(where, name)).st_blocks * 512
    return total


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
