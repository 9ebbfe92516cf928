"""Writes a log: many requests share one sync, and none is acknowledged before it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise

from lodestream.drivers.record_log.answers import Answer, Answers
from lodestream.drivers.record_log.disk import LogDisk
from lodestream.drivers.record_log.frame import NO_KEY, Entry, encode
from lodestream.drivers.record_log.layout import durable_path, segment_path, segments, writer_lock
from lodestream.drivers.record_log.marks import Mark
from lodestream.drivers.record_log.reader import LogReader
from lodestream.drivers.record_log.recovery import recover
from lodestream.errors import ConfigError, LodestreamError, TransientError

GROUP_BYTES_MAX = 16 << 20
SEGMENT_BYTES = 64 << 20


class LogWriter:
    """The one writer of a log, with a thread of its own.

    Args:
        folder: the log's folder.
        disk: seam for every effect.
        clock: microseconds since 1970 UTC.
        new_identity: 32 hexadecimal digits for a log that is not there yet.
        segment_bytes: a segment of at least that size is followed by a new one.
        answers_kept_us: how long answers to idempotency keys are kept.

    Raises:
        ConflictError: another process writes this log.
        CorruptionError: acknowledged records are damaged.
    """

    def __init__(
        self,
        folder: str,
        disk: LogDisk,
        clock: Callable[[], int],
        new_identity: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        answers_kept_us: int = 24 * 3600 * 1_000_000,
        start: bool = True,
    ) -> None:
        self.folder = folder
        self._disk, self._clock = disk, clock
        self._segment_bytes = segment_bytes
        disk.make_directories(folder)  # for the lock; `recover` makes the path durable
        self._held = contextlib.ExitStack()
        self._held.enter_context(writer_lock(folder))
        try:
            self._tail = recover(folder, disk, new_identity)
            self._mark = Mark(durable_path(folder), writable=True)
            self.answers = Answers(folder, answers_kept_us, clock())
        except BaseException:
            self._held.close()
            raise
        self._segment, self._offset, self._next = self._tail.segment, self._tail.offset, self._tail.next
        self._dirty = False  # whether bytes behind the offset must be cut before anything is written
        self._made = bool(segments(folder))  # whether the segment is there and its name is durable
        self._queue: deque[tuple[Entry, Future[int]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.queued_bytes = 0
        self.groups = 0
        self.failing = ""
        """Why the last group could not be written; empty when it was."""
        self._thread = threading.Thread(target=self._run, name=f"log {os.path.basename(folder)}", daemon=True)
        if start:
            self._thread.start()

    @property
    def end(self) -> int:
        """The sequence number after the last durable record."""
        return self._next

    def append(self, entry: Entry) -> Future[int]:
        """Take in the records of a request; the future gives the first one's sequence number once they are durable.

        It gives TransientError when the disk would not take them; then none of them counts.
        """
        future: Future[int] = Future()
        with self._changed:
            if self._closing:
                future.set_exception(TransientError("the server is stopping"))
                return future
            self._queue.append((entry, future))
            self.queued_bytes += entry.size
            self._changed.notify()
        return future

    def retire(self, before: int, older_than_us: int) -> int:
        """Remove segments whose records all lie before sequence number `before` and came before a time.

        A segment's records came before the first one of the next; the newest segment stays. Returns how many went.
        """
        starts = segments(self.folder)
        reader = LogReader(self.folder)
        removed = 0
        for first, following in pairwise(starts):
            if following > before or following >= self._next:
                break
            after, _ = next(reader.frames(following, following + 1))
            if after.time_us >= older_than_us:
                break
            self._disk.unlink(segment_path(self.folder, first))
            removed += 1
        if removed:
            self._disk.sync_directory(self.folder)
        reader.close()
        return removed

    def close(self) -> None:
        """Write what is waiting, then let go; twice is harmless."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self.answers.close()
        self._mark.close()
        self._disk.close()
        self._held.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
            self.write_group()

    def write_group(self) -> None:
        """Write what waits, up to a bound, sync it once, and tell whoever waits for it."""
        group, size = self._taken()
        try:
            firsts = self._written([entry for entry, _ in group])
        except (TransientError, ConfigError) as error:
            outcome: LodestreamError | None = error
        else:
            outcome = None
        with self._changed:
            self.queued_bytes -= size
            self.groups += 1
            self.failing = outcome.message if outcome is not None else ""
        for i, (_entry, future) in enumerate(group):
            if not future.set_running_or_notify_cancel():
                continue
            if outcome is not None:
                future.set_exception(outcome)
            else:
                future.set_result(firsts[i])

    def _taken(self) -> tuple[list[tuple[Entry, Future[int]]], int]:
        group: list[tuple[Entry, Future[int]]] = []
        size = 0
        with self._changed:
            while self._queue and (not group or size + self._queue[0][0].size <= GROUP_BYTES_MAX):
                group.append(self._queue.popleft())
                size += group[-1][0].size
        return group, size

    def _written(self, entries: list[Entry]) -> list[int]:
        """Make the entries durable; their first sequence numbers. An error leaves the log as it was."""
        if self._offset >= self._segment_bytes:
            self._begin_segment()
        frames, firsts, following = [], [], self._next
        for entry in entries:
            frames.append(encode(entry, following, self._offset))
            firsts.append(following)
            following += len(entry.ends)
        data = b"".join(frames)
        path = segment_path(self.folder, self._segment)
        try:
            if self._dirty:
                self._disk.truncate(path, self._offset)
                self._dirty = False
            self._disk.append(path, self._offset, data)
            self._disk.fsync(path)
            if not self._made:
                self._disk.sync_directory(self.folder)
                self._made = True
        except (TransientError, ConfigError):
            self._abandon(path)
            raise
        self._offset += len(data)
        self._next = following
        found = [
            (entry.key, Answer(first, len(entry.ends), entry.body, entry.time_us))
            for entry, first in zip(entries, firsts, strict=True)
            if entry.key != NO_KEY
        ]
        if found:
            self.answers.add(found, following, self._clock())
        with contextlib.suppress(TransientError):  # they are durable; readers hear of them with the next group
            self._mark.set(following)
        return firsts

    def _begin_segment(self) -> None:
        self._segment, self._offset, self._made = self._next, 0, False

    def _abandon(self, path: str) -> None:
        """Go on behind the last durable byte, in another file: one whose sync failed is never trusted again."""
        self._dirty = self._offset == 0
        with contextlib.suppress(TransientError, ConfigError, FileNotFoundError):
            if self._offset > 0:  # if it cannot be cut, the next segment's name says what counts
                self._disk.truncate(path, self._offset)
            else:  # nothing of it counts, and the next one has the same name
                self._disk.unlink(path)
                self._dirty = False
        if self._offset > 0:
            self._begin_segment()
        self._made = False
