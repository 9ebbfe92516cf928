"""Work that is tried at once, on a thread that must not wait, and left to another thread when it would have to."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_MUST_NOT = ContextVar("lodestream_must_not_wait", default=False)


class WouldWaitError(Exception):
    """What is tried at once cannot be done without waiting; nothing was done or recorded."""


def tried(work: Callable[[], T]) -> T | None:
    """What `work` returns when it need not wait, so that it may run on this thread; None when it must.

    It is to be called again on another thread then, so it leaves nothing behind when WouldWaitError passes it.
    """
    token = _MUST_NOT.set(True)
    try:
        return work()
    except WouldWaitError:
        return None
    finally:
        _MUST_NOT.reset(token)


def before_waiting() -> None:
    """Called by whoever is about to wait for a disk, a database or another process. Raises WouldWaitError."""
    if _MUST_NOT.get():
        raise WouldWaitError
