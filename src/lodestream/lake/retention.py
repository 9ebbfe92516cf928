"""Retention: rows that are older than the table keeps them leave in one commit that readers pass over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.errors import ConflictError, CorruptionError
from lodestream.lake.actions import RETENTION, AddFile, RemoveFile
from lodestream.lake.compaction import by_age, newest_ms
from lodestream.lake.crash import point
from lodestream.lake.layout import present_app_id
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName

_SUFFIX, _REACHED = "/retention", "/retention_ms"
_DAY = dt.timedelta(days=1)


def retention_id(application: str) -> str:
    """The Delta application id whose version counts the rows that retention took from a flow's table."""
    return application + _SUFFIX


def kept_from_us(table: DeltaTable, name: TableName) -> int | None:
    """Rows that were committed before may have left by retention, microseconds since 1970; None when none has."""
    application = present_app_id(name, table.snapshot.metadata.configuration)
    reached = table.snapshot.txns.get(application + _REACHED)
    return None if reached is None else (reached + 1) * 1000


def later_us(*bounds: int | None) -> int | None:
    """The latest of times from which on something is whole; None when nothing has left."""
    return max((bound for bound in bounds if bound is not None), default=None)


def expired(files: Iterable[AddFile], partition_columns: Iterable[str], *, before_ms: int) -> list[AddFile]:
    """Files all of whose rows are past retention, oldest first; never one of open windows.

    A row is past it when it was committed before `before_ms` and, in a table partitioned by time, its partition ended
    before then too: old events that came today are kept as long as any others.

    Args:
        files: live files.
        partition_columns: those of the table.
        before_ms: now less the retention, milliseconds since 1970.
    """
    columns = tuple(partition_columns)
    found = []
    for add in files:
        end = partition_end_ms(add, columns)
        if not add.hot and newest_ms(add) < before_ms and (end is None or end <= before_ms):
            found.append(add)
    return by_age(found)


def partition_end_ms(add: AddFile, partition_columns: tuple[str, ...]) -> int | None:
    """When the time that a file's partition stands for is over, milliseconds since 1970.

    The first partition column that tells a time does: a date, `<column>_month` (its first day) or `<column>_year`.
    None when there is none, or it is NULL.
    """
    for name in partition_columns:
        text = add.partition_values.get(name)
        if not text:
            continue
        try:
            if name.endswith("_year"):
                return _ms(dt.date(int(text) + 1, 1, 1))
            day = dt.date.fromisoformat(text)
        except (ValueError, OverflowError):
            continue
        try:
            if name.endswith("_month"):
                return _ms((day.replace(day=28) + 4 * _DAY).replace(day=1))
            return _ms(day + _DAY)
        except OverflowError:
            return None
    return None


def expire(table: DeltaTable, files: list[AddFile], *, application: str, clock_us: int) -> int:
    """Let the files go in one commit; they stay on disk until a vacuum, and earlier versions readable until then.

    The number of rows that left so far is kept as the version of `retention_id(application)`, so that a proof that
    every row is somewhere can tell these from lost ones; beside it, when the newest of them was committed.

    Returns:
        The rows that left; 0 when there was nothing, or a writer was first.
    """
    rows = sum(_rows(table, add) for add in files)
    if not rows:
        return 0
    so_far, reached = (table.snapshot.txns.get(application + suffix, 0) for suffix in (_SUFFIX, _REACHED))
    txn = {application + _SUFFIX: so_far + rows}
    if (newest := max(map(newest_ms, files))) > reached:
        txn[application + _REACHED] = newest
    try:
        table.commit(
            removes=[RemoveFile.of(add) for add in files], txn=txn,
            info={"expired_rows": rows}, clock_us=clock_us, operation=RETENTION,
        )  # fmt: skip
    except ConflictError:
        return 0
    point("retention.done")
    return rows


def _rows(table: DeltaTable, add: AddFile) -> int:
    if (count := add.num_records) is not None:
        return count
    try:
        (path,) = table.disk.copies([table.file_path(add)])
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise CorruptionError("data file is missing or damaged", path=table.file_path(add)) from error


def _ms(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp() * 1000)
