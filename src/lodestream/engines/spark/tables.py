"""Tables of the lake as Spark reads them: with Delta's own reader in a folder, with the lake's reader in a store.

Where the lake is in an object store its settings say how to reach it, to Spark's tasks too. So Spark needs no connector
and no credentials of its own, and what it reads is what every other part of the lake reads.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition

from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.history import check_kept
from lodestream.engines.embedded.rebuild import REBUILD
from lodestream.engines.spark.files import ddl_of, reading, sendable, shares
from lodestream.errors import CorruptionError, DataLossRefused, TransientError
from lodestream.lake.actions import AddFile
from lodestream.lake.data import read_files
from lodestream.lake.disk import Disk
from lodestream.lake.layout import epoch_of, table_path
from lodestream.lake.log import commit_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PART, ABOVE, JOINED = "lodestream.part", "above", "joined"
"""An option that tells the readers of a query apart, and its values for the tables that a flow reads."""

_ROWS = "lodestream_rows"
_FILES_MAX = 1_000_000
"""Files of one micro-batch: more than any has, so that no version of the upstream table is cut in two."""
_UPTO = "upto"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a lake, as frames of a session.

    Attributes:
        widening: those whose columns drift may widen: Delta's stream refuses versions from before that.
    """

    session: SparkSession
    disk: Disk
    lake: str
    widening: frozenset[TableName] = frozenset()

    def by_delta(self, name: TableName) -> bool:
        """Whether Delta's own stream reads the new rows of a table."""
        return not self.disk.atomic and name not in self.widening

    def at(self, name: TableName, version: int | None = None) -> DataFrame:
        """The rows of a table at a version, or as it is now."""
        path = table_path(self.lake, name)
        if not self.disk.atomic:
            reader: Any = self.session.read.format("delta")
            rows: DataFrame = (reader if version is None else reader.option("versionAsOf", version)).load(path)
            return rows
        table = DeltaTable.open(self.disk, path)
        if table is None:
            raise DataLossRefused("table is gone", table=str(name))
        files = table.files() if version is None else table.read_version(version)
        return reading(self.session, self.disk, path, files, table.snapshot.metadata.schema)

    def following(
        self, name: TableName, table: DeltaTable, label: str, part: str, begin: int | None, known: int, *, ours: bool
    ) -> DataFrame:
        """The rows that the commits of a table add, as a stream.

        Args:
            name, table: the table.
            label: tells the query from others of the session.
            part: what of it reads this, `ABOVE` or `JOINED`.
            begin: the first version that is read; None when the log no longer tells, and all rows are new.
            known: the last version that the query has been told of, -1 for none.
            ours: whether the query has read with the lake's own reader before, and goes on with it.
        """
        if self.by_delta(name) and not ours:
            delta = self.session.readStream.format("delta").option("maxFilesPerTrigger", _FILES_MAX)
            delta = delta.option("ignoreDeletes", "true").option(PART, part)
            return (delta if begin is None else delta.option("startingVersion", begin)).load(table.path)
        upstream = Upstream(self.disk, table.path, table.snapshot.metadata.schema, (begin or 0) - 1, known)
        source = CommittedRows.named(f"{_ROWS}_{label}_{part}", upstream)
        self.session.dataSource.register(source)
        return self.session.readStream.format(source.name()).load()


@dataclass
class Followed:
    """A table whose new rows are read.

    Attributes:
        begun: the version at which its present epoch began; None when the log no longer told, and what was live was
            read whole.
    """

    table: DeltaTable
    begun: int | None

    def check(self, after: int, upto: int, reader: TableName) -> None:
        """Refuse rows that were taken away in these versions, which Spark is told to pass over for retention's sake."""
        if upto <= after or (after < 0 and self.begun is None):
            return
        self.table.refresh()
        for commit in self.table.commits(max(after, self.begun or 0), upto):
            check_kept(commit, self.table.path, reader)


def part_of(leaf: Any) -> str:
    """What a source of a query reads, a leaf of Spark's plan; empty for what has no name."""
    if leaf.getClass().getSimpleName() == "StreamingRelation":
        return str(leaf.dataSource().options().apply(PART))
    name = str(leaf.sourceName())
    return name.rpartition("_")[2] if name.startswith(f"{_ROWS}_") else ""


