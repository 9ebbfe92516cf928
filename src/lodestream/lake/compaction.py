"""Compaction: the same rows in fewer and larger files, along a Z-curve where one is asked for, beside any writer."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from lodestream.errors import ConfigError, ConflictError, LodestreamError, TransientError
from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.crash import point
from lodestream.lake.disk import random_id
from lodestream.lake.statistics import statistics
from lodestream.lake.table import DeltaTable
from lodestream.lake.zorder import z_order
from lodestream.model.maintenance import can_order
from lodestream.model.types import Schema

OPTIMIZE = "OPTIMIZE"
"""Operation of a commit that rewrites files and changes no row."""
NEWEST_TAG = "lodestream.newest"
"""When the newest rows of a rewritten file were committed, milliseconds since 1970; retention goes by it."""
LEVEL_TAG = "lodestream.level"
"""How often the rows of a file were rewritten at most."""
Z_ORDER_TAG = "lodestream.zorder"
"""The columns along whose Z-curve the rows of a file lie, as a JSON list."""
_DAY_MS = 86_400_000
_SORTED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Files that become one run of rows.

    Attributes:
        files: oldest first, of one partition.
    """

    files: tuple[AddFile, ...]

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(add.size for add in self.files)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """One compaction that took place.

    Attributes:
        version: of its commit.
        before, after: number of files.
        bytes_before, bytes_after: their size.
        rows: how many rows there are.
    """

    version: int
    before: int
    after: int
    bytes_before: int
    bytes_after: int
    rows: int


def newest_ms(add: AddFile) -> int:
    """When the newest rows of a file were committed, milliseconds since 1970."""
    told = add.tags.get(NEWEST_TAG, "")
    return int(told) if told.isdigit() else add.modification_time


def level(add: AddFile) -> int:
    """How often the rows of a file were rewritten, at most."""
    told = add.tags.get(LEVEL_TAG, "")
    return int(told) if told.isdigit() else 0


def by_age(adds: Iterable[AddFile]) -> list[AddFile]:
    """Files in the order in which their rows joined; names that begin with the batch decide within a millisecond."""

    def age(add: AddFile) -> tuple[int, int, str]:
        name = os.path.basename(add.file)
        return newest_ms(add), len(name), name

    return sorted(adds, key=age)


def check_z_order(schema: Schema, columns: Sequence[str], partitions: Sequence[str]) -> None:
    """Raises ConfigError unless rows can lie along a Z-curve through these columns."""
    for name in columns:
        column = schema.get(name)
        if column is None:
            raise ConfigError("no such column to order by", column=name, columns=list(schema.names))
        if not can_order(column.type):
            fix = "name columns of simple types"
            raise ConfigError("rows cannot be ordered by this type", column=name, type=str(column.type), fix=fix)
        if name in partitions:
            raise ConfigError("every file has one value of a partition column", column=name, fix="leave it out")
    if len(set(columns)) != len(columns):
        raise ConfigError("columns to order by must be distinct", columns=list(columns))


