"""Disks that fail: a recorder of every effect, the states a power loss can leave, forgotten syncs, planned errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lodestream.lake.disk import Data, Disk, Stored

Kind = Literal[
    "write", "fsync", "sync_directory", "make_directory", "link", "replace", "unlink", "append", "truncate", "mark"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Effect:
    """One call on a disk that changed something or made it durable, or a mark.

    Attributes:
        kind: which call.
        path: relative to the recorder's root, "" for the root itself; for `link` and `replace` the source.
        target: the new name of `link` and `replace`.
        data: what `write` or `append` wrote.
        value: what `mark` noted; for `append` the offset, for `truncate` the size.
    """

    kind: Kind
    path: str = ""
    target: str = ""
    data: bytes = b""
    value: object = None


class ThroughDisk:
    """Passes every call on to another disk; the base of the disks that fail."""

    def __init__(self, inner: Disk) -> None:
        self.inner = inner
        self.settled = inner.settled
        self.atomic = inner.atomic

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`."""
        self.inner.write(path, data)

    def create(self, path: str, data: Data) -> None:
        """See `Disk.create`."""
        self.inner.create(path, data)

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        self.inner.fsync(path)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        self.inner.sync_directory(path)

    def make_directories(self, path: str) -> list[str]:
        """See `Disk.make_directories`."""
        return self.inner.make_directories(path)

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`."""
        self.inner.link(source, target)

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        self.inner.replace(source, target)

    def replace_with(self, path: str, data: Data) -> None:
        """See `Disk.replace_with`."""
        self.inner.replace_with(path, data)

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        self.inner.unlink(path)

    def read(self, path: str) -> bytes:
        """See `Disk.read`."""
        return self.inner.read(path)

    def list(self, path: str) -> list[str]:
        """See `Disk.list`."""
        return self.inner.list(path)

    def walk(self, path: str, *, deep: bool = True) -> Iterator[Stored]:
        """See `Disk.walk`."""
        return self.inner.walk(path, deep=deep)

    def size(self, path: str) -> int:
        """See `Disk.size`."""
        return self.inner.size(path)

    def modified_ms(self, path: str) -> int:
        """See `Disk.modified_ms`."""
        return self.inner.modified_ms(path)

    def exists(self, path: str) -> bool:
        """See `Disk.exists`."""
        return self.inner.exists(path)

    def copies(self, paths: Sequence[str]) -> Sequence[str]:
        """See `Disk.copies`."""
        return self.inner.copies(paths)

    def excerpts(self, files: Sequence[tuple[str, int]], columns: Collection[str]) -> Sequence[str]:
        """See `Disk.excerpts`."""
        return self.inner.excerpts(files, columns)

    def beside(self, path: str) -> str:
        """See `Disk.beside`."""
        return self.inner.beside(path)


class RecordingDisk(ThroughDisk):
    """Writes down every effect under `root`, in order, from any number of threads.

    Args:
        inner: the disk that does the work.
        root: folder whose effects count; it is there, empty and durable before the first one.
    """

    def __init__(self, inner: Disk, root: str) -> None:
        super().__init__(inner)
        self.root = os.path.abspath(root)
        self.record: list[Effect] = []
        self._lock = threading.RLock()

    def mark(self, value: object) -> None:
        """Note that something was acknowledged at this point: states after it carry `value` in `marks`."""
        with self._lock:
            self.record.append(Effect("mark", value=value))

    def _note(self, kind: Kind, path: str, target: str = "", data: bytes = b"") -> None:
        inside = self._relative(path)
        if inside is not None:
            self.record.append(Effect(kind, inside, self._relative(target) or "" if target else "", data))

    def _relative(self, path: str) -> str | None:
        path = os.path.abspath(path)
        if path == self.root:
            return ""
        return path[len(self.root) + 1 :] if path.startswith(self.root + os.sep) else None

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`."""
        with self._lock:
            self._note("write", path, data=bytes(memoryview(data)))
            self.inner.write(path, data)

    def create(self, path: str, data: Data) -> None:
        """See `Disk.create`."""
        with self._lock:
            self.inner.create(path, data)
            self._note("write", path, data=bytes(memoryview(data)))

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        with self._lock:
            self.inner.fsync(path)
            self._note("fsync", path)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        with self._lock:
            self.inner.sync_directory(path)
            self._note("sync_directory", path)

    def make_directories(self, path: str) -> list[str]:
        """See `Disk.make_directories`."""
        with self._lock:
            created = self.inner.make_directories(path)
            for folder in created:
                self._note("make_directory", folder)
            return created

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`."""
        with self._lock:
            self.inner.link(source, target)
            self._note("link", source, target)

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        with self._lock:
            self.inner.replace(source, target)
            self._note("replace", source, target)

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        with self._lock:
            self.inner.unlink(path)
            self._note("unlink", path)


