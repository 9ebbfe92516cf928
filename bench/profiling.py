"""Where the engine's time goes: a profile of every thread, told per flow (a flow is a thread of its name).

CPU time is what the thread itself burnt; what DuckDB's and Arrow's own threads did for it is the rest of the process.
Wall time counts everything where the thread waits for it, the disk and the interpreter's lock too.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

Key = tuple[str, int, str]
TIMERS = {"cpu": time.thread_time, "wall": time.perf_counter}
_PACKAGE = "lodestream"
_LEAST = 0.003  # share of the total below which a line says nothing
_IDLE = re.compile(r"\b(acquire|wait|_wait|_pause)\b")


class ThreadProfiles:
    """Profiles each thread that starts between `start` and `stop`.

    Args:
        timer: a name of `TIMERS`.
    """

    def __init__(self, timer: str) -> None:
        self._timer = timer
        self._profiles: dict[str, cProfile.Profile] = {}

    def start(self) -> None:
        """From now on every new thread is profiled."""
        threading.setprofile(self._begin)

    def stop(self) -> None:
        """No more threads; those that were profiled must have ended."""
        threading.setprofile(None)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> None:
        profile = self._profiles[threading.current_thread().name] = cProfile.Profile(TIMERS[self._timer])
        profile.enable()  # takes this hook's place in the new thread

    def report(self, total_s: float, top: int = 15) -> str:
        """For each thread: our functions by time inside them, and the calls it ends in; shares are of `total_s`."""
        parts, told = [f"{self._timer} seconds; % of {total_s:.2f} s\n"], 0.0
        for name, profile in sorted(self._profiles.items()):
            profile.create_stats()
            stats: dict[Key, tuple[Any, ...]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
            work = {key: row for key, row in stats.items() if not _IDLE.search(key[2])}
            ours = {key: row for key, row in work.items() if f"/{_PACKAGE}/" in key[0]}
            spent = sum(row[2] for row in work.values())
            told += spent
            if ours and spent >= _LEAST * total_s:
                parts.append(f"{name}: {_share(spent, total_s)}\n  inside our functions (s, share, calls)\n"
                             + _lines(ours, 3, top, total_s)
                             + "  in the last call\n" + _lines(work, 2, top, total_s))  # fmt: skip
        if self._timer == "cpu":
            parts.append(f"main thread and the threads of DuckDB and Arrow: {_share(total_s - told, total_s)}\n")
        return "\n".join(parts)


def _lines(stats: dict[Key, tuple[Any, ...]], column: int, top: int, total_s: float) -> str:
    rows = sorted(stats.items(), key=lambda item: -item[1][column])[:top]
    rows = [(key, row) for key, row in rows if row[column] >= _LEAST * total_s]
    return "".join(f"  {_share(row[column], total_s)} {row[1]:8,}  {_name(key)}\n" for key, row in rows)


def _share(seconds: float, total_s: float) -> str:
    return f"{seconds:9.3f} {seconds / total_s:6.1%}"


def _name(key: Key) -> str:
    file, line, function = key
    if file == "~":
        return function
    parts = Path(file).parts
    short = "/".join(parts[parts.index(_PACKAGE) :] if _PACKAGE in parts else parts[-2:])
    return f"{short}:{line} {function}"
