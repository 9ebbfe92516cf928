"""What happens to fields that no column has and to values that need a wider column, by drift policy."""

from __future__ import annotations

from collections.abc import Iterable

from lodestream.errors import ConfigError
from lodestream.model.types import Column, DataType, Schema
from lodestream.model.widening import may_become_column, wider
from lodestream.ports.source import Reading


def drift_error(name: str, why: str) -> ConfigError:
    """The source changed, and drift is `stop`."""
    return ConfigError(
        f"the source changed and drift is stop: {why}; declare the column in the table's file or choose another drift",
        field=name,
    )


def unknown_fields(reading: Reading, fields: Iterable[tuple[str, DataType | None]]) -> tuple[list[str], Schema]:
    """Reasons for records that have these fields, which no column has, and the columns that are found in them.

    Raises:
        ConfigError: drift is `stop`.
    """
    listed = list(fields)
    if not listed:
        return [], Schema()
    if reading.drift == "stop":
        raise drift_error(listed[0][0], "no column has this name")
    if reading.drift == "quarantine":
        return [f"drift:{name}" for name, _ in listed], Schema()
    if refused := [name for name, _ in listed if not may_become_column(name, reading.taken)]:
        return [f"drift:{name}" for name in refused], Schema()
    return [], Schema(tuple(Column(name, kind) for name, kind in listed if kind))


def wider_column(reading: Reading, column: Column, seen: DataType | None) -> Column | None:
    """The column that drift `widen` makes of one whose values do not fit; None when it stays as it is.

    Raises:
        ConfigError: drift is `stop` and a wider type would hold them.
    """
    if reading.drift not in ("widen", "stop") or seen is None:
        return None
    wide = wider(column.type, seen)
    if wide is None:
        return None
    if reading.drift == "stop":
        raise drift_error(column.name, f"its values need {wide}, it is declared {column.type}")
    return Column(column.name, wide)
