"""Which points of a backup set stay, and taking away what only the others needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lodestream.errors import ConfigError, CorruptionError
from lodestream.operations.backup.vault import Vault

_DAY_US = 86_400_000_000


def too_old(points: Sequence[tuple[str, int]], now_us: int, keep: int | None, keep_days: float | None) -> list[str]:
    """The points that neither rule keeps; the newest always stays.

    Args:
        points: id and time, microseconds since 1970, the oldest first.
        now_us: now.
        keep: so many of the newest stay; None for no such rule.
        keep_days: those of the last so many days stay; None for no such rule.
    """
    if keep is None and keep_days is None:
        return []
    if (keep is not None and keep < 1) or (keep_days is not None and keep_days < 0):
        raise ConfigError("keep at least one point", keep=keep, keep_days=keep_days)
    newest = {id_ for id_, _ in points[-(keep or 1) :]}
    after_us = now_us if keep_days is None else now_us - round(keep_days * _DAY_US)
    return [id_ for id_, made_us in points if id_ not in newest and made_us < after_us]


def prune(vault: Vault, now_us: int, keep: int | None, keep_days: float | None) -> dict[str, Any]:
    """Take points away, and every blob that no other point needs; the caller has the set's turn.

    A set with a point that cannot be read is left alone, for nobody knows what that needs.
    """
    made = [vault.point(id_) for id_ in vault.points()]
    gone = set(too_old([(one.id, one.made_us) for one in made], now_us, keep, keep_days))
    kept: set[str] = set()
    for one in made:
        if one.id in gone:
            continue
        for group in one.groups.values():
            kept.update(group.lists)
            try:
                kept.update(entry.blob for entry in vault.entries(group).values() if entry.blob is not None)
            except CorruptionError as error:
                fix = "take that point away by hand, or leave the set as it is"
                raise CorruptionError("nothing is pruned, for a list of a point is damaged", point=one.id, fix=fix,
                                      cause=error.message) from error  # fmt: skip
    vault.keep_turn()
    for id_ in sorted(gone):
        vault.drop_point(id_)
    blobs, size = vault.sweep(kept)
    return {"points": sorted(gone), "blobs": blobs, "bytes": size}
