"""What each version of a table changed, as somebody may see it: rows that came and rows that left."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.lake.actions import PASSED_OVER, AddFile, Commit
from lodestream.lake.disk import Disk
from lodestream.lake.layout import RENAMED_PROPERTY, table_path
from lodestream.lake.log import read_commit
from lodestream.lake.table import DeltaTable
from lodestream.model.access import TableAccess
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.query.quoting import quoted
from lodestream.query.sight import filtered

_BEGUN = ("REBUILD", "RESTORE")
_ROWS_MAX = 200_000
_BYTES_MAX = 64 << 20
_KEPT = 4


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows of one version's change as they are stored.

    Attributes:
        schema: of the table at that version.
        came: rows that are there from this version on.
        left: rows that are not.
        anew: the change cannot be told row by row: the table has to be read anew.
    """

    schema: Schema
    came: pa.Table | None = None
    left: pa.Table | None = None
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """The rows of one version's change as somebody sees them."""

    came: pa.Table
    left: pa.Table
    anew: bool = False

    @property
    def nothing(self) -> bool:
        """Whether they see no difference."""
        return not self.anew and not len(self.came) and not len(self.left)


ANEW = Change(pa.table({}), pa.table({}), anew=True)
"""A change that cannot be told row by row."""


class Changes:
    """Reads the changes of one table; safe from any thread. A version is read from disk once for all who ask for it.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        name: the table.
        rows_max, bytes_max: bounds of what can be told of one version, row by row.

    Raises:
        DataLossRefused: there is no such table any more.
    """

    def __init__(
        self, disk: Disk, lake: str, name: TableName, *, rows_max: float = _ROWS_MAX, bytes_max: float = _BYTES_MAX
    ) -> None:
        table = DeltaTable.open(disk, table_path(lake, name))
        if table is None:
            raise DataLossRefused("the table is gone", table=str(name))
        self.name = name
        self._disk, self._table = disk, table
        self._rows_max, self._bytes_max = rows_max, bytes_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Stored] = OrderedDict()

    def newest(self) -> int:
        """The newest version, looked up. Raises CorruptionError when the table was made anew."""
        with self._lock:
            return self._table.refresh().version

    def made_ms(self, version: int) -> int:
        """When a version was made, milliseconds since 1970. Raises FileNotFoundError when the log no longer says."""
        return read_commit(self._disk, self._table.path, version).timestamp_ms

    def reaches(self, version: int) -> bool:
        """Whether everything after a version can still be told."""
        newest = self.newest()
        if version >= newest:
            return version == newest
        try:
            read_commit(self._disk, self._table.path, version + 1)
        except FileNotFoundError:
            return False
        return True

    def seen(self, version: int, access: TableAccess, columns: tuple[str, ...]) -> Change:
        """What a version changed of what somebody sees.

        Args:
            version: not newer than `newest`.
            access: how they see the table; its columns must be those of that version.
            columns: the columns wanted, all of them among those that they see.

        Raises:
            DataLossRefused: the log or the files of the version are gone.
        """
        stored = self._stored(version)
        names = {name for name, _ in access.columns}
        if stored.anew or not names <= {*stored.schema.names}:
            return ANEW
        came, left = (self._shown(rows, stored.schema, access, columns) for rows in (stored.came, stored.left))
        if len(came) and len(left):
            came, left = _without(came, left), _without(left, came)
        return Change(came, left)

    def _shown(self, rows: pa.Table | None, schema: Schema, access: TableAccess, columns: tuple[str, ...]) -> pa.Table:
        if rows is None:
            return pa.table({name: pa.nulls(0) for name in columns})
        return (rows if access.whole else filtered(rows, schema, access)).select(list(columns))

    def _stored(self, version: int) -> Stored:
        with self._lock:
            if (found := self._kept.get(version)) is None:
                found = self._read(version)
                self._kept[version] = found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return found

    def _read(self, version: int) -> Stored:
        try:
            commit = read_commit(self._disk, self._table.path, version)
        except FileNotFoundError as error:
            raise DataLossRefused("version is no longer in the log", version=version) from error
        schema = self._table.snapshot.metadata.schema
        came = [add for add in commit.adds if add.data_change]
        left = [] if commit.info.get("operation") in PASSED_OVER else [*_gone(commit)]
        if _anew(commit) or self._too_much(commit, came) or self._renamed_since(came):
            return Stored(schema, anew=True)
        try:
            return Stored(schema, self._rows(came), self._rows(left))
        except CorruptionError as error:
            if all(self._disk.exists(self._table.file_path(add)) for add in (*came, *left)):
                raise
            raise DataLossRefused("files of the version are gone", version=version) from error

    def _too_much(self, commit: Commit, came: list[AddFile]) -> bool:
        rows = sum(add.num_records or 0 for add in came)
        size = sum(add.size for add in came) + sum(one.size for one in commit.removes if one.data_change)
        return commit.version > 0 and (rows > self._rows_max or size > self._bytes_max)

    def _renamed_since(self, came: list[AddFile]) -> bool:
        """Whether files have other names for columns than the table has now, so that what they hold cannot be told."""
        snapshot = self._table.snapshot
        renamed = RENAMED_PROPERTY in snapshot.metadata.configuration
        return renamed and any(add.path not in snapshot.files for add in came)

    def _rows(self, files: list[AddFile]) -> pa.Table | None:
        return self._table.read(files) if files else None


def _gone(commit: Commit) -> Iterator[AddFile]:
    for one in commit.removes:
        if one.data_change:
            yield AddFile(one.path, one.partition_values, one.size)


def _anew(commit: Commit) -> bool:
    """Whether a commit is more than rows that come and go."""
    return commit.version > 0 and (commit.metadata is not None or commit.info.get("operation") in _BEGUN)


def _without(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows without those of `others`, each as often as it is there; in an order that is always the same."""
    with duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False}) as connection:
        connection.register("these", rows)
        connection.register("those", others)
        listed = ", ".join(quoted(name) for name in rows.column_names)
        found = connection.sql(
            f"SELECT {listed} FROM these EXCEPT ALL SELECT {listed} FROM those ORDER BY ALL"
        ).to_arrow_table()
    return found.cast(rows.schema)
