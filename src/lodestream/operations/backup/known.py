"""Which copies of a lake there are, as far as it was told: what an erasure does not reach."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from lodestream.errors import LodestreamError
from lodestream.lake.disk import Disk, replace_durable
from lodestream.lake.layout import copies_file
from lodestream.operations.backup.vault import Point


def copies(disk: Disk, lake: str) -> list[dict[str, Any]]:
    """Places of copies, with `kind`, how many `points`, the id of the `newest`, and when it and the oldest were made.

    These are `newest_us` and `oldest_us`, microseconds since 1970 UTC.
    """
    try:
        told = json.loads(disk.read(copies_file(lake)))
        return [{"place": place, **facts} for place, facts in sorted(told.items())]
    except (FileNotFoundError, ValueError, AttributeError):
        return []


def note_copy(
    disk: Disk, lake: str, place: str, kind: Literal["backup", "replica"], points: Sequence[Point]
) -> None:  # fmt: skip
    """Write down that there is a copy with these points, the oldest first; one without any is none.

    Nothing hangs on it, so a failure is passed over.
    """
    known = {one.pop("place"): one for one in copies(disk, lake)}
    known.pop(place, None)
    if points:
        known[place] = {"kind": kind, "points": len(points), "oldest_us": points[0].made_us,
                        "newest_us": points[-1].made_us, "newest": points[-1].id}  # fmt: skip
    with contextlib.suppress(LodestreamError):
        replace_durable(disk, copies_file(lake), json.dumps(known, sort_keys=True).encode())
