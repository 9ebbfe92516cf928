"""SQL that reads exactly the files of one version of a table, in the table's types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lodestream.errors import CorruptionError, TransientError
from lodestream.lake.actions import AddFile
from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.model.access import TableAccess
from lodestream.model.types import Column, DataType, Schema
from lodestream.query.quoting import literal, quoted

if TYPE_CHECKING:
    from lodestream.query.conditions import Condition

_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
_NAMES = {"string": "VARCHAR", "binary": "BLOB", "int": "INTEGER"}


def duckdb_type(kind: DataType) -> str:
    """DuckDB's name of a type; timestamps are naive, in UTC."""
    if kind.name == "decimal":
        return f"DECIMAL({kind.precision},{kind.scale})"
    if kind.name == "array":
        assert kind.element
        return f"{duckdb_type(kind.element)}[]"
    if kind.name == "map":
        assert kind.key
        assert kind.element
        return f"MAP({duckdb_type(kind.key)}, {duckdb_type(kind.element)})"
    if kind.name == "struct":
        return "STRUCT(" + ", ".join(f"{quoted(f.name)} {duckdb_type(f.type)}" for f in kind.fields) + ")"
    return _NAMES.get(kind.name, kind.name.upper())


def scan(
    table: DeltaTable, snapshot: Snapshot, adds: Sequence[AddFile] | None = None, needed: frozenset[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """A SELECT over files of `snapshot`, and their paths; columns that a file does not have are NULL.

    Args:
        table: says where the files are; of those in an object store, what is needed is copied first.
        snapshot: a version of it.
        adds: some of its files; all when None.
        needed: names of columns, in lower case; others are NULL. None for all.

    Raises:
        TransientError: a file is gone, or the store does not answer.
    """
    schema, partitions = snapshot.metadata.schema, snapshot.metadata.partition_columns
    if adds is None:
        adds = sorted(snapshot.files.values(), key=lambda add: add.path)
    if not adds:
        return f"SELECT {_nothing(schema)} WHERE false", ()
    read = schema.without(*(c.name for c in schema if needed is not None and c.name.lower() not in needed))
    stored = read.without(*partitions)
    try:
        paths = tuple(table.local_paths(adds, None if needed is None else stored.names))
    except CorruptionError as error:
        raise TransientError("files were cleaned up while the query started; ask again", table=table.path) from error
    files = "[" + ", ".join(literal(path) for path in paths) + "]"
    if not partitions:
        listed = ", ".join(_listed(schema, read, lambda c: quoted(c.name)))
        return f"SELECT {listed} FROM read_parquet({files}, {_declared(stored if len(stored) else schema)})", paths
    if _foldered(adds, partitions, table.disk.beside(table.path)):
        return _by_folder(files, schema, read, partitions), paths
    return _by_file(paths, adds, files, schema, read, partitions), paths


def _listed(schema: Schema, read: Schema, form: Callable[[Column], str]) -> Iterator[str]:
    """Every column of `schema`; NULL for those that are not read."""
    for column in schema:
        there = column.name in read
        yield form(column) if there else f"CAST(NULL AS {duckdb_type(column.type)}) AS {quoted(column.name)}"


def _nothing(schema: Schema) -> str:
    return ", ".join(f"CAST(NULL AS {duckdb_type(c.type)}) AS {quoted(c.name)}" for c in schema)


def seen(
    rows: str, schema: Schema, access: TableAccess, needed: frozenset[str] | None, conditions: Iterable[Condition]
) -> str:
    """A SELECT over the rows of `rows` as somebody may see them; columns that are not needed are NULL.

    Args:
        rows: SELECT of the stored rows.
        schema: its columns.
        access: what is seen of them.
        needed: names of columns, in lower case; None for all.
        conditions: further conditions; only those on columns that are seen as stored are taken.
    """
    columns = []
    for name, masked in access.columns:
        kind = duckdb_type(schema[name].type)
        if needed is not None and name.lower() not in needed:
            columns.append(f"CAST(NULL AS {kind}) AS {quoted(name)}")
        else:
            columns.append(quoted(name) if masked is None else f"TRY_CAST(({masked}) AS {kind}) AS {quoted(name)}")
    plain = schema.without(*(name for name in schema.names if (name, None) not in access.columns))
    where = [f"({text})" for text in access.filters]
    where += [text for condition in conditions if (text := condition.sql(plain)) is not None]
    tail = f" WHERE {' AND '.join(where)}" if where else ""
    return f"SELECT {', '.join(columns)} FROM ({rows}){tail}"


def _by_folder(files: str, schema: Schema, read: Schema, partitions: Sequence[str]) -> str:
    """Partition values from folder names, which lets DuckDB leave out files that a filter rules out."""
    kinds = ", ".join(f"{quoted(name)}: {literal(duckdb_type(schema[name].type))}" for name in partitions)

    def form(c: Column) -> str:
        name = quoted(c.name)
        return name if c.name in partitions else f"CAST({name} AS {duckdb_type(c.type)}) AS {name}"

    names = ", ".join(literal(name) for name in dict.fromkeys((*read.names, *partitions)))
    every = "*" if len(read) == len(schema) else f"COLUMNS(lambda c: list_contains([{names}], c))"
    return (
        f"SELECT {', '.join(_listed(schema, read, form))} FROM (SELECT {_nothing(schema)} WHERE false "
        f"UNION ALL BY NAME SELECT {every} FROM "
        f"read_parquet({files}, union_by_name = true, hive_partitioning = true, hive_types = {{{kinds}}}))"
    )


def _by_file(
    paths: Sequence[str], adds: Sequence[AddFile], files: str, schema: Schema, read: Schema, partitions: Sequence[str]
) -> str:
    """Partition values from the log, joined by file; for tables that others have written with other folder names."""
    values = ", ".join(
        "(" + ", ".join([literal(path), *(literal(a.partition_values.get(n) or None) for n in partitions)]) + ")"
        for path, a in zip(paths, adds, strict=True)
    )
    names = ", ".join(["_file", *(quoted(name) for name in partitions)])

    def form(c: Column) -> str:
        name = quoted(c.name)
        return f"CAST(_parts.{name} AS {duckdb_type(c.type)}) AS {name}" if c.name in partitions else f"_rows.{name}"

    stored = read.without(*partitions)
    stored = stored if len(stored) else schema.without(*partitions)
    return (
        f"SELECT {', '.join(_listed(schema, read, form))} "
        f"FROM read_parquet({files}, {_declared(stored)}, filename = '_file') AS _rows "
        f"JOIN (VALUES {values}) AS _parts({names}) ON _rows._file = _parts._file"
    )


def _foldered(adds: Sequence[AddFile], partitions: Sequence[str], path: str) -> bool:
    """Whether every file lies in folders that say exactly what the log says of it."""
    if "=" in path:
        return False
    for add in adds:
        said = {}
        for folder in add.file.split("/")[:-1]:
            name, _, value = folder.partition("=")
            said[name] = None if value == _NULL_FOLDER else unquote(value)
        if said != {name: add.partition_values.get(name) or None for name in partitions}:
            return False
    return True


def _declared(stored: Schema) -> str:
    """The reader's `schema` option: columns by name, cast to our types, NULL where a file has none."""
    columns = ", ".join(
        f"{literal(c.name)}: {{name: {literal(c.name)}, type: {literal(duckdb_type(c.type))}, default_value: NULL}}"
        for c in stored
    )
    return f"schema = MAP {{{columns}}}"
