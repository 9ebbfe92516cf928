"""Where the engine's time goes: a profile of every thread, told per flow (a flow is a thread of its name).

Times are wall seconds of that thread: what DuckDB, Arrow or the disk do while the thread waits is counted where it
waits. Profiling slows many small calls more than a few big ones, so look at shares, not at sums.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import threading
from pathlib import Path
from types import FrameType
from typing import Any

Key = tuple[str, int, str]
_PACKAGE = "lodestream"
_IDLE = re.compile(r"\b(acquire|wait|_wait|_pause)\b")


class ThreadProfiles:
    """Profiles each thread that starts between `start` and `stop`."""

    def __init__(self) -> None:
        self._profiles: dict[str, cProfile.Profile] = {}

    def start(self) -> None:
        """From now on every new thread is profiled."""
        threading.setprofile(self._begin)

    def stop(self) -> None:
        """No more threads; those that were profiled must have ended."""
        threading.setprofile(None)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> None:
        profile = self._profiles[threading.current_thread().name] = cProfile.Profile()
        profile.enable()  # takes this hook's place in the new thread

    def report(self, top: int = 15) -> str:
        """For each thread: our functions by time inside them, and the calls that the time ends in."""
        parts = []
        for name, profile in sorted(self._profiles.items()):
            profile.create_stats()
            stats: dict[Key, tuple[Any, ...]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
            work = {key: row for key, row in stats.items() if not _IDLE.search(key[2])}
            ours = {key: row for key, row in work.items() if f"/{_PACKAGE}/" in key[0]}
            if not ours:
                continue
            parts.append(f"{name}\n  inside our functions (s, calls)\n" + _lines(ours, 3, top))
            parts.append("  in the last call (s, calls)\n" + _lines(work, 2, top))
        return "\n".join(parts)


def _lines(stats: dict[Key, tuple[Any, ...]], column: int, top: int) -> str:
    rows = sorted(stats.items(), key=lambda item: -item[1][column])[:top]
    return "".join(f"  {row[column]:9.3f} {row[1]:8,}  {_name(key)}\n" for key, row in rows)


def _name(key: Key) -> str:
    file, line, function = key
    if file == "~":
        return function
    parts = Path(file).parts
    short = "/".join(parts[parts.index(_PACKAGE) :] if _PACKAGE in parts else parts[-2:])
    return f"{short}:{line} {function}"
