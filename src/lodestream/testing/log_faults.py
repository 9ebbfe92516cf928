"""Disks of the record log that fail: a recorder for `PowerLoss`, forgotten syncs, planned errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from lodestream.drivers.record_log.disk import LogDisk
from lodestream.testing.faults import Effect, Kind


class ThroughLogDisk:
    """Passes every call on, each after `before(kind, path)`; the base of the disks that fail."""

    def __init__(self, inner: LogDisk) -> None:
        self.inner = inner

    def before(self, kind: Kind, path: str) -> bool:
        """Called before each effect; False leaves it out."""
        return True

    def note(self, effect: Effect) -> None:
        """Called after each effect."""

    def append(self, path: str, offset: int, data: bytes) -> None:
        """See `LogDisk.append`."""
        if self.before("append", path):
            self.inner.append(path, offset, data)
            self.note(Effect("append", path, data=bytes(data), value=offset))

    def truncate(self, path: str, size: int) -> None:
        """See `LogDisk.truncate`."""
        if self.before("truncate", path):
            self.inner.truncate(path, size)
            self.note(Effect("truncate", path, value=size))

    def fsync(self, path: str) -> None:
        """See `LogDisk.fsync`."""
        if self.before("fsync", path):
            self.inner.fsync(path)
            self.note(Effect("fsync", path))

    def sync_directory(self, path: str) -> None:
        """See `LogDisk.sync_directory`."""
        if self.before("sync_directory", path):
            self.inner.sync_directory(path)
            self.note(Effect("sync_directory", path))

    def make_directories(self, path: str) -> list[str]:
        """See `LogDisk.make_directories`."""
        created = self.inner.make_directories(path)
        for folder in created:
            self.note(Effect("make_directory", folder))
        return created

    def unlink(self, path: str) -> None:
        """See `LogDisk.unlink`."""
        if self.before("unlink", path):
            self.inner.unlink(path)
            self.note(Effect("unlink", path))

    def close(self) -> None:
        """See `LogDisk.close`."""
        self.inner.close()


class RecordingLogDisk(ThroughLogDisk):
    """Writes down every effect under `root`, for `faults.PowerLoss`.

    Args:
        inner: the disk that does the work.
        root: folder whose effects count; it is there, empty and durable before the first one.
        forget: called with kind and path; True leaves a sync out, as a missing one in the code would be.
    """

    def __init__(
        self, inner: LogDisk, root: str, forget: Callable[[Kind, str], bool] = lambda kind, path: False
    ) -> None:
        super().__init__(inner)
        self.root = os.path.abspath(root)
        self.record: list[Effect] = []
        self.forgotten: list[int] = []
        self._forget = forget
        self._lock = threading.Lock()

    def mark(self, value: object) -> None:
        """Note that something was acknowledged at this point."""
        with self._lock:
            self.record.append(Effect("mark", value=value))

    def before(self, kind: Kind, path: str) -> bool:
        """See `ThroughLogDisk.before`."""
        if kind in ("fsync", "sync_directory") and self._forget(kind, os.path.relpath(path, self.root)):
            self.forgotten.append(len(self.record))
            return False
        return True

    def note(self, effect: Effect) -> None:
        """See `ThroughLogDisk.note`."""
        path = os.path.abspath(effect.path)
        if path == self.root or path.startswith(self.root + os.sep):
            inside = "" if path == self.root else os.path.relpath(path, self.root)
            with self._lock:
                self.record.append(Effect(effect.kind, inside, data=effect.data, value=effect.value))


class FaultyLogDisk(ThroughLogDisk):
    """Raises what `fault(kind, path)` returns, before the effect; with `half`, an append writes half first.

    Args:
        inner: the disk that does the rest.
        fault: an exception to raise, or None.
        half: whether a failing append leaves half of its bytes.
    """

    def __init__(self, inner: LogDisk, fault: Callable[[Kind, str], Exception | None], *, half: bool = False) -> None:
        super().__init__(inner)
        self._fault = fault
        self._half = half

    def before(self, kind: Kind, path: str) -> bool:
        """See `ThroughLogDisk.before`."""
        error = self._fault(kind, path)
        if error is not None:
            raise error
        return True

    def append(self, path: str, offset: int, data: bytes) -> None:
        """See `LogDisk.append`."""
        error = self._fault("append", path)
        if error is None:
            self.inner.append(path, offset, data)
            return
        if self._half:
            self.inner.append(path, offset, data[: len(data) // 2])
        raise error