def first_version(table: DeltaTable) -> int | None:
    """The first version of a table's present epoch, None when the log no longer tells."""
    if epoch_of(table.snapshot.metadata.configuration) == 1:
        return 0 if table.disk.exists(commit_path(table.path, 0)) else None
    for version in range(table.snapshot.version, 0, -1):
        for commit in table.commits(version - 1, version):
            if commit.info.get("operation") == REBUILD:
                return version
    return None


def _last(offset: Mapping[str, int]) -> int:
    """The last version that is in; a query that began with Delta's own stream has that one's offsets."""
    return offset[_UPTO] if _UPTO in offset else offset["reservoirVersion"] - 1


@dataclass(frozen=True)
class Upstream:
    """All that is needed to read a table's new rows, in a form that can be sent to other processes.

    Attributes:
        disk: where the table is.
        path: its folder.
        schema: its columns.
        after: the version after which reading begins.
        known: the last version that the query has been told of, -1 for none.
    """

    disk: Disk
    path: str
    schema: Schema
    after: int
    known: int


class CommittedRows(DataSource):  # type: ignore[misc]
    """The data source; `named` makes that of one table and one query."""

    upstream: ClassVar[Upstream]
    short_name: ClassVar[str]

    @classmethod
    def named(cls, name: str, upstream: Upstream) -> type[CommittedRows]:
        """A class that Spark can register under that name."""
        return type("CommittedRows", (cls,), {"upstream": upstream, "short_name": name})

    @classmethod
    def name(cls) -> str:
        """What `format` takes."""
        return cls.short_name

    def schema(self) -> str:
        """Columns as DDL."""
        return ddl_of(self.upstream.schema)

    def streamReader(self, schema: object) -> CommittedRowsReader:  # noqa: N802 - Spark's name
        """The reader."""
        return CommittedRowsReader(self.upstream)


@dataclass
class Files(InputPartition):  # type: ignore[misc]
    """What one task reads: data files, pickled."""

    adds: tuple[bytes, ...]


class CommittedRowsReader(DataSourceStreamReader):  # type: ignore[misc]
    """An offset is the last version that is in; only versions that add rows are offsets."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._newest = max(upstream.known, upstream.after)
        self._looked = self._newest
        self._table: DeltaTable | None = None

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """Before the first version that is read."""
        return {_UPTO: self._upstream.after}

    def latestOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name
        """The newest version that adds rows. Raises TransientError when columns were widened since the query began."""
        table = self._opened()
        stored = table.refresh().metadata.schema
        if any(stored[column.name].type != column.type for column in self._upstream.schema):
            raise TransientError("the table above has other columns now, with which the query begins anew")
        if self._newest < 0 and not self._tells(0):
            self._newest = self._looked = table.snapshot.version
        for commit in table.commits(self._looked):
            self._looked = commit.version
            if any(add.data_change for add in commit.adds):
                self._newest = commit.version
        return {_UPTO: self._newest}

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> Sequence[Files]:
        """The files of the versions after `start`; where the log no longer tells the first ones, all live files."""
        table, after, upto = self._opened(), _last(start), _last(end)
        adds: list[AddFile] = []
        if after < 0 and upto >= 0 and not self._tells(0):
            adds = table.read_version(upto)
        elif upto > after:
            adds = [add for commit in table.commits(after, upto) for add in commit.adds if add.data_change]
        return [Files(tuple(pickle.dumps(sendable(add)) for add in share)) for share in shares(adds)]

    def read(self, partition: Files) -> Iterator[pa.RecordBatch]:
        """The rows of some files."""
        upstream = self._upstream
        target = to_arrow(upstream.schema, nullable=True)
        for add in partition.adds:
            rows = read_files(upstream.disk, upstream.path, [pickle.loads(add)], upstream.schema)
            yield from conform(rows, target).to_batches()

    def commit(self, end: dict[str, int]) -> None:
        """Nothing: what is durable is told by the table."""

    def stop(self) -> None:
        """Nothing to let go of."""

    def _opened(self) -> DeltaTable:
        self._table = self._table or DeltaTable.follow(self._upstream.disk, self._upstream.path)
        if self._table is None:
            raise CorruptionError("upstream table is gone", table=self._upstream.path)
        return self._table

    def _tells(self, version: int) -> bool:
        """Whether the log still has a version."""
        return self._upstream.disk.exists(commit_path(self._upstream.path, version))
