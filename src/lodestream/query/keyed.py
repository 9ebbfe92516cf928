"""Rows by key in microseconds: `where key = value`, answered in the server process without a query engine.

The rows of the data files that somebody asks for by key are kept unpacked, memory-mapped, and beside them sorted
hashes of the key's columns. Data files never change, so a commit costs no more than its own files; small ones stay in
memory. Nothing is built before the second question, and what is built is shared by all server processes of a lake.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from lodestream.lake.actions import AddFile
from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.ports.waiting import before_waiting
from lodestream.query._keyed_index import ROWS_PER_RUN, Run, View, hash_of, view_of
from lodestream.query._keyed_rows import UnusableError
from lodestream.query._keyed_store import PoorKeyError, Store, evict
from lodestream.query._keyed_values import UnclearError, stored_as, where_equal

_ASKS_BEFORE = 2
_KEYS_MAX = 8
_ASKED_MAX = 64
_COLUMNS_MAX = 4
_SMALL_BYTES = 1 << 20
_SMALL_FILES = 16
_MEMORY_MAX = 64 << 20
_PARTS_MAX = 12
_TOUCH_EVERY = 4096
_AT_ONCE_ROWS = 16

Keys = tuple[str, ...]


@dataclass
class _Index:
    """What is known of one key."""

    runs: list[Run] = field(default_factory=list)
    view: View | None = None
    building: bool = False
    tidying: bool = False


class _Table:
    """One table as it is now; made anew when its columns change."""

    def __init__(self, folder: str, table: DeltaTable, snapshot: Snapshot) -> None:
        schema = snapshot.metadata.schema
        self.metadata = snapshot.metadata
        self.root = table.path
        self.store = Store(folder, table.disk, table.path, schema)
        self.arrow = to_arrow(schema)
        self.kinds = {field.name: field.type for field in self.arrow}
        self.lock = threading.RLock()
        self.asks: dict[Keys, int] = {}
        self.indexes: dict[Keys, _Index] = {}
        self.poor: set[Keys] = set()
        self.closed = False
        self.newest = -1
        self.files: Mapping[str, AddFile] = {}
        self.count = 0
        self.shapes: dict[tuple[Keys, Keys | None], tuple[pa.Schema, pa.Schema]] = {}

    def shape(self, columns: Sequence[str] | None, equals: Keys) -> tuple[pa.Schema, pa.Schema]:
        """The schema of the answer, and that with the compared columns."""
        asked = (equals, None if columns is None else tuple(columns))
        found = self.shapes.get(asked)
        if found is None:
            names = self.arrow.names if columns is None else list(columns)
            more = [name for name in equals if name not in names]
            answer = pa.schema([self.arrow.field(name) for name in names])
            found = answer, pa.schema([*answer, *(self.arrow.field(name) for name in more)]) if more else answer
            if len(self.shapes) >= _ASKED_MAX:
                self.shapes.clear()
            self.shapes[asked] = found
        return found


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be built in the background: an index over files of a version."""

    table: _Table
    keys: Keys
    version: int
    files: Mapping[str, AddFile]
    wanted: tuple[str, ...]
    again: bool = False


