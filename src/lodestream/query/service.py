"""The one read path: authorise, rewrite, pin, admit, run.

Every door asks here and touches no data itself. Today the caller is the owner of the lake, so `authorise` and `rewrite`
let everything through, and the query runs in the caller's process under a memory limit with locked settings and no
way to any file but those of the pinned versions. A pool of sandboxed worker processes takes the last step over when
callers are not trusted.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType

import duckdb
import pyarrow as pa

from lodestream.errors import ConfigError, LodestreamError, TransientError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import table_path
from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.model.table import LAYERS, TableName
from lodestream.query.guard import Reference, Statement, parse, view_name
from lodestream.query.scan import literal, quoted, scan

_BATCH_ROWS = 10_000
_TRIES = 3


class Answer:
    """A running query. Use as a context manager or call `close`.

    Attributes:
        schema: columns of the result; timestamps are microseconds in UTC.
        pins: the version of each table that is read; `layer.name@n` for those that the query pinned itself.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, pins: Mapping[str, int]
    ) -> None:
        self._connection = connection
        self._reader = reader
        self.schema = pa.schema([field.with_type(_utc(field.type)) for field in reader.schema])
        self.pins = MappingProxyType(dict(pins))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, piece by piece; can be taken once.

        Raises:
            ConfigError: the query errs on these rows.
            TransientError: files of the version were cleaned up meanwhile; ask again.
        """
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except (duckdb.Error, pa.ArrowInvalid, OSError, RuntimeError) as error:
                raise _translated(error) from None
            yield batch if batch.schema.equals(self.schema) else batch.cast(self.schema)

    def table(self) -> pa.Table:
        """All rows that are left."""
        return pa.Table.from_batches(list(self.batches()), self.schema)

    def close(self) -> None:
        """Let go of the files; twice is harmless."""
        self._connection.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class QueryService:
    """Answers SQL over the tables of one lake.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        memory_limit: of one query, in DuckDB's form.
        threads: of one query; all cores when None.
    """

    def __init__(self, disk: Disk, lake: str, *, memory_limit: str = "1GB", threads: int | None = None) -> None:
        self.disk = disk
        self.lake = lake
        self._memory_limit = memory_limit
        self._threads = threads

    def tables(self) -> list[TableName]:
        """The lake's tables, quarantines included, by layer and name."""
        return [
            TableName(layer, name)
            for layer in LAYERS
            for name in sorted(self.disk.list(os.path.join(self.lake, layer)))
            if name.isidentifier() and self.disk.exists(os.path.join(self.lake, layer, name, "_delta_log"))
        ]

    def ask(self, text: str, *, as_of: Mapping[TableName, int] | None = None) -> Answer:
        """Run one query; a snapshot of each table is read, whatever is written meanwhile.

        Args:
            text: DuckDB SQL; tables are `layer.name`, `layer.name__quarantine`, or either `AT (VERSION => n)`.
            as_of: versions to read instead of the newest, by table.

        Raises:
            ConfigError: the query cannot be read, names no table, or errs on this data.
            AccessError: it does more than ask, or calls a function that is not allowed.
            TransientError: files were cleaned up while it started; ask again.
        """
        statement = self._rewrite(self._authorise(parse(text)))
        for left in reversed(range(_TRIES)):
            pins = self._pin(statement, as_of or {})
            try:
                return self._run(statement, pins)
            except TransientError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def table(self, text: str, *, as_of: Mapping[TableName, int] | None = None) -> pa.Table:
        """The whole answer to a query; see `ask`."""
        with self.ask(text, as_of=as_of) as answer:
            return answer.table()

    def _authorise(self, statement: Statement) -> Statement:
        """Refuse tables that the caller may not read; the caller owns the lake, so none."""
        return statement

    def _rewrite(self, statement: Statement) -> Statement:
        """Put row filters and column masks in; there are none."""
        return statement

    def _pin(
        self, statement: Statement, as_of: Mapping[TableName, int]
    ) -> dict[Reference, tuple[DeltaTable, Snapshot]]:
        """One version of each table."""
        pins = {}
        opened: dict[TableName, DeltaTable] = {}
        for name in as_of:
            if not any((r.layer, r.name) == (name.layer, name.name) for r in statement.tables):
                raise ConfigError("the query does not read this table", as_of=str(name))
        for reference in statement.tables:
            name = TableName(reference.layer, reference.name)
            table = opened.get(name) or DeltaTable.open(self.disk, table_path(self.lake, name))
            if table is None:
                raise self._missing(name)
            opened[name] = table
            version = as_of.get(name) if reference.version is None else reference.version
            pins[reference] = (table, table.snapshot if version is None else table.snapshot_at(version))
        return pins

    def _missing(self, name: TableName) -> ConfigError:
        known = [str(table) for table in self.tables()]
        near = difflib.get_close_matches(str(name), known, 1)
        fix = "`lodestream run` makes the declared tables" if not known else None
        return ConfigError("no such table in the lake", table=str(name), nearest=near[0] if near else None, fix=fix)

    def _run(self, statement: Statement, pins: Mapping[Reference, tuple[DeltaTable, Snapshot]]) -> Answer:
        """Run in this process: no file but those of the pinned versions, settings locked."""
        connection = duckdb.connect(":memory:", config=self._settings())
        try:
            paths: list[str] = []
            for layer in {reference.layer for reference in pins}:
                connection.execute(f"CREATE SCHEMA {quoted(layer)}")
            connection.execute("SET TimeZone = 'UTC'")
            for reference, (table, snapshot) in pins.items():
                view = f"{quoted(reference.layer)}.{quoted(view_name(reference))}"
                connection.execute(f"CREATE VIEW {view} AS {scan(table, snapshot)}")
                paths += [table.file_path(add) for add in snapshot.files.values()]
            self._lock(connection, paths)
            reader = connection.sql(statement.text).to_arrow_reader(_BATCH_ROWS)
        except (duckdb.Error, RuntimeError, OSError) as error:
            connection.close()
            raise _translated(error) from None
        except BaseException:
            connection.close()
            raise
        return Answer(connection, reader, {_label(ref): snapshot.version for ref, (_, snapshot) in pins.items()})

    def _settings(self) -> dict[str, str | int | bool]:
        settings: dict[str, str | int | bool] = {
            "memory_limit": self._memory_limit,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        }
        return settings if self._threads is None else settings | {"threads": self._threads}

    def _lock(self, connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
        listed = ", ".join(literal(path) for path in dict.fromkeys(paths))
        connection.execute(f"SET allowed_paths = [{listed}]")
        connection.execute("SET max_temp_directory_size = '0B'")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")


def _label(reference: Reference) -> str:
    return str(reference) if reference.version is None else f"{reference}@{reference.version}"


def _utc(kind: pa.DataType) -> pa.DataType:
    """Timestamps get the zone they are in; nested types keep theirs."""
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind


def _translated(error: Exception) -> LodestreamError:
    text = str(error)
    if isinstance(error, duckdb.IOException | OSError) or "No files found" in text:
        return TransientError("files were cleaned up while they were read; ask again", reason=text.splitlines()[0])
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in text:
        fix = "select fewer columns, filter earlier, or raise --memory"
        return ConfigError("query needs more memory than it may use", fix=fix)
    return ConfigError(f"query fails\n{text.strip()}\n")
