"""Locks between the processes of one machine: held by an open file, let go by the kernel when its process ends."""

from __future__ import annotations

import fcntl
import os


def try_lock(path: str, mode: int = 0o600) -> int | None:
    """A file descriptor that holds the lock of a file; None while somebody else has it.

    Closing the descriptor gives the lock back.

    Args:
        path: the file; made, in a folder that is there, when it is missing.
        mode: who may open it then, and so take part.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
