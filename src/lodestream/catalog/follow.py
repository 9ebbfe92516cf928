"""Follows `policies.yaml` while a server runs: what is written there holds within seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from lodestream.errors import LodestreamError

EVERY_S = 1.0


class Follower:
    """Declares a file's policies again whenever the file has changed.

    Args:
        path: the file; there may be none.
        declare: takes the file over; raises LodestreamError when it cannot, and then the last good policies hold.
        tell: hears of every change that was taken over, and of every mistake once.
        every_s: seconds between two looks.
    """

    def __init__(
        self, path: str, declare: Callable[[], list[str]], tell: Callable[[str], None], *, every_s: float = EVERY_S
    ) -> None:
        self._path = path
        self._declare = declare
        self._tell = tell
        self._every_s = every_s
        self._stop = threading.Event()
        self._seen = self._look()
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)

    def start(self) -> Follower:
        """Take the file over now, and follow it.

        Raises:
            LodestreamError: the file has mistakes, or the catalog does not answer: nothing should be served.
        """
        self._declare()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop following; twice is harmless."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _run(self) -> None:
        told: str | None = None
        before = self._seen
        while not self._stop.wait(self._every_s):
            seen = self._look()
            settled, before = seen == before, seen
            if (seen == self._seen and told is None) or not settled:  # half a file is not taken over
                continue
            try:
                lines = self._declare()
            except LodestreamError as error:  # the last good policies hold until the file is right again
                if str(error) != told:
                    self._tell(f"policies are not taken over: {error}")
                told = str(error)
            else:
                for line in lines:
                    self._tell(f"policies: {line}")
                self._seen, told = seen, None
