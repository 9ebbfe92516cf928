"""What a log's writer does first: cut off what was never acknowledged, make the rest durable, and say so."""

from __future__ import annotations

from dataclasses import dataclass

from lodestream.drivers.record_log.disk import LogDisk, settle
from lodestream.drivers.record_log.frame import acknowledged_after, whole_frames
from lodestream.drivers.record_log.layout import (
    durable_path,
    identity,
    identity_path,
    segment_path,
    segments,
    writer_lock,
)
from lodestream.drivers.record_log.marks import Mark
from lodestream.errors import ConflictError, CorruptionError


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the next record goes.

    Attributes:
        segment: first sequence number of the segment that is written now.
        offset: its bytes that count.
        next: the sequence number that the next record gets.
    """

    segment: int
    offset: int
    next: int


def recover(folder: str, disk: LogDisk, new_identity: str) -> Tail:
    """Bring the log into order; the caller holds its writer lock.

    Raises:
        CorruptionError: records that were acknowledged are damaged.
        TransientError: the disk does not take it now.
    """
    settle(disk, folder)
    found = segments(folder)
    if len(identity(folder) or "") != len(new_identity):
        if found:
            raise CorruptionError("the log has records and no identity; put its file back", file=identity_path(folder))
        disk.truncate(identity_path(folder), 0)
        disk.append(identity_path(folder), 0, new_identity.encode())
    disk.fsync(identity_path(folder))
    tail = _cut(folder, disk, found[-1]) if found else Tail(0, 0, 0)
    disk.sync_directory(folder)
    mark = Mark(durable_path(folder), writable=True)
    try:
        if mark.get() > tail.next:
            raise CorruptionError(
                "records that were acknowledged are missing from the log; put its newest segment back from a backup",
                folder=folder, acknowledged=mark.get(), found=tail.next,
            )  # fmt: skip
        mark.set(tail.next)
    finally:
        mark.close()
    return tail


def _cut(folder: str, disk: LogDisk, segment: int) -> Tail:
    path = segment_path(folder, segment)
    with open(path, "rb") as file:
        block = file.read()
    offset, after = 0, segment
    for frame in whole_frames(block):
        if frame.first != after:
            break
        offset, after = offset + frame.size, frame.end
    if offset < len(block):
        if acknowledged_after(block, offset) is not None:
            raise CorruptionError(
                "a segment of the log is damaged before its end; put it back from a backup", file=path, offset=offset
            )
        disk.truncate(path, offset)
    disk.fsync(path)
    return Tail(segment, offset, after)


def recover_unserved(folder: str, disk: LogDisk) -> None:
    """Bring a log that nobody writes into order, so that its readers see all of it after a power loss."""
    known = identity(folder)
    if known is None:
        return
    try:
        with writer_lock(folder):
            recover(folder, disk, known)
    except ConflictError:  # its writer did it when it started
        return
    finally:
        disk.close()
