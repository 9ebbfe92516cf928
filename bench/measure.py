"""CPU time and memory of a process and all its descendants, read from /proc (Linux). Standard library only: the Spark
side runs it in another environment."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """`root` and its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_s(root: int) -> float:
    """User and system seconds of the tree so far, children that ended and were waited for included."""
    return _seconds(root, 11, 12, 13, 14)


def own_cpu_s(pid: int) -> float:
    """User and system seconds of one process, without its children; 0 when it is gone."""
    return sum(int(fields[i]) for fields in [_stat(pid)] if fields for i in (11, 12)) / _TICK


def system_s(root: int) -> float:
    """The part of `cpu_s` spent in the kernel: page faults, reading, writing, syncing."""
    return _seconds(root, 12, 14)


def peak_mib(root: int) -> float:
    """Sum of the highest resident sizes of the tree's processes since their start or `reset_peak`."""
    return sum(_status_kib(pid, "VmHWM") for pid in tree(root)) / 1024


def anonymous_mib(pid: int) -> float:
    """Memory of one process without the files that it has mapped: what the system cannot take back."""
    return _status_kib(pid, "RssAnon") / 1024


def reset_peak(root: int) -> None:
    """Start a new peak from what is resident now."""
    for pid in tree(root):
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:  # not ours to reset: the peak then covers the whole life, which is the safe side
            continue


def _seconds(root: int, *columns: int) -> float:
    return sum(int(fields[i]) for pid in tree(root) if (fields := _stat(pid)) for i in columns) / _TICK


def _status_kib(pid: int, name: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")), 0)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/pid/stat from the state on; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
