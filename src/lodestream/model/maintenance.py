"""How a table is maintained: what its `maintain:` block and `retention:` say, or the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lodestream.model.types import DataType

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_ENTRIES_PER_COMMIT = 1_000
FOREVER = -1
"""Retention of a table whose rows never go."""
RETENTION_US: Mapping[str, int] = MappingProxyType(
    {"bronze": 90 * _DAY_US, "silver": 730 * _DAY_US, "gold": 730 * _DAY_US}
)
"""How long rows are kept by default, by layer, microseconds."""


@dataclass(frozen=True, slots=True)
class MaintenancePolicy:
    """What is done beside the writer of one table.

    Attributes:
        checkpoint_interval: commits between two checkpoints; more in a large table, see `checkpoint_after`.
        log_retention_us: age under which a log entry stays, microseconds.
        compact: whether small files are put together.
        target_file_size: bytes from which a file is left alone.
        z_order: columns along whose Z-curve the rows of compacted files lie.
        deleted_file_retention_us: how long a file that no version has any more stays, microseconds.
        quarantine_retention_us: how long entries of the quarantine stay; None for as long as the table's rows, or its
            layer's where those stay for ever, `FOREVER` for ever.
    """

    checkpoint_interval: int = 100
    log_retention_us: int = _DAY_US
    compact: bool = True
    target_file_size: int = 64 << 20
    z_order: tuple[str, ...] = ()
    deleted_file_retention_us: int = 2 * _DAY_US
    quarantine_retention_us: int | None = None

    def checkpoint_after(self, entries: int) -> int:
        """Commits between two checkpoints of a table with so many files, those still remembered as removed included.

        A checkpoint writes all of them, so that a commit never pays for more than a thousand.
        """
        return max(self.checkpoint_interval, entries // _ENTRIES_PER_COMMIT)


def retention_us(layer: str, declared_us: int | None, *, changing: bool) -> int | None:
    """How long rows of a table are kept, microseconds since they were committed; None for ever.

    Args:
        layer: its layer.
        declared_us: its `retention:`; None when nothing is written, `FOREVER` for `forever`.
        changing: whether rows stay until something replaces them (a table with `changes:` or `sql:`).
    """
    if declared_us is None:
        return None if changing else RETENTION_US.get(layer)
    return None if declared_us == FOREVER else declared_us


def quarantine_retention_us(
    layer: str, rows_us: int | None, policy: MaintenancePolicy, read_us: Iterable[int | None]
) -> int | None:
    """How long entries of a table's quarantine are kept, microseconds since they were committed; None for ever.

    An entry says why a row of a table above is not in this one, so it stays for as long as that row may.

    Args:
        layer: the table's layer.
        rows_us: what is declared of its own rows, as `retention_us` takes it.
        policy: how it is maintained.
        read_us: how long the tables that it reads as streams keep their rows; None for ever.
    """
    declared_us = rows_us if policy.quarantine_retention_us is None else policy.quarantine_retention_us
    own_us = RETENTION_US.get(layer) if declared_us is None else declared_us
    kept = [None if own_us == FOREVER else own_us, *read_us]
    return None if None in kept else max(one for one in kept if one is not None)


def can_order(kind: DataType) -> bool:
    """Whether rows can lie along a Z-curve through a column of a type."""
    return kind.name not in ("array", "map", "struct", "binary")
