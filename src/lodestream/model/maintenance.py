"""How a table is maintained: what its `maintain:` block and `retention:` say, or the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lodestream.model.types import DataType

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
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
        checkpoint_interval: commits between two checkpoints.
        log_retention_us: age under which a log entry stays, microseconds.
        compact: whether small files are put together.
        target_file_size: bytes from which a file is left alone.
        z_order: columns along whose Z-curve the rows of compacted files lie.
        deleted_file_retention_us: how long a file that no version has any more stays, microseconds.
    """

    checkpoint_interval: int = 100
    log_retention_us: int = _DAY_US
    compact: bool = True
    target_file_size: int = 64 << 20
    z_order: tuple[str, ...] = ()
    deleted_file_retention_us: int = 7 * _DAY_US


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


def can_order(kind: DataType) -> bool:
    """Whether rows can lie along a Z-curve through a column of a type."""
    return kind.name not in ("array", "map", "struct", "binary")
