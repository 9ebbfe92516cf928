"""The change data feed of a table: what each version inserted, deleted and updated, in Delta's own columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.model.access import TableAccess
from lodestream.query.changes import Change, Changes
from lodestream.query.quoting import quoted

CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIME = "_change_type", "_commit_version", "_commit_timestamp"
"""The columns that Delta's change data feed adds to a table's own."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def feed(
    changes: Changes, first: int, last: int, access: TableAccess, columns: Sequence[str], keys: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """The changes of versions `first` to `last`, a table a version; versions without a change give none.

    A row that comes is `insert`, one that leaves `delete`. With `keys`, a row that leaves while one of the same key
    comes is `update_preimage`, and that one `update_postimage`. Rows that a rewrite only moves are no change.

    Args:
        changes: of the table.
        first, last: versions, both inclusive.
        access: how somebody sees the table.
        columns: the columns wanted.
        keys: the columns that tell rows apart; without them no change is an update.

    Raises:
        DataLossRefused: the log or the files of a version are gone.
        ConfigError: a version begins the table anew or changes its columns, which no row tells.
    """
    paired = bool(keys) and set(keys) <= set(columns)
    for version in range(first, last + 1):
        change = changes.seen(version, access, tuple(columns))
        if change.anew:
            fix = f"read the table at version {version}, and its changes from {version + 1} on"
            raise ConfigError("this version changed the table as a whole", table=str(changes.name), version=version,
                              fix=fix)  # fmt: skip
        if change.nothing:
            continue
        rows = _paired(change, keys) if paired and len(change.came) and len(change.left) else _plain(change)
        at = _EPOCH + dt.timedelta(milliseconds=changes.made_ms(version))
        rows = rows.append_column(COMMIT_VERSION, pa.repeat(pa.scalar(version, pa.int64()), len(rows)))
        yield rows.append_column(COMMIT_TIME, pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), len(rows)))


def _plain(change: Change) -> pa.Table:
    parts = [
        part.append_column(CHANGE_TYPE, pa.repeat(kind, len(part)))
        for kind, part in (("delete", change.left), ("insert", change.came))
        if len(part)
    ]
    return pa.concat_tables(parts)


def _paired(change: Change, keys: Sequence[str]) -> pa.Table:
    """Deletes, then inserts, then updates: of each key the row before and the row after."""
    same = " AND ".join(f"o.{quoted(key)} IS NOT DISTINCT FROM n.{quoted(key)}" for key in keys)
    there = {side: f"EXISTS (SELECT 1 FROM {other} {short} WHERE {same})"
             for side, other, short in (("o", "came", "n"), ("n", "gone", "o"))}  # fmt: skip
    with duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("came", change.came)
        connection.register("gone", change.left)
        order = ", ".join(map(quoted, keys))
        found = connection.sql(
            f"SELECT * FROM (SELECT *, CASE WHEN {there['o']} THEN 'update_preimage' ELSE 'delete' END AS {CHANGE_TYPE}"
            f" FROM gone o UNION ALL SELECT *, CASE WHEN {there['n']} THEN 'update_postimage' ELSE 'insert' END"
            f" FROM came n) ORDER BY {CHANGE_TYPE} LIKE 'update%', CASE WHEN {CHANGE_TYPE} LIKE 'update%' THEN '' ELSE"
            f" {CHANGE_TYPE} END, {order}, {CHANGE_TYPE} DESC"
        ).to_arrow_table()
    wanted = pa.schema([*change.came.schema, pa.field(CHANGE_TYPE, pa.string())])
    return found.cast(wanted)
