"""Windows of windows: the windows of the table above as rows, and its watermark as that of this query.

Spark moves a query's watermark by event times that it sees. So beside the windows a tiny stream is read, whose rows are
the watermarks that the commits of the table above name; they alone move the watermark, and no window counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.spark.expressions import quoted
from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.chained import as_rows
from lodestream.model.steps import ReadTable
from lodestream.model.table import WINDOW_TIME, TableName

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.engines.spark.tables import Tables

MARKER = "_marker"
"""Whether a row is a watermark and no window."""

_TIME = "_watermark"
_MADE = (WINDOW_TIME, "_source", "_position")


def windows_as_rows(frame: DataFrame, step: ReadTable, arrived: str) -> DataFrame:
    """A table of windows as the rows that they are to the table below: with their time and their positions.

    Args:
        frame: the table as a stream.
        step: the step that reads it.
        arrived: name of the column that tells the batch above.
    """
    assert step.windows is not None
    name, groups = step.table, step.windows
    stored = [column for column in step.schema if column.name not in _MADE]
    given = frame.selectExpr(*(quoted(column.name) for column in stored), f"_batch AS {arrived}")
    ddl = ", ".join([*(f"{quoted(column.name)} {column.type}" for column in step.schema), f"{arrived} bigint"])
    names = [*step.schema.names, arrived]

    def made(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            yield from as_rows(pa.table(piece), name, groups).select(names).to_batches()

    return given.mapInArrow(made, ddl)


def watermarks_of(tables: Tables, table: TableName, time: str) -> DataFrame:
    """The watermarks of a table as a stream of markers, which is to move the watermark of a query.

    Args:
        tables: those of the lake.
        table: whose watermarks.
        time: name of the event-time column; the others are `MARKER` and a position that no row has.
    """
    source = FollowedWatermark.named(
        f"lodestream_watermark_{table.layer}_{table.name}", tables.disk, tables.lake, table
    )
    tables.session.dataSource.register(source)
    markers = tables.session.readStream.format(source.name()).load()
    markers = markers.selectExpr(f"{_TIME} AS {time}", f"true AS {MARKER}", "'' AS _source", "0L AS _position")
    return markers.withWatermark(time, "0 microseconds")


def offset_at(watermark_us: int) -> dict[str, int]:
    """The offset of that stream when a watermark is reached."""
    return {"watermark_us": watermark_us}


class FollowedWatermark(DataSource):  # type: ignore[misc]
    """The data source; `named` makes that of one table."""

    disk: ClassVar[Disk]
    lake: ClassVar[str]
    table: ClassVar[TableName]
    short_name: ClassVar[str]

    @classmethod
    def named(cls, name: str, disk: Disk, lake: str, table: TableName) -> type[FollowedWatermark]:
        """A class that Spark can register under that name."""
        return type("FollowedWatermark", (cls,), {"disk": disk, "lake": lake, "table": table, "short_name": name})

    @classmethod
    def name(cls) -> str:
        """What `format` takes."""
        return cls.short_name

    def schema(self) -> str:
        """Columns as DDL."""
        return f"{_TIME} timestamp"

    def streamReader(self, schema: object) -> WatermarkReader:  # noqa: N802 - Spark's name
        """The reader."""
        return WatermarkReader(self.disk, self.lake, self.table)


@dataclass
class Reached(InputPartition):  # type: ignore[misc]
    """One marker: microseconds since 1970."""

    watermark_us: int


class WatermarkReader(DataSourceStreamReader):  # type: ignore[misc]
    """An offset is the watermark that was reached, so a batch that is repeated has the same one."""

    def __init__(self, disk: Disk, lake: str, table: TableName) -> None:
        self._disk, self._lake, self._name = disk, lake, table
        self._table: DeltaTable | None = None

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """Where every watermark begins."""
        return offset_at(0)

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """What the newest commit of the table's flow says."""
        if self._table is None:
            self._table = DeltaTable.follow(self._disk, table_path(self._lake, self._name))
        if self._table is None:
            return self.initialOffset()
        self._table.refresh()
        commit = flow_commit(self._table, self._name)
        return offset_at((commit.info.get("watermark_us") or 0) if commit is not None else 0)

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[Reached]:
        """One marker."""
        return [Reached(end["watermark_us"])]

    def read(self, partition: Reached) -> Iterator[pa.RecordBatch]:
        """The marker as a row."""
        time = pa.array([partition.watermark_us], pa.timestamp("us", tz="UTC"))
        yield pa.record_batch([time], names=[_TIME])

    def commit(self, end: dict[str, int]) -> None:
        """Nothing: what is durable is told by the table."""

    def stop(self) -> None:
        """Nothing to let go of."""
