"""The state of a table at a version: newest usable checkpoint, then the commits after it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.lake.actions import AddFile, Commit, Metadata, Protocol, RemoveFile, parse_commit
from lodestream.lake.checkpoint import Contents, read_checkpoint
from lodestream.lake.disk import Disk
from lodestream.lake.live import LiveMap

__all__ = ["AddFile", "Commit", "Metadata", "Protocol", "RemoveFile", "Snapshot", "list_log", "load", "read_commit"]

_COMMIT = re.compile(r"(\d{20})\.json\Z")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet\Z")
_LISTINGS = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table at one version.

    Attributes:
        version: of the last commit in it.
        metadata: schema, partition columns, configuration.
        protocol: reader and writer versions.
        files: live files by path as in the log.
        tombstones: removed files that vacuum must still keep, by path.
        txns: application id to the version it reached.
        hot: those of `files` that hold open windows.
    """

    version: int
    metadata: Metadata
    protocol: Protocol
    files: LiveMap[AddFile]
    tombstones: LiveMap[RemoveFile]
    txns: Mapping[str, int]
    hot: Mapping[str, AddFile]

    def after(self, commit: Commit) -> Snapshot:
        """The snapshot that follows when `commit` is the next version."""
        files, tombstones = self.files, self.tombstones
        if commit.adds or commit.removes:
            files = files.changed(((a.path, a) for a in commit.adds), (r.path for r in commit.removes))
            gone = [a.path for a in commit.adds if a.path in tombstones]
            if commit.removes or gone:
                tombstones = tombstones.changed(((r.path, r) for r in commit.removes), gone)
        txns = MappingProxyType({**self.txns, **commit.txns}) if commit.txns else self.txns
        hot = {path: add for path, add in self.hot.items() if path in files} | _hot(commit.adds)
        return Snapshot(
            commit.version, commit.metadata or self.metadata, commit.protocol or self.protocol, files, tombstones,
            txns, MappingProxyType(hot),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogNames:
    """What is in a log folder: versions with a JSON file, and the parts of each complete checkpoint."""

    commits: frozenset[int]
    checkpoints: Mapping[int, tuple[str, ...]]

    @property
    def last(self) -> int:
        """The newest version, -1 when there is none."""
        return max((*self.commits, *self.checkpoints), default=-1)


def log_folder(path: str) -> str:
    """The log folder of the table at `path`."""
    return os.path.join(path, "_delta_log")


def commit_path(path: str, version: int) -> str:
    """The JSON file of a version."""
    return os.path.join(path, "_delta_log", f"{version:020d}.json")


def list_log(disk: Disk, path: str) -> LogNames:
    """Look at the log folder of the table at `path`.

    Listing a large folder takes a while, and of the entries that join it meanwhile a file system may give some and
    leave out others, whatever their order; those that must be there because a later one is are looked up.
    """
    commits: set[int] = set()
    parts: dict[tuple[int, int], list[str]] = {}
    for name in disk.list(log_folder(path)):
        if match := _COMMIT.match(name):
            commits.add(int(match[1]))
        elif match := _CHECKPOINT.match(name):
            parts.setdefault((int(match[1]), int(match[3] or 1)), []).append(name)
    whole = {version: tuple(sorted(names)) for (version, count), names in sorted(parts.items()) if len(names) == count}
    if commits and len(commits) <= (last := max(commits)) - (first := min(commits)):
        for version in range(last - 1, first, -1):
            if version not in commits:
                if not disk.exists(commit_path(path, version)):
                    break  # what was there when the listing began is in it, so all further gaps are real
                commits.add(version)
    return LogNames(frozenset(commits), whole)


def read_commit(disk: Disk, path: str, version: int) -> Commit:
    """One version of the log; FileNotFoundError when it is not there."""
    return parse_commit(version, disk.read(commit_path(path, version)), path)


def checkpoint_contents(disk: Disk, path: str, version: int, parts: tuple[str, ...]) -> Contents:
    """Read a checkpoint. Raises CorruptionError when it is damaged."""
    hint = read_hint(disk, path)
    rows = hint.get("size") if hint.get("version") == version else None
    data = [disk.read(os.path.join(log_folder(path), name)) for name in parts]
    return read_checkpoint(data, path, rows if isinstance(rows, int) else None)


def read_hint(disk: Disk, path: str) -> Mapping[str, object]:
    """Content of `_last_checkpoint`; empty when it is missing or garbage. It is never relied on."""
    try:
        hint = json.loads(disk.read(os.path.join(log_folder(path), "_last_checkpoint")))
    except (FileNotFoundError, ValueError):
        return {}
    return hint if isinstance(hint, dict) else {}


def load(disk: Disk, path: str, version: int | None = None) -> Snapshot | None:
    """The snapshot at `version` (the newest when None); None when there is no table.

    Damaged checkpoints are passed over for older ones and the whole log.

    Raises:
        CorruptionError: the log has a hole or a commit that cannot be read.
        DataLossRefused: that version is no longer kept.
        ConfigError: the table needs features that cannot be read here.
    """
    for _ in range(_LISTINGS):
        names = list_log(disk, path)
        if names.last < 0:
            return None
        try:
            return _load(disk, path, names, names.last if version is None else version)
        except FileNotFoundError:  # the log was cleaned up between listing and reading
            continue
    raise CorruptionError("log changes faster than it can be read", table=path)


def _load(disk: Disk, path: str, names: LogNames, version: int) -> Snapshot:
    if version > names.last:
        raise ConfigError("no such version", table=path, version=version, newest=names.last)
    damaged: CorruptionError | None = None
    for start in (*sorted((v for v in names.checkpoints if v <= version), reverse=True), -1):
        tail = range(start + 1, version + 1)
        if any(v not in names.commits for v in tail):
            continue
        try:
            contents = checkpoint_contents(disk, path, start, names.checkpoints[start]) if start >= 0 else None
        except CorruptionError as error:
            damaged = error
            continue
        return _replayed(disk, path, contents, start, tail)
    if damaged is not None:
        raise damaged
    newest = max((v for v in names.checkpoints if v <= version), default=-1)
    missing = next(v for v in range(newest + 1, version + 1) if v not in names.commits)
    if version < names.last and min(names.commits, default=version) > missing:
        fix = "read a version that is still kept, or keep more (retention)"
        raise DataLossRefused("version is no longer kept", table=path, version=version, fix=fix)
    if list_log(disk, path).checkpoints.keys() != names.checkpoints.keys():
        raise FileNotFoundError(commit_path(path, missing))  # checkpoints came, and cleaning up went by them
    raise CorruptionError("log has a hole; restore the file from a copy", table=path, missing=missing)


def _replayed(disk: Disk, path: str, contents: Contents | None, start: int, tail: range) -> Snapshot:
    files = dict(contents.files) if contents else {}
    tombstones = dict(contents.tombstones) if contents else {}
    txns = dict(contents.txns) if contents else {}
    metadata, protocol = (contents.metadata, contents.protocol) if contents else (None, None)
    for version in tail:
        commit = read_commit(disk, path, version)
        for remove in commit.removes:
            files.pop(remove.path, None)
            tombstones[remove.path] = remove
        for add in commit.adds:
            files[add.path] = add
            tombstones.pop(add.path, None)
        txns.update(commit.txns)
        metadata, protocol = commit.metadata or metadata, commit.protocol or protocol
    if metadata is None or protocol is None:
        raise CorruptionError("log has no metadata or no protocol; restore it from a copy", table=path)
    return Snapshot(
        tail[-1] if tail else start, metadata, protocol, LiveMap(files.items()), LiveMap(tombstones.items()),
        MappingProxyType(txns), MappingProxyType(_hot(files.values())),
    )  # fmt: skip


def _hot(adds: Iterable[AddFile]) -> dict[str, AddFile]:
    return {add.path: add for add in adds if add.hot}