@dataclass(frozen=True, slots=True)
class DiskState:
    """What a disk may hold after the power went.

    Attributes:
        after: how many effects of the record had been asked for.
        variant: what became of those that were not durable.
        folders: relative paths.
        files: relative path to content.
        marks: what had been acknowledged.
    """

    after: int
    variant: str
    folders: frozenset[str]
    files: Mapping[str, bytes]
    marks: tuple[object, ...]

    def build(self, folder: str) -> str:
        """Write this state into `folder`, which is made; returns it."""
        os.makedirs(folder, exist_ok=True)
        for name in sorted(self.folders):
            os.mkdir(os.path.join(folder, name))
        for name, content in self.files.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        return folder


@dataclass(slots=True, eq=False)
class _Inode:
    content: bytes | None = None
    synced: bytes | None = None
    grows: bool = False
    """Whether it is appended to and cut: what was synced of it stays, whatever becomes of the rest."""

    @property
    def dirty(self) -> bool:
        return self.content != self.synced


@dataclass
class _Model:
    """Names and contents as asked for, and as durable; a folder's inode has no content."""

    asked: dict[str, _Inode] = field(default_factory=dict)
    durable: dict[str, _Inode] = field(default_factory=dict)
    marks: tuple[object, ...] = ()

    def apply(self, effect: Effect) -> None:
        match effect.kind:
            case "write":
                self.asked.setdefault(effect.path, _Inode()).content = effect.data
            case "fsync":
                inode = self.asked[effect.path]
                inode.synced = inode.content
            case "sync_directory":
                for name in [n for n in self.durable if os.path.dirname(n) == effect.path]:
                    del self.durable[name]
                self.durable.update((n, i) for n, i in self.asked.items() if os.path.dirname(n) == effect.path)
            case "make_directory":
                self.asked[effect.path] = _Inode()
            case "link":
                self.asked[effect.target] = self.asked[effect.path]
            case "replace":
                self.asked[effect.target] = self.asked.pop(effect.path)
            case "unlink":
                del self.asked[effect.path]
            case "append":
                inode = self.asked.setdefault(effect.path, _Inode(b""))
                before, at = inode.content or b"", int(str(effect.value))
                inode.content = before[:at] + effect.data + before[at + len(effect.data) :]
                inode.grows = True
            case "truncate":
                inode = self.asked.setdefault(effect.path, _Inode(b""))
                inode.content, inode.grows = (inode.content or b"")[: int(str(effect.value))], True
            case "mark":
                self.marks = (*self.marks, effect.value)

    def pending(self) -> list[str]:
        """Names whose entry on disk may still be the old one."""
        return [n for n in {*self.asked, *self.durable} if self.asked.get(n) is not self.durable.get(n)]

    def names(self, kept: Sequence[str]) -> dict[str, _Inode]:
        """The durable names, with the asked-for state of those in `kept`."""
        names = dict(self.durable)
        for name in kept:
            if name in self.asked:
                names[name] = self.asked[name]
            else:
                names.pop(name, None)
        return names


class PowerLoss:
    """All that a power loss during a record can leave behind, under this model of a POSIX disk.

    A file's content is durable from its last fsync; later writes are lost, cut in half or kept. A name (of a file or
    folder: made, linked, renamed, unlinked) is durable from the next sync of its folder; until then each name by itself
    may be as before or as asked. A name can be durable before the content it leads to.

    Args:
        record: `RecordingDisk.record`.
    """

    def __init__(self, record: Sequence[Effect]) -> None:
        self.record = tuple(record)

    def states(self, since: int = 0) -> Iterator[DiskState]:
        """Every distinct state after every prefix of the record that has at least `since` effects.

        Variants: `lost` (no pending name), `kept` (all pending names), each with un-synced content `empty`, `torn` or
        `whole`; and `only`/`but` one pending name each.
        """
        model = _Model()
        seen: set[object] = set()
        for after in range(len(self.record) + 1):
            if after:
                model.apply(self.record[after - 1])
            if after < since:
                continue
            for state in _variants(model, after):
                key = (state.folders, frozenset(state.files.items()), len(state.marks))
                if key not in seen:
                    seen.add(key)
                    yield state


