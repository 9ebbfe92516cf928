"""Deletes files that no version of now needs and that hold what was erased: time travel ends where they are missed."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.engines.embedded.checkpoints import forget_spark
from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.embedded.leaving import Positions
from lodestream.engines.embedded.ledger import ledger_path
from lodestream.engines.embedded.sink_memory import SinkMemory
from lodestream.engines.embedded.store import FlowStore
from lodestream.lake.actions import ERASE, HOT_TAG
from lodestream.lake.disk import Disk, LocalDisk, Stored, replace_durable
from lodestream.lake.layout import app_id, component_cache, epoch_of, flow_folder, quarantine_name, table_path
from lodestream.lake.log import list_log, read_commit
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan, Mend
from lodestream.model.steps import FlowPlan
from lodestream.model.table import LAYERS
from lodestream.operations.erase.proof import opened, shown_in
from lodestream.operations.erase.subject import Subject


@dataclass
class Purged:
    """What was deleted of one table.

    Attributes:
        files: data files.
        size: their bytes.
        states: state files.
        kept_for: sinks that still compare with a file that holds the subject.
    """

    files: int = 0
    size: int = 0
    states: int = 0
    kept_for: tuple[str, ...] = ()


class Purge:
    """Deletes what is left of a subject in files that are not live.

    Args:
        disk: the lake's disk.
        lake: its root folder.
        subject: who.
    """

    def __init__(self, disk: Disk, lake: str, subject: Subject) -> None:
        self._disk, self._lake, self._subject = disk, lake, subject

    def table(self, plan: FlowPlan, gone: Positions) -> Purged:
        """Delete data files of a table and its quarantine, states and texts in plans; a second time finds nothing."""
        name, done = plan.table.name, Purged()
        table = DeltaTable.open(self._disk, table_path(self._lake, name))
        if table is not None:
            self._files(plan, table, gone, self._compared(plan, table), done)
        aside = DeltaTable.open(self._disk, table_path(self._lake, quarantine_name(name)))
        if aside is not None:
            self._files(plan, aside, gone, frozenset(), done)
        answers = DeltaTable.open(self._disk, ledger_path(self._lake, name))
        if answers is not None:
            self._files(plan, answers, Positions(()), frozenset(), done)
        table = DeltaTable.open(self._disk, table_path(self._lake, name))
        if table is not None:
            self._states(plan, table, gone, done)
        return done

    def _compared(self, plan: FlowPlan, table: DeltaTable) -> frozenset[str]:
        """Files that sinks still compare with, to tell which rows left a table whose rows change."""
        found: set[str] = set()
        for sink in plan.sinks:
            remembered = SinkMemory(self._disk, self._lake, sink.name).read() if sink.changing else None
            if remembered is None:
                continue
            found.update(decode_path(path, table.path) for path in (*remembered.hot, *remembered.hot_upto))
            came: set[str] = set()
            for commit in table.commits(remembered.position.version):
                found.update(decode_path(one.path, table.path) for one in commit.removes if one.path not in came)
                came.update(add.path for add in commit.adds)
        return frozenset(found)

    def _files(
        self, plan: FlowPlan, table: DeltaTable, gone: Positions, pinned: frozenset[str], done: Purged
    ) -> None:  # fmt: skip
        live = {add.file for add in table.snapshot.files.values()}
        taken_out = _erased_files(self._disk, table)
        folders = set()
        for one in data_files(self._disk, table.path):
            relative = one.path
            if relative in live:
                continue
            path = os.path.join(table.path, relative)
            if relative not in taken_out and not self._holds(plan, path, gone):
                continue
            if relative in pinned:
                done.kept_for = tuple(sorted({*done.kept_for, *(str(sink.name) for sink in plan.sinks)}))
                continue
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path)
                done.files, done.size = done.files + 1, done.size + one.bytes
                folders.add(os.path.dirname(path))
        for folder in folders:
            self._disk.sync_directory(folder)

    def _holds(self, plan: FlowPlan, path: str, gone: Positions) -> bool:
        """Whether a data file holds a row of the subject; one that cannot be read is left to `doctor`."""
        names = (plan.table.name, *plan.streams)
        tests = [test for name in names for test in self._subject.tests.get(name, ())]
        try:
            with opened(self._disk, path) as whole, pq.ParquetFile(whole) as file:
                for batch in file.iter_batches():
                    rows = pa.Table.from_batches([batch])
                    placed = {"_source", "_position"} <= set(rows.column_names)
                    if (placed and gone.among(rows).any()) or shown_in(rows, tests, self._subject):
                        return True
        except (pa.ArrowException, OSError):
            return False
        return False

    # --- states and plans ---------------------------------------------------------------------------------------------

    def _states(self, plan: FlowPlan, table: DeltaTable, gone: Positions, done: Purged) -> None:
        """States that the newest commit does not lead to, what Spark has left behind, and texts of mended rows."""
        name = plan.table.name
        epoch = epoch_of(table.snapshot.metadata.configuration)
        commit = flow_commit(table, name)
        batch = commit.txns[app_id(name, epoch)] if commit is not None else 0
        store = FlowStore(self._disk, self._lake, name, epoch)
        kept: set[str] = set()
        if commit is not None and "state" in commit.info:
            chain = store.chain(str(commit.info["state"]), table.snapshot.metadata.id, epoch, batch)
            kept = {link.name for link in chain}
        for folder in self._disk.list(flow_folder(self._lake, name)):
            root = os.path.join(flow_folder(self._lake, name), folder)
            if not folder.isdigit() or int(folder) > epoch:
                continue
            for state in self._disk.list(os.path.join(root, "state")):
                old = int(folder) < epoch or (state[:20].isdigit() and int(state[:20]) <= batch)
                if old and state not in kept:
                    with contextlib.suppress(FileNotFoundError):
                        self._disk.unlink(os.path.join(root, "state", state))
                        done.states += 1
            self._plans(os.path.join(root, "plans"), gone, batch if int(folder) == epoch else None)
            if int(folder) < epoch or (commit is not None and "state" in commit.info):
                forget_spark(self._disk, root)

    def _plans(self, folder: str, gone: Positions, upto: int | None) -> None:
        """Take the new values of mended rows out of plans that have run."""
        for name in self._disk.list(folder):
            if not name[:20].isdigit() or (upto is not None and int(name[:20]) > upto):
                continue
            path = os.path.join(folder, name)
            data = self._disk.read(path)
            if b'"mended":[]' in data:
                continue
            standing = BatchPlan.from_json(data)
            texts = tuple(
                (s, p, replace(Mend.from_json(text), values={}, raw=None).to_json() if (s, p) in gone.keys else text)
                for s, p, text in standing.mended
            )
            if texts != standing.mended:
                replace_durable(self._disk, path, replace(standing, mended=texts).to_json())

    def caches(self) -> None:
        """Delete what this machine keeps of rows to read them faster; it is made again from what stands."""
        home = self._disk.beside(self._lake)
        kept = [os.path.join(component_cache(home), "keyed")]
        if home != self._lake:
            kept += [os.path.join(home, layer) for layer in LAYERS]
        here = LocalDisk()
        for folder in kept:
            for one in here.walk(folder):
                if os.path.basename(one.path) != "lock":
                    with contextlib.suppress(FileNotFoundError):
                        here.unlink(os.path.join(folder, one.path))


def data_files(disk: Disk, root: str) -> list[Stored]:
    """Every Parquet file of a table's folder but those of its log, by path relative to it."""
    found = (one for one in disk.walk(root) if one.path.endswith(".parquet"))
    return sorted((one for one in found if not one.path.startswith("_delta_log/")), key=lambda one: one.path)


def _erased_files(disk: Disk, table: DeltaTable) -> set[str]:
    """Files that erasing commits took out, as far as the log tells, and files of open windows from before them."""
    found: set[str] = set()
    last_ms = 0
    for version in list_log(disk, table.path).commits:
        with contextlib.suppress(FileNotFoundError):
            commit = read_commit(disk, table.path, version)
            if commit.info.get("operation") == ERASE:
                found.update(decode_path(remove.path, table.path) for remove in commit.removes)
                last_ms = max(last_ms, commit.timestamp_ms)
    for path, removed in table.snapshot.tombstones.items():
        if removed.tags.get(HOT_TAG) == "true" and removed.deletion_time <= last_ms:
            found.add(decode_path(path, table.path))
    return found