def due(files: Iterable[AddFile], *, target_bytes: int, files_min: int, changed_before_ms: int) -> list[Group]:
    """The groups that are worth a rewrite now.

    Files of one partition, one day and one level, no hot one, are put together when there are `files_min` of them; the
    level of the new file is one higher. So a row is rewritten once a level, and n files a day leave fewer than
    `files_min` on each of log(n) levels, whatever their rate and size.

    Args:
        files: live files.
        target_bytes: size of a file that is never rewritten.
        files_min: how many files are put together, at least 2.
        changed_before_ms: files with newer rows are left alone.
    """
    levels: dict[tuple[object, ...], list[AddFile]] = {}
    for add in files:
        newest = newest_ms(add)
        if not add.hot and add.size < target_bytes and newest < changed_before_ms:
            levels.setdefault((_partition(add), newest // _DAY_MS, level(add)), []).append(add)
    found = [
        group
        for adds in levels.values()
        if len(adds) >= files_min
        for group in _packed(adds, target_bytes)
        if len(group.files) > 1
    ]
    return sorted(found, key=lambda group: newest_ms(group.files[0]))


def everything(files: Iterable[AddFile], *, target_bytes: int, z_columns: Sequence[str] = ()) -> list[Group]:
    """All that a complete compaction would rewrite.

    Args:
        files: live files.
        target_bytes: files of this size are left alone, unless they are to be ordered and are not.
        z_columns: order rows by these.
    """
    ordered, wanted = bool(z_columns), json.dumps(list(z_columns))
    partitions: dict[tuple[object, ...], list[AddFile]] = {}
    for add in files:
        done = add.size >= (target_bytes // 2 if add.tags.get(Z_ORDER_TAG) == wanted else target_bytes)
        done = done and (not ordered or add.tags.get(Z_ORDER_TAG) == wanted)
        if not add.hot and not done:
            partitions.setdefault((_partition(add), newest_ms(add) // _DAY_MS if not ordered else 0), []).append(add)
    bytes_max = target_bytes * (_SORTED_AT_ONCE if ordered else 1)
    return [
        group
        for adds in partitions.values()
        for group in _packed(adds, bytes_max)
        if len(group.files) > 1 or (ordered and group.files[0].tags.get(Z_ORDER_TAG) != wanted)
    ]


def rewrite(
    table: DeltaTable, group: Group, *, target_bytes: int, z_columns: Sequence[str] = (), clock_us: int,
    new_id: Callable[[], str] = random_id,
) -> Rewritten | None:  # fmt: skip
    """Write a group's rows anew and swap the files in one commit that changes no row.

    Args:
        table: the table, at a version in which the files are live.
        group: what to rewrite.
        target_bytes: size of the files to make, as near as the old ones tell.
        z_columns: order the rows along the Z-curve through these columns.
        clock_us: now, microseconds.
        new_id: source of unique names.

    Returns:
        What was done, or None when a writer took one of the files meanwhile: the writer wins.

    Raises:
        TransientError: the disk is full; nothing is left of the new files.
        CorruptionError: a file is missing or damaged.
    """
    rows = table.read(group.files)
    if z_columns:
        rows = z_order(rows, z_columns)
    tags = {NEWEST_TAG: str(max(map(newest_ms, group.files))), LEVEL_TAG: str(max(map(level, group.files)) + 1)}
    if z_columns:
        tags[Z_ORDER_TAG] = json.dumps(list(z_columns))
    adds: list[AddFile] = []
    stamp = new_id()[:12]
    partitions = table.snapshot.metadata.partition_columns
    try:
        for number, part in enumerate(_cut(rows, max(1, round(group.bytes / target_bytes)))):
            staged = table.stage(part, name=f"compact-{stamp}-{number}")
            told = statistics(part.drop_columns(list(partitions)))
            adds += (replace(add, data_change=False, stats=told, tags=tags) for add in staged.adds)
        point("compact.staged")
        version = table.commit(
            adds=adds, removes=[RemoveFile.of(add, data_change=False) for add in group.files],
            info={"operationParameters": {"zOrderBy": json.dumps(list(z_columns)), "targetSize": str(target_bytes)}},
            clock_us=clock_us, operation=OPTIMIZE,
        )  # fmt: skip
    except ConflictError:
        table.discard(adds)
        return None
    except (TransientError, ConfigError):
        with contextlib.suppress(LodestreamError):
            table.discard(adds)
        raise
    point("compact.done")
    after = sum(add.size for add in adds)
    return Rewritten(version, len(group.files), len(adds), group.bytes, after, rows.num_rows)


def _partition(add: AddFile) -> tuple[tuple[str, str | None], ...]:
    return tuple(sorted(_items(add.partition_values)))


def _items(values: Mapping[str, str | None]) -> Iterator[tuple[str, str | None]]:
    for name, value in values.items():
        yield name, value or None


def _packed(adds: Iterable[AddFile], bytes_max: int) -> Iterator[Group]:
    """Neighbours in age, put together up to a size."""
    found: list[AddFile] = []
    for add in by_age(adds):
        if found and sum(one.size for one in found) + add.size > bytes_max:
            yield Group(tuple(found))
            found = []
        found.append(add)
    if found:
        yield Group(tuple(found))


def _cut(rows: pa.Table, parts: int) -> Iterator[pa.Table]:
    """Equal runs of rows, at least one."""
    step = -(-rows.num_rows // parts) or 1
    for start in range(0, rows.num_rows, step):
        yield rows.slice(start, step)
