"""What is sent to Spark's Python workers, and the columns that come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lodestream.model.types import Column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


def with_columns(frame: DataFrame, added: Iterable[Column]) -> StructType:
    """The columns of a frame and further ones, as a function over Arrow has to declare what it gives back."""
    from pyspark.sql.types import DataType, StructField, StructType

    more = [StructField(column.name, DataType.fromDDL(str(column.type))) for column in added]
    return StructType([*frame.schema.fields, *more])


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A component's settings as JSON values, which can be sent."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_settings(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
