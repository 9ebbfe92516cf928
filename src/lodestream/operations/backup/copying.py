"""Moves the files of a part: what is known already stays, the rest is read, hashed and put, several at once."""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import nearest_folder
from lodestream.operations.backup.contents import Item
from lodestream.operations.backup.vault import Entry, Vault, digest_of

T = TypeVar("T")
R = TypeVar("R")
_THREADS = 8
_FLIGHT_BYTES = 128 << 20
"""What is held in memory at once, but for one file that is larger."""
_SMALL = 64 << 10
_PACK_BYTES = 8 << 20
_NOTED_FILES, _NOTED_BYTES = 2_000, 256 << 20


class Amount:
    """How much was moved so far, for those who look; safe from any thread.

    Args:
        clock: seconds, for rates.
        tell: hears a line now and then.
    """

    def __init__(self, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._clock, self._tell = clock, tell
        self._lock = threading.Lock()
        self._begun = self._said = clock()
        self.files = self.bytes = self.kept = self.missing = 0
        self.bytes_expected = 0
        self.part = ""

    @property
    def seconds(self) -> float:
        """Since the beginning, a thousandth at least."""
        return max(self._clock() - self._begun, 0.001)

    def add(self, size: int) -> None:
        """One more file of so many bytes."""
        with self._lock:
            self.files, self.bytes = self.files + 1, self.bytes + size
            now = self._clock()
            if now - self._said < 2.0:
                return
            self._said = now
            rate = self.bytes / self.seconds
            of = f" of {mebibytes(self.bytes_expected)}" if self.bytes_expected > self.bytes else ""
            line = f"{self.part}: {self.files:,} files, {mebibytes(self.bytes)}{of}, {mebibytes(round(rate))}/s"
        self._tell(line)

    def keep(self) -> None:
        """One more file that was there already."""
        with self._lock:
            self.kept += 1

    def told(self) -> dict[str, float]:
        """As a report says it."""
        rate = self.bytes / self.seconds
        return {
            "files": self.files, "bytes": self.bytes, "seconds": round(self.seconds, 3),
            "bytes_per_s": round(rate), "kept_files": self.kept, "missing_files": self.missing,
            **({"hours_for_450_tb": round(450e12 / rate / 3600, 1)} if self.bytes else {}),
        }  # fmt: skip


def mebibytes(size: int) -> str:
    """A size for people."""
    return f"{size / (1 << 20):,.1f} MiB"


def check_room(room: str | None, size: int) -> None:
    """Raise ConfigError when the file system of a folder has not so many bytes left; None has room for everything."""
    if room is None:
        return
    free = shutil.disk_usage(nearest_folder(room)).free
    if size > free:
        fix = "free space there, prune older points (--keep), or name a larger place"
        raise ConfigError("not enough space for the copy", place=room, needed=size, free=free, fix=fix)


def in_flight(items: Iterable[T], work: Callable[[T], R], size: Callable[[T], int]) -> Iterator[tuple[T, R]]:
    """Work on several items at once, as many as memory is meant for; each with what came of it, in their order.

    The first failure is raised when its turn comes; what has not begun by then never does.
    """
    flying: deque[tuple[T, Future[R]]] = deque()
    weight = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as pool:
        try:
            for item in items:
                while flying and (len(flying) >= 4 * _THREADS or weight + size(item) > _FLIGHT_BYTES):
                    landed, future = flying.popleft()
                    weight -= size(landed)
                    yield landed, future.result()
                flying.append((item, pool.submit(work, item)))
                weight += size(item)
            while flying:
                landed, future = flying.popleft()
                yield landed, future.result()
        finally:
            for _, future in flying:
                future.cancel()


class GoneError(Exception):
    """A file has gone that the copy needs: the moment can no longer be copied, a later one can."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass
class _Moved:
    """One file that is being moved: its entry, and its content while that waits for a pack."""

    entry: Entry
    data: bytes | None = None


class Mover:
    """Moves files into a vault, or in place beside it.

    Args:
        vault: takes blobs, packs, lists and the journal.
        in_place: writes an early file where it belongs, durably; None where the vault takes all.
        present: the blobs that are there.
        amount: told of every file.
        held: whether a file that an earlier point names is there, beside those in blobs that are present.
    """

    def __init__(
        self, vault: Vault, in_place: Callable[[str, bytes], None] | None, present: Collection[str], amount: Amount,
        held: Callable[[Entry], bool] = lambda entry: entry.blob is None,
    ) -> None:  # fmt: skip
        self._vault, self._in_place, self._amount = vault, in_place, amount
        self._present, self._held = set(present), held
        self._journal = {path: one for path, one in vault.journal().items() if self._is_there(one)}
        self._unnoted: list[Entry] = []
        self._unnoted_bytes = 0
        self._packs: dict[bool, list[_Moved]] = {True: [], False: []}  # data files leave long before log entries do

    def _is_there(self, entry: Entry) -> bool:
        return entry.blob in self._present or self._held(entry)

    def known(self, item: Item, before: Mapping[str, Entry]) -> Entry | None:
        """The entry of a file that needs no moving: it never changes, and was moved."""
        if not item.fixed:
            return None
        for found in (before.get(item.path), self._journal.get(item.path)):
            if found is not None and self._is_there(found) and item.size in (None, found.size):
                return found
        return None

    def move(self, items: Iterable[Item], before: Mapping[str, Entry]) -> dict[str, Entry]:
        """Move what is not there yet; the entries of all, in the items' order.

        Raises:
            GoneError: a file that must be there has gone.
            CorruptionError: a file is not of its size.
        """
        found: dict[str, Entry | None] = {}

        def wanted() -> Iterator[Item]:
            for item in items:
                found[item.path] = known = self.known(item, before)  # None keeps the place in the order
                if known is None:
                    yield item
                else:
                    self._amount.keep()

        for item, moved in in_flight(wanted(), self._one, lambda item: item.size or _SMALL):
            if moved is None:
                del found[item.path]
                self._amount.missing += item.size is not None
            else:
                found[item.path] = moved.entry
                self._landed(item, moved, found)
        for early in self._packs:
            self._close_pack(early, found)
        self._note(force=True)
        return {path: entry for path, entry in found.items() if entry is not None}

    def _one(self, item: Item) -> _Moved | None:
        """Read a file and put it, unless it is small; on a thread of the pool."""
        try:
            data = item.read()
        except FileNotFoundError:
            if item.must:
                raise GoneError(item.path) from None
            return None
        if item.size is not None and len(data) != item.size:
            if not item.must:
                return None
            fix = "lodestream doctor says what is damaged, and what to do"
            raise CorruptionError("file is not of the size that the log has", file=item.path, size=len(data),
                                  expected=item.size, fix=fix)  # fmt: skip
        digest = digest_of(data)
        entry = Entry(item.path, len(data), digest)
        if item.early and self._in_place is not None:
            self._in_place(item.path, data)
        elif len(data) <= _SMALL:
            return _Moved(entry, data)
        else:
            self._put(data, digest)
            entry = replace(entry, blob=digest)
        point("backup.file")
        self._amount.add(len(data))
        return _Moved(entry)

    def _put(self, data: bytes, digest: str) -> None:
        if digest not in self._present:
            self._vault.put_blob(data, digest)
            self._present.add(digest)

    def _landed(self, item: Item, moved: _Moved, found: dict[str, Entry | None]) -> None:
        if moved.data is not None:
            self._amount.add(len(moved.data))
            pack = self._packs[item.early]
            offset = pack[-1].entry.size + (pack[-1].entry.offset or 0) if pack else 0
            moved.entry = replace(moved.entry, offset=offset)
            pack.append(moved)
            if offset + moved.entry.size >= _PACK_BYTES:
                self._close_pack(item.early, found)
        elif item.fixed:
            self._unnoted.append(moved.entry)
            self._unnoted_bytes += moved.entry.size
            self._note()

    def _close_pack(self, early: bool, found: dict[str, Entry | None]) -> None:
        """Put the small files of a part together in one blob."""
        pack, self._packs[early] = self._packs[early], []
        if not pack:
            return
        data = b"".join(moved.data or b"" for moved in pack)
        digest = digest_of(data)
        self._put(data, digest)
        point("backup.pack")
        for moved in pack:
            found[moved.entry.path] = replace(moved.entry, blob=digest)

    def _note(self, *, force: bool = False) -> None:
        """Write the journal when it is worth it: what is noted is not copied again, whoever dies."""
        due = len(self._unnoted) >= _NOTED_FILES or self._unnoted_bytes >= _NOTED_BYTES
        if self._unnoted and (due or force):
            self._vault.note(self._unnoted)
            point("backup.noted")
            self._unnoted, self._unnoted_bytes = [], 0


class Fetcher:
    """Reads files out of a vault; packs that were read last are kept.

    Args:
        vault: where they are.
        place: in a replica: reads a file of the lake, by its path in the point; None where the vault has all.
    """

    _PACKS = 4

    def __init__(self, vault: Vault, place: Callable[[str], bytes] | None = None) -> None:
        self._vault, self._place = vault, place
        self._packs: dict[str, Future[bytes]] = {}
        self._lock = threading.Lock()

    def read(self, entry: Entry) -> bytes:
        """The content of a file.

        Raises:
            CorruptionError: it is missing, or not what was written.
        """
        if self._place is not None and entry.path.startswith("lake/"):
            try:
                data = self._place(entry.path)
            except FileNotFoundError:
                raise CorruptionError("file of a replica is missing", file=entry.path) from None
        elif entry.blob is None:
            raise CorruptionError("file lies in a replica and not here", file=entry.path)
        elif entry.offset is None:
            return self._vault.blob(entry.blob)
        else:
            data = self._pack(entry.blob)[entry.offset : entry.offset + entry.size]
        if len(data) != entry.size or digest_of(data) != entry.digest:
            raise CorruptionError("copy of a file is damaged", file=entry.path, blob=entry.blob)
        return data

    def _pack(self, blob: str) -> bytes:
        """A pack; of those who want it at once, one reads it."""
        with self._lock:
            pack, ours = self._packs.get(blob), False
            if pack is None:
                while len(self._packs) >= self._PACKS:
                    self._packs.pop(next(iter(self._packs)))
                pack, ours = Future(), True
                self._packs[blob] = pack
        if ours:
            try:
                pack.set_result(self._vault.blob(blob))
            except BaseException as error:
                pack.set_exception(error)
                raise
        return pack.result()
