"""What the machine has that runs us."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CONTROL_GROUP = "/sys/fs/cgroup/memory.max"


def memory_bytes(control_group: str = _CONTROL_GROUP) -> int:
    """Memory that this process may have: the machine's, or less where its control group has a limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        found.append(int(Path(control_group).read_text()))
    return min(found)
