"""A Delta table on a disk: open, stage files, commit in O(1), read, keep the log short."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.lake import maintenance
from lodestream.lake.actions import HOT_TAG, AddFile, Commit, Metadata, Protocol, RemoveFile
from lodestream.lake.crash import point
from lodestream.lake.data import Encodings, conform, local_paths, read_files
from lodestream.lake.disk import Disk, prepared, random_id
from lodestream.lake.log import Snapshot, commit_path, list_log, load, log_folder, read_commit
from lodestream.lake.partitions import check_partitions, without_empty_text
from lodestream.lake.proposal import Proposal
from lodestream.lake.staging import Staged, stage_files
from lodestream.model.types import Schema

__all__ = ["Commit", "DeltaTable", "Staged"]


_BRIEF_MS = 60_000


class DeltaTable:
    """One handle on a table; its methods may be called from several threads.

    Args:
        disk: the seam for every effect.
        path: folder of the table.
        snapshot: the state to start from.
        new_id: source of unique names.

    Attributes:
        removed_kept_ms: how long it remembers removed files, milliseconds; those of open windows only as long as the
            table's properties say.
    """

    removed_kept_ms = maintenance.WEEK_MS

    def __init__(self, disk: Disk, path: str, snapshot: Snapshot, new_id: Callable[[], str] = random_id) -> None:
        self.disk = disk
        self.path = path
        self._snapshot = snapshot
        self._swapped: dict[str, RemoveFile] = {}
        self._removed: deque[tuple[int, str]] = deque()
        self._note_removed(sorted(snapshot.tombstones.values(), key=lambda gone: gone.deletion_time))
        self._new_id, self._forgetful = new_id, False
        self._encodings = Encodings()
        self._lock = threading.Lock()
        self._durable = snapshot.version

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: str,
        schema: Schema,
        *,
        partition_columns: Sequence[str] = (),
        configuration: Mapping[str, str] | None = None,
        table_id: str,
        clock_us: int,
        new_id: Callable[[], str] = random_id,
    ) -> DeltaTable:
        """Make the table, or open it when it is there: whoever loses the race gets the winner's.

        Args:
            disk: the seam for every effect.
            path: folder of the table; made when missing.
            schema: all columns, partition columns included.
            partition_columns: names, in folder order.
            configuration: table properties.
            table_id: Delta id, a UUID.
            clock_us: now, microseconds.
            new_id: source of unique names.
        """
        check_partitions(schema, partition_columns)
        if standing := cls.open(disk, path, new_id):
            return standing
        now_ms = clock_us // 1000
        columns = tuple(partition_columns)
        metadata = Metadata(table_id, schema, columns, dict(configuration or {}), created_time=now_ms)
        first = Proposal.of(
            path, metadata=metadata, protocol=Protocol(), now_ms=now_ms, operation="CREATE TABLE", unique=new_id()
        )
        point("create.before")
        with prepared(disk, log_folder(path), first.to_bytes(), new_id) as entry:
            point("create.staged")
            with contextlib.suppress(FileExistsError):
                entry.put(commit_path(path, 0))
            point("create.linked")
            disk.sync_directory(log_folder(path))
            point("create.synced")
        table = cls.open(disk, path, new_id)
        if table is None:
            raise CorruptionError("table disappeared while it was made", table=path)
        return table

    @classmethod
    def open(cls, disk: Disk, path: str, new_id: Callable[[], str] = random_id) -> DeltaTable | None:
        """The table in that folder; None when there is none.

        What it shows is durable: a writer that died between link and sync is helped out.

        Raises:
            CorruptionError: its log is damaged; the message says how far `lodestream doctor --repair` helps.
            ConfigError: it needs features that cannot be read here.
        """
        snapshot = load(disk, path)
        if snapshot is None:
            return None
        disk.sync_directory(log_folder(path))
        return cls(disk, path, snapshot, new_id)

    @classmethod
    def follow(cls, disk: Disk, path: str, new_id: Callable[[], str] = random_id) -> DeltaTable | None:
        """The same for who goes on with the table for long and never looks after it.

        It soon forgets removed files, of which a busy table has a million in two days; so it makes no checkpoint.
        """
        table = cls.open(disk, path, new_id)
        return None if table is None else table.forgetful()

    def forgetful(self) -> DeltaTable:
        """This handle, which remembers removed files for a minute from now on."""
        self._forgetful, self.removed_kept_ms = True, _BRIEF_MS
        return self

    @property
    def snapshot(self) -> Snapshot:
        """The newest version this handle knows; it never changes, `refresh` and `commit` put another in its place."""
        return self._snapshot

    def refresh(self) -> Snapshot:
        """Take in the versions that others have made since; reads only those, and they are durable afterwards."""
        with self._lock:
            snapshot = self._refresh()
            if snapshot.version > self._durable:
                # Their writer may have died between link and sync, and what the caller does next relies on them.
                self.disk.sync_directory(log_folder(self.path))
                self._durable = snapshot.version
            return snapshot

    def _refresh(self) -> Snapshot:
        while True:
            try:
                self._advance(read_commit(self.disk, self.path, self._snapshot.version + 1))
            except FileNotFoundError:
                break
        if not self.disk.exists(commit_path(self.path, self._snapshot.version)):
            self._reload()  # the log was cleaned up past us, so a missing next version proves nothing
        return self._snapshot

    def _reload(self) -> None:
        newest = load(self.disk, self.path)
        if (
            newest is None
            or newest.version < self._snapshot.version
            or newest.metadata.id != self._snapshot.metadata.id
        ):
            fix = "stop what uses it and start again"
            raise CorruptionError("table was deleted or replaced while in use", table=self.path, fix=fix)
        self._snapshot = newest
        self._swapped.clear()
        self._removed.clear()
        self._note_removed(sorted(newest.tombstones.values(), key=lambda gone: gone.deletion_time))

    def _advance(self, commit: Commit) -> None:
        """Go on to the next version, and forget files that left long ago: there are more of them with every batch."""
        snapshot = self._snapshot.after(commit)
        self._note_removed(commit.removes)
        for add in commit.adds:
            self._swapped.pop(add.path, None)  # a restore brings files back
        kept_ms = maintenance.removed_kept_ms(snapshot.metadata)
        before_ms, old = commit.timestamp_ms - kept_ms, []
        for path, gone in self._swapped.items():
            if gone.deletion_time >= before_ms:
                break
            old.append(path)
        for path in old:
            del self._swapped[path]
        before_ms = commit.timestamp_ms - self.removed_kept_ms
        while self._removed and self._removed[0][0] < before_ms:
            removed_ms, path = self._removed.popleft()
            if path in snapshot.tombstones and snapshot.tombstones[path].deletion_time == removed_ms:
                old.append(path)
        if old:
            snapshot = replace(snapshot, tombstones=snapshot.tombstones.changed(drop=old))
        self._snapshot = snapshot

    def _note_removed(self, removes: Iterable[RemoveFile]) -> None:
        for gone in removes:
            if gone.tags.get(HOT_TAG) == "true":
                self._swapped[gone.path] = gone
            else:
                self._removed.append((gone.deletion_time, gone.path))

    def stage(
        self,
        rows: pa.Table,
        *,
        name: str,
        partitions: Sequence[str] | None = None,
        hot: bool = False,
        schema: Schema | None = None,
    ) -> Staged:
        """Write rows durably as data files that `commit` can add.

        Args:
            rows: columns by name; missing ones become NULL. Empty strings in partition columns become NULL.
            name: part of the file names; unique per table and attempt.
            partitions: partition columns; the table's when None.
            hot: mark the files as open windows.
            schema: columns to write when they differ from the table's (a schema change in the same commit).

        Raises:
            ConfigError: the rows do not fit the schema.
            ConflictError: the name was used before.
            TransientError: the disk is full; nothing is left of the files.
        """
        metadata = self._snapshot.metadata
        partitions = metadata.partition_columns if partitions is None else tuple(partitions)
        rows = without_empty_text(conform(rows, schema or metadata.schema), partitions)
        return stage_files(
            self.disk, self.path, rows, partitions=partitions, name=name, hot=hot, encodings=self._encodings
        )

    def commit(
        self,
        *,
        adds: Iterable[AddFile] = (),
        removes: Iterable[AddFile | RemoveFile] = (),
        txn: tuple[str, int] | Mapping[str, int] | None = None,
        info: Mapping[str, object] | None = None,
        metadata: Metadata | None = None,
        clock_us: int,
        operation: str = "WRITE",
        blind: bool = True,
    ) -> int:
        """Make the next version: the files of `adds` join and those of `removes` leave, all at once and durably.

        Args:
            adds: staged files.
            removes: live files; give `RemoveFile.of(add, data_change=False)` when their rows stay.
            txn: (application id, version), or several by id; each must be higher than the one recorded.
            info: what else to record in `commitInfo`, JSON values.
            metadata: new metadata.
            clock_us: now, microseconds.
            operation: name of the operation in the history.
            blind: False when the commit was computed from the whole table, so that any other change is a conflict.

        Returns:
            The version made.

        Raises:
            ConflictError: another writer came first with the same application id, new metadata, or a removed file;
                or a recorded `txn` is as high. Nothing was committed; refresh and decide again.
            TransientError: it may or may not be committed when the last sync failed; refresh and look at `txns`.
        """
        proposal = Proposal.of(
            self.path, adds=adds, removes=removes, txns=dict([txn]) if isinstance(txn, tuple) else txn, info=info,
            metadata=metadata, now_ms=clock_us // 1000, operation=operation, blind=blind, unique=self._new_id(),
        )  # fmt: skip
        with self._lock:
            proposal.check(self._snapshot)
            return self._link(proposal)

    def _link(self, ours: Proposal) -> int:
        point("commit.before")
        with prepared(self.disk, log_folder(self.path), ours.to_bytes(), self._new_id) as entry:
            point("commit.staged")
            while True:
                version = self._snapshot.version + 1
                try:
                    entry.put(commit_path(self.path, version))
                except FileExistsError:
                    point("commit.lost_race")
                    winner = read_commit(self.disk, self.path, version)
                    if winner.info.get("txnId") != ours.commit.info["txnId"]:  # else it is ours: the link had worked
                        ours.refuse(winner)
                        self._advance(winner)
                        continue
                point("commit.linked")
                self.disk.sync_directory(log_folder(self.path))
                point("commit.synced")
                self._advance(replace(ours.commit, version=version))
                self._durable = version
                break
        point("commit.done")
        return version

    def discard(self, adds: Iterable[AddFile]) -> None:
        """Delete staged files that will never be committed; those that a version knows are left alone.

        For after a ConflictError or a failed commit: it looks whether the commit took place after all.
        """
        with self._lock:
            snapshot = self._refresh()
        for add in adds:
            if add.path not in snapshot.files and add.path not in snapshot.tombstones:
                with contextlib.suppress(FileNotFoundError):
                    self.disk.unlink(self.file_path(add))

    def commits(self, after: int, upto: int | None = None) -> Iterator[Commit]:
        """The versions after `after`, up to `upto` or the newest; each is durable when it is given out.

        Raises:
            DataLossRefused: a version is no longer in the log.
        """
        version = after + 1
        while upto is None or version <= upto:
            try:
                commit = read_commit(self.disk, self.path, version)
            except FileNotFoundError:
                self._refuse_gap(version, upto)
                return
            if version > self._durable:  # its writer may have died, or not come yet, between link and sync
                self.disk.sync_directory(log_folder(self.path))
                self._durable = version
            yield commit
            version += 1

    def _refuse_gap(self, version: int, upto: int | None) -> None:
        if upto is None and self.disk.exists(commit_path(self.path, version - 1)):
            return  # cleanup deletes the oldest first, so what follows a commit that is there has not been made yet
        newest = list_log(self.disk, self.path).last
        if version <= newest:
            fix = "rebuild the table that reads it, or keep the log longer (retention)"
            raise DataLossRefused("version is no longer in the log", table=self.path, version=version, fix=fix)
        if upto is not None:
            raise CorruptionError("table does not have this version", table=self.path, version=upto, newest=newest)

    def read(
        self, adds: Iterable[AddFile], columns: Sequence[str] | None = None, schema: Schema | None = None
    ) -> pa.Table:
        """Rows of the files, in file order and row order, in the table's Arrow schema (or that of `columns`).

        Columns that a file does not have are NULL. `schema` reads with other columns than the newest.
        """
        return read_files(self.disk, self.path, adds, schema or self._snapshot.metadata.schema, columns)

    def file_path(self, add: AddFile) -> str:
        """Where the file is on the disk."""
        return os.path.join(self.path, add.file)

    def local_paths(self, adds: Iterable[AddFile], columns: Collection[str] | None = None) -> Sequence[str]:
        """Where the files, or copies with at least these columns, are on this machine; see `data.local_paths`."""
        return local_paths(self.disk, self.path, adds, columns)

    def files(self) -> list[AddFile]:
        """Live files of the newest known version, by path."""
        return sorted(self._snapshot.files.values(), key=lambda add: add.path)

    def hot_files(self) -> list[AddFile]:
        """Live files that hold open windows; costs nothing however large the table is."""
        return list(self._snapshot.hot.values())

    def swapped_files(self) -> list[RemoveFile]:
        """Files of open windows that left, oldest first, as long as the table's properties want them remembered."""
        return list(self._swapped.values())

    def snapshot_at(self, version: int) -> Snapshot:
        """The table as it was; DataLossRefused when the log no longer reaches back."""
        if version == self._snapshot.version:
            return self._snapshot
        snapshot = load(self.disk, self.path, version)
        if snapshot is None:
            raise CorruptionError("table was deleted while in use", table=self.path)
        return snapshot

    def read_version(self, version: int) -> list[AddFile]:
        """Files that were live at `version`, by path."""
        return sorted(self.snapshot_at(version).files.values(), key=lambda add: add.path)

    def checkpoint(self, clock_us: int | None = None, tombstones_kept_us: int = 0) -> int:
        """Write the newest known version as a checkpoint, durably; safe while others commit.

        Args:
            clock_us: now, microseconds; by it old tombstones are forgotten. The table's newest time when None.
            tombstones_kept_us: how long removed files are remembered at least, those of open windows aside.

        Returns:
            The version of the checkpoint.
        """
        if self._forgetful:
            raise ValueError("this handle has forgotten files that a checkpoint has to name")
        now_ms = None if clock_us is None else clock_us // 1000
        kept_ms = tombstones_kept_us // 1000
        return maintenance.checkpoint(self.disk, self.path, self._snapshot, now_ms, self._new_id, kept_ms=kept_ms)

    def clean_log(self, *, keep_versions: int, needed_from: int, older_than_us: int | None = None) -> int:
        """Delete commits that neither readers nor recovery need; see `maintenance.clean_log`."""
        return maintenance.clean_log(
            self.disk, self.path, keep_versions, needed_from, None if older_than_us is None else older_than_us // 1000
        )
