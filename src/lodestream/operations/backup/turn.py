"""Who works on a set of copies now, and what is renewed while work goes on, however long one step of it takes."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator

from lodestream.errors import ConflictError, LodestreamError
from lodestream.lake.disk import Disk, put_if_absent, replace_durable

TURN_US = 600_000_000
"""How long a process that has died keeps others from the set, microseconds."""
BEAT_S = 30.0
"""Pause between two renewals; many of them may fail before anything lapses."""


@contextlib.contextmanager
def renewed(renew: Callable[[], None]) -> Iterator[None]:
    """Call `renew` again and again meanwhile, on a thread of its own; one that fails is tried again."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(BEAT_S):
            with contextlib.suppress(LodestreamError, FileNotFoundError):
                renew()

    thread = threading.Thread(target=work, name="renew", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Turn:
    """The right of one process to change a set.

    A store offers no lock, so this is best effort: two that find the turn of a dead process at the same moment may both
    get it for as long as it takes to write a file. The one whose file did not last is told by its next `keep`.

    Args:
        disk: the seam for every effect.
        root: of the set.
        clock: microseconds since 1970 UTC.
    """

    def __init__(self, disk: Disk, root: str, clock: Callable[[], int]) -> None:
        self._disk, self._root, self._clock = disk, root, clock
        self._path = os.path.join(root, "turn.json")
        self._who = uuid.uuid4().hex

    def take(self) -> None:
        """Begin. Raises ConflictError when somebody else is at it."""
        if put_if_absent(self._disk, self._path, self._told()):
            return
        holder = self._holder()
        if holder is not None and (left_us := holder[1] - self._clock()) > 0:
            fix = f"wait for it; if it has died, its turn ends in {left_us // 1_000_000} s"
            raise ConflictError("another process works on this set", place=self._root, fix=fix)
        replace_durable(self._disk, self._path, self._told())
        self._check()

    def keep(self) -> None:
        """Say that we are still at it. Raises ConflictError when it was taken for dead, and the turn with it."""
        self._check()
        replace_durable(self._disk, self._path, self._told())

    def leave(self) -> None:
        """End; the turn of somebody else stays."""
        holder = self._holder()
        if holder is not None and holder[0] == self._who:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self._path)

    def _check(self) -> None:
        holder = self._holder()
        if holder is None or holder[0] != self._who:
            fix = "do it again when they are done: what was copied is not copied once more"
            raise ConflictError("another process has taken over this set", place=self._root, fix=fix)

    def _holder(self) -> tuple[str, int] | None:
        """Whose turn it is, and until when; None when nobody's, or nobody knows whose."""
        try:
            told = json.loads(self._disk.read(self._path))
            return str(told["who"]), int(told["until_us"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _told(self) -> bytes:
        return json.dumps({"who": self._who, "until_us": self._clock() + TURN_US}).encode()
