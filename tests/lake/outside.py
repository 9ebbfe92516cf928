"""What readers that others wrote make of a table: each gives its rows, sorted by text."""

from __future__ import annotations

from collections.abc import Callable

import deltalake
import duckdb
import polars as pl
import pyarrow as pa

from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.query.scan import scan
from tests.lake.rows import rows_of, with_ours

__all__ = ["READERS", "agree", "rows_of", "with_ours"]


def with_delta_rs(path: str) -> pa.Table:
    builder = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(path))
    return pa.table(builder.execute("select * from t").read_all())


def with_dataset(path: str) -> pa.Table:
    return deltalake.DeltaTable(path).to_pyarrow_dataset().to_table()


def with_polars(path: str) -> pa.Table:
    return pl.scan_delta(path).collect().to_arrow()


def with_duckdb(path: str) -> pa.Table:
    """DuckDB over the file list of our snapshot, as queries read it."""
    table = DeltaTable.open(LocalDisk(), path)
    with duckdb.connect() as connection:
        return connection.sql(scan(table, table.snapshot)[0]).to_arrow_table()


READERS: dict[str, Callable[[str], pa.Table]] = {
    "ours": with_ours, "delta-rs": with_delta_rs, "dataset": with_dataset, "polars": with_polars,
    "duckdb": with_duckdb,
}  # fmt: skip


def agree(path: str, columns: list[str]) -> list[str]:
    """The rows that every reader gives; fails when one gives others."""
    seen = {name: rows_of(read(path), columns) for name, read in READERS.items()}
    for name, rows in seen.items():
        assert rows == seen["ours"], name
    return seen["ours"]