def _variants(model: _Model, after: int) -> Iterator[DiskState]:
    pending = sorted(model.pending())
    choices: list[tuple[str, list[str]]] = [("lost", [])]
    if pending:
        choices.append(("kept", pending))
    if len(pending) > 1:
        choices += [(f"only {name}", [name]) for name in pending]
        choices += [(f"but {name}", [other for other in pending if other != name]) for name in pending]
    for label, kept in choices:
        names = model.names(kept)
        reachable = {n: i for n, i in names.items() if _reachable(n, names)}
        dirty = any(inode.dirty for inode in reachable.values())
        for content in ("empty", "torn", "whole") if dirty else ("whole",):
            folders = frozenset(n for n, i in reachable.items() if i.content is None)
            files = {n: _content(i, content) for n, i in reachable.items() if i.content is not None}
            yield DiskState(after, f"{label}, {content}", folders, files, model.marks)


def _reachable(name: str, names: Mapping[str, _Inode]) -> bool:
    parent = os.path.dirname(name)
    return not parent or (parent in names and _reachable(parent, names))


def _content(inode: _Inode, how: str) -> bytes:
    assert inode.content is not None
    if not inode.dirty or how == "whole":
        return inode.content
    if inode.grows and inode.synced is not None:
        if not inode.content.startswith(inode.synced):  # cut, and the cut is not durable
            return inode.synced
        kept = len(inode.synced)
        return inode.content[: kept + (len(inode.content) - kept) // 2 if how == "torn" else kept]
    if how == "torn":
        return inode.content[: len(inode.content) // 2]
    return b""


class ForgetfulDisk(ThroughDisk):
    """Leaves out the syncs that `forget(kind, path)` names: what a missing fsync in the code would be.

    Args:
        inner: the disk that does the rest.
        forget: called with `fsync` or `sync_directory` and the path; True leaves the call out.
    """

    def __init__(self, inner: Disk, forget: Callable[[Kind, str], bool]) -> None:
        super().__init__(inner)
        self._forget = forget
        self.forgotten = 0

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        if self._forget("fsync", path):
            self.forgotten += 1
        else:
            self.inner.fsync(path)

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        if self._forget("sync_directory", path):
            self.forgotten += 1
        else:
            self.inner.sync_directory(path)


class FaultyDisk(ThroughDisk):
    """Raises what `fault(kind, path)` returns, before the effect or after it took place.

    Args:
        inner: the disk that does the rest.
        fault: called for each effect; an exception to raise, or None.
        after: raise after the effect: it happened, but its caller is told that it failed.
    """

    def __init__(self, inner: Disk, fault: Callable[[Kind, str], Exception | None], *, after: bool = False) -> None:
        super().__init__(inner)
        self._fault = fault
        self._after = after

    def _do(self, kind: Kind, path: str, effect: Callable[[], None]) -> None:
        error = self._fault(kind, path)
        if error is None or self._after:
            effect()
        if error is not None:
            raise error

    def write(self, path: str, data: Data) -> None:
        """See `Disk.write`."""
        self._do("write", path, lambda: self.inner.write(path, data))

    def create(self, path: str, data: Data) -> None:
        """See `Disk.create`."""
        self._do("write", path, lambda: self.inner.create(path, data))

    def fsync(self, path: str) -> None:
        """See `Disk.fsync`."""
        self._do("fsync", path, lambda: self.inner.fsync(path))

    def sync_directory(self, path: str) -> None:
        """See `Disk.sync_directory`."""
        self._do("sync_directory", path, lambda: self.inner.sync_directory(path))

    def make_directories(self, path: str) -> list[str]:
        """See `Disk.make_directories`."""
        if not self.inner.exists(path) and (error := self._fault("make_directory", path)):
            raise error
        return self.inner.make_directories(path)

    def link(self, source: str, target: str) -> None:
        """See `Disk.link`."""
        self._do("link", target, lambda: self.inner.link(source, target))

    def replace(self, source: str, target: str) -> None:
        """See `Disk.replace`."""
        self._do("replace", target, lambda: self.inner.replace(source, target))

    def replace_with(self, path: str, data: Data) -> None:
        """See `Disk.replace_with`."""
        self._do("replace", path, lambda: self.inner.replace_with(path, data))

    def unlink(self, path: str) -> None:
        """See `Disk.unlink`."""
        self._do("unlink", path, lambda: self.inner.unlink(path))