class KeyedReads:
    """Finds rows by equality. Safe from any thread.

    It knows nothing of policies: what it gives is for trusted code, which filters and masks it.

    Args:
        folder: where unpacked rows and indexes are kept, shared by all processes that name it; a folder of one's own,
            gone at `close`, for None.
        bytes_max: how much may be kept there; the tables asked longest ago go first.
    """

    def __init__(self, folder: str | None = None, *, bytes_max: int = 8 << 30) -> None:
        self._own = tempfile.mkdtemp(prefix="lodestream-keyed-") if folder is None else None
        self._folder = folder or self._own or ""
        self._bytes_max = bytes_max
        self._tables: dict[str, _Table] = {}
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Condition()
        self._waiting = 0
        self._builder: threading.Thread | None = None
        self._ended = False

    def find(
        self, table: DeltaTable, snapshot: Snapshot, equals: Mapping[str, object],
        columns: Sequence[str] | None = None, *, rows_max: int = 10_000,
    ) -> pa.Table | None:  # fmt: skip
        """The rows of one version in which each of these columns has this value.

        Args:
            table: says where the files are.
            snapshot: the version to read.
            equals: value by column; NULL equals nothing, NaN equals NaN, naive times are UTC.
            columns: names, in the order wanted; all when None.
            rows_max: more rows than this are better read in the ordinary way.

        Returns:
            The rows, in no order that means something, in the table's types; None when the ordinary way must be
            taken: the key is asked for the first time, its index is still being built or would be of no use, the
            value is not of the column's kind, or there is no such column.
        """
        state = self._table(table, snapshot)
        kinds = state.kinds
        if state.closed or not equals or not kinds.keys() >= {*equals, *(columns or ())}:
            return None
        try:
            values = {name: stored_as(value, kinds[name]) for name, value in equals.items()}
        except UnclearError:
            return None
        keys = tuple(sorted(equals))
        answer, wanted = state.shape(columns, keys)
        given = {name: value for name, value in values.items() if value is not None}
        if len(given) < len(values):
            return answer.empty_table()
        try:
            for one in self._indexes(state, keys):
                view = self._view(state, snapshot, one)
                if view is not None:
                    found = self._rows(state, snapshot, view, one, given, wanted, rows_max)
                    if found is not None:
                        rows = pa.Table.from_batches(found, wanted)
                        return rows if wanted is answer else rows.select(answer.names)
        except (FileNotFoundError, UnusableError):  # another process has cleared the folder
            self._mend(state, snapshot, keys)
        return None

    def settle(self, timeout_s: float = 60.0) -> bool:
        """Wait until nothing is being built; False when it takes longer."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting, timeout_s)

    def close(self) -> None:
        """End the builder; twice is harmless."""
        with self._lock:
            ended, self._ended = self._ended, True
            builder = self._builder
        if builder is not None and not ended:
            self._jobs.put(None)
            builder.join(10.0)
        self._tables.clear()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    # --- the question --------------------------------------------------------------------------------------------

    def _table(self, table: DeltaTable, snapshot: Snapshot) -> _Table:
        state = self._tables.get(table.path)
        if state is not None and state.metadata is snapshot.metadata:
            return state
        with self._lock:
            state = self._tables.get(table.path)
            known = state.metadata if state is not None else None
            told = snapshot.metadata
            if state is None or known is None or (known.id, known.schema) != (told.id, told.schema):
                name = hashlib.blake2b(f"{table.path}\0{told.id}".encode(), digest_size=12).hexdigest()
                state = _Table(os.path.join(self._folder, name), table, snapshot)
                if known is None or known.id != told.id or snapshot.version > self._tables[table.path].newest:
                    self._tables[table.path] = state
            return state

    def _indexes(self, state: _Table, keys: Keys) -> list[Keys]:
        """The keys to try: what is asked, or a part of it that has an index."""
        if keys in state.indexes:
            return [keys]
        parts = [one for one in list(state.indexes) if set(one) < set(keys)]
        return [*sorted(parts, key=len, reverse=True), keys]

    def _view(self, state: _Table, snapshot: Snapshot, keys: Keys) -> View | None:
        """The index over a version; None when there is none yet."""
        index = state.indexes.get(keys)
        if index is not None and index.view is not None and index.view.version == snapshot.version:
            return index.view
        before_waiting()
        if keys in state.poor or len(keys) > _COLUMNS_MAX or (index is not None and index.building):
            return None
        with state.lock:
            if index is None and not self._asked_often(state, keys):
                return None
            index = state.indexes.setdefault(keys, _Index())
            if snapshot.version < state.newest:
                view, missing = view_of(snapshot.version, snapshot.files, index.runs)
                return None if missing else view
            self._follow(state, snapshot)
            return self._newest(state, snapshot, keys, index)

    def _asked_often(self, state: _Table, keys: Keys) -> bool:
        if len(state.asks) >= _ASKED_MAX:
            state.asks.clear()
        state.asks[keys] = state.asks.get(keys, 0) + 1
        return state.asks[keys] >= _ASKS_BEFORE and len(state.indexes) < _KEYS_MAX

    def _follow(self, state: _Table, snapshot: Snapshot) -> None:
        """Let go of the files that this version has no more."""
        if snapshot.version > state.newest:
            gone = [file for file in state.files if file not in snapshot.files]
            state.newest, state.files = snapshot.version, snapshot.files
            state.store.drop(gone)
            state.store.touch()

    def _newest(self, state: _Table, snapshot: Snapshot, keys: Keys, index: _Index) -> View | None:
        """The index over the newest version, with what is small read on the spot and the rest left to the builder."""
        version, files = snapshot.version, snapshot.files
        view, missing = view_of(version, files, index.runs)
        if missing:
            mine = [run for run in index.runs if run.path is None]
            index.runs = [*state.store.known(keys, index.runs), *mine]
            view, missing = view_of(version, files, index.runs)
        adds = [files[file] for file in missing]
        if len(adds) <= _SMALL_FILES and all(add.size <= _SMALL_BYTES for add in adds):
            try:
                index.runs += state.store.load(keys, adds, version)
            except UnusableError:
                return None
            view, missing = view_of(version, files, index.runs)
        if missing:
            self._build(_Job(state, keys, version, files, tuple(missing)), index)
            return None
        parts = {run.path or id(run) for run, _ in view.parts}
        index.runs = [run for run in index.runs if (run.path or id(run)) in parts]
        index.view = view
        self._tidy(state, snapshot, keys, index, view)
        return view

    def _tidy(self, state: _Table, snapshot: Snapshot, keys: Keys, index: _Index, view: View) -> None:
        """Have many small runs made one, and what takes up much memory put into files."""
        wanted: list[str] = []
        if state.store.in_memory > _MEMORY_MAX:
            wanted = state.store.held()
        small = sorted((run for run, _ in view.parts if len(run.hashes) < ROWS_PER_RUN // 2), key=_entries)
        if len(small) > _PARTS_MAX:
            wanted += [file for run in small[: _PARTS_MAX * 2 // 3] for file in run.files]
        live = tuple(file for file in dict.fromkeys(wanted) if file in snapshot.files)
        if live:
            self._build(_Job(state, keys, snapshot.version, snapshot.files, live, again=True), index)

    def _rows(
        self, state: _Table, snapshot: Snapshot, view: View, keys: Keys, values: Mapping[str, pa.Array],
        wanted: pa.Schema, rows_max: int,
    ) -> list[pa.RecordBatch] | None:  # fmt: skip
        """The rows that have the values, looked up by some of them; None when too many may."""
        state.count += 1
        if not state.count % _TOUCH_EVERY:
            state.store.touch()
        places = view.find(hash_of([values[name] for name in keys]))
        count = sum(len(rows) for _, rows in places)
        if count > _AT_ONCE_ROWS:
            before_waiting()
        if count > rows_max:
            return None
        found = []
        for file, rows in places:
            for batch in state.store.rows(snapshot.files[file]).take(rows, wanted):
                same = where_equal(batch, values)
                if same.num_rows:
                    found.append(same)
        return found

    def _mend(self, state: _Table, snapshot: Snapshot, keys: Keys) -> None:
        """Have the rows written again that a run has and the folder has not."""
        with state.lock:
            if snapshot.version != state.newest:
                return
            for one in self._indexes(state, keys):
                index = state.indexes.get(one)
                lost = tuple(state.store.lacks(snapshot.files))
                if index is not None and lost:
                    self._build(_Job(state, one, snapshot.version, snapshot.files, lost, again=True), index)

    # --- the builder ---------------------------------------------------------------------------------------------

    def _build(self, job: _Job, index: _Index) -> None:
        """Have it built in the background, each index once at a time."""
        with self._lock:
            if self._ended or index.building or (job.again and index.tidying):
                return
            if self._builder is None:
                self._builder = threading.Thread(target=self._work, name="keyed reads", daemon=True)
                self._builder.start()
        with self._idle:
            self._waiting += 1
        if job.again:
            index.tidying = True
        else:
            index.building = True
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._run(job)
            finally:
                with job.table.lock:
                    if (index := job.table.indexes.get(job.keys)) is not None and job.again:
                        index.tidying = False
                    elif index is not None:
                        index.building = False
                with self._idle:
                    self._waiting -= 1
                    self._idle.notify_all()

    def _run(self, job: _Job) -> None:
        state, store = job.table, job.table.store
        adds = [job.files[file] for file in job.wanted]
        if job.keys not in state.indexes:
            return
        try:
            if not store.fits(adds, self._bytes_max):
                state.closed = not job.again
                return
            with store.alone():
                store.clean(job.files, job.version)
                with state.lock:
                    index = state.indexes[job.keys]
                    known = store.known(job.keys, index.runs)
                if not job.again:
                    there = {file for run in known for file in run.files}
                    adds = [add for add in adds if add.path not in there]
                made = list(known)
                for run in store.build(job.keys, adds, job.version):
                    made.append(run)
                    if self._ended:
                        return
                self._settle(state, job, made)
            if not evict(self._folder, self._bytes_max, store.folder):
                state.closed = True
        except PoorKeyError:
            with state.lock:
                state.poor.add(job.keys)
                del state.indexes[job.keys]
        except (UnusableError, OSError, pa.ArrowException):  # the ordinary way tells, if it is not gone by then
            with state.lock:
                state.asks.pop(job.keys, None)
                if not job.again:
                    del state.indexes[job.keys]

    def _settle(self, state: _Table, job: _Job, made: Sequence[Run]) -> None:
        """Take over what was made, and delete the runs of which no file counts any more."""
        with state.lock:
            index = state.indexes[job.keys]
            mine = [run for run in index.runs if run.path is None]
            version, files = (state.newest, state.files) if state.newest > job.version else (job.version, job.files)
            view, _ = view_of(version, files, [*made, *mine])
            counts = {id(run) for run, _ in view.parts}
            for run in made:
                if id(run) not in counts and run.path is not None and run.version <= version:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(run.path)
            index.runs = [run for run in (*made, *mine) if id(run) in counts]
            index.view = None


def _entries(run: Run) -> int:
    return len(run.hashes)
