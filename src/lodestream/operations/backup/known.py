"""Which copies of a lake there are, as far as it was told: what an erasure does not reach."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from lodestream.errors import LodestreamError
from lodestream.lake.disk import Disk, replace_durable
from lodestream.lake.layout import copies_file


def copies(disk: Disk, lake: str) -> list[dict[str, Any]]:
    """Places of copies, with `kind`, `points` and, microseconds since 1970, the `oldest_us` and `newest_us` of them."""
    try:
        told = json.loads(disk.read(copies_file(lake)))
        return [{"place": place, **facts} for place, facts in sorted(told.items())]
    except (FileNotFoundError, ValueError, AttributeError):
        return []


def note_copy(
    disk: Disk, lake: str, place: str, kind: Literal["backup", "replica"], made_us: Sequence[int]
) -> None:  # fmt: skip
    """Write down that there is a copy with points of these times; nothing hangs on it, so a failure is passed over."""
    known = {one.pop("place"): one for one in copies(disk, lake)}
    known[place] = {"kind": kind, "points": len(made_us), "oldest_us": min(made_us, default=0),
                    "newest_us": max(made_us, default=0)}  # fmt: skip
    with contextlib.suppress(LodestreamError):
        replace_durable(disk, copies_file(lake), json.dumps(known, sort_keys=True).encode())
